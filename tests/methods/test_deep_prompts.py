"""The prompted image tower, and the methods that learn inside it: MaPLe, PromptSRC and MMRL."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor

from gopro import benchmark
from gopro.benchmark.predictions import Predictions
from gopro.clip import features
from gopro.clip.backbone import Backbone, from_openai
from gopro.clip.prompted_image_tower import PromptedImageTower
from gopro.data.load_dataset import load_dataset
from gopro.data.loader import eval_batches, view_batches
from gopro.data.transforms import Preprocess
from gopro.errors import InputError
from gopro.inference import evaluate as evaluation
from gopro.inference.classifier import Classifier
from gopro.inference.evaluate import EncodedSamples, evaluate, evaluate_images
from gopro.methods.maple import MaPLe
from gopro.methods.mmrl import MMRL
from gopro.methods.registry import build_method
from gopro.runs.config import BenchmarkConfig, TrainConfig
from gopro.runs.load_run import load_run
from gopro.training.train import train
from tests.support.golden import deeper_clip, deviation
from tests.support.methods import NAMES, TEMPLATE, perturb

DEEP = ["maple", "promptsrc", "mmrl"]


@pytest.fixture(scope="module")
def openai_tiny() -> Backbone:
    """The CLIP that the authors' code was run on."""
    return from_openai(deeper_clip())


def images(*batch: int, size: int = 32) -> Tensor:
    return torch.randn(*batch, 3, size, size, generator=torch.Generator().manual_seed(3))


