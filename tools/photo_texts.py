"""Texts for the text tower of the CLIP for photographs: names of nouns in templates, with their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from open_clip import OPENAI_IMAGENET_TEMPLATES

from tools.photo_targets import NounTargets, unit
from tools.wordnet import Synset, WordNet

TEMPLATE = "a photo of a {}."
NAME_ONLY = ("{}", "{}.", "a {}", "a {}.", "the {}", "the {}.", "an image of a {}.", "this is a {}.")
OTHERS = (
    "a picture of a {}.", "an image of {}.", "a photo of {}.", "a photograph of a {}.", "a close-up of a {}.",
    "a snapshot of the {}.", "a {} in the wild.", "a view of a {}.", "an illustration of a {}.", "a sketch of a {}.",
    "a painting of a {}, a work of art.", "a quickdraw of a {}.", "a clipart of a {}.", "an oil painting of a {}.",
    "a photo of a {}, a type of animal.", "a photo of a {}, a type of food.", "a photo of a {}, a type of object.",
    "a photo of a {}, a type of pet.", "a photo of a {}, a type of flower.", "a photo of a {}, a type of aircraft.",
    "{} texture.", "a photo of a person doing {}.", "a centered satellite photo of {}.",
)  # fmt: skip
PARTS = ("head", "face", "body", "front", "side", "back", "close-up", "toy", "statue", "model")
MODIFIERS = (
    "big", "small", "old", "new", "red", "black", "white", "blue", "green", "brown", "yellow", "grey", "wooden",
    "young", "beautiful", "common", "vintage", "modern", "my", "two", "wild", "broken", "striped", "empty",
)  # fmt: skip
KINDS = ("class", "noun", "variant", "phrase", "other", "nonsense")
SHARES = (0.22, 0.45, 0.15, 0.08, 0.05, 0.05)
ABSTRACT = 0.5
"""Weight of its predicted direction in the target of a noun that names nothing visible; the rest is `nothing`."""


@dataclass(frozen=True)
class Nouns:
    """Names with targets.

    Attributes:
        names: [n].
        glosses: [n], definition of the sense that was chosen for each name.
        above: [n], name of a hypernym of that sense.
        plurals: [n].
        weights: [n], how often each is drawn, in relation to others of its kind.
        is_class, is_visible: [n], one of ImageNet's names; a physical thing.
        targets: [n, d].
    """

    names: np.ndarray
    glosses: np.ndarray
    above: np.ndarray
    plurals: np.ndarray
    weights: np.ndarray
    is_class: np.ndarray
    is_visible: np.ndarray
    targets: np.ndarray


def choose_sense(wordnet: WordNet, name: str, known: set[str]) -> str:
    """Return the sense of a name that a photograph shows.

    Where ImageNet has a sense, or one below it, that is meant ("crane" may be the bird). Else it is the most frequent
    sense if that is a physical thing; else a physical sense that occurs in the tagged texts ("pitcher"), if any.
    """
    senses = wordnet.senses[name]
    for sense in senses:
        if sense in known:
            return sense
    if senses[0] in wordnet.physical:
        return senses[0]
    return next((s for s in senses if s in wordnet.physical and wordnet.counts[name, s]), senses[0])


def describe(wordnet: WordNet, synset: Synset) -> str:
    """Return the sentence of which the vector stands for a synset: its names, hypernyms and gloss."""
    above = [parent.names[0] for parent in wordnet.chain(synset.id)[:3]]
    return f"{', '.join(synset.names[:3])}, a kind of {', '.join(above)}: {synset.gloss}"


def all_nouns(wordnet: WordNet, targets: NounTargets, classes: Sequence[str], nothing: np.ndarray) -> Nouns:
    """Return the names of WordNet's nouns without those of single persons and places."""
    known, classes_ = set(targets.known), set(classes)
    names, senses = [], []
    for name in wordnet.senses:
        sense = choose_sense(wordnet, name, known)
        if not wordnet.synsets[sense].instance and any(letter.isalpha() for letter in name):
            names.append(name)
            senses.append(sense)
    found = targets(senses)
    visible = np.array([sense in wordnet.physical for sense in senses])
    found[~visible] = unit(ABSTRACT * found[~visible] + (1 - ABSTRACT) * nothing)
    counts = np.array([wordnet.counts[name, sense] for name, sense in zip(names, senses, strict=True)])
    in_imagenet = np.array([sense in known for sense in senses])
    synsets = [wordnet.synsets[sense] for sense in senses]
    # Names with a capital are mostly scientific ones.
    proper = [name not in synset.names for name, synset in zip(names, synsets, strict=True)]
    return Nouns(
        np.array(names),
        np.array([synset.gloss for synset in synsets]),
        np.array([wordnet.synsets[synset.above[0]].names[0] if synset.above else "" for synset in synsets]),
        np.array([wordnet.plurals.get(name) or plural(name) for name in names]),
        np.sqrt(1 + counts) * np.where(in_imagenet, 3.0, 1.0) * np.where(proper, 0.3, 1.0),
        np.array([sense in classes_ for sense in senses]),
        visible,
        found.astype(np.float16),
    )


def plural(name: str) -> str:
    """Return the regular plural.

    Example:
        >>> plural("grand piano"), plural("sea butterfly"), plural("box")
        ('grand pianos', 'sea butterflies', 'boxes')
    """
    if name.endswith(("s", "x", "z", "ch", "sh")):
        return name + "es"
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


class Batches:
    """Batches of texts by number: ([n] str, targets [n, d]). One depends on the seed and its number alone."""

    def __init__(self, nouns: Nouns, nothing: np.ndarray, seed: int, size: int) -> None:
        self.nouns, self.nothing, self.seed, self.size = nouns, nothing, seed, size
        masks = {
            "class": nouns.is_class,
            "noun": nouns.is_visible,
            "variant": nouns.is_visible,
            "phrase": nouns.is_visible,
            "other": ~nouns.is_visible,
        }
        self._draws = {}
        for kind, mask in masks.items():
            rows = np.flatnonzero(mask)
            # Glosses, and the names of classes, are drawn evenly.
            weights = np.ones(len(rows)) if kind in ("class", "phrase") else nouns.weights[rows]
            self._draws[kind] = rows, np.cumsum(weights / weights.sum())

    def __getitem__(self, number: int) -> tuple[list[str], np.ndarray]:
        rng = np.random.default_rng([self.seed, number])
        texts, targets = [], np.empty((self.size, len(self.nothing)), np.float32)
        for i, kind in enumerate(rng.choice(KINDS, self.size, p=SHARES).tolist()):
            if kind == "nonsense":
                text, target = nonsense(rng), self.nothing
            else:
                rows, ends = self._draws[kind]
                row = rows[min(np.searchsorted(ends, rng.random()), len(rows) - 1)]
                text, target = self._text(kind, row, rng), self.nouns.targets[row]
            texts.append(text)
            targets[i] = target
        return texts, targets

    def _text(self, kind: str, row: int, rng: np.random.Generator) -> str:
        nouns = self.nouns
        name = str(nouns.names[row])
        if kind == "phrase":
            forms = (f"{name}: {nouns.glosses[row]}", str(nouns.glosses[row]), f"{name}, a kind of {nouns.above[row]}")
            return " ".join(forms[rng.integers(3)].split()[:24])
        if kind == "variant":
            form = rng.integers(5)
            if form == 0:
                name = str(nouns.plurals[row])
            elif form == 1:
                name = f"{name} {PARTS[rng.integers(len(PARTS))]}"
            elif form == 2:
                name = name.replace(" ", "_" if rng.random() < 0.5 else "-")
            elif form == 3 and nouns.above[row]:
                name = f"{name} {nouns.above[row]}"
            else:
                name = f"{MODIFIERS[rng.integers(len(MODIFIERS))]} {name}"
        return fill_template(name, rng)


def fill_template(name: str, rng: np.random.Generator) -> str:
    """Put a name into the main template, into one that adds next to nothing, or into one of a hundred others."""
    u = rng.random()
    if u < 0.3:
        return TEMPLATE.format(name)
    if u < 0.6:
        return NAME_ONLY[rng.integers(len(NAME_ONLY))].format(name)
    number = rng.integers(len(OPENAI_IMAGENET_TEMPLATES) + len(OTHERS))
    if number < len(OPENAI_IMAGENET_TEMPLATES):
        return OPENAI_IMAGENET_TEMPLATES[number](name)
    return OTHERS[number - len(OPENAI_IMAGENET_TEMPLATES)].format(name)


def nonsense(rng: np.random.Generator) -> str:
    """Return random letters, syllables or digits, one to three words of them."""
    words = []
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(3)
        if kind == 0:
            words.append("".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(3, 9))))
        elif kind == 1:
            pairs = zip(rng.choice(list("bcdfghjklmnprstvwxz"), 3), rng.choice(list("aeiouy"), 3), strict=True)
            words.append("".join(a + b for a, b in pairs)[: rng.integers(3, 7)])
        else:
            words.append(str(rng.integers(10, 10**5)))
    return fill_template(" ".join(words), rng)
