"""The classifier from Python: images in every form, class names out, and refusals in one line."""

import doctest
import inspect
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import get_overloads

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

import gopro
from gopro.clip.backbone import Backbone
from gopro.data.images.image_file import ImageFile
from gopro.data.images.loader import eval_batches
from gopro.data.images.prefetch import decode_ahead
from gopro.errors import InputError
from gopro.inference import classifier as classifier_module
from gopro.inference.classifier import Classifier
from gopro.inference.taylor_head import constant_head
from gopro.methods.registry import METHODS, build_method

NAMES = ["red fox", "snowy owl", "a boat on a lake", "teapot"]


def scene(seed: int, size: tuple[int, int] = (50, 40)) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def classifier(tiny: Backbone) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = build_method("gopro", tiny, NAMES, "a photo of a {}.")
        for parameter in method.parameters():  # away from zero-shot CLIP
            torch.nn.init.normal_(parameter, std=0.1)
    return Classifier(method)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pics" / "deep" / "ünïcode 日本").mkdir(parents=True)
    for i, name in enumerate(("b.png", "a.png", "deep/c.PNG", "deep/ünïcode 日本/é.png")):
        scene(i).save(tmp_path / "pics" / name)
    (tmp_path / "pics" / "notes.txt").write_text("no image")
    (tmp_path / "pics" / ".hidden.png").write_bytes(b"")
    return tmp_path / "pics"


def test_the_examples_of_the_docstrings_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gopro.train(gopro.TrainConfig(data="emoji-activities", method="zeroshot", output=Path("runs/activities")))
    dataset = gopro.load_dataset("emoji-activities")
    for name in ("bullseye", "joystick"):
        label = dataset.classnames.index(name)
        next(sample for sample in dataset.test if sample.label == label).image.open().save(f"{name}.png")
    result = doctest.testmod(classifier_module, extraglobs={"gopro": gopro})
    assert result.attempted > 20 and result.failed == 0


def test_an_image_gives_the_same_result_in_every_form(classifier: Classifier, tmp_path: Path) -> None:
    image = scene(1)
    image.save(tmp_path / "p.png")
    array = np.asarray(image)
    tensor = torch.tensor(array).permute(2, 0, 1)
    opaque = np.concatenate([array, np.full((40, 50, 1), 255, np.uint8)], axis=2)
    forms = [
        str(tmp_path / "p.png"),
        tmp_path / "p.png",
        image,
        Image.open(tmp_path / "p.png"),
        array,
        array / 255,
        (array / 255).astype(np.float32),
        array[:, ::-1][:, ::-1],  # not contiguous
        opaque,
        tensor,
        tensor / 255,
        (tensor / 255).requires_grad_(),
        torch.tensor(opaque).permute(2, 0, 1),
    ]
    expected = classifier.predict_proba(image)
    assert expected.shape == (4,) and expected.dtype == np.float32 and expected.sum() == pytest.approx(1, abs=1e-5)
    for form in forms:
        np.testing.assert_array_equal(classifier.predict_proba(form), expected)
    mixed = [*forms, np.stack([array, array]), (tensor / 255)[None], tmp_path]
    many = classifier.predict_proba(mixed, batch=5)
    assert many.shape == (len(forms) + 4, 4)
    np.testing.assert_allclose(many, np.tile(expected, (len(many), 1)), atol=1e-6)


