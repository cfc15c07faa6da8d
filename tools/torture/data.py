"""Images and kept features that change while they are worked on: an image that vanishes, is replaced, damaged or
made unreadable at a random moment of training, of filling the view bank and of prediction; a feature store with bits
turned over, cut, of another version or with NaN in it; a disk that does not answer. Each must be named, and what is
computed afterwards must be what it would have been."""

from __future__ import annotations

import os
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import gopro.training.batches
from gopro.clip.backbone import Backbone, load_backbone
from gopro.clip.feature_store import FeatureStore
from gopro.clip.features import ViewRequest, encode_views
from gopro.data import open_guarded as open_guarded
from gopro.data.image_file import ImageFile
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.inference.classifier import Classifier, Prediction
from gopro.inference.evaluate import encode_samples
from gopro.runs.config import TrainConfig
from gopro.runs.run import LEARNED
from gopro.training.train import resume, train
from tools.torture.rows import Row

SEED = 3
CLASSES, EACH = 3, 8


def run(work: Path, times: int | None) -> Iterator[Row]:
    """See the module."""
    os.environ["GOPRO_CACHE"] = str(work / "cache")
    warnings.simplefilter("ignore")
    data, backbone = images(work / "images"), load_backbone()
    draw, count = random.Random(SEED), times or 5
    yield from (training(work, data, backbone, harm, draw, count) for harm in HARMS)
    yield exchanging(work, data, backbone, draw, count)
    yield from (filling(work, data, backbone, harm, draw, count) for harm in HARMS)
    yield from (predicting(data, backbone, harm, draw, count) for harm in HARMS)
    yield from stores(work, data, backbone, draw, times or 20)
    yield stalled(data, backbone, times or 3)


def images(folder: Path) -> Path:
    """A data set of one's own, split once."""
    draw = np.random.default_rng(SEED)
    for c in range(CLASSES):
        (folder / f"class {c}").mkdir(parents=True)
        for i in range(EACH):
            noise = draw.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((80, 70)).save(folder / f"class {c}" / f"{i}.png")
    load_dataset(str(folder))
    return folder


def gone(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    Image.new("RGB", (80, 70), "red").save(path)


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


HARMS: tuple[Callable[[Path], None], ...] = (gone, replaced, damaged, emptied, piped)


@contextmanager
def harmed(path: Path) -> Iterator[None]:
    """Puts the image back afterwards."""
    before = path.read_bytes()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(before)


@dataclass
class Later:
    """Does harm to a file as soon as so many views are done."""

    harm: Callable[[Path], None]
    path: Path
    left: int

    def __call__(self, done: int) -> None:
        before, self.left = self.left, self.left - done
        if before > 0 >= self.left:
            self.harm(self.path)


@dataclass
class Tally:
    tried: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, fault: str | None) -> None:
        self.tried += 1
        self.faults += [] if fault is None else [fault]

    def row(self, what: str, note: str = "") -> Row:
        return Row(
            what, self.tried, self.tried - len(self.faults), "; ".join([*([note] if note else []), *self.faults])
        )


def named(what: Callable[[], Any], path: Path) -> str | None:
    """Why what was done did not end with one line that names the image, if it did not."""
    try:
        what()
    except InputError as error:
        return None if path.name in str(error) and "\n" not in str(error) else f"it said {error}"
    except BaseException as error:
        return f"it raised {error!r}"
    return "nothing was noticed"


def training(work: Path, data: Path, backbone: Backbone, harm: Callable, draw: random.Random, count: int) -> Row:
    """Where no image has room in memory, each is opened again in every epoch."""
    tally = Tally()
    common: dict[str, Any] = {"data": str(data), "method": "coop", "shots": 4, "epochs": 4, "batch": 3, "workers": 0}
    kept, gopro.training.batches.in_memory = gopro.training.batches.in_memory, partial(in_memory, budget=0)  # pyright: ignore
    try:
        whole = work / "whole"
        if not whole.exists():
            train(TrainConfig(**common, output=whole), backbone=backbone)
        samples = load_dataset(str(data)).few_shot(4, 1).train
        for _ in range(count):
            cut, at = _fresh(work / "cut"), draw.randint(1, 11)
            image: Any = draw.choice(samples).image
            path = image.path

            def on_step(step: Any, at: int = at, path: Path = path) -> None:
                if step.step == at:
                    harm(path)

            with harmed(path):
                config = TrainConfig(**common, output=cut)
                fault = named(
                    lambda config=config, on_step=on_step: train(config, backbone=backbone, on_step=on_step), path
                )
            if fault is None and (cut / LEARNED).exists():
                fault = "a run that was stopped looks finished"
            if fault is None:
                try:
                    resume(cut, backbone=backbone)
                except InputError:  # it was stopped in its first epoch, after which there is nothing to go on from
                    shutil.rmtree(cut)
                    train(config, backbone=backbone)
                if not _same(load_file(whole / LEARNED), load_file(cut / LEARNED)):
                    fault = "gone on with, it ended as another run"
            tally.add(fault and f"step {at}: {fault}")
    finally:
        gopro.training.batches.in_memory = kept
    return tally.row(f"training, an image {harm.__name__} at a random step, then gone on with")


