"""`gopro-paper` against a slow and independent implementation of the abstract and the figure."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gopro.clip.backbone import Backbone
from gopro.methods.base import Method
from gopro.methods.registry import build_method
from tests.support.methods import NAMES, TEMPLATE, encode_noise, perturb

LABELS = torch.tensor([0, 1, 2, 3])
VIEWS = 3  # the image, its MoCo v3 view, its AugMix view


@pytest.fixture
def method(tiny: Backbone) -> Method:
    """Untrained, for a data set whose own prompt is another than the paper's."""
    return build_method("gopro-paper", tiny, NAMES, "an icon of a {}, a type of thing.").eval()


def noise(*batch: int) -> Tensor:
    """The images that `encode_noise` encodes."""
    return torch.randn(*batch, 3, 32, 32, generator=torch.Generator().manual_seed(3))


class Plain:
    """The method, one image and one class at a time, with open_clip's model and plain torch."""

    def __init__(self, tiny: Backbone, state: dict[str, Tensor], tokenizer: Any):
        self.model, self.state, self.tokenizer = tiny.model, state, tokenizer

    def image(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the embedding [D] and the tokens [N, W] of each layer."""
        tokens: list[Tensor] = []
        blocks = self.model.visual.transformer.resblocks
        hooks = [block.register_forward_hook(lambda _, __, output: tokens.append(output)) for block in blocks]
        embedding = self.model.encode_image(image[None], normalize=True)[0]
        for hook in hooks:
            hook.remove()
        return embedding, [t[0] for t in tokens]

    def context(self, tokens: list[Tensor], view: int) -> Tensor:
        """Return the context [M, d] that the layers' tokens generate."""
        state, context = self.state, []
        for m in range(4):
            word = state["context"][m] + state["rho_bias"][view, m]
            for layer, hidden in enumerate(tokens):
                mu = hidden.sum(0) / len(hidden)
                sigma = ((hidden - mu).square().sum(0) / len(hidden)).sqrt()
                style = state[f"maps.style.{layer}.weight"] @ sigma + state[f"maps.style.{layer}.bias"]
                content = state[f"maps.content.{layer}.weight"] @ mu + state[f"maps.content.{layer}.bias"]
                word = word + state["rho"][view, m, layer] * (style + content)
            context.append(word)
        return torch.stack(context)

    def text(self, context: Tensor, name: str) -> Tensor:
        """Return the projected text feature [D] of a class: all positions, read at the end-of-text token."""
        model = self.model
        ids = self.tokenizer([f"X X X X {name}."], context_length=model.context_length)
        x = model.token_embedding(ids)
        x = torch.cat([x[:, :1], context[None], x[:, 5:]], dim=1) + model.positional_embedding
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
        return self.project("text", F.normalize(x[0, ids[0].argmax()] @ model.text_projection, dim=-1))

    def project(self, side: str, x: Tensor) -> Tensor:
        weight, bias = self.state[f"project_{side}.weight"], self.state[f"project_{side}.bias"]
        return F.normalize(x + weight @ x + bias, dim=-1)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the projected features of images [V, B, ...] and of their texts: [V, B, D] and [V, B, C, D]."""
        image_features, text_features = [], []
        for view, batch in enumerate(images):
            encoded = [self.image(image) for image in batch]
            image_features.append(torch.stack([self.project("image", embedding) for embedding, _ in encoded]))
            contexts = [self.context(tokens, view) for _, tokens in encoded]
            text_features.append(torch.stack([torch.stack([self.text(c, n) for n in NAMES]) for c in contexts]))
        return torch.stack(image_features), torch.stack(text_features)

    def losses(self, images: Tensor) -> dict[str, Tensor]:
        v, t = self.features(images)
        size = len(LABELS)
        scale = self.model.logit_scale.exp()
        ce = [-F.log_softmax(scale * (t[0, b] @ v[0, b]), dim=0)[LABELS[b]] for b in range(size)]
        sem = [
            1 - F.cosine_similarity(t[0, b, c], t[view, b, c], dim=0)
            for view in (1, 2)
            for b in range(size)
            for c in range(len(NAMES))
        ]
        both, con = torch.cat([v[0], v[1]]), []
        for i in range(2 * size):
            others = [j for j in range(2 * size) if j != i]
            exponents = torch.stack([both[i] @ both[j] / 0.1 for j in others])
            con.append(exponents.logsumexp(0) - both[i] @ both[(i + size) % (2 * size)] / 0.1)
        return {
            "ce": torch.stack(ce).mean(),
            "sem": torch.stack(sem).sum() / (size * len(NAMES)),
            "con": 0.1 * torch.stack(con).mean(),
        }


def test_logits_and_losses_equal_a_plain_implementation(method: Method, tiny: Backbone) -> None:
    perturb(method)
    plain = Plain(tiny, method.state_dict(), tiny.text.tokenizer)
    images = noise(VIEWS, 4)
    with torch.no_grad():
        losses, expected = method.losses(encode_noise(tiny, VIEWS, 4), LABELS), plain.losses(images)
        v, t = plain.features(images[:1])
        logits = method.logits(encode_noise(tiny, VIEWS, 4)[0])
    assert set(losses) == {"ce", "sem", "con"}
    assert expected["sem"] > 1e-3  # the views' prompts differ, or the comparison would show nothing
    for term, loss in losses.items():
        torch.testing.assert_close(loss, expected[term], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits, tiny.logit_scale * torch.einsum("bd,bcd->bc", v[0], t[0]), atol=1e-3, rtol=1e-4)


def test_it_starts_at_zero_shot_clip_with_its_own_template(method: Method, tiny: Backbone) -> None:
    images = encode_noise(tiny, 16)
    torch.testing.assert_close(
        method.logits(images), build_method("zeroshot", tiny, NAMES, TEMPLATE).logits(images), atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize("term", ["ce", "sem", "con"])
def test_a_step_along_each_loss_changes_predictions(term: str, method: Method, tiny: Backbone) -> None:
    perturb(method).train()
    images, views = encode_noise(tiny, 16, seed=7), encode_noise(tiny, VIEWS, 4)
    before = method.logits(images).softmax(-1).detach()
    loss = method.losses(views, LABELS)[term]
    gradients = torch.autograd.grad(loss, list(method.parameters()), allow_unused=True)
    size = sum(g.square().sum() for g in gradients if g is not None)
    with torch.no_grad():
        for parameter, gradient in zip(method.parameters(), gradients, strict=True):
            if gradient is not None:
                parameter -= 1e-2 * loss / size * gradient
    assert method.losses(views, LABELS)[term] < loss
    assert (method.logits(images).softmax(-1) - before).abs().max() > 1e-5


def test_learned_state_is_that_of_any_class_names(method: Method, tiny: Backbone) -> None:
    state = method.state_dict()
    maps = [f"maps.{name}.{layer}" for name in ("style", "content") for layer in (0, 1)]
    linear = [f"{module}.{part}" for module in (*maps, "project_image", "project_text") for part in ("weight", "bias")]
    assert set(state) == {"context", "rho", "rho_bias", *linear}
    assert state["rho"].shape == (VIEWS, 4, 2) and state["maps.style.0.weight"].shape == (64, 64)
    many = build_method("gopro-paper", tiny, [f"thing {i}" for i in range(40)], TEMPLATE)
    assert {key: t.shape for key, t in many.state_dict().items()} == {key: t.shape for key, t in state.items()}