def random_backbone(**vision: object) -> Backbone:
    """A backbone with an image tower of some build, 3 layers if a ViT, and 2 in the text tower; all numbers random."""
    text = {"layers": 2, "width": 32, "heads": 2, "context_length": 40}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(24, {"image_size": 32, **vision}, text)  # pyright: ignore
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    preprocess = Preprocess(size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Backbone("some", model, open_clip.SimpleTokenizer(), preprocess)


def vit(**vision: object) -> Backbone:
    return random_backbone(layers=3, width=64, patch_size=8, **vision)


BUILDS = [{}, {"pool_type": "avg"}, {"no_ln_pre": True}, {"final_ln_after_pool": True}, {"ls_init_value": 0.1}]


@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_the_prompted_tower_without_tokens_equals_the_tower(build: dict[str, object]) -> None:
    backbone = vit(**build)
    tower = PromptedImageTower(backbone)
    assert (tower.width, tower.layers) == (64, 3)
    none = [torch.zeros(0, 64)] * 3
    torch.testing.assert_close(tower(images(4), none), backbone.encode(images(4)).embedding, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("build", BUILDS, ids=str)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_prompted_tower_against_hooks(build: dict[str, object], depth: int) -> None:
    """The tower's own forward, with tokens put in and taken out by hooks, and gradients to each of them."""
    visual = (backbone := vit(**build)).model.visual
    prompts = [torch.randn(2, 64, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(depth)]

    def replacing(layer: int) -> Callable:
        def hook(module: object, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = arguments[0] if layer == 0 else arguments[0][:, :-2]
            return (torch.cat([x, prompts[layer].expand(len(x), -1, -1)], dim=1), *arguments[1:])

        return hook

    blocks = visual.transformer.resblocks
    places = [visual.ln_pre, *blocks[1:depth]]
    handles = [place.register_forward_pre_hook(replacing(i)) for i, place in enumerate(places)]
    handles.append(visual.transformer.register_forward_hook(lambda module, arguments, output: output[:, :-2]))
    expected = torch.nn.functional.normalize(visual(images(3)), dim=-1)
    for handle in handles:
        handle.remove()
    found = PromptedImageTower(backbone)(images(3), prompts)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(7))
    ours, theirs = (torch.autograd.grad((e * weights).sum(), prompts) for e in (found, expected))
    for gradient, wanted in zip(ours, theirs, strict=True):
        assert wanted.abs().max() > 1e-4
        assert deviation(gradient, wanted) < 1e-4


@pytest.mark.parametrize("build", BUILDS, ids=str)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_prompts_in_the_last_blocks_against_hooks(build: dict[str, object], depth: int) -> None:
    """Likewise, and what became of the prompts."""
    visual = (backbone := vit(**build)).model.visual
    prompts = [torch.randn(2, 64, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(depth)]
    left: list[Tensor] = []

    def replacing(layer: int) -> Callable:
        def hook(module: object, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = arguments[0] if layer == 0 else arguments[0][:, :-2]
            return (torch.cat([x, prompts[layer].expand(len(x), -1, -1)], dim=1), *arguments[1:])

        return hook

    def without(module: object, arguments: object, output: Tensor) -> Tensor:
        left.append(output[:, -2:])
        return output[:, :-2]

    handles = [
        block.register_forward_pre_hook(replacing(i)) for i, block in enumerate(visual.transformer.resblocks[-depth:])
    ]
    handles.append(visual.transformer.register_forward_hook(without))
    expected = torch.nn.functional.normalize(visual(images(3)), dim=-1)
    for handle in handles:
        handle.remove()
    found, mean = PromptedImageTower(backbone).upper(images(3), prompts)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    wanted_mean = torch.stack([visual.ln_post(left[0][:, i]) for i in range(2)]).mean(dim=0)
    torch.testing.assert_close(mean, wanted_mean, atol=1e-5, rtol=1e-5)
    ours = torch.autograd.grad(found.square()[:, 0].sum() + mean.square()[:, 0].sum(), prompts)
    theirs = torch.autograd.grad(expected.square()[:, 0].sum() + wanted_mean.square()[:, 0].sum(), prompts)
    for gradient, wanted in zip(ours, theirs, strict=True):
        assert wanted.abs().max() > 1e-4
        assert deviation(gradient, wanted) < 1e-4


@pytest.mark.parametrize("method", DEEP)
@pytest.mark.parametrize(
    ("kind", "vision"),
    [
        ("ModifiedResNet", {"width": 16, "layers": [1, 1, 1, 1]}),
        ("TimmModel", {"timm_model_name": "test_vit", "timm_proj": "linear", "timm_pool": "token"}),
    ],
)
def test_image_towers_without_support_for_prompts_are_refused(
    method: str, kind: str, vision: dict[str, object]
) -> None:
    with pytest.raises(InputError, match=rf"^backbone 'some': its image tower {kind} takes no prompts; use a ViT"):
        build_method(method, random_backbone(**vision), NAMES, TEMPLATE)


@pytest.mark.parametrize(("depth", "found"), [(1, 1), (2, 2), (3, 2), (12, 2)])
def test_maples_depth_is_at_most_that_of_the_shallower_tower(depth: int, found: int) -> None:
    method = build_method(f"maple[depth={depth}]", vit(), NAMES, TEMPLATE)  # 3 layers in the image tower, 2 in the text
    assert isinstance(method, MaPLe)
    assert len(method.image_prompts()) == len(method.couplings) == 1 + len(method.deep) == found
    terms = perturb(method).losses(images(1, 2), torch.tensor([0, 1]))
    terms["ce"].backward()
    assert all(p.grad is not None and (p.grad.abs().max() > 0) for p in method.parameters() if p.numel())


@pytest.mark.parametrize(
    ("settings", "image", "text"), [("", 2, 1), ("depth=1", 1, 1), ("depth=3", 3, 2), ("depth=12", 3, 2)]
)
def test_mmrl_uses_the_upper_layers_of_each_tower(settings: str, image: int, text: int) -> None:
    method = build_method(f"mmrl[{settings}]" if settings else "mmrl", vit(), NAMES, TEMPLATE)  # of 3 layers and 2
    assert isinstance(method, MMRL)
    assert (len(method.to_image), len(method.to_text)) == (image, text)
    terms = perturb(method).losses(images(1, 2), torch.tensor([0, 1]))
    sum(terms.values()).backward()
    assert all(p.grad is not None and (p.grad.abs().max() > 0) for p in method.parameters())


def test_mmrl_uses_its_representation_feature_only_if_all_classes_were_trained_on(tiny: Backbone) -> None:
    method = perturb(build_method("mmrl", tiny, NAMES, TEMPLATE))
    assert isinstance(method, MMRL)
    text, (image, representation) = method.text_features()[0], method.both_features(images(3))
    scale = tiny.logit_scale
    both = 0.7 * scale * image @ text.T + 0.3 * scale * representation @ text.T
    assert (both - scale * image @ text.T).abs().max() > 0.1
    order = [3, 1]
    some = method.for_classes([NAMES[i] for i in order])
    torch.testing.assert_close(some.logits(images(3)), both[:, order], atol=1e-4, rtol=1e-4)
    mixed = some.for_classes(["dog", "zebra", "owl"])  # of what was trained on, not of what it was asked last
    torch.testing.assert_close(mixed.logits(images(3))[:, [0, 2]], scale * image @ text[order].T, atol=1e-4, rtol=1e-4)
    again = mixed.for_classes(NAMES)
    torch.testing.assert_close(again.logits(images(3)), both, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("maple[depth=0]", "depth is 0"),
        ("maple[tokens=5]", "no word before {} ends with token 5"),
        ("maple[tokens=0]", "tokens is 0: give at least 1"),
        ('maple[template="a {}."]', "no word before {} ends with token 2"),
        ('promptsrc[template="{} there"]', "the words before {}"),
        ("promptsrc[gpa_std=0]", "gpa_std is 0"),
        ("mmrl[tokens=0]", "tokens is 0"),
        ("mmrl[dim=0]", "dim is 0"),
        ("mmrl[depth=0]", "depth is 0"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(spec: str, words: str, tiny: Backbone) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        build_method(spec, tiny, NAMES, TEMPLATE)
    assert words in str(caught.value)


@pytest.mark.parametrize("spec", DEEP)
def test_a_class_name_without_a_token_is_refused(spec: str, tiny: Backbone) -> None:
    with pytest.raises(InputError, match="class name ' ' has no token"):
        build_method(spec, tiny, NAMES, TEMPLATE).for_classes(["dog", " "])


def test_words_after_the_learned_tokens_stay_fixed(tiny: Backbone) -> None:
    """A text prompt whose learned tokens are untrained has the features of the written prompt."""
    method = build_method('maple[depth=1,template="an icon of my very {}!"]', tiny, NAMES, TEMPLATE)
    assert isinstance(method, MaPLe) and method.context.shape == (2, 64)
    zeroshot = build_method('zeroshot[template="an icon of my very {}!"]', tiny, NAMES, TEMPLATE)
    torch.testing.assert_close(method.text_features(), zeroshot.text_features(), atol=1e-5, rtol=1e-5)


def test_evaluation_of_images_equals_evaluation_of_encoded_images(tiny: Backbone) -> None:
    """A batch at a time gives what all at once do; images of a shorter last batch are not lost."""
    data = load_dataset("emoji-activities").half("base")
    method = build_method("maple", tiny, data.classnames, TEMPLATE)
    seen: list[int] = []
    whole = evaluate_images(method, data.test[:75], batch=32, on_progress=seen.append)
    assert seen == [32, 32, 11]
    [views] = eval_batches(data.test[:75], tiny.preprocess, 75)
    kept = evaluate(method, EncodedSamples(views.views[0], views.labels, 0.0))
    assert replace(whole, seconds=0, probabilities=0) == replace(kept, seconds=0, probabilities=0)
    torch.testing.assert_close(whole.probabilities, kept.probabilities)
    with pytest.raises(InputError, match="no images"):
        evaluate_images(method, [])


@pytest.mark.parametrize("spec", DEEP)
def test_predictions_of_a_trained_run_match_its_evaluation(spec: str, tmp_path: Path, tiny: Backbone) -> None:
    config = TrainConfig(
        data="emoji-activities", output=tmp_path / "run", method=spec, shots=2, epochs=3, batch=16, lr=0.02, workers=0
    )
    config = replace(config, classes="base", select="val")
    train(config, backbone=tiny)
    run = load_run(tmp_path / "run", backbone=tiny)
    data = load_dataset("emoji-activities").half("base")
    curve = [row.rpartition(",")[2] for row in (tmp_path / "run" / "log.csv").read_text().splitlines()]
    few = data.few_shot(2, config.seed)
    judged = evaluate_images(run.method, few.val).accuracy
    assert judged == pytest.approx(max(float(value) for value in curve[1:] if value), abs=1e-3)
    classifier = Classifier(run.method)
    found = evaluate_images(run.method, data.test[:3])
    images = [sample.image.open() for sample in data.test[:3]]
    probabilities = torch.from_numpy(classifier.predict_proba(images))
    torch.testing.assert_close(probabilities, found.probabilities, atol=1e-5, rtol=1e-4)
    others = classifier.for_classes(["chess pawn", "ball"]).predict(Image.new("RGB", (40, 40)), top_k=2)
    assert {prediction.name for prediction in others} == {"chess pawn", "ball"}


def test_a_benchmark_mixes_methods_with_and_without_frozen_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoded test images are shared between coop and zeroshot alone; the deep method is tested on images."""
    encoded, read_anew = [], []
    monkeypatch.setattr(
        features, "view_batches", lambda views, *a: encoded.append(len(views)) or view_batches(views, *a)
    )
    monkeypatch.setattr(
        evaluation, "eval_batches", lambda samples, *a: read_anew.append(len(samples)) or eval_batches(samples, *a)
    )
    monkeypatch.setenv("GOPRO_CACHE", str(tmp_path / "cache"))
    config = BenchmarkConfig(
        data=("emoji-activities",),
        output=tmp_path,
        methods=("maple", "zeroshot", "coop", "maple[tokens=1]"),
        seeds=(1,),
        shots=(1,),
        epochs=1,
        batch=32,
        workers=0,
    )
    outcome = benchmark("base-to-new", config)
    assert not outcome.failures and len(outcome.rows) == 4 * 2
    halves = [row["n"] for row in outcome.rows[:2]]
    assert encoded == halves and read_anew == halves * 2
    for row in outcome.rows:
        data = row["data"].replace(":", "_")
        said = Predictions.load(tmp_path / "runs" / row["run"] / f"test-{data}-{row['classes']}.safetensors")
        assert 100 * (said.top[:, 0] == said.labels).double().mean() == pytest.approx(row["accuracy"], abs=1e-3)