def exchanging(work: Path, data: Path, backbone: Backbone, draw: random.Random, count: int) -> Row:
    """An image that is another when the run is gone on with, at which nobody had looked in between."""
    tally = Tally()
    common: dict[str, Any] = {"data": str(data), "method": "coop", "shots": 4, "epochs": 4, "batch": 3, "workers": 0}
    train(TrainConfig(**common, output=_fresh(work / "unharmed")), backbone=backbone)
    samples = load_dataset(str(data)).few_shot(4, 1).train
    for _ in range(count):
        cut, at = _fresh(work / "cut"), draw.randint(5, 16)  # in its second epoch or later
        image: Any = draw.choice(samples).image

        def on_step(step: Any, at: int = at) -> None:
            if step.step == at:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            train(TrainConfig(**common, output=cut), backbone=backbone, on_step=on_step)
        with harmed(image.path):
            replaced(image.path)
            fault = named(partial(resume, cut, backbone=backbone), image.path)
        if fault is None:
            resume(cut, backbone=backbone)
            if not _same(load_file(work / "unharmed" / LEARNED), load_file(cut / LEARNED)):
                fault = "gone on with, it ended as another run"
        tally.add(fault and f"step {at}: {fault}")
    return tally.row("a training cut off, an image replaced before it is gone on with")


