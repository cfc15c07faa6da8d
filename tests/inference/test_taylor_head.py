"""The first-order head against the exact one: where it must be exact, where it comes near, and what it says of that."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
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
from gopro.inference.taylor_head import Agreement, TaylorHead, constant, coordinates, first_order, principal_directions
from gopro.inference.taylor_head_files import build_head, head_path, load_head, ready_head
from gopro.methods.base import Method
from gopro.methods.gopro import GOPro
from gopro.methods.registry import METHODS, build_method
from gopro.runs.config import TrainConfig
from gopro.runs.run import Run, load_run
from gopro.training.train import train

NAMES = ["red fox", "owl", "grand piano", "dog", "very slow old train"]
TEMPLATE = "a photo of a {}."


def encoded(backbone: Backbone, count: int, seed: int = 3) -> Encoded:
    """As of images that differ more than noise does in a tower of random weights."""
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(count, backbone.embed_dim, generator=generator)
    mean, std = 0.1 * torch.randn(2, count, sum(backbone.layer_widths), generator=generator)
    return Encoded(torch.nn.functional.normalize(embedding, dim=-1), mean, std.abs())


def disturbed(method: Method, size: float = 0.1) -> Method:
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return method.eval()


class Quadratic(Method):
    """Its class features are quadratic in two numbers of an image, without their product."""

    curved = True

    def image_contexts(self, encoded: Encoded) -> Tensor:
        numbers = encoded.embedding[:, :2] - encoded.embedding[:, :2].mean(dim=0)
        _, _, axes = torch.linalg.svd(encoded.embedding[:, :2] - encoded.embedding[:, :2].mean(dim=0))
        return torch.stack([numbers @ axes.T, 7 + 0 * numbers], dim=1)  # [batch, 2, 2], apart along the axes

    def class_vectors(self, contexts: Tensor) -> Tensor:
        lengths = torch.tensor([len(name) for name in self.classnames])[:, None]
        parts = [(torch.arange(self.backbone.embed_dim) * (i + 2) * lengths).sin() for i in range(5)]
        x, y = contexts[:, 0, 0, None, None], contexts[:, 0, 1, None, None]
        features = parts[0] + x * parts[1] + 2 * y * parts[2]
        return features + x**2 * parts[3] - 3 * y**2 * parts[4] if self.curved else features


@pytest.mark.parametrize("curved", [True, False])
def test_what_is_quadratic_along_the_directions_is_exact(curved: bool, tiny: Backbone) -> None:
    method = Quadratic(tiny, NAMES, None)
    method.curved = curved
    images = encoded(tiny, 24)
    head = first_order(method, NAMES, images, images, error=1e-4)
    assert len(head.terms.kept) == (4 if curved else 2)
    assert curved or head.terms.kept.max() < 2  # slopes alone
    torch.testing.assert_close(head.logits(images), method.logits(images), atol=1e-3, rtol=1e-4)


def test_logits_against_a_plain_sum(tiny: Backbone) -> None:
    method = disturbed(build_method("gopro", tiny, NAMES, TEMPLATE))
    head = first_order(method, NAMES, encoded(tiny, 30), encoded(tiny, 10, seed=4), error=1e-9)
    images = encoded(tiny, 3, seed=5)
    terms, logits = head.terms, head.logits(images).detach()
    count = terms.directions.shape[1]
    image, contexts = method.image_vectors(images), method.image_contexts(images)
    assert contexts is not None
    for b in range(3):
        away = contexts[b].detach().flatten() - terms.centre
        for c in range(len(NAMES)):
            text = terms.weights[c, 0]
            for term, weight in zip(terms.kept.tolist(), terms.weights[c, 1:], strict=True):
                s = float(away @ terms.directions[:, term % count])
                text = text + weight * (s if term < count else (s**2 - 1) / 2**0.5)
            expected = tiny.logit_scale * image[b] @ text
            torch.testing.assert_close(logits[b, c], expected, atol=1e-3, rtol=1e-4)


def test_coordinates_have_mean_0_and_variance_1_over_the_images_built_from(tiny: Backbone) -> None:
    method = disturbed(build_method("cocoop", tiny, NAMES, TEMPLATE))
    images = encoded(tiny, 40)
    head = first_order(method, NAMES, images, images, error=1e-9)
    contexts = method.image_contexts(images)
    assert contexts is not None
    z = coordinates(contexts, head.terms)
    slopes = z[:, head.terms.kept < head.terms.directions.shape[1]]
    assert z.mean(dim=0).abs().max() < 1e-3
    torch.testing.assert_close(slopes.T @ slopes / 40, torch.eye(slopes.shape[1]), atol=1e-3, rtol=0)


def test_slopes_are_the_derivative_where_images_are_near(tiny: Backbone) -> None:
    """Forward-mode differentiation of the packed tower and the projector, along the principal directions."""
    method = disturbed(build_method("gopro", tiny, NAMES, TEMPLATE))
    contexts = method.image_contexts(encoded(tiny, 30))
    assert contexts is not None
    near = contexts.mean(dim=0) + 0.1 * (contexts - contexts.mean(dim=0))
    method.image_contexts = lambda encoded: near[: len(encoded.embedding)]  # pyright: ignore[reportAttributeAccessIssue]
    head = first_order(method, NAMES, encoded(tiny, 30), encoded(tiny, 10), error=1e-9)
    centre, spread = principal_directions(near)
    for place, term in enumerate(head.terms.kept.tolist()[:3]):
        assert term < len(spread)  # near the centre slopes do most
        tangent = spread[term].view_as(contexts[0])[None]
        _, derivative = torch.func.jvp(method.class_vectors, (centre.view_as(contexts[0])[None],), (tangent,))
        slope = head.terms.weights[:, 1 + place]
        assert (slope - derivative[0]).abs().max() <= 0.01 * derivative.abs().max()


@pytest.mark.parametrize("spec", ["gopro", "cocoop"])
def test_terms_are_as_many_as_the_error_asks_for_and_bring_the_head_nearer(spec: str, tiny: Backbone) -> None:
    method = disturbed(build_method(spec, tiny, NAMES, TEMPLATE))
    seen, held_out = encoded(tiny, 40), encoded(tiny, 40, seed=8)
    heads = [first_order(method, NAMES, seen, held_out, error=error) for error in (1.0, 1e-3, 1e-9)]
    counts = [len(head.terms.kept) for head in heads]
    assert counts[0] == 0 < counts[1] <= counts[2]
    judging = held_out[1::2]
    exact = method.logits(judging).softmax(dim=-1)
    errors = []
    for head in heads:
        apart = (head.logits(judging).softmax(dim=-1) - exact).abs().amax(dim=-1)
        assert head.agreement is not None
        assert head.agreement.images == 20
        assert head.agreement.largest == pytest.approx(apart.max().item(), abs=1e-6)
        assert head.agreement.mean == pytest.approx(apart.mean().item(), abs=1e-6)
        errors.append(apart.mean().item())
    assert errors[1] < errors[0] / 2 and errors[2] <= errors[1] * 1.1


def test_agreement_counts_by_hand() -> None:
    a = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]])
    b = torch.tensor([[0.6, 0.3, 0.1], [0.4, 0.5, 0.1], [0.2, 0.1, 0.7], [0.1, 0.6, 0.3]])
    agreement = Agreement.between(a, b)
    assert (agreement.images, agreement.top1) == (4, 75)
    assert (agreement.largest, agreement.mean) == (pytest.approx(0.2), pytest.approx(0.1))
    assert agreement.most == pytest.approx(0.197)  # of 0, 0.1, 0.1 and 0.2, 97 % of the way between the last two


def conditioned(name: str) -> bool:
    return METHODS[name][0].image_contexts is not Method.image_contexts


@pytest.mark.parametrize("name", [name for name in METHODS if not conditioned(name)])
def test_a_head_of_a_method_whose_text_takes_nothing_of_a_image_is_exact(name: str, tiny: Backbone) -> None:
    method = disturbed(build_method(name, tiny, NAMES, TEMPLATE))
    images = method.encode(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3)))
    head = constant(method, NAMES[1:3])
    assert head.frozen_images == method.frozen_images and head.classnames == tuple(NAMES[1:3])
    torch.testing.assert_close(head.logits(images), method.logits(images)[:, 1:3], atol=1e-4, rtol=1e-5)


def test_evaluation_encodes_text_that_is_the_same_for_all_images_once(tiny: Backbone, monkeypatch) -> None:
    method, asked = disturbed(build_method("coop", tiny, NAMES, TEMPLATE)), []
    by_hand, images = type(method).class_vectors, encoded(tiny, 10)
    wanted = method.logits(images).softmax(dim=-1)
    monkeypatch.setattr(type(method), "class_vectors", lambda self, c=None: asked.append(1) or by_hand(self, c))
    result = evaluate(method, EncodedSamples(images, torch.zeros(10, dtype=torch.long), 0.0), batch=2)
    torch.testing.assert_close(result.probabilities, wanted)
    assert len(asked) == 1


def test_images_that_all_generate_one_context_need_no_terms(tiny: Backbone) -> None:
    method = build_method("gopro", tiny, NAMES, TEMPLATE).eval()  # untrained: no image shifts it
    head = first_order(method, NAMES, encoded(tiny, 8), encoded(tiny, 8, seed=4), error=1e-4)
    assert head.terms.directions.shape[1] == len(head.terms.kept) == 0
    assert head.agreement is not None and head.agreement.largest < 1e-4


def test_a_head_refuses_other_names_and_too_few_images(tiny: Backbone) -> None:
    method = build_method("gopro", tiny, NAMES, TEMPLATE).eval()
    with pytest.raises(InputError, match="two images"):
        first_order(method, NAMES, encoded(tiny, 8), encoded(tiny, 1), error=0.1)
    with pytest.raises(InputError, match="build one"):
        constant(build_method("zeroshot", tiny, NAMES, TEMPLATE), NAMES).for_classes(["dog"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Run:
    folder = tmp_path_factory.mktemp("heads") / "run"
    config = TrainConfig(
        data="emoji-activities", classes="base", shots=1, epochs=1, batch=16, workers=0, output=folder, device="cpu"
    )
    return train(config, backbone=tiny)


def copied(run: Run, folder: Path, backbone: Backbone) -> Run:
    shutil.copytree(run.folder, folder)
    return load_run(folder, backbone=backbone)


def test_a_head_is_kept_and_found_again(run: Run, tmp_path: Path, tiny: Backbone) -> None:
    run = copied(run, tmp_path / "run", tiny)
    built = build_head(run, NAMES)
    found = load_head(run, NAMES)
    images = encoded(tiny, 5)
    assert torch.equal(built.logits(images), found.logits(images))
    assert found.agreement == built.agreement and found.agreement is not None
    assert found.agreement.images == 21  # of the 43 validation images, one a class, every second
    samples = encode_samples(run.method, load_dataset("emoji-activities").half("base").test[:40])
    head = ready_head(run, run.method.classnames)
    assert isinstance(head, TaylorHead) and head_path(run, run.method.classnames).is_file()
    agreement = Agreement.between(evaluate(run.method, samples).probabilities, evaluate(head, samples).probabilities)
    assert agreement.largest < 0.02


def names_of(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_head_that_does_not_fit_is_refused(run: Run, tmp_path: Path, tiny: Backbone) -> None:
    def refused(run: Run, names: Sequence[str]) -> str:
        with pytest.raises(InputError, match="gopro head") as caught:
            load_head(run, names)
        return names_of(caught)

    run = copied(run, tmp_path / "run", tiny)
    assert "no first-order head" in refused(run, NAMES)
    path, other = head_path(run, NAMES), head_path(run, NAMES[::-1])
    build_head(run, NAMES)
    shutil.copy(path, other)
    assert "other class names" in refused(run, NAMES[::-1])
    learned = load_file(run.folder / "learned.safetensors")
    save_file({key: tensor + 1 for key, tensor in learned.items()}, run.folder / "learned.safetensors")
    changed = load_run(run.folder, backbone=tiny)
    assert "another state" in refused(changed, NAMES)
    with pytest.raises(InputError, match="another state"):  # never silently built anew
        ready_head(changed, NAMES)
    path.write_bytes(path.read_bytes()[:100])
    assert "does not hold" in refused(changed, NAMES)
    save_file({"weights": torch.zeros(1)}, path)
    assert "does not hold" in refused(changed, NAMES)


def test_a_classifier_takes_the_head_of_its_run_for_any_names(run: Run, tmp_path: Path, tiny: Backbone) -> None:
    run = copied(run, tmp_path / "run", tiny)
    exact = Classifier(run.method, run)
    images = [sample.image.open() for sample in load_dataset("emoji-activities").half("base").test[:12]]
    quick = exact.for_classes(NAMES).first_order()
    assert (exact.head, quick.head, quick.first_order()) == ("exact", "first-order", quick)
    assert head_path(run, NAMES).is_file() and list(quick.classes_) == NAMES
    head = load_head(run, NAMES)
    assert np.array_equal(quick.predict_proba(images), Classifier(head).predict_proba(images))
    assert 0 < np.abs(quick.predict_proba(images) - exact.for_classes(NAMES).predict_proba(images)).max() < 0.02
    other = quick.for_classes(NAMES[:2])
    assert other.head == "first-order" and head_path(run, NAMES[:2]).is_file()
    with pytest.raises(InputError, match=r"gopro\.load"):
        Classifier(run.method).first_order()


@pytest.mark.parametrize(("names", "error", "words"), [(NAMES, 0.0, "error is 0"), ([], 0.1, "class names")])
def test_wishes_that_make_no_sense_are_refused(
    names: list[str], error: float, words: str, run: Run, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        build_head(run, names, error=error)
    assert not (run.folder / "heads").exists()


def test_a_trained_gopro_of_thousands_of_classes_is_built_in_parts(tiny: Backbone) -> None:
    names = [f"{a} {b}" for a in ("red", "small", "very old", "sad") for b in range(150)]
    method = disturbed(build_method("gopro[anchor_text=0]", tiny, NAMES, TEMPLATE), 0.03)
    assert isinstance(method, GOPro)
    told: list[int] = []
    head = first_order(method, names, encoded(tiny, 12), encoded(tiny, 12, seed=4), error=0.01, on_progress=told.append)
    assert told == [256, 256, 88]
    some = [3, 250, 599]
    part = first_order(method, [names[i] for i in some], encoded(tiny, 12), encoded(tiny, 12, seed=4), error=1e-9)
    torch.testing.assert_close(head.terms.weights[some, 0], part.terms.weights[:, 0], atol=1e-5, rtol=1e-4)
