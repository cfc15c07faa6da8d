"""The means of the trained classes: distances in units of what images of a class have, and names that are hubs."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from gopro.methods.parts.class_means import ClassMeans

CLASSES, DIM = 5, 64


def around(centres: Tensor, each: int, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return unit vectors around each centre, and the index of the centre."""
    noise = torch.randn(each, *centres.shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(centres + spread * noise, dim=-1).flatten(0, 1), torch.arange(len(centres)).repeat(each)


def unit(count: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)), dim=-1)


def fitted(each: int, *, add: Tensor | None = None, size: float = 1.0) -> ClassMeans:
    """Fit the means of clusters; with `add`, of vectors that have it in common, in two further dimensions."""
    images, labels = around(unit(CLASSES, seed=0), each, 0.05, seed=1)
    means = ClassMeans(CLASSES, DIM if add is None else DIM + len(add))
    means.fit(in_cone(images, add, size), labels, in_cone(unit(CLASSES, seed=4), add, size), scale=10.0 / size**2)
    return means


def in_cone(features: Tensor, add: Tensor | None, size: float) -> Tensor:
    """Make features smaller and append a common vector."""
    return features if add is None else torch.cat([size * features, add.expand(len(features), -1)], dim=-1)


@pytest.mark.parametrize("each", [2, 4, 40])
def test_the_mean_distance_of_further_images_is_1_and_grows_with_their_spread(each: int) -> None:
    means, centres = fitted(each), unit(CLASSES, seed=0)
    mean = means.distance(around(centres, 200, 0.05, seed=2)[0]).mean()
    assert mean == pytest.approx(1, abs=0.1)
    distances = [means.distance(around(centres, 40, spread, seed=3)[0]).mean() for spread in (0.02, 0.05, 0.1, 0.2)]
    assert distances == sorted(distances) and distances[-1] > 3
    assert means.distance(unit(100, seed=8)).min() > 3


def test_one_image_per_class_tells_classes_apart_too() -> None:
    images, labels = unit(CLASSES, seed=0), torch.arange(CLASSES)
    means = ClassMeans(CLASSES, DIM)
    means.fit(images, labels, unit(CLASSES, seed=4), 10.0)
    assert means.distance(images).max() < 1e-3
    assert means.distance(-images).min() > 1.3


def test_distance_and_closeness_against_plain_sums() -> None:
    images, labels = around(unit(CLASSES, seed=0), 4, 0.05, seed=1)
    text, means = unit(CLASSES, seed=4), fitted(4)
    by_hand = torch.stack([images[labels == c].mean(dim=0) for c in range(CLASSES)])
    variance = torch.stack([images[labels == c].var(dim=0).sum() for c in range(CLASSES)]).mean()
    x, names = unit(3, seed=5), unit(3, seed=6)
    nearest = torch.stack([(x - mean).square().sum(dim=-1) for mean in by_hand]).amin(dim=0)
    torch.testing.assert_close(means.distance(x), nearest / (variance * 1.25))
    others = [[10 * float(text[c] @ by_hand[i]) for i in range(CLASSES) if i != c] for c in range(CLASSES)]
    usual = torch.tensor(others).exp().mean(dim=-1).log().mean()
    expected = (10 * names @ by_hand.T).exp().mean(dim=-1).log() - usual
    torch.testing.assert_close(means.closeness(names, 10.0), expected)


def test_a_name_near_all_images_is_closer_than_one_near_none() -> None:
    means = fitted(4)
    hub = F.normalize(means.means.sum(dim=0, keepdim=True), dim=-1)
    near, far = means.closeness(torch.cat([hub, -hub]), 10.0)
    assert near > 1 and far < 0


def test_a_vector_common_to_all_features_changes_nothing() -> None:
    """CLIP's features lie in a cone: they have a long common part, and the differences between them are small."""
    add, size = torch.tensor([0.6, 0.5]), 0.4
    plain, cone = fitted(4), fitted(4, add=add, size=size)
    x, names = unit(20, seed=5), unit(20, seed=6)
    torch.testing.assert_close(cone.distance(in_cone(x, add, size)), plain.distance(x), atol=1e-3, rtol=1e-3)
    closeness = cone.closeness(in_cone(names, add, size), 10.0 / size**2)
    torch.testing.assert_close(closeness, plain.closeness(names, 10.0), atol=1e-3, rtol=1e-3)


def test_before_the_fit_no_image_is_far_and_no_name_is_close() -> None:
    means = ClassMeans(CLASSES, DIM)
    assert not means.distance(unit(4, seed=0)).any() and not means.closeness(unit(4, seed=1), 10.0).any()


def test_the_state_brings_its_number_of_classes_along() -> None:
    means, other = fitted(4), ClassMeans(2, DIM)
    other.load_state_dict(means.state_dict())
    torch.testing.assert_close(other.distance(unit(4, seed=5)), means.distance(unit(4, seed=5)))


def test_images_without_labels_are_no_longer_far(tmp_path: Path) -> None:
    """They add the mean of each name that takes an image or more; the distance of trained classes stays."""
    images, labels = around(unit(4, 1), 8, 0.03, seed=2)
    known = labels < 2
    means = ClassMeans(2, DIM)
    means.fit(images[known], labels[known], unit(4, 1)[:2], 1.0)
    before = means.distance(images)
    probabilities = F.pad(F.one_hot(labels[~known] - 2) * 0.95, (1, 1), value=0.025)  # two names with 0.4 images each
    means.add(images[~known], probabilities)
    assert means.others.shape == (2, DIM)
    torch.testing.assert_close(means.distance(images)[known], before[known])
    assert before[~known].min() > 3 and means.distance(images)[~known].max() < 1.5
    save_file(means.state_dict(), tmp_path / "state")
    loaded = ClassMeans(2, DIM)
    loaded.load_state_dict(load_file(tmp_path / "state"))
    torch.testing.assert_close(loaded.distance(images), means.distance(images))


def test_a_state_from_before_there_were_such_images_loads() -> None:
    means = ClassMeans(2, DIM)
    state = {name: tensor for name, tensor in means.state_dict().items() if name != "others"}
    means.load_state_dict(state)
    assert means.others.shape == (0, DIM)
