"""Methods in closed form, and ensembles of hand-written prompts."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES
from safetensors.torch import load_file
from scipy.optimize import minimize
from torch import Tensor

from gopro import benchmark
from gopro.clip.backbone import Backbone, Encoded
from gopro.clip.text.encode import encode_texts
from gopro.data.dataset import Dataset
from gopro.data.images.loader import ViewSettings
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.inference.evaluate import encode_samples
from gopro.methods.linear_probe import DEFAULT_C, LinearProbe
from gopro.methods.parts.logistic_regression import logistic_regression
from gopro.methods.recipe import Training
from gopro.methods.registry import build_method
from gopro.methods.tip_adapter import TipAdapter
from gopro.runs.config import BenchmarkConfig, TrainConfig
from gopro.runs.load_run import load_run
from gopro.runs.run import LEARNED, read_cost
from gopro.training.devices import Runtime, make_fabric
from gopro.training.lr_schedule import learning_rate
from gopro.training.progress import Step
from gopro.training.resume_state import RESUME
from gopro.training.solve import encode_draws
from gopro.training.train import resume, train
from tests.support.interrupt import Cut, cut_in

NAMES = ["red fox", "owl", "grand piano", "dog"]
TEMPLATE = "a photo of a {}."
SOLVED = ["linear-probe", "tip-adapter", "tip-adapter-f"]
CONFIG = TrainConfig(data="emoji-activities", output=Path(), shots=2, epochs=2, classes="base", workers=0)


def images(count: int, seed: int = 3) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    embedding = F.normalize(torch.randn(count, 32, generator=generator), dim=-1)
    return Encoded(embedding, torch.zeros(count, 128), torch.zeros(count, 128))


def features(embedding: Tensor) -> Encoded:
    return Encoded(embedding, embedding, embedding)  # layer statistics that nothing here reads


def labels(count: int) -> Tensor:
    return torch.arange(count) % len(NAMES)


@pytest.mark.parametrize(("spec", "templates"), [(7, SIMPLE_IMAGENET_TEMPLATES), (80, OPENAI_IMAGENET_TEMPLATES)])
def test_an_ensemble_is_the_mean_over_its_templates(spec: int, templates, tiny: Backbone) -> None:
    assert len(templates) == spec
    method = build_method(f"zeroshot[ensemble={spec}]", tiny, NAMES[:2], TEMPLATE)
    image = images(5)
    for c, name in enumerate(NAMES[:2]):
        mean = encode_texts(tiny.text, [template(name) for template in templates]).mean(dim=0)
        expected = tiny.logit_scale * image.embedding @ (mean / mean.norm())
        torch.testing.assert_close(method.logits(image)[:, c], expected, atol=1e-4, rtol=1e-5)


def test_tip_adapter_against_a_plain_sum(tiny: Backbone) -> None:
    """Zhang et al. 2022, equations 3 to 6, written out for one image and class at a time."""
    method = build_method("tip-adapter[alpha=2,beta=3.5]", tiny, NAMES, TEMPLATE)
    draws = [images(6, seed=1), images(6, seed=2)]
    method.solve(lambda count: draws, labels(6))
    zeroshot = build_method("zeroshot", tiny, NAMES, TEMPLATE)
    test = images(5, seed=9)
    expected = zeroshot.logits(test).clone()
    for i in range(5):
        for j in range(6):
            key = draws[0].embedding[j] + draws[1].embedding[j]
            affinity = float(test.embedding[i] @ key / key.norm())
            expected[i, j % 4] += 2 * torch.exp(torch.tensor(-3.5 * (1 - affinity)))
    torch.testing.assert_close(method.logits(test), expected)


@pytest.fixture
def authors(tiny: Backbone) -> tuple[dict[str, Tensor], Backbone]:
    """Load the authors' results (tools/golden_tip_adapter.py) and a backbone with their logit scale of 100."""
    backbone = copy.copy(tiny)
    backbone.logit_scale, backbone.embed_dim = 100.0, 16
    return load_file(Path(__file__).parents[1] / "golden" / "tip-adapter.safetensors"), backbone


def solve_as_recorded(
    spec: str, recorded: dict[str, Tensor], backbone: Backbone, *, search: bool = False
) -> TipAdapter:
    method = build_method(spec, backbone, NAMES, TEMPLATE)
    assert isinstance(method, TipAdapter)
    method.text = recorded["text"]
    val = (features(recorded["test"]), recorded["test_labels"]) if search else None
    method.solve(lambda count: [features(draw) for draw in recorded["draws"]], recorded["labels"], val)
    return method