def filling(work: Path, data: Path, backbone: Backbone, harm: Callable, draw: random.Random, count: int) -> Row:
    """What is kept of images is known by their content; another content must not get under an image's name."""
    tally = Tally()
    wanted = [ViewRequest(s.image, "base", d) for s in load_dataset(str(data)).train for d in range(2)]
    expected = encode_views(FeatureStore(backbone, _fresh(work / "right")), wanted, batch=1)[:]
    for _ in range(count):
        folder, at = _fresh(work / "filled"), draw.randrange(1, len(wanted) // 2)
        image: Any = wanted[draw.randrange(2 * at + 2, len(wanted)) if 2 * at + 2 < len(wanted) else -1].image
        more = Later(harm, image.path, at)
        with harmed(image.path):
            fill = partial(encode_views, FeatureStore(backbone, folder), wanted, batch=1, on_progress=more)
            fault = named(fill, image.path)
        got = encode_views(FeatureStore(backbone, folder), wanted, batch=1)[:]
        if fault is None and not torch.equal(got.rows(), expected.rows()):
            fault = "afterwards other features were kept"
        tally.add(fault and f"after {at}: {fault}")
    return tally.row(f"filling the view bank, an image {harm.__name__} meanwhile, then filled again")


def predicting(data: Path, backbone: Backbone, harm: Callable, draw: random.Random, count: int) -> Row:
    """One answer with the reason, the others as they are."""
    from gopro.methods.registry import build_method

    tally, classifier = Tally(), Classifier(build_method("zeroshot", backbone, ("a", "b", "c"), "a photo of a {}."))
    paths = sorted(map(str, data.rglob("*.png")))
    expected = {a.image: a.predictions for a in classifier.stream(paths, batch=2, workers=1)}
    for _ in range(count):
        at = draw.randrange(len(paths) - 8)
        victim = paths[draw.randrange(at + 7, len(paths))]

        def given(at: int = at, victim: str = victim) -> Iterator[str]:
            for i, path in enumerate(paths):
                if i == at:
                    harm(Path(victim))
                yield path

        with harmed(Path(victim)):
            answers = list(classifier.stream(given(), batch=2, workers=1))
        others = all(_near(a.predictions, expected[a.image]) for a in answers if a.image != victim)
        own = next(a for a in answers if a.image == victim)
        told = own.error is not None and victim in str(own.error)
        if harm is replaced:  # nobody said what it was before
            told = own.error is None and not _near(own.predictions, expected[victim])
        tally.add(None if others and told and len(answers) == len(paths) else f"{victim}: {own.error}")
    return tally.row(f"predicting, an image {harm.__name__} before its turn")


def stores(work: Path, data: Path, backbone: Backbone, draw: random.Random, count: int) -> Iterator[Row]:
    """Features that are not what was written are made anew."""
    wanted = [ViewRequest(s.image, "eval") for s in load_dataset(str(data)).train]
    folder = _fresh(work / "store")
    expected = encode_views(FeatureStore(backbone, folder), wanted, batch=1)[:].rows()
    [path] = folder.rglob("*.safetensors")
    whole = path.read_bytes()
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    body = len(whole) - sum(tensor.nbytes for tensor in tensors.values())

    def flipped() -> bytes:
        bad = bytearray(whole)
        bad[draw.randrange(body, len(bad))] ^= 1 << draw.randrange(8)
        return bytes(bad)

    def with_rows(rows: torch.Tensor, **metadata: str) -> bytes:
        save_file(tensors | {"rows": rows}, work / "made", {**said, **metadata})
        return (work / "made").read_bytes()

    def strange(value: float) -> bytes:
        rows = tensors["rows"].clone()
        rows[draw.randrange(len(rows)), draw.randrange(rows.shape[1])] = value
        return with_rows(rows)

    kinds: dict[str, Callable[[], bytes]] = {
        "a bit turned over": flipped,
        "NaN in it": lambda: strange(float("nan")),
        "infinity in it": lambda: strange(float("inf")),
        "a page of zeros": lambda: whole[: (cut := draw.randrange(body, len(whole)))] + bytes(len(whole) - cut),
        "cut anywhere": lambda: whole[: draw.randrange(len(whole))],
        "another version": lambda: with_rows(tensors["rows"], format=str(draw.randrange(3, 99))),
        "two rows exchanged": lambda: with_rows(tensors["rows"].roll(1, 0)),
    }
    for what, made in kinds.items():
        tally = Tally()
        for i in range(count):
            for old in folder.rglob("*.safetensors"):
                old.unlink()
            (path.parent / f"{i}.safetensors").write_bytes(made())
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                got = encode_views(FeatureStore(backbone, folder), wanted, batch=1)[:].rows()
            name = any(f"{i}.safetensors" in str(w.message) for w in told)
            # A bit of a key, or of the padding, is not in what is taken: the entry is only no longer found.
            silent = what in ("a bit turned over", "a page of zeros")
            tally.add(
                None if torch.equal(got, expected) and (name or silent) else f"{i}: {[str(w.message) for w in told]}"
            )
        yield tally.row(f"a feature store with {what}" if what != "cut anywhere" else "a feature store cut anywhere")


def stalled(data: Path, backbone: Backbone, count: int) -> Row:
    """A disk that takes long to answer, as far as Python sees of it: `os.open` sleeps."""
    tally, opened = Tally(), os.open
    samples = load_dataset(str(data)).test
    expected = encode_samples_of(backbone, samples)
    patience, reading.PATIENCE = reading.PATIENCE, 0.4
    try:
        for i in range(count):
            victim: Any = samples[i % len(samples)].image

            def slow(path: Any, *more: Any, victim: ImageFile = victim, **named: Any) -> int:
                if path == victim.path:
                    time.sleep(1.5)
                return opened(path, *more, **named)

            os.open = slow  # pyright: ignore
            shutil.rmtree(os.environ["GOPRO_CACHE"], ignore_errors=True)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                got = encode_samples_of(backbone, samples)
            name = any(victim.name in str(w.message) and "not read after" in str(w.message) for w in told)
            tally.add(
                None if name and torch.equal(got, expected) else f"{victim.name}: {[str(w.message) for w in told]}"
            )
            os.open = opened
    finally:
        os.open, reading.PATIENCE = opened, patience
    return tally.row("a disk that does not answer for a while: the image is named, and waited for")


def encode_samples_of(backbone: Backbone, samples: Any) -> torch.Tensor:
    from gopro.methods.registry import build_method

    method = build_method("zeroshot", backbone, ("a", "b", "c"), "a photo of a {}.")
    return encode_samples(method, samples).encoded[:].rows()


def _near(a: list[Prediction], b: list[Prediction]) -> bool:
    """To rounding: which images are in a batch with another changes the last bits."""
    return [p.name for p in a] == [p.name for p in b] and all(
        abs(p.probability - q.probability) < 1e-4 for p, q in zip(a, b, strict=True)
    )


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder
