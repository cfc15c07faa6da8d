"""Give every noun of WordNet a place among the images of an ImageNet classifier.

A classifier of ImageNet holds one vector of image features for each of 1000 synsets: an image-text model without
captions. `ImageSpace` reads a joint space from it, `NounTargets` carries the targets of the classes over to all other
nouns by the meaning of their definitions. A text tower then learns name -> target (tools.pretrain_photo).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tools.wordnet import WordNet

DIMENSIONS = 255
"""Of the image features that are kept; 192 to 512 differ by half a point of zero-shot accuracy."""
SHARPNESS, RIDGE = 4.0, 0.03
"""Of the kernel exp(SHARPNESS (cos - 1)) of two definitions, and of the regression."""
CLOTHING, PERSON, BODY_PART = "n03051540", "n00007846", "n05220461"
PEOPLE_BY_CLOTHES = 0.5
"""Weight of clothes in the targets of people: ImageNet has nearly no class of people but many of what they wear."""


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@dataclass(frozen=True)
class ImageSpace:
    """The joint space: unit vectors of `DIMENSIONS` + 1.

    The last coordinate is 0 for every image, and is where texts point that name nothing visible: their cosine with
    every image is near 0, so that they are confident of nothing.

    Attributes:
        weight: [DIMENSIONS + 1, features] and
        bias: [DIMENSIONS + 1], the image tower's projection.
        classes: [1000, DIMENSIONS + 1], targets of ImageNet's classes.
    """

    weight: np.ndarray
    bias: np.ndarray
    classes: np.ndarray

    @classmethod
    def of_classifier(cls, classifier: np.ndarray, mean: np.ndarray, dimensions: int = DIMENSIONS) -> ImageSpace:
        """Take the leading right singular vectors of a classifier's centred weight.

        Args:
            classifier: [1000, features], a row per class.
            mean: [features], mean image features.
        """
        centred = classifier - classifier.mean(axis=0)
        _, _, directions = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
        weight = np.concatenate([directions[:dimensions], np.zeros((1, len(mean)))])
        return cls(weight, -weight @ mean.astype(np.float64), unit(centred @ weight.T))

    def images(self, features: np.ndarray) -> np.ndarray:
        """Return unit vectors, [n, DIMENSIONS + 1], of image features [n, features]."""
        return unit(features @ self.weight.T + self.bias)

    @property
    def nothing(self) -> np.ndarray:
        """The target of texts that name nothing visible, [DIMENSIONS + 1]."""
        return np.eye(self.weight.shape[0])[-1]


class NounTargets:
    """Targets of synsets.

    The class of a synset is given by the classifier. A synset above classes has the mean of those below it. From these
    synsets all others follow by kernel ridge regression on sentence vectors of their definitions.

    Args:
        wordnet: the nouns.
        vectors: unit vector of each synset's `description`.
        classes: ids of ImageNet's classes in the order of the rows of `targets`.
        targets: [1000, d].
    """

    def __init__(
        self, wordnet: WordNet, vectors: dict[str, np.ndarray], classes: Sequence[str], targets: np.ndarray
    ) -> None:
        self.vectors = vectors
        rows = {id: row for row, id in enumerate(classes)}
        below = {id: [rows[c] for c in wordnet.below([id]) if c in rows] for id in wordnet.above(classes)}
        self.known = [id for id in below if id in wordnet.physical]
        means = unit(
            np.stack([targets[rows[id]] if id in rows else targets[below[id]].mean(axis=0) for id in self.known])
        )
        known = np.stack([vectors[id] for id in self.known]).astype(np.float64)
        kernel = np.exp(SHARPNESS * (known @ known.T - 1)) + RIDGE * np.eye(len(known))
        inverse = np.linalg.inv(kernel)
        self._sentences, self._coefficients = known, inverse @ means
        # What the regression would say without the synset itself, in closed form.
        left_out = means - self._coefficients / np.diag(inverse)[:, None]
        # ImageNet samples what is below a synset unevenly (one breed of horse, 118 of dogs); its definition does not.
        blend = unit(means + unit(left_out))
        is_class = np.array([id in rows for id in self.known])
        self._of_known = dict(zip(self.known, np.where(is_class[:, None], means, blend), strict=True))
        clothes = [rows[c] for c in wordnet.below([CLOTHING]) if c in rows]
        self._clothes = unit(targets[clothes].mean(axis=0))
        self._people = wordnet.below([PERSON, BODY_PART])
        self._centre = self._predict([id for id in wordnet.synsets if id in wordnet.physical]).mean(axis=0)

    def __call__(self, ids: Sequence[str]) -> np.ndarray:
        """Return the unit targets of synsets, [n, d]."""
        targets = self._predict(ids)
        for row, id in enumerate(ids):
            if id in self._of_known:
                targets[row] = self._of_known[id]
            if id in self._people:
                targets[row] = unit((1 - PEOPLE_BY_CLOTHES) * targets[row] + PEOPLE_BY_CLOTHES * self._clothes)
        # What all predictions have in common draws images to the names of which little is known.
        return unit(targets - self._centre)

    def _predict(self, ids: Sequence[str]) -> np.ndarray:
        """Return the unit predictions of the regression, [n, d]."""
        vectors = np.stack([self.vectors[id] for id in ids]).astype(np.float64)
        return unit(np.exp(SHARPNESS * (vectors @ self._sentences.T - 1)) @ self._coefficients)