def test_cache_logits_and_search_are_the_authors(authors: tuple[dict[str, Tensor], Backbone]) -> None:
    recorded, test = authors[0], features(authors[0]["test"])
    method = solve_as_recorded("tip-adapter[alpha=2,beta=3]", *authors)
    torch.testing.assert_close(method.keys, recorded["keys"], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(method.logits(test), recorded["logits"], atol=1e-4, rtol=1e-6)
    method = solve_as_recorded("tip-adapter[search=true]", *authors, search=True)
    torch.testing.assert_close(torch.stack([method.beta, method.alpha]), recorded["best"])
    torch.testing.assert_close(method.logits(test), recorded["searched"], atol=1e-4, rtol=1e-6)


def test_fine_tuning_is_the_authors(authors: tuple[dict[str, Tensor], Backbone]) -> None:
    """Three epochs of two batches, with their AdamW's epsilon."""
    recorded, method = authors[0], solve_as_recorded("tip-adapter-f[alpha=2,beta=3]", *authors)
    assert Training.STEPS in method.trained_by
    recipe = replace(method.recipe, epochs=3)
    optimizer = torch.optim.AdamW([method.keys], lr=recipe.lr, weight_decay=recipe.weight_decay, eps=1e-4)
    for step in range(6):
        rows = slice(0, 6) if step % 2 == 0 else slice(6, 12)
        optimizer.param_groups[0]["lr"] = learning_rate(recipe, step / 2)
        optimizer.zero_grad()
        method.losses(features(recorded["draws"][:1, rows]), recorded["labels"][rows])["ce"].backward()
        optimizer.step()
    moved = (recorded["tuned"] - recorded["keys"]).abs().max()
    assert (method.keys - recorded["tuned"]).abs().max() < 1e-3 * moved


@pytest.mark.parametrize("spec", ["tip-adapter", "tip-adapter-f"])
def test_classes_without_training_images_have_zero_shot_logits(spec: str, tiny: Backbone) -> None:
    method = build_method(f"{spec}[alpha=5]", tiny, NAMES, TEMPLATE)
    method.solve(lambda count: [images(8)], labels(8))
    mixed, test = ["sea", "dog", "owl", "lamp"], images(5, seed=9)
    logits, zeroshot = method.for_classes(mixed).logits(test), build_method("zeroshot", tiny, mixed, TEMPLATE)
    extra = logits - zeroshot.logits(test)
    torch.testing.assert_close(extra[:, [0, 3]], torch.zeros(5, 2))
    both = method.logits(test) - build_method("zeroshot", tiny, NAMES, TEMPLATE).logits(test)
    torch.testing.assert_close(extra[:, [1, 2]], both[:, [3, 1]], atol=1e-4, rtol=1e-4)
    assert both.min() > 0.01
    back = method.for_classes(mixed).for_classes(NAMES)
    torch.testing.assert_close(back.logits(test), method.logits(test))


def test_search_finds_the_best_alpha_and_beta_on_validation_images(tiny: Backbone) -> None:
    """Keys and validation images agree and the text is noise, so a weightier cache is better."""
    method = build_method("tip-adapter[search=true,alpha=0]", tiny, NAMES, TEMPLATE)
    train, noise = images(8), images(8, seed=4).embedding
    val = Encoded(F.normalize(train.embedding + 0.3 * noise, dim=-1), train.mean, train.std)
    before = (method.logits(val).argmax(-1) == labels(8)).sum()
    with pytest.raises(InputError, match="no validation images"):
        method.solve(lambda count: [train], labels(8))
    method.solve(lambda count: [train], labels(8), (val, labels(8)))
    assert isinstance(method, TipAdapter) and method.alpha > 0
    assert (method.logits(val).argmax(-1) == labels(8)).sum() > before
    other = build_method("tip-adapter[search=true,alpha=0]", tiny, NAMES, TEMPLATE)
    other.load_state_dict(method.state_dict())
    torch.testing.assert_close(other.logits(val), method.logits(val))


@pytest.mark.parametrize(("search", "searched"), [("null", True), ("true", True), ("false", False)])
def test_fine_tuned_keys_are_searched_after_the_last_epoch(search: str, searched: bool, tiny: Backbone) -> None:
    method = build_method(f"tip-adapter-f[search={search},alpha=0.0,max_alpha=2,max_beta=3]", tiny, NAMES, TEMPLATE)
    assert isinstance(method, TipAdapter)
    method.solve(lambda count: [images(8)], labels(8), (images(8, seed=4), labels(8)))
    method.end_epoch(0, 2)
    assert method.alpha == 0  # still the weight to fine-tune with
    method.end_epoch(1, 2)
    assert (method.alpha >= 0.1) == searched and method.alpha < 2
    if searched:
        assert any(torch.isclose(method.beta, torch.tensor(0.1 + i * 2.9 / 200)) for i in range(200))


@pytest.mark.parametrize("c", [0.1, 10.0, 1000.0])
def test_the_regression_is_at_its_optimum(c: float) -> None:
    """Against SciPy's L-BFGS on the same convex loss, written out in NumPy's terms."""
    features, target = images(24).embedding.double(), labels(24)
    weight, bias = logistic_regression(features, target, 4, c)

    def loss(flat) -> tuple[float, object]:
        learned = torch.tensor(flat, requires_grad=True)
        w, b = learned[:-4].reshape(4, 32), learned[-4:]
        value = c * F.cross_entropy(features @ w.T + b, target, reduction="sum") + w.square().sum() / 2
        value.backward()
        assert learned.grad is not None
        return value.item(), learned.grad.numpy()

    found = minimize(loss, torch.zeros(4 * 33).numpy().astype("f8"), jac=True, method="L-BFGS-B", tol=1e-14)
    ours = loss(torch.cat([weight.flatten(), bias]).numpy())[0]
    assert ours == pytest.approx(found.fun, rel=1e-6)
    torch.testing.assert_close(weight, torch.from_numpy(found.x[:-4]).reshape(4, 32), atol=1e-2, rtol=1e-3)


def test_labels_may_be_probabilities_and_the_first_classes_fixed() -> None:
    """The gradient of the free rows is 0 at the optimum; the fixed ones are 0 themselves."""
    features, generator = images(24).embedding.double(), torch.Generator().manual_seed(2)
    target, offset = torch.randn(2, 24, 4, generator=generator, dtype=torch.double)
    target = target.softmax(dim=-1)
    weight, bias = logistic_regression(features, target, 4, 3.0, offset=offset, fixed=2, tolerance=1e-13)
    assert not weight[:2].any() and not bias[:2].any()
    assert weight[2:].abs().min() > 1e-6
    wrong = (offset + features @ weight.T + bias).softmax(dim=-1) - target
    torch.testing.assert_close(3 * wrong.T[2:] @ features + weight[2:], torch.zeros(2, 32).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(wrong.sum(dim=0)[2:], torch.zeros(2).double(), atol=1e-4, rtol=0)
    hard = torch.randint(4, (24,), generator=generator)
    one_hot = logistic_regression(features, F.one_hot(hard, 4).double(), 4, 3.0)
    torch.testing.assert_close(one_hot, logistic_regression(features, hard, 4, 3.0))


def test_c_is_the_best_on_validation_images(tiny: Backbone) -> None:
    """A quarter of the labels is wrong: a weak penalty memorises them, a stronger one does not."""
    train, target = images(64), (images(64).embedding[:, :4]).argmax(dim=-1)
    val, truth = images(200, seed=5), images(200, seed=5).embedding[:, :4].argmax(dim=-1)
    wrong = target.clone()
    wrong[::4] = (wrong[::4] + 1) % 4

    def right(spec: str, held_out: tuple[Encoded, Tensor] | None) -> int:
        method = build_method(spec, tiny, NAMES, TEMPLATE)
        method.solve(lambda count: [train], wrong, held_out)
        return int((method.logits(val).argmax(-1) == truth).sum())

    searched = right("linear-probe", (val, truth))
    assert searched > right("linear-probe[c=1000000]", (val, truth))
    assert right("linear-probe", None) == right(f"linear-probe[c={DEFAULT_C}]", (val, truth))
    assert searched >= max(right(f"linear-probe[c={10.0**e:f}]", None) for e in range(-6, 7, 2))


def test_a_linear_probe_refuses_untrained_classes(tiny: Backbone) -> None:
    method = build_method("linear-probe", tiny, NAMES, TEMPLATE)
    method.solve(lambda count: [images(8)], labels(8))
    test = images(3, seed=9)
    torch.testing.assert_close(method.for_classes(["dog", "owl"]).logits(test), method.logits(test)[:, [3, 1]])
    with pytest.raises(InputError, match=r"^[^\n]*'lamp'[^\n]*$"):
        method.for_classes(["dog", "lamp"])


@pytest.mark.parametrize("spec", ["linear-probe[c=0]", "tip-adapter[augment=-1]", "zeroshot[ensemble=8]"])
def test_settings_out_of_range_are_refused(spec: str, tiny: Backbone) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$"):
        build_method(spec, tiny, NAMES, TEMPLATE)


@pytest.mark.parametrize(
    "spec", ["linear-probe", "tip-adapter", "tip-adapter[augment=0,search=true]", "tip-adapter-f[search=false]"]
)
def test_a_loaded_run_has_the_trained_weights_and_training_is_reproducible(
    spec: str, tmp_path: Path, tiny: Backbone
) -> None:
    config = replace(CONFIG, method=spec)
    run = train(replace(config, output=tmp_path / "a"), backbone=tiny)
    train(replace(config, output=tmp_path / "b", workers=1), backbone=tiny)
    first, second = load_file(tmp_path / "a" / LEARNED), load_file(tmp_path / "b" / LEARNED)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    test = images(4)
    loaded = load_run(tmp_path / "a", backbone=tiny).method
    torch.testing.assert_close(loaded.logits(test), run.method.logits(test), atol=0, rtol=0)
    zeroshot = build_method("zeroshot", tiny, run.method.classnames, run.template)
    assert not torch.allclose(loaded.logits(test), zeroshot.logits(test), atol=1e-3)
    assert not (tmp_path / "a" / RESUME).exists()
    cost, classes = read_cost(tmp_path / "a"), len(run.method.classnames)
    learned = {"linear-probe": classes * 33, "tip-adapter": 0, "tip-adapter-f": 2 * classes * 32}
    assert cost.parameters == learned[spec.partition("[")[0]]
    assert cost.train_seconds > 0


def test_every_training_image_has_a_key(tmp_path: Path, tiny: Backbone) -> None:
    """At 65 images a training loader's batches of 64 would leave one out; without draws a key is one view's."""
    samples = load_dataset("emoji-activities").train[:65]
    few = Dataset("few", ("a", "b"), tuple(replace(s, label=i % 2) for i, s in enumerate(samples)), (), ())
    keys, settings = {}, ViewSettings(tiny.preprocess)
    for augment in (0, 3):
        method = build_method(f"tip-adapter[augment={augment}]", tiny, few.classnames, TEMPLATE)
        draws = list(encode_draws(method, augment, few.train, settings, 1, Runtime(make_fabric(CONFIG))))
        assert [len(draw.embedding) for draw in draws] == [65] * max(1, augment)
        method.solve(lambda count, draws=draws: draws, torch.tensor([sample.label for sample in few.train]))
        assert isinstance(method, TipAdapter)
        keys[augment] = method.keys
    plain = encode_samples(method, few.train).encoded[:].embedding
    torch.testing.assert_close(keys[0], plain)
    near = keys[3] @ plain.T
    assert (near.diagonal() > near.mean(dim=1)).float().mean() > 0.9  # an image's own key, in the image's place


def test_fine_tuning_starts_from_the_closed_form(tmp_path: Path, tiny: Backbone) -> None:
    config = replace(CONFIG, epochs=1)
    start = train(replace(config, method="tip-adapter", output=tmp_path / "a"), backbone=tiny).method
    tuned = train(replace(config, method="tip-adapter-f", output=tmp_path / "b"), backbone=tiny).method
    moved = (tuned.keys - start.keys).abs()
    assert 0 < moved.max() < 2e-3 * 1.1  # AdamW's steps are of the size of the learning rate


@pytest.mark.parametrize("select", ["last", "val"])
def test_an_interrupted_run_solves_again_and_ends_alike(select: str, tmp_path: Path, tiny: Backbone) -> None:
    config = replace(CONFIG, method="tip-adapter-f", epochs=3, batch=64, select=select)
    train(replace(config, output=tmp_path / "uncut"), backbone=tiny)

    with pytest.raises(Cut):
        train(replace(config, output=tmp_path / "cut"), backbone=tiny, on_step=cut_in(2))
    steps: list[Step] = []
    resume(tmp_path / "cut", backbone=tiny, on_step=steps.append)
    assert {step.epoch for step in steps} == {2}
    uncut, resumed = load_file(tmp_path / "uncut" / LEARNED), load_file(tmp_path / "cut" / LEARNED)
    assert uncut.keys() == resumed.keys() and all(torch.equal(uncut[key], resumed[key]) for key in uncut)


def test_a_benchmark_records_that_a_linear_probe_has_no_new_classes(tmp_path: Path) -> None:
    config = BenchmarkConfig(
        output=tmp_path, data=("emoji-activities",), methods=("linear-probe",), shots=(1,), seeds=(1,), workers=0
    )
    outcome = benchmark("base-to-new", config)
    assert [row["classes"] for row in outcome.rows] == ["base"] and outcome.rows[0]["train_seconds"] > 0
    [failure] = outcome.failures
    assert "was not trained on: a linear probe reads no names" in failure["error"] and failure["traceback"] is None
    assert isinstance(load_run(next((tmp_path / "runs").iterdir())).method, LinearProbe)
