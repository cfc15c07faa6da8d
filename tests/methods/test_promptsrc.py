"""PromptSRC's regularisation and average of prompts; and methods trained in bf16 compared with fp32."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor

from gopro.clip.backbone import Backbone
from gopro.methods.promptsrc import PromptSRC
from gopro.methods.registry import build_method
from gopro.runs.config import TrainConfig
from gopro.runs.load_run import load_run
from gopro.training.train import train
from tests.support.methods import NAMES, TEMPLATE


def promptsrc(backbone: Backbone, settings: str = "") -> PromptSRC:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = build_method(f"promptsrc[{settings}]" if settings else "promptsrc", backbone, NAMES, TEMPLATE)
    assert isinstance(method, PromptSRC)
    return method


def tokens(method: PromptSRC) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in method.parameters()]).clone()


def test_the_frozen_text_is_the_unit_mean_over_60_templates(tiny: Backbone) -> None:
    """Compared with open_clip's own encoder; its features are averaged before they are normalised."""
    method = promptsrc(tiny)
    texts = [template(name) for template in OPENAI_IMAGENET_TEMPLATES[:60] for name in NAMES]
    features = tiny.model.encode_text(tiny.text.tokenizer(texts, context_length=40)).unflatten(0, (60, len(NAMES)))
    expected = F.normalize(features.mean(dim=0), dim=-1)
    torch.testing.assert_close(method.frozen_text(), expected, atol=1e-6, rtol=1e-5)
    of_units = F.normalize(F.normalize(features, dim=-1).mean(dim=0), dim=-1)
    assert (of_units - expected).abs().max() > 1e-4, "the two averages are the same, so the test proves nothing"


def test_the_frozen_text_is_that_of_the_current_classes(tiny: Backbone) -> None:
    method = promptsrc(tiny)
    whole = method.frozen_text()
    torch.testing.assert_close(method.for_classes(["dog", "owl"]).frozen_text(), whole[[3, 1]])
    assert method.frozen_text() is whole, "computed again"


def test_with_frozen_clips_features_only_the_cross_entropy_is_not_zero(
    tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, images = promptsrc(tiny), torch.randn(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([0, 1, 2, 3])
    assert all(term.item() > 1e-4 for term in method.losses(images, labels).values())
    monkeypatch.setattr(method, "text_features", lambda: method.frozen_text()[None])
    monkeypatch.setattr(method, "image_features", lambda images: tiny.encode(images).embedding)
    terms = method.losses(images, labels)
    assert terms.pop("ce").item() > 0.1
    assert all(abs(term.item()) < 1e-6 for term in terms.values())


@pytest.mark.parametrize(("mean", "std", "epochs"), [(2.0, 1.0, 3), (15.0, 1.0, 20), (1.0, 30.0, 4)])
def test_the_final_tokens_are_the_gaussian_average_of_the_epochs(
    mean: float, std: float, epochs: int, tiny: Backbone
) -> None:
    method, seen = promptsrc(tiny, f"gpa_mean={mean},gpa_std={std}"), []
    for epoch in range(epochs):
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.fill_(math.sin(1 + epoch))
        seen.append(tokens(method))
        method.end_epoch(epoch, epochs)
        if epoch + 1 < epochs:
            assert torch.equal(tokens(method), seen[-1]), "the tokens changed before the last epoch"
    weights = [math.exp(-(((epoch - mean) / std) ** 2) / 2) for epoch in range(1, epochs + 1)]
    expected = sum(w / sum(weights) * s for w, s in zip(weights, seen, strict=True))
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(tokens(method), expected)
    assert not torch.allclose(expected, seen[-1], atol=1e-3)


def test_the_average_is_finite_if_all_epochs_are_far_from_the_mean(tiny: Backbone) -> None:
    """Three epochs of a Gaussian around the 1000th: each weight alone is 0 in floating point."""
    method = promptsrc(tiny, "gpa_mean=1000")
    before = tokens(method)
    for epoch in range(3):
        method.end_epoch(epoch, 3)
    torch.testing.assert_close(tokens(method), before)


def test_training_again_starts_a_new_average(tiny: Backbone) -> None:
    method = promptsrc(tiny)
    before = tokens(method)
    for epoch in (0, 1, 0, 1):
        method.end_epoch(epoch, 2)
    torch.testing.assert_close(tokens(method), before)


def test_a_run_saves_the_average(tmp_path: Path, tiny: Backbone) -> None:
    config = TrainConfig(
        data="emoji-activities",
        output=tmp_path / "run",
        method="promptsrc[gpa_mean=2]",
        shots=1,
        epochs=3,
        batch=32,
        classes="base",
        workers=0,
    )
    train(config, backbone=tiny)
    method = load_run(tmp_path / "run", backbone=tiny).method
    assert isinstance(method, PromptSRC) and method.average.abs().max() > 0
    assert torch.equal(tokens(method), method.average)


@pytest.mark.parametrize("method", ["coop", "gopro", "maple", "promptsrc", "mmrl"])
def test_bf16_trains_near_fp32(method: str, tmp_path: Path, tiny: Backbone) -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        config = TrainConfig(
            data="emoji-activities",
            output=tmp_path / precision,
            method=method,
            shots=1,
            epochs=2,
            batch=16,
            classes="base",
            precision=precision,  # pyright: ignore
            workers=0,
        )
        train(config, backbone=tiny)
        found[precision] = torch.cat(
            [p.flatten() for p in load_run(tmp_path / precision, backbone=tiny).method.parameters() if p.requires_grad]
        )
    assert found["bf16"].dtype == torch.float32
    torch.testing.assert_close(found["bf16"], found["fp32"], atol=2e-2, rtol=0)
    assert not torch.equal(found["bf16"], found["fp32"])
