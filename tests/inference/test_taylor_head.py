"""The Taylor head against the exact head: where it must be exact, how near it comes, and what it reports of that."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gopro.clip.backbone import Backbone, Encoded
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.inference.classifier import Classifier
from gopro.inference.evaluate import EncodedSamples, encode_samples, evaluate
from gopro.inference.taylor_head import (
    Agreement,
    TaylorHead,
    constant_head,
    fit_taylor_head,
    principal_directions,
)
from gopro.inference.taylor_head_file import build_head, head_path, load_head, load_or_build_head
from gopro.methods.base import Method
from gopro.methods.gopro import GOPro
from gopro.methods.registry import METHODS, build_method
from gopro.runs.config import TrainConfig
from gopro.runs.load_run import load_run
from gopro.runs.run import Run
from gopro.training.train import train

NAMES = ["red fox", "owl", "grand piano", "dog", "very slow old train"]
TEMPLATE = "a photo of a {}."


def encoded(backbone: Backbone, count: int, seed: int = 3) -> Encoded:
    """Make up encodings that differ more than a tower of random weights makes those of noise differ."""
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(count, backbone.embed_dim, generator=generator)
    mean, std = 0.1 * torch.randn(2, count, sum(backbone.layer_widths), generator=generator)
    return Encoded(torch.nn.functional.normalize(embedding, dim=-1), mean, std.abs())


def perturbed(method: Method, size: float = 0.1) -> Method:
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return method.eval()


class Quadratic(Method):
    """A method whose class features are quadratic in two numbers of an image, without their product."""

    curved = True
    text_depends_on_image = True

    def image_contexts(self, encoded: Encoded) -> Tensor:
        numbers = encoded.embedding[:, :2] - encoded.embedding[:, :2].mean(dim=0)
        _, _, axes = torch.linalg.svd(encoded.embedding[:, :2] - encoded.embedding[:, :2].mean(dim=0))
        return torch.stack([numbers @ axes.T, 7 + 0 * numbers], dim=1)  # [batch, 2, 2], along the principal axes

    def class_vectors(self, contexts: Tensor) -> Tensor:
        lengths = torch.tensor([len(name) for name in self.classnames])[:, None]
        parts = [(torch.arange(self.backbone.embed_dim) * (i + 2) * lengths).sin() for i in range(5)]
        x, y = contexts[:, 0, 0, None, None], contexts[:, 0, 1, None, None]
        features = parts[0] + x * parts[1] + 2 * y * parts[2]
        return features + x**2 * parts[3] - 3 * y**2 * parts[4] if self.curved else features


@pytest.mark.parametrize("curved", [True, False])
def test_features_quadratic_along_the_directions_are_exact(curved: bool, tiny: Backbone) -> None:
    method = Quadratic(tiny, NAMES, None)
    method.curved = curved
    images = encoded(tiny, 24)
    head = fit_taylor_head(method, NAMES, images, images, error=1e-4)
    assert len(head.expansion) == (4 if curved else 2)
    assert curved or head.expansion.terms.max() < 2  # slopes alone
    torch.testing.assert_close(head.logits(images), method.logits(images), atol=1e-3, rtol=1e-4)


def test_logits_equal_a_plain_sum_over_the_terms(tiny: Backbone) -> None:
    method = perturbed(build_method("gopro", tiny, NAMES, TEMPLATE))
    head = fit_taylor_head(method, NAMES, encoded(tiny, 30), encoded(tiny, 10, seed=4), error=1e-9)
    images = encoded(tiny, 3, seed=5)
    expansion, logits = head.expansion, head.logits(images).detach()
    directions = expansion.directions.shape[1]
    image, contexts = method.image_vectors(images), method.image_contexts(images)
    assert contexts is not None
    for b in range(3):
        offset = contexts[b].detach().flatten() - expansion.centre
        for c in range(len(NAMES)):
            text = expansion.weights[c, 0]
            for term, weight in zip(expansion.terms.tolist(), expansion.weights[c, 1:], strict=True):
                s = float(offset @ expansion.directions[:, term % directions])
                text = text + weight * (s if term < directions else (s**2 - 1) / 2**0.5)
            expected = tiny.logit_scale * image[b] @ text
            torch.testing.assert_close(logits[b, c], expected, atol=1e-3, rtol=1e-4)


def test_coordinates_have_mean_0_and_variance_1_over_the_fitted_images(tiny: Backbone) -> None:
    method = perturbed(build_method("cocoop", tiny, NAMES, TEMPLATE))
    images = encoded(tiny, 40)
    expansion = fit_taylor_head(method, NAMES, images, images, error=1e-9).expansion
    contexts = method.image_contexts(images)
    assert contexts is not None
    z = expansion.coordinates(contexts)
    slopes = z[:, expansion.terms < expansion.directions.shape[1]]
    assert z.mean(dim=0).abs().max() < 1e-3
    torch.testing.assert_close(slopes.T @ slopes / 40, torch.eye(slopes.shape[1]), atol=1e-3, rtol=0)


def test_slopes_are_the_derivatives_where_images_are_near_the_mean(tiny: Backbone) -> None:
    """The reference is forward-mode differentiation of the text tower and the projector along the directions."""
    method = perturbed(build_method("gopro", tiny, NAMES, TEMPLATE))
    contexts = method.image_contexts(encoded(tiny, 30))
    assert contexts is not None
    near = contexts.mean(dim=0) + 0.1 * (contexts - contexts.mean(dim=0))
    method.image_contexts = lambda encoded: near[: len(encoded.embedding)]  # pyright: ignore[reportAttributeAccessIssue]
    head = fit_taylor_head(method, NAMES, encoded(tiny, 30), encoded(tiny, 10), error=1e-9)
    centre, directions = principal_directions(near)
    for place, term in enumerate(head.expansion.terms.tolist()[:3]):
        assert term < len(directions)  # near the centre slopes outweigh curvatures
        tangent = directions[term].view_as(contexts[0])[None]
        _, derivative = torch.func.jvp(method.class_vectors, (centre.view_as(contexts[0])[None],), (tangent,))
        slope = head.expansion.weights[:, 1 + place]
        assert (slope - derivative[0]).abs().max() <= 0.01 * derivative.abs().max()


@pytest.mark.parametrize("spec", ["gopro", "cocoop"])
def test_a_smaller_error_takes_more_terms_and_is_reached(spec: str, tiny: Backbone) -> None:
    method = perturbed(build_method(spec, tiny, NAMES, TEMPLATE))
    images, held_out = encoded(tiny, 40), encoded(tiny, 40, seed=8)
    heads = [fit_taylor_head(method, NAMES, images, held_out, error=error) for error in (1.0, 1e-3, 1e-9)]
    counts = [len(head.expansion) for head in heads]
    assert counts[0] == 0 < counts[1] <= counts[2]
    measuring = held_out[1::2]
    exact = method.logits(measuring).softmax(dim=-1)
    means = []
    for head in heads:
        errors = (head.logits(measuring).softmax(dim=-1) - exact).abs().amax(dim=-1)
        assert head.agreement is not None
        assert head.agreement.images == 20
        assert head.agreement.max == pytest.approx(errors.max().item(), abs=1e-6)
        assert head.agreement.mean == pytest.approx(errors.mean().item(), abs=1e-6)
        means.append(errors.mean().item())
    assert means[1] < means[0] / 2 and means[2] <= means[1] * 1.1


def test_agreement_by_hand() -> None:
    a = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]])
    b = torch.tensor([[0.6, 0.3, 0.1], [0.4, 0.5, 0.1], [0.2, 0.1, 0.7], [0.1, 0.6, 0.3]])
    agreement = Agreement.between(a, b)
    assert (agreement.images, agreement.top1) == (4, 75)
    assert (agreement.max, agreement.mean) == (pytest.approx(0.2), pytest.approx(0.1))
    assert agreement.p99 == pytest.approx(0.197)  # of 0, 0.1, 0.1 and 0.2: 97 % of the way between the last two


@pytest.mark.parametrize("name", METHODS)
def test_the_head_of_a_method_whose_text_is_the_same_for_all_images_is_exact(name: str, tiny: Backbone) -> None:
    method = perturbed(build_method(name, tiny, NAMES, TEMPLATE))
    images = method.encode(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3)))
    depends = method.text_depends_on_image
    assert depends == (method.image_contexts(images) is not None)
    if depends:
        return
    head = constant_head(method, NAMES[1:3])
    assert head.frozen_images == method.frozen_images and head.classnames == tuple(NAMES[1:3])
    torch.testing.assert_close(head.logits(images), method.logits(images)[:, 1:3], atol=1e-4, rtol=1e-5)


def test_evaluation_encodes_text_once_if_it_is_the_same_for_all_images(tiny: Backbone, monkeypatch) -> None:
    method, calls = perturbed(build_method("coop", tiny, NAMES, TEMPLATE)), []
    class_vectors, images = type(method).class_vectors, encoded(tiny, 10)
    expected = method.logits(images).softmax(dim=-1)
    monkeypatch.setattr(type(method), "class_vectors", lambda self, c=None: calls.append(1) or class_vectors(self, c))
    result = evaluate(method, EncodedSamples(images, torch.zeros(10, dtype=torch.long), 0.0), batch=2)
    torch.testing.assert_close(result.probabilities, expected)
    assert len(calls) == 1


def test_identical_contexts_need_no_terms(tiny: Backbone) -> None:
    method = build_method("gopro", tiny, NAMES, TEMPLATE).eval()  # untrained: no image shifts the context
    head = fit_taylor_head(method, NAMES, encoded(tiny, 8), encoded(tiny, 8, seed=4), error=1e-4)
    assert head.expansion.directions.shape[1] == len(head.expansion) == 0
    assert head.agreement is not None and head.agreement.max < 1e-4


def test_a_head_refuses_other_names_and_too_few_images(tiny: Backbone) -> None:
    method = build_method("gopro", tiny, NAMES, TEMPLATE).eval()
    with pytest.raises(InputError, match="two held-out images"):
        fit_taylor_head(method, NAMES, encoded(tiny, 8), encoded(tiny, 1), error=0.1)
    with pytest.raises(InputError, match="build one"):
        constant_head(build_method("zeroshot", tiny, NAMES, TEMPLATE), NAMES).for_classes(["dog"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Run:
    folder = tmp_path_factory.mktemp("heads") / "run"
    config = TrainConfig(
        data="emoji-activities", classes="base", shots=1, epochs=1, batch=16, workers=0, output=folder, device="cpu"
    )
    return train(config, backbone=tiny)


def copy_run(run: Run, folder: Path, backbone: Backbone) -> Run:
    shutil.copytree(run.folder, folder)
    return load_run(folder, backbone=backbone)


def test_a_saved_head_predicts_as_the_one_that_was_built(run: Run, tmp_path: Path, tiny: Backbone) -> None:
    run = copy_run(run, tmp_path / "run", tiny)
    built = build_head(run, NAMES)
    loaded = load_head(run, NAMES)
    images = encoded(tiny, 5)
    assert torch.equal(built.logits(images), loaded.logits(images))
    assert loaded.agreement == built.agreement and loaded.agreement is not None
    assert loaded.agreement.images == 21  # every second one of the 43 validation images, one per class
    samples = encode_samples(run.method, load_dataset("emoji-activities").half("base").test[:40])
    head = load_or_build_head(run, run.method.classnames)
    assert isinstance(head, TaylorHead) and head_path(run, run.method.classnames).is_file()
    agreement = Agreement.between(evaluate(run.method, samples).probabilities, evaluate(head, samples).probabilities)
    assert agreement.max < 0.02


def test_a_head_that_does_not_fit_the_run_is_refused(run: Run, tmp_path: Path, tiny: Backbone) -> None:
    def refusal(run: Run, names: Sequence[str]) -> str:
        with pytest.raises(InputError, match="gopro head") as caught:
            load_head(run, names)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    run = copy_run(run, tmp_path / "run", tiny)
    assert "no first-order head" in refusal(run, NAMES)
    path, other = head_path(run, NAMES), head_path(run, NAMES[::-1])
    build_head(run, NAMES)
    shutil.copy(path, other)
    assert "other class names" in refusal(run, NAMES[::-1])
    learned = load_file(run.folder / "learned.safetensors")
    save_file({key: tensor + 1 for key, tensor in learned.items()}, run.folder / "learned.safetensors")
    changed = load_run(run.folder, backbone=tiny)
    assert "another state" in refusal(changed, NAMES)
    with pytest.raises(InputError, match="another state"):  # never silently replaced
        load_or_build_head(changed, NAMES)
    path.write_bytes(path.read_bytes()[:100])
    assert "is not a first-order head" in refusal(changed, NAMES)
    save_file({"weights": torch.zeros(1)}, path)
    assert "is not a first-order head" in refusal(changed, NAMES)


def test_a_head_is_used_for_its_own_template_only(run: Run, tmp_path: Path, tiny: Backbone) -> None:
    run = copy_run(run, tmp_path / "run", tiny)
    other = "{} texture."
    assert head_path(run, NAMES) == head_path(run, NAMES, run.template) != head_path(run, NAMES, other)
    build_head(run, NAMES)
    with pytest.raises(InputError, match="no first-order head"):
        load_head(run, NAMES, other)
    run.method.training_means.unit.fill_(1e-9)  # all images are far: the gate leaves them to frozen CLIP
    run.method.training_means.means.add_(1.0)
    run.method.config = replace(run.method.config, hubness=0.0)
    head, images = build_head(run, NAMES, other), encoded(tiny, 5)
    zeroshot = build_method("zeroshot", tiny, NAMES, other).logits(images)
    torch.testing.assert_close(head.logits(images), zeroshot, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(load_head(run, NAMES, other).logits(images), head.logits(images))
    shutil.copy(head_path(run, NAMES, other), head_path(run, NAMES))
    with pytest.raises(InputError, match=r"built for the template '\{\} texture.', not 'a photo of a \{\}.'"):
        load_head(run, NAMES)
    fast = Classifier(run.method, run).for_classes(NAMES, other).first_order()
    assert fast.method.template == other and len(list((run.folder / "heads").iterdir())) == 2


def test_a_head_of_a_context_behind_the_name_agrees(tiny: Backbone) -> None:
    method = perturbed(build_method("gopro", tiny, NAMES, "{} texture."), 0.03)
    head = fit_taylor_head(method, NAMES, encoded(tiny, 30), encoded(tiny, 10, seed=4), error=1e-9)
    images = encoded(tiny, 6, seed=5)
    assert len(head.expansion) > 0
    torch.testing.assert_close(head.logits(images).softmax(-1), method.logits(images).softmax(-1), atol=5e-3, rtol=0)


def test_a_classifier_uses_the_head_of_its_run_for_any_names(run: Run, tmp_path: Path, tiny: Backbone) -> None:
    run = copy_run(run, tmp_path / "run", tiny)
    exact = Classifier(run.method, run)
    images = [sample.image.open() for sample in load_dataset("emoji-activities").half("base").test[:12]]
    fast = exact.for_classes(NAMES).first_order()
    assert (exact.head, fast.head, fast.first_order()) == ("exact", "first-order", fast)
    assert head_path(run, NAMES).is_file() and list(fast.classes_) == NAMES
    head = load_head(run, NAMES)
    assert np.array_equal(fast.predict_proba(images), Classifier(head).predict_proba(images))
    assert 0 < np.abs(fast.predict_proba(images) - exact.for_classes(NAMES).predict_proba(images)).max() < 0.02
    other = fast.for_classes(NAMES[:2])
    assert other.head == "first-order" and head_path(run, NAMES[:2]).is_file()
    with pytest.raises(InputError, match=r"gopro\.load"):
        Classifier(run.method).first_order()


@pytest.mark.parametrize(("names", "error", "words"), [(NAMES, 0.0, "error is 0"), ([], 0.1, "class names")])
def test_invalid_settings_are_refused_before_anything_is_written(
    names: list[str], error: float, words: str, run: Run
) -> None:
    with pytest.raises(InputError, match=words):
        build_head(run, names, error=error)
    assert not (run.folder / "heads").exists()


def test_hundreds_of_classes_are_expanded_in_chunks(tiny: Backbone) -> None:
    names = [f"{a} {b}" for a in ("red", "small", "very old", "sad") for b in range(150)]
    method = perturbed(build_method("gopro", tiny, NAMES, TEMPLATE), 0.03)
    assert isinstance(method, GOPro)
    chunks: list[int] = []
    images, held_out = encoded(tiny, 12), encoded(tiny, 12, seed=4)
    head = fit_taylor_head(method, names, images, held_out, error=0.01, on_progress=chunks.append)
    assert chunks == [256, 256, 88]
    some = [3, 250, 599]
    part = fit_taylor_head(method, [names[i] for i in some], images, held_out, error=1e-9)
    torch.testing.assert_close(head.expansion.weights[some, 0], part.expansion.weights[:, 0], atol=1e-5, rtol=1e-4)
