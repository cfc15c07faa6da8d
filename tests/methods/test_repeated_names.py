"""Two classes of one name: the n-th class of a name is the n-th trained class of that name."""

import pytest
import torch
import torch.nn.functional as F
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

from gopro.clip.backbone import Backbone, Encoded
from gopro.errors import InputError
from gopro.methods.base import Method, check_repeated
from gopro.methods.gopro import GOPro
from gopro.methods.linear_probe import LinearProbe
from gopro.methods.mmrl import MMRL
from gopro.methods.recipe import Training
from gopro.methods.registry import METHODS, build_method
from tests.support.methods import TEMPLATE, encode_noise, perturb

NAMES = ["owl", "crane", "dog", "crane", "red fox"]
OTHER_ORDER = ["crane", "red fox", "crane", "owl", "dog"]
ROWS = [1, 4, 3, 0, 2]
"""The trained classes that `OTHER_ORDER` means."""

CLASS_BY_CLASS = ["tip-adapter", "tip-adapter-f", "linear-probe", "coop[csc=true,tokens=2]"]
"""Methods that learn something for each class, so that they can tell two classes of one name apart."""


def clusters(dim: int, count: int, seed: int) -> tuple[Encoded, Tensor]:
    """Return images [count] of five classes that are easy to tell apart, and their labels."""
    centres = torch.eye(dim)[:5]
    labels = torch.arange(count) % 5
    noise = 0.05 * torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return Encoded(F.normalize(centres[labels] + noise, dim=-1), torch.zeros(count, 0), torch.zeros(count, 0)), labels


def learned(spec: str, tiny: Backbone) -> Method:
    """Return a method over `NAMES` that has learned something."""
    method = build_method(spec, tiny, NAMES, TEMPLATE)
    if Training.CLOSED_FORM not in method.trained_by:
        return perturb(method)
    images, labels = clusters(tiny.embed_dim, 20, seed=1)
    method.solve(lambda count: [images] * max(1, count), labels)
    return method.eval()


@pytest.mark.parametrize("spec", [*METHODS, "coop[csc=true,tokens=2]", "gopro[projectors=inside]"])
def test_columns_stay_apart_under_the_same_names_and_in_another_order(spec: str, tiny: Backbone) -> None:
    method = learned(spec, tiny)
    images = encode_noise(method, 4)
    logits = method.logits(images)
    assert logits.shape == (4, 5) and method.trained_rows(OTHER_ORDER) == ROWS
    torch.testing.assert_close(method.for_classes(NAMES).logits(images), logits, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(method.for_classes(OTHER_ORDER).logits(images), logits[:, ROWS], atol=1e-4, rtol=1e-5)
    back = method.for_classes(["dog", "crane"]).for_classes(NAMES)
    torch.testing.assert_close(back.logits(images), logits, atol=1e-4, rtol=1e-5)
    differ = (logits[:, 1] - logits[:, 3]).abs().max() > 1e-3
    assert differ == (spec in CLASS_BY_CLASS)
    if isinstance(method, MMRL):
        assert method.for_classes(OTHER_ORDER).fused and not method.for_classes([*NAMES, "crane"]).fused


@pytest.mark.parametrize("spec", ["tip-adapter", "tip-adapter-f", "linear-probe"])
def test_no_image_of_either_class_is_lost(spec: str, tiny: Backbone) -> None:
    method = learned(f"{spec}[alpha=20]" if spec.startswith("tip") else spec, tiny)
    images, labels = clusters(tiny.embed_dim, 100, seed=2)
    for names, rows in ((NAMES, [0, 1, 2, 3, 4]), (OTHER_ORDER, ROWS)):
        predicted = torch.tensor(rows)[method.for_classes(names).logits(images).argmax(dim=-1)]
        assert (predicted == labels).all()


def test_a_further_class_of_a_name_was_not_trained_on(tiny: Backbone) -> None:
    images = encode_noise(tiny, 4)
    tip = learned("tip-adapter", tiny).for_classes([*NAMES, "crane"])
    zeroshot = build_method("zeroshot", tiny, ["crane"], TEMPLATE).logits(images)[:, 0]
    torch.testing.assert_close(tip.logits(images)[:, 5], zeroshot)
    assert (tip.logits(images)[:, 3] - zeroshot).abs().max() > 0.01
    for spec in ("linear-probe", "coop[csc=true]"):
        with pytest.raises(InputError, match="class 'crane' was not trained on 3 times"):
            learned(spec, tiny).for_classes([*NAMES, "crane"])
        with pytest.raises(InputError, match="class 'lamp' was not trained on:"):
            learned(spec, tiny).for_classes(["crane", "lamp"])


def test_a_name_is_refused_that_is_given_more_often_than_it_was_trained_on() -> None:
    check_repeated(OTHER_ORDER, NAMES)
    check_repeated(["lamp"], NAMES)
    for names, words in {
        ("owl", "owl"): "'owl' is given twice: give it once",
        ("lamp", "lamp"): "'lamp' is given twice: give it once",
        ("lamp", "Lamp"): "'lamp' is given twice, also as 'Lamp': give it once",
        ("crane", "crane", "crane"): "'crane' is given 3 times: give it at most 2 times",
    }.items():
        with pytest.raises(InputError, match=words):
            check_repeated(names, NAMES)


def test_gopro_has_a_mean_for_each_class(tiny: Backbone) -> None:
    method = build_method("gopro", tiny, NAMES, TEMPLATE)
    images = encode_noise(tiny, 5)
    method.solve(lambda count: [images], torch.arange(5))
    assert isinstance(method, GOPro)
    torch.testing.assert_close(method.training_means.means, images.embedding)


@pytest.mark.parametrize("spec", ["tip-adapter[alpha=1000]", "linear-probe", "coop[csc=true,tokens=2]", "mmrl"])
def test_imagenets_own_names(spec: str, tiny: Backbone) -> None:
    """CLIP's names of ImageNet's classes have `missile` and `sunglasses` twice."""
    names = list(IMAGENET_CLASSNAMES)
    twice = sorted({name for name in names if names.count(name) > 1})
    assert twice == ["missile", "sunglasses"]
    pairs = [[i for i, name in enumerate(names) if name == two] for two in twice]
    method = perturb(build_method(spec, tiny, names, TEMPLATE))
    images = encode_noise(method, 3)
    if spec.startswith("tip"):
        keys = F.normalize(torch.randn(1000, tiny.embed_dim, generator=torch.Generator().manual_seed(1)), dim=-1)
        images = Encoded(keys, torch.zeros(1000, 0), torch.zeros(1000, 0))
        method.solve(lambda count: [images] * max(1, count), torch.arange(1000))
        assert (method.for_classes(names).logits(images).argmax(dim=-1) == torch.arange(1000)).all()
    with torch.no_grad():
        logits = method.logits(images)
        torch.testing.assert_close(method.for_classes(names).logits(images), logits)
        order = torch.randperm(1000, generator=torch.Generator().manual_seed(2)).tolist()
        for pair in pairs:  # keep the two classes of a name in their order, as nothing else tells which is which
            first, second = sorted(order.index(i) for i in pair)
            order[first], order[second] = pair
        permuted = method.for_classes([names[i] for i in order]).logits(images)
    torch.testing.assert_close(permuted, logits[:, order], atol=1e-4, rtol=1e-5)
    if not isinstance(method, MMRL):
        assert all((logits[:, a] - logits[:, b]).abs().max() > 0.1 for a, b in pairs)
    if isinstance(method, LinearProbe):
        assert method.for_classes(twice).rows == [pair[0] for pair in pairs]
