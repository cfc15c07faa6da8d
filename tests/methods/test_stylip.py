"""StyLIP and SLIP against their papers' definitions, as their authors' code is not available."""

import pytest
import torch

from gopro.clip.backbone import Backbone, Encoded
from gopro.errors import InputError
from gopro.methods.parts.losses import nt_xent
from gopro.methods.registry import build_method
from gopro.methods.slip import SLIP
from gopro.methods.stylip import StyLIP
from tests.support.methods import NAMES, TEMPLATE, encode_noise, perturb

LABELS = torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize("spec", ["slip", "stylip"])
def test_every_parameter_learns(spec: str, tiny: Backbone) -> None:
    method = perturb(build_method(spec, tiny, NAMES, TEMPLATE)).train()
    torch.stack(list(method.losses(encode_noise(tiny, len(method.views), 4), LABELS).values())).sum().backward()
    assert [name for name, p in method.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_stylip_starts_at_zero_shot_clip_with_the_last_word_doubled(tiny: Backbone) -> None:
    method = build_method('stylip[template="an icon of a {}!"]', tiny, NAMES, TEMPLATE)
    zeroshot = build_method('zeroshot[template="an icon of a a {}!"]', tiny, NAMES, TEMPLATE)
    images = encode_noise(tiny, 4)
    torch.testing.assert_close(method.logits(images), zeroshot.logits(images), atol=1e-4, rtol=1e-5)


def test_stylips_contexts_against_a_plain_sum(tiny: Backbone) -> None:
    method = perturb(build_method("stylip[hidden=3]", tiny, NAMES, TEMPLATE))
    assert isinstance(method, StyLIP)
    images = encode_noise(tiny, 2)
    contexts = method.image_contexts(images)
    assert contexts.shape == (2, 5, 64)

    def normed(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()

    for b in range(2):
        style, content = [], []
        for layer in range(2):
            mean = images.mean[b, 64 * layer : 64 * (layer + 1)]
            std = images.std[b, 64 * layer : 64 * (layer + 1)]
            style.append(method.style[layer](normed(torch.cat([mean, std]))).clamp_min(0))
            content.append(method.content[layer](normed(mean)).clamp_min(0))
        for m in range(4):
            rows = slice(64 * m, 64 * (m + 1))
            maps = method.style_tokens
            torch.testing.assert_close(contexts[b, m], maps.weight[rows] @ torch.cat(style) + maps.bias[rows])
        torch.testing.assert_close(contexts[b, 4], method.content_token(torch.cat(content)))


@pytest.mark.parametrize("changed", ["mean", "std"])
def test_stylip_predicts_by_style_and_content(changed: str, tiny: Backbone) -> None:
    """Images with the same embedding get different predictions."""
    method, image = perturb(build_method("stylip", tiny, NAMES, TEMPLATE)), encode_noise(tiny, 1)
    mean, std = (torch.rand_like(t) if name == changed else t for name, t in vars(image).items() if name != "embedding")
    other = Encoded(image.embedding, mean, std)
    assert (method.logits(other) - method.logits(image)).abs().max() > 1e-3


def test_slips_losses_against_their_definition(tiny: Backbone) -> None:
    """Cross-entropy on the plain view; the self-supervised loss on the other two, of the features that predict."""
    method = perturb(build_method("slip[ssl=2,temperature=0.2]", tiny, NAMES, TEMPLATE))
    views = encode_noise(tiny, 3, 4)
    assert isinstance(method, SLIP)
    terms = method.losses(views, LABELS)
    torch.testing.assert_close(terms["ce"], torch.nn.functional.cross_entropy(method.logits(views[0]), LABELS))
    expected = 2 * nt_xent(method.image_features(views[1]), method.image_features(views[2]), 0.2)
    torch.testing.assert_close(terms["ssl"], expected)
    terms["ssl"].backward()
    before = method.logits(views[0]).detach()
    with torch.no_grad():
        for parameter in method.parameters():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad
    assert (method.logits(views[0]) - before).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("slip[rank=0]", "rank is 0"),
        ("slip[template=owl]", "template 'owl'"),
        ("stylip[hidden=0]", "hidden is 0"),
        ('stylip[template="{}."]', "the words before {}"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(spec: str, words: str, tiny: Backbone) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        build_method(spec, tiny, NAMES, TEMPLATE)
    assert words in str(caught.value)
