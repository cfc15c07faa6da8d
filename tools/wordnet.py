"""WordNet's nouns, read from its database files (format: wndb(5WN) of WordNet 3.0)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FOLDER = Path("/usr/share/wordnet")  # of Debian's package wordnet-base
HYPERNYM, INSTANCE = "@", "@i"
NOUN_FILES = ("data.noun", "index.noun", "noun.exc", "cntlist.rev")


@dataclass(frozen=True)
class Synset:
    """One sense with all its names.

    Attributes:
        id: "n" and the eight digits of its offset, as ImageNet writes it.
        names: with spaces.
        above: ids of its hypernyms.
        gloss: its definition, without examples.
        instance: whether it is a single thing, such as a person or a city.
    """

    id: str
    names: tuple[str, ...]
    above: tuple[str, ...]
    gloss: str
    instance: bool


class WordNet:
    """The nouns of WordNet.

    Attributes:
        synsets: by id, in the order of the file.
        senses: ids by lower-case name, the most frequent sense first.
        counts: occurrences in the tagged corpora by (name, id); absent if none.
        plurals: irregular plurals by their singulars.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        for name in NOUN_FILES:
            if not (folder / name).is_file():
                raise SystemExit(
                    f"{folder / name} is missing: install Debian's package wordnet-base, or name its folder"
                )
        self.synsets = {synset.id: synset for synset in _read_data(folder / "data.noun")}
        self.senses = dict(_read_index(folder / "index.noun"))
        self.counts = Counter(dict(_read_counts(folder / "cntlist.rev", self.senses)))
        self.plurals = dict(_read_plurals(folder / "noun.exc"))
        self._below: dict[str, list[str]] = defaultdict(list)
        for synset in self.synsets.values():
            for parent in synset.above:
                self._below[parent].append(synset.id)

    def below(self, roots: Iterable[str]) -> set[str]:
        """Return the synsets that are one of `roots` or below one."""
        return _closure(roots, self._below)

    def above(self, roots: Iterable[str]) -> set[str]:
        """Return the synsets that are one of `roots` or above one."""
        return _closure(roots, {id: synset.above for id, synset in self.synsets.items()})

    def chain(self, id: str) -> list[Synset]:
        """Return the first hypernym of a synset, the first of that, and so on up to the root."""
        found = []
        while self.synsets[id].above:
            id = self.synsets[id].above[0]
            found.append(self.synsets[id])
        return found

    @cached_property
    def physical(self) -> set[str]:
        """The synsets below "physical entity"."""
        return self.below([self.senses["physical entity"][0]])


def _closure(roots: Iterable[str], next_of: dict) -> set[str]:
    found, waiting = set(), list(roots)
    while waiting:
        id = waiting.pop()
        if id not in found:
            found.add(id)
            waiting.extend(next_of.get(id, ()))
    return found


def _lines(file: Path) -> Iterator[str]:
    """Yield the lines after the licence, whose lines start with two spaces."""
    with file.open(encoding="utf-8") as lines:
        yield from (line.rstrip() for line in lines if not line.startswith("  "))


def _read_data(file: Path) -> Iterator[Synset]:
    for line in _lines(file):
        head, _, gloss = line.partition(" | ")
        fields = head.split()
        count = int(fields[3], 16)
        names = tuple(fields[4 + 2 * i].replace("_", " ") for i in range(count))
        pointers = fields[5 + 2 * count :]
        above = tuple(
            f"n{to}" for kind, to in zip(pointers[::4], pointers[1::4], strict=False) if kind in (HYPERNYM, INSTANCE)
        )
        yield Synset(f"n{fields[0]}", names, above, gloss.split('; "')[0].strip(), INSTANCE in pointers[::4])


def _read_index(file: Path) -> Iterator[tuple[str, list[str]]]:
    for line in _lines(file):
        fields = line.split()
        count = int(fields[2])
        yield fields[0].replace("_", " "), [f"n{offset}" for offset in fields[-count:]]


def _read_counts(file: Path, senses: dict[str, list[str]]) -> Iterator[tuple[tuple[str, str], int]]:
    for line in _lines(file):
        key, number, count = line.split()
        name, _, kind = key.partition("%")
        name = name.replace("_", " ")
        # "1:" marks nouns. The counts are of an older edition, with a few other spellings and senses.
        if kind.startswith("1:") and int(number) <= len(senses.get(name, ())):
            yield (name, senses[name][int(number) - 1]), int(count)


def _read_plurals(file: Path) -> Iterator[tuple[str, str]]:
    for line in _lines(file):
        plural, singular, *_ = line.split()
        yield singular.replace("_", " "), plural.replace("_", " ")
