"""The methods that learn inside the image tower: MaPLe, PromptSRC and MMRL."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from gopro import benchmark
from gopro.benchmark.predictions import Predictions
from gopro.clip.backbone import Backbone
from gopro.clip.features import encode_views
from gopro.data.images.loader import eval_batches, view_batches
from gopro.data.load_dataset import load_dataset
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
from tests.support.methods import NAMES, TEMPLATE, perturb
from tests.support.towers import images, random_backbone, vit

DEEP = ["maple", "promptsrc", "mmrl"]


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


def test_methods_that_need_a_vit_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    suited = "zeroshot, linear-probe, tip-adapter, tip-adapter-f, coop, cocoop, kgcoop, slip, stylip, gopro,"
    for method in DEEP:
        config = TrainConfig(data="no-such-folder", output=tmp_path / "run", method=method, backbone="RN50:openai")
        with pytest.raises(InputError, match=rf"^{method} learns .* of backbone RN50:openai is ResNet: .* {suited}"):
            train(config)
    config = BenchmarkConfig(
        data=("emoji-food",),
        output=tmp_path / "out",
        methods=("zeroshot", "maple", "coop", "mmrl[reg=2]"),
        backbones=("emoji", "ViT-B-16-SigLIP:webli"),
        shots=(1,),
    )
    with pytest.raises(InputError, match=r"^maple and mmrl\[reg=2\] learn .* ViT-B-16-SigLIP:webli is vit_base_"):
        benchmark("base-to-new", config)
    assert not list(tmp_path.iterdir())


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
    mixed = some.for_classes(["dog", "zebra", "owl"])  # the trained names decide, not those of `some`
    torch.testing.assert_close(mixed.logits(images(3))[:, [0, 2]], scale * image @ text[order].T, atol=1e-4, rtol=1e-4)
    again = mixed.for_classes(NAMES)
    torch.testing.assert_close(again.logits(images(3)), both, atol=1e-4, rtol=1e-4)


def test_mmrl_uses_its_class_tokens_feature_alone_on_other_data(tiny: Backbone) -> None:
    """Its authors do so on ImageNetV2 and its like, which have the classes of ImageNet."""
    method = perturb(build_method("mmrl", tiny, NAMES, TEMPLATE))
    assert isinstance(method, MMRL)
    image = images(1, 3)[0]
    other = method.for_classes(NAMES, other_data=True)
    torch.testing.assert_close(other.image_vectors(image), method.both_features(image)[0])
    assert not torch.allclose(method.image_vectors(image), other.image_vectors(image), atol=1e-3)
    assert not other.for_classes(NAMES).fused and other.for_classes(NAMES, other_data=False).fused


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
    done: list[int] = []
    whole = evaluate_images(method, data.test[:75], batch=32, on_progress=done.append)
    assert done == [32, 32, 11]
    [views] = eval_batches(data.test[:75], tiny.preprocess, 75)
    at_once = evaluate(method, EncodedSamples(views.views[0], views.labels, 0.0))
    tensors = {"labels": None, "logits": None, "probabilities": None}
    assert replace(whole, seconds=0, **tensors) == replace(at_once, seconds=0, **tensors)
    torch.testing.assert_close(whole.probabilities, at_once.probabilities)
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
    encoded, opened = [], []
    monkeypatch.setattr(
        encode_views, "view_batches", lambda views, *a: encoded.append(len(views)) or view_batches(views, *a)
    )
    monkeypatch.setattr(
        evaluation, "eval_batches", lambda samples, *a: opened.append(len(samples)) or eval_batches(samples, *a)
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
    validation = 43  # one image per trained class, for the temperatures
    assert encoded == [validation, *halves] and opened == [validation, *halves] * 2
    for row in outcome.rows:
        data = row["data"].replace(":", "_")
        saved = Predictions.load(tmp_path / "runs" / row["run"] / f"test-{data}-{row['classes']}.safetensors")
        assert 100 * (saved.top[:, 0] == saved.labels).double().mean() == pytest.approx(row["accuracy"], abs=1e-3)
