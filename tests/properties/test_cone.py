"""Every method on features that lie in CLIP's cone."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gopro.clip.backbone import Backbone
from gopro.clip.cone import Cosines, with_cone
from gopro.methods.base import Method
from gopro.methods.recipe import Training
from gopro.methods.registry import METHODS, build_method
from gopro.runs.config import TrainConfig
from gopro.training.progress import Step
from gopro.training.train import train
from tests.support.folders import make_folders
from tests.support.methods import NAMES, TEMPLATE, encode_noise

SETTINGS = {"mmrl": "mmrl[fuse=false]"}
"""MMRL projects its own tokens at random at first, out of any cone, so that its logits leave them out here."""


@pytest.fixture(scope="module")
def cone(tiny: Backbone) -> Backbone:
    return with_cone(tiny, Cosines(0, 0, 0))


def untrained(name: str, backbone: Backbone) -> Method:
    torch.manual_seed(0)
    method = build_method(SETTINGS.get(name, name), backbone, NAMES, TEMPLATE).eval()
    if name == "cocoop":  # its meta net reads the features through random weights
        torch.nn.init.zeros_(method.meta_net.linear2.weight)
        torch.nn.init.zeros_(method.meta_net.linear2.bias)
    return method


def without_constant(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=-1, keepdim=True)


@pytest.mark.parametrize("name", METHODS)
def test_before_training_the_cone_changes_no_probability(name: str, tiny: Backbone, cone: Backbone) -> None:
    before, after = (untrained(name, backbone) for backbone in (tiny, cone))
    expected, logits = (method.logits(encode_noise(method, 16)) for method in (before, after))
    torch.testing.assert_close(without_constant(logits), without_constant(expected), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_training_in_the_cone_is_finite(name: str, cone: Backbone, tmp_path: Path) -> None:
    data = make_folders(tmp_path / "data", ["cat", "dog", "fox"], images=8)
    steps: list[Step] = []
    config = TrainConfig(
        data=str(data), output=tmp_path / "run", method=name, shots=2, epochs=2, batch=3, lr=1e-3, workers=0
    )
    run = train(config, backbone=cone, on_step=steps.append)
    assert bool(steps) == (Training.STEPS in METHODS[name].trained_by)
    assert all(math.isfinite(value) for step in steps for value in step.terms.values())
    assert run.method.logits(encode_noise(run.method, 4)).isfinite().all()


def test_cross_entropy_through_prompts_has_the_same_gradient(tiny: Backbone, cone: Backbone) -> None:
    """CoOp, and all that learns nothing but prompts by cross-entropy, trains in the cone as outside of it."""
    gradients = []
    for backbone in (tiny, cone):
        method = untrained("coop", backbone)
        sum(method.losses(encode_noise(method, 1, 8), torch.arange(8) % 5).values()).backward()
        gradients.append(method.context.grad)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("names", [NAMES, [*NAMES[:2], "a kite", "a green frog"]], ids=["trained", "new"])
def test_probe_gate_and_hubness_of_gopro_are_the_same(names: list[str], tiny: Backbone, cone: Backbone) -> None:
    logits = []
    for backbone in (tiny, cone):
        method = untrained("gopro", backbone)
        images, labels = encode_noise(backbone, 20), torch.arange(20) % len(NAMES)
        method.solve(lambda draws, images=images: [images], labels)
        method.end_epoch(0, 1)
        logits.append(method.for_classes(names).logits(encode_noise(backbone, 16, seed=4)))
    torch.testing.assert_close(without_constant(logits[1]), without_constant(logits[0]), atol=1e-2, rtol=1e-2)


def test_what_gopro_learns_from_images_without_labels_is_the_same(tiny: Backbone, cone: Backbone) -> None:
    names, logits = [*NAMES[:2], "a kite", "a green frog"], []
    for backbone in (tiny, cone):
        method = untrained("gopro", backbone)
        method.unlabeled_names = (*NAMES, "a kite", "a green frog")
        images, labels = encode_noise(backbone, 20), torch.arange(20) % len(NAMES)
        method.solve(lambda draws, images=images: [images], labels)
        method.solve_unlabeled(encode_noise(backbone, 40, seed=6))
        method.end_epoch(0, 1)
        logits.append(method.for_classes(names).logits(encode_noise(backbone, 16, seed=4)))
    torch.testing.assert_close(without_constant(logits[1]), without_constant(logits[0]), atol=1e-2, rtol=1e-2)


def test_tip_adapter_in_the_cone_is_tip_adapter_with_another_beta(tiny: Backbone, cone: Backbone) -> None:
    """Its exp(-beta (1 - cos)) decays more slowly in a cone that halves 1 - cos between images, as with half the beta.

    A search on validation images finds that beta; a fixed one means something else on each backbone.
    """

    def added(backbone: Backbone, beta: float) -> Tensor:
        """Return what the cache adds to zero-shot CLIP's logits."""
        method, zeroshot = (build_method(name, backbone, NAMES, TEMPLATE) for name in ("tip-adapter", "zeroshot"))
        method.keys, method.labels = encode_noise(backbone, 10).embedding, torch.arange(10) % len(NAMES)
        method.beta.fill_(beta)
        images = encode_noise(backbone, 4, seed=4)
        return method.logits(images) - zeroshot.logits(images)

    inside = added(cone, 5.5)
    torch.testing.assert_close(inside, added(tiny, 5.5 * 0.5), atol=1e-3, rtol=1e-3)
    assert (inside > added(tiny, 5.5) + 0.01).all()
