"""The out-of-distribution gate: images unlike the training images are left to frozen CLIP."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gopro.clip.backbone import Backbone, Encoded
from gopro.inference.taylor_head import fit_taylor_head
from gopro.methods.base import Method
from gopro.methods.parts.ood_gate import OODGate
from gopro.methods.registry import build_method

NAMES, TEMPLATE = ["red fox", "owl", "grand piano", "dog"], "a photo of a {}."


def around(centres: Tensor, each: int, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return unit vectors around each centre, and the index of the centre."""
    noise = torch.randn(each, *centres.shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(centres + spread * noise, dim=-1).flatten(0, 1), torch.arange(len(centres)).repeat(each)


def test_the_gate_is_1_for_images_like_the_training_images_and_falls_with_distance() -> None:
    centres = F.normalize(torch.randn(5, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    gate = OODGate(6, 64)  # the sixth class has no image
    seen, labels = around(centres, 40, 0.05, seed=1)
    assert gate(seen).eq(1).all()
    for part in (slice(0, 90), slice(90, None)):
        gate.add(seen[part], labels[part])
    like, _ = around(centres, 40, 0.05, seed=2)
    means = torch.stack([seen[labels == c].mean(dim=0) for c in range(5)])
    by_hand = torch.stack([like @ p / p.square().sum() for p in means]).amax(dim=0)
    torch.testing.assert_close(gate(like), by_hand.clamp(max=1))
    assert abs(by_hand.mean() - 1) < 0.02
    levels = [gate(around(centres, 40, spread, seed=3)[0]).mean() for spread in (0.05, 0.1, 0.2, 0.4)]
    assert levels == sorted(levels, reverse=True) and levels[-1] < 0.5
    assert gate(-seen[labels == 0]).max() < 0.5


def texts(method: Method, images: Encoded) -> Tensor:
    return method.text_features(method.image_contexts(images))


def encoded(backbone: Backbone, count: int, seed: int) -> Encoded:
    size = backbone.preprocess.size
    generator = torch.Generator().manual_seed(seed)
    return backbone.encode(torch.randn(3, count, 3, size, size, generator=generator))


def trained(spec: str, tiny: Backbone) -> Method:
    """Build a method, move it from its initialisation and show it training images."""
    method = build_method(spec, tiny, NAMES, TEMPLATE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in method.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    method.train()
    for seed in (1, 2):
        method.losses(encoded(tiny, 4, seed), torch.arange(4))
    return method.eval()


def test_logits_are_a_mixture_of_learned_and_frozen_weighted_by_the_gate(tiny: Backbone) -> None:
    images = encoded(tiny, 6, seed=5)[0]
    learned = build_method("gopro-kernel[fade=0]", tiny, NAMES, TEMPLATE)
    frozen = build_method("zeroshot", tiny, NAMES, TEMPLATE).logits(images)
    for fade in (0.5, 2.0):
        method = trained(f"gopro-kernel[fade={fade}]", tiny)
        state = {k: t for k, t in method.state_dict().items() if not k.startswith("familiarity")}
        learned.load_state_dict(state)
        gate = method.familiarity(images.embedding)[:, None] ** fade
        assert 0.1 < gate.min() < gate.max() <= 1
        expected = gate * learned.logits(images) + (1 - gate) * frozen
        torch.testing.assert_close(method.logits(images), expected, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(Method.logits(method, images), expected, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(texts(method, images), texts(learned, images))


def test_only_training_adds_images_to_the_gate_and_the_state_holds_them(tiny: Backbone) -> None:
    method = trained("gopro-kernel", tiny)
    before = method.familiarity.count.clone()
    assert before.tolist() == [2, 2, 2, 2]
    method.losses(encoded(tiny, 4, 9), torch.arange(4))
    assert torch.equal(method.familiarity.count, before)
    other = build_method("gopro-kernel", tiny, ["a", "b"], TEMPLATE)
    other.load_state_dict(method.state_dict())
    images = encoded(tiny, 6, seed=5)[0]
    same = other.for_classes(NAMES).eval()
    torch.testing.assert_close(same.logits(images), method.logits(images))


def test_the_first_order_head_applies_the_gate(tiny: Backbone) -> None:
    method = trained("gopro-kernel", tiny)
    with torch.no_grad():
        for maps in method.maps.values():  # small shifts of the context, which the head follows closely
            for parameter in maps.parameters():
                parameter *= 0.1
    seen, held_out = encoded(tiny, 16, seed=6)[0], encoded(tiny, 16, seed=7)[0]
    head = fit_taylor_head(method, NAMES, seen, held_out, error=1e-3)
    images = encoded(tiny, 6, seed=5)[0]
    torch.testing.assert_close(head.logits(images).softmax(-1), method.logits(images).softmax(-1), atol=5e-3, rtol=0)
    torch.testing.assert_close(texts(head, images), texts(method, images), atol=2e-2, rtol=0)