def test_grey_images_may_have_one_channel_or_none(classifier: Classifier) -> None:
    grey = np.asarray(scene(2).convert("L"))
    expected = classifier.predict_proba(Image.fromarray(grey))
    for form in (grey, grey[..., None], torch.tensor(grey), torch.tensor(grey)[None], grey / 255):
        np.testing.assert_array_equal(classifier.predict_proba(form), expected)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_an_opened_image_is_rotated_as_its_file_is(classifier: Classifier, tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    scene(3).save(tmp_path / "p.png", exif=exif)
    opened = Image.open(tmp_path / "p.png")
    np.testing.assert_array_equal(classifier.predict_proba(opened), classifier.predict_proba(tmp_path / "p.png"))
    cropped = Image.open(tmp_path / "p.png").crop((0, 0, 50, 40))  # still has the tag, but is taken as it is
    np.testing.assert_array_equal(classifier.predict_proba(cropped), classifier.predict_proba(scene(3)))


def test_opened_images_of_any_mode_give_the_result_of_their_file(classifier: Classifier, tmp_path: Path) -> None:
    deep = Image.fromarray(np.asarray(scene(4).convert("L")).astype(np.uint16) * 257)
    clear = scene(5).convert("RGBA")
    clear.putalpha(scene(6).convert("L"))
    for i, image in enumerate((deep, clear, scene(7).quantize(16), scene(8).convert("CMYK"))):
        path = tmp_path / (f"{i}.tif" if image.mode == "CMYK" else f"{i}.png")
        image.save(path)
        np.testing.assert_array_equal(classifier.predict_proba(image), classifier.predict_proba(path))


def test_one_image_gives_a_result_and_several_a_list(classifier: Classifier, folder: Path) -> None:
    names = set(NAMES)
    one = classifier.predict(folder / "a.png")
    assert isinstance(one, str) and one in names
    top = classifier.predict(folder / "a.png", top_k=3)
    assert [type(p) for p in top] == [gopro.Prediction] * 3 and top[0].name == one
    assert top[0].probability >= top[1].probability >= top[2].probability
    assert len(classifier.predict(scene(1), top_k=9)) == 4  # at most the number of classes
    for several in ([folder / "a.png"], (scene(1),), iter([scene(1)]), np.asarray(scene(1))[None]):
        results = classifier.predict(several)
        assert isinstance(results, list) and len(results) == 1 and results[0] in names
    assert classifier.predict([scene(1)], top_k=1)[0][0].name in names


def test_probabilities_are_in_the_order_of_classes_(classifier: Classifier, folder: Path) -> None:
    probabilities = classifier.predict_proba(folder)
    assert list(classifier.classes_) == NAMES and probabilities.shape == (4, 4)
    assert list(classifier.classes_[probabilities.argmax(axis=1)]) == classifier.predict(folder)
    for row, ranked in zip(probabilities, classifier.predict(folder, top_k=4), strict=True):
        assert {p.name: p.probability for p in ranked} == dict(zip(NAMES, row.tolist(), strict=True))


def test_a_folder_gives_its_images_in_order(classifier: Classifier, folder: Path) -> None:
    paths = gopro.find_images(folder)
    assert [path.relative_to(folder).as_posix() for path in paths] == [
        "a.png",
        "b.png",
        "deep/c.PNG",
        "deep/ünïcode 日本/é.png",
    ]
    for images in (folder, str(folder), np.array([str(path) for path in paths])):
        np.testing.assert_array_equal(classifier.features(images), classifier.features(paths))


def test_a_class_has_the_same_logit_among_other_classes(classifier: Classifier) -> None:
    names = ["teapot", "sail", "red fox"]
    other = classifier.for_classes(iter(names))
    assert list(other.classes_) == names and list(classifier.classes_) == NAMES
    probabilities = classifier.predict_proba(scene(1))
    shared = other.predict_proba(scene(1))
    assert shared[0] / shared[2] == pytest.approx(probabilities[3] / probabilities[0], rel=1e-3)
    assert classifier.for_classes(NAMES[::-1]).predict(scene(1)) == classifier.predict(scene(1))


def test_names_are_cleaned_like_those_of_folders(classifier: Classifier) -> None:
    written = classifier.for_classes(["red_fox", " snowy__owl", "cafe\u0301"])
    assert written.classes_.tolist() == ["red fox", "snowy owl", "caf\u00e9"]
    plain = classifier.for_classes(["red fox", "snowy owl", "caf\u00e9"])
    np.testing.assert_array_equal(written.predict_proba(scene(1)), plain.predict_proba(scene(1)))


@pytest.mark.parametrize("spec", ["zeroshot", "tip-adapter", "gopro"])
def test_its_own_names_are_never_refused_even_if_two_are_the_same(spec: str, tiny: Backbone) -> None:
    names = ["owl", "crane", "dog", "crane"]
    classifier = Classifier(build_method(spec, tiny, names, "a photo of a {}."))
    same = classifier.for_classes(list(classifier.classes_))
    np.testing.assert_allclose(same.predict_proba(scene(1)), classifier.predict_proba(scene(1)), atol=1e-6)
    assert len(same.predict(scene(1), top_k=4)) == 4
    fewer = classifier.for_classes(["owl", "dog"])
    assert list(fewer.for_classes(names).classes_) == names  # the trained names count, not the present ones
    with pytest.raises(InputError, match="'dog' is given twice: give it once"):
        classifier.for_classes([*names, "dog"])
    with pytest.raises(InputError, match="'crane' is given 3 times: give it at most 2 times"):
        classifier.for_classes([*names, "crane"])
    if spec != "gopro":
        assert constant_head(classifier.method, ["owl"]).trained_names == tuple(names)


@pytest.mark.parametrize("spec", sorted(METHODS))
def test_the_features_of_every_method_give_its_probabilities(spec: str, tiny: Backbone) -> None:
    """They have unit length, and those of an image do not depend on the rest of its batch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # without fuse=false, MMRL uses a second feature of an image to predict trained names
        method = build_method("mmrl[fuse=false]" if spec == "mmrl" else spec, tiny, NAMES, "a photo of a {}.")
        for parameter in filter(lambda parameter: parameter.requires_grad, method.parameters()):
            torch.nn.init.normal_(parameter, std=0.1)  # away from zero-shot CLIP; gopro's probe has no part in features
    classifier, images = Classifier(method), [scene(1), scene(2)]
    features = classifier.features(images)
    assert features.shape == (2, tiny.embed_dim)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(classifier.features(scene(1)), features[0], atol=1e-5)
    if spec == "linear-probe":
        with pytest.raises(InputError, match="LinearProbe compares images with no text"):
            classifier.text_features(images)
        return
    text = classifier.text_features(images)
    assert text.shape == (2, len(NAMES), tiny.embed_dim)
    np.testing.assert_allclose(np.linalg.norm(text, axis=2), 1, atol=1e-5)
    np.testing.assert_allclose(classifier.text_features(scene(1)), text[0], atol=1e-5)
    exponents = np.exp(tiny.logit_scale * np.einsum("bd,bcd->bc", features, text))
    expected = exponents / exponents.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.predict_proba(images), expected, atol=1e-5)


def test_gopro_transforms_image_features_and_conditions_text_features(classifier: Classifier) -> None:
    embeddings = Classifier(build_method("zeroshot", classifier.method.backbone, NAMES, "a {}.")).features(scene(1))
    assert np.abs(classifier.features(scene(1)) - embeddings).max() > 0.01
    one, other = classifier.text_features([scene(1), scene(2)])
    assert np.abs(one - other).max() > 1e-3


HWC = np.zeros((8, 8, 3), np.uint8)
INVALID = {
    "nothing": ([], "there are none"),
    "an empty batch": (np.zeros((0, 8, 8, 3), np.uint8), "there are none"),
    "a number": (3, "images: a int"),
    "None in a list": ([HWC, None], "images[1]: a NoneType"),
    "bytes": (b"\x89PNG", "images: a bytes"),
    "a dict": ({"a.png": 1}, "images: a dict"),
    "pixels as lists": ([[[0, 0, 0]]], "images[0]: a list inside a list"),
    "a vector": (np.zeros(9), "images: shape [9]; an array must be [H, W, C]"),
    "five dimensions": ([torch.zeros(1, 1, 3, 8, 8)], "images[0]: shape [1, 1, 3, 8, 8]; a tensor must be [C, H, W]"),
    "channels first": (np.zeros((3, 8, 8), np.uint8), "must be [H, W, C] or [N, H, W, C]: use .transpose(1, 2, 0)"),
    "channels last": (torch.zeros(8, 8, 3), "use .permute(2, 0, 1)"),
    "two channels": (np.zeros((8, 8, 2)), "shape [8, 8, 2]"),
    "no pixels": (np.zeros((0, 8, 3)), "no pixels"),
    "integers": (np.zeros((8, 8, 3), np.int64), "images: dtype int64; give uint8"),
    "booleans": (torch.zeros(3, 8, 8, dtype=torch.bool), "dtype bool"),
    "0 to 255 as floats": ([HWC, HWC + 200.0], "images[1]: values from 200 to 200, floating point must be"),
    "normalised": (torch.full((3, 8, 8), -1.5), "undo its normalisation"),
    "NaN": (np.full((8, 8, 3), np.nan), "values from nan"),
    "one of a batch": ([HWC, torch.tensor([0.0, 9]).view(2, 1, 1, 1).expand(2, 3, 8, 8)], "images[1][1]: values"),
    "elongated": (np.zeros((1, 900, 3), np.uint8), "elongated"),
    "no such file": (["nowhere.png"], "nowhere.png: there is no such image"),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_image_is_named(classifier: Classifier, case: str) -> None:
    images, words = INVALID[case]
    for method in (classifier.predict, classifier.predict_proba, classifier.features, classifier.text_features):
        with pytest.raises(InputError) as caught:
            method(images)
        assert words in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=150)
@given(
    shape=st.lists(st.integers(0, 5), max_size=5),
    dtype=st.sampled_from(["uint8", "int32", "float16", "float32", "float64", "bool", "complex64", "object"]),
    value=st.sampled_from([0, 1, 0.5, 255, -1, float("nan"), float("inf")]),
    torch_like=st.booleans(),
)
def test_any_array_is_classified_or_refused_in_one_line(classifier, shape, dtype, value, torch_like) -> None:
    with np.errstate(all="ignore"):
        array = np.full(shape, value).astype(dtype)
    images = torch.from_numpy(array) if torch_like and dtype != "object" else array
    try:
        result = classifier.predict(images)
    except InputError as error:
        assert "images" in str(error) and "\n" not in str(error)
    else:
        assert result in NAMES if array.ndim < 4 else len(result) == len(array)


def test_invalid_settings_are_named(classifier: Classifier) -> None:
    for call, words in {
        lambda: classifier.predict(scene(1), top_k=0): "top_k is 0",
        lambda: classifier.predict(scene(1), top_k="2"): "top_k is '2'",  # pyright: ignore
        lambda: classifier.predict(scene(1), batch=0): "batch is 0",
        lambda: classifier.stream([], top_k=0): "top_k is 0",  # before the first answer is requested
        lambda: classifier.for_classes("red fox"): "give a list of names",
        lambda: classifier.for_classes(["red fox", " "]): "class name ' '",
        lambda: classifier.for_classes([]): "no class names",
        lambda: classifier.for_classes(["fox"]): "'fox' alone would get 100 %",
        lambda: classifier.for_classes(["snowy_owl", "Snowy Owl"]): "'snowy owl' is given twice, also as 'Snowy Owl'",
        lambda: classifier.for_classes(["a", "b", "a"]): "'a' is given twice",
        lambda: gopro.load("./runs/nowhere"): "runs/nowhere: there is no such folder",
        lambda: gopro.find_images("nowhere"): "nowhere",
    }.items():
        with pytest.raises(InputError, match=words):
            call()


def test_an_empty_folder_and_a_broken_image_are_errors(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="no images in this folder"):
        classifier.predict(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"broken\.png: not an image"):
        classifier.predict([scene(1), tmp_path])


def test_a_damaged_opened_image_is_named(classifier: Classifier) -> None:
    buffer = io.BytesIO()
    scene(1, (300, 200)).save(buffer, "JPEG")
    damaged = Image.open(io.BytesIO(buffer.getvalue()[:900]))
    with pytest.raises(InputError, match=r"images\[1\]: the image cannot be read"):
        classifier.predict([scene(1), damaged])


def test_a_stream_keeps_the_order_and_skips_unreadable_images(classifier: Classifier, folder: Path) -> None:
    (folder / "a2.png").write_bytes(b"broken")
    images = [folder, "missing.png", *[folder / "a.png"] * 5]
    answers = list(classifier.stream(images, top_k=2, batch=3, workers=2))
    expected = [*map(str, gopro.find_images(folder)), "missing.png", *[str(folder / "a.png")] * 5]
    assert [answer.image for answer in answers] == expected
    failed = [answer for answer in answers if answer.error]
    assert [Path(answer.image).name for answer in failed] == ["a2.png", "missing.png"]
    assert all(answer.predictions == [] for answer in failed)
    best = classifier.predict(folder / "a.png", top_k=2)
    for answer in answers[-5:]:
        assert [p.name for p in answer.predictions] == [p.name for p in best]
        assert answer.predictions[0].probability == pytest.approx(best[0].probability, abs=1e-6)
    assert list(classifier.stream([])) == []
    assert all(answer.error for answer in classifier.stream(["x.png", "y.png"]))


def test_a_stream_reads_no_further_ahead_than_two_batches(classifier: Classifier) -> None:
    requested = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal requested
        while True:
            requested += 1
            yield scene(requested % 7)

    before = set(threading.enumerate())
    answers = classifier.stream(endless(), batch=4, workers=2)
    for _ in range(40):
        next(answers)
    assert requested <= 40 + 2 * 4 + 1 + 4
    own = set(threading.enumerate()) - before
    answers.close()
    for thread in own:
        thread.join(60)
        assert not thread.is_alive(), thread
    assert {thread.name for thread in own} == {"images", "decode_0", "decode_1"}


def test_a_stream_answers_while_its_source_pauses(classifier: Classifier) -> None:
    answered = threading.Event()

    def slow() -> Iterator[Image.Image]:
        yield scene(1)
        assert answered.wait(60)  # until the first image has been answered
        yield scene(2)

    answers = classifier.stream(slow(), batch=64)
    next(answers)
    answered.set()
    assert len(list(answers)) == 1


def test_an_error_of_the_source_reaches_the_caller(classifier: Classifier) -> None:
    def faulty() -> Iterator[Image.Image]:
        yield scene(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        classifier.predict(faulty())


def test_threads_decode_in_order_and_bit_for_bit(tmp_path: Path, classifier: Classifier) -> None:
    paths = []
    for i in range(30):
        paths.append(tmp_path / f"{i}.png")
        scene(i).save(paths[-1])
    alone = [classifier._view(ImageFile(path).open()) for path in paths]
    for batch, workers in ((1, 1), (7, 3), (64, None)):
        parts = list(decode_ahead(map(ImageFile, paths), classifier._view, batch=batch, workers=workers))
        assert [len(part) for part in parts] == [batch] * (30 // batch) + ([30 % batch] if 30 % batch else [])
        for expected, (_, image) in zip(alone, [item for part in parts for item in part], strict=True):
            assert isinstance(image, torch.Tensor) and torch.equal(image, expected)


def test_real_images_are_classified_as_in_evaluation(shared: Path) -> None:
    """Images of four classes of Caltech101, with the embedded CLIP, against the loader of the evaluation."""
    dataset = gopro.load_dataset("caltech101", shared / "datasets")
    labels = [dataset.classnames.index(name) for name in ("sunflower", "cup", "stop sign", "grand piano")]
    samples = [sample for sample in dataset.test if sample.label in labels]
    classifier = Classifier(
        build_method("zeroshot", gopro.load_backbone("emoji"), dataset.classnames, "a photo of a {}.")
    )
    batches = eval_batches(samples, classifier.method.backbone.preprocess, 64)
    logits = [classifier.method.logits(classifier.method.encode(views[0])) for views, _, _ in batches]
    expected = torch.cat(logits).softmax(dim=-1).numpy()
    paths = [sample.image.name for sample in samples]
    assert len(paths) > 60
    np.testing.assert_allclose(classifier.predict_proba(paths), expected, atol=1e-6)
    opened = [Image.open(path) for path in paths[:10]]
    np.testing.assert_allclose(classifier.predict_proba(opened), expected[:10], atol=1e-5)


def test_the_types_of_predict_say_what_it_returns() -> None:
    signatures = [inspect.signature(overload).parameters for overload in get_overloads(Classifier.predict)]
    returns = [inspect.signature(overload).return_annotation for overload in get_overloads(Classifier.predict)]
    answers = {(s["images"].annotation, s["top_k"].annotation): r for s, r in zip(signatures, returns, strict=True)}
    assert answers == {
        ("Image.Image", "None"): "str",
        ("Image.Image", "int"): "list[Prediction]",
        ("ImageLike", "None"): "str | list[str]",
        ("ImageLike", "int"): "list[Prediction] | list[list[Prediction]]",
        ("Iterable[ImageLike]", "None"): "list[str]",
        ("Iterable[ImageLike]", "int"): "list[list[Prediction]]",
    }


def test_one_image_gives_one_answer_and_several_a_list(classifier: Classifier, folder: Path) -> None:
    array = np.asarray(scene(1))
    for one in (scene(1), array, folder / "a.png", str(folder / "a.png"), torch.tensor(array).permute(2, 0, 1)):
        assert isinstance(classifier.predict(one), str)
        assert [type(p).__name__ for p in classifier.predict(one, top_k=1)] == ["Prediction"]
    for several in ([scene(1)], (scene(1),), iter([scene(1)]), array[None], np.array([str(folder / "a.png")])):
        assert [type(answer) for answer in classifier.predict(several)] == [str]
    assert [len(top) for top in classifier.predict([scene(1)], top_k=2)] == [2]
    assert len(classifier.predict(folder)) == len(gopro.find_images(folder))


def test_a_classifier_prints_what_it_is(classifier: Classifier) -> None:
    assert repr(classifier) == (
        "<gopro.Classifier: GOPro on tiny, made without a run, 4 classes: red fox, snowy owl, a boat on a lake, teapot>"
    )
    assert "<gopro.Classifier" in str(classifier)


def test_a_classifier_is_evaluated_on_a_folder_over_its_own_classes(tiny: Backbone, tmp_path: Path) -> None:
    classifier = Classifier(build_method("zeroshot", tiny, ["teapot", "red fox"], "a photo of a {}."))
    for name in ("red_fox", "teapot", "gnat"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(3):
            scene(i + 7 * len(name)).save(tmp_path / "mine" / name / f"{i}.png")
    with pytest.warns(UserWarning, match=r"images of classes that are not to choose from are left out: gnat \(3\)"):
        evaluation = classifier.evaluate(tmp_path / "mine")
    predicted = classifier.predict([tmp_path / "mine" / "teapot", tmp_path / "mine" / "red_fox"])
    right = [a == b for a, b in zip(predicted, ["teapot"] * 3 + ["red fox"] * 3, strict=True)]
    assert evaluation.accuracy == pytest.approx(100 * sum(right) / 6) and evaluation.n == 6
    assert repr(evaluation).startswith("Evaluation(accuracy=") and "tensor" not in repr(evaluation)
    assert not (tmp_path / "mine" / "split_gopro.json").exists()
    with pytest.raises(InputError, match="none of its classes"):
        classifier.for_classes(["a", "b"]).evaluate(tmp_path / "mine")
    with pytest.raises(InputError, match="no data to evaluate on"):
        classifier.evaluate()
