"""Write results folders with made-up predictions, in the files that a sweep writes."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gopro.benchmark.predictions import Predictions
from gopro.data.dataset import ClassHalf, Dataset
from gopro.files import slug, write_json
from gopro.methods.registry import METHODS, parse_method
from gopro.runs.config import TrainConfig
from gopro.runs.made_with import made_with
from gopro.runs.trained_with import TrainedWith

ACCURACY = {"zeroshot": 0.45, "coop": 0.55, "gopro": 0.6}


class FakeSweep:
    """A results folder with made-up predictions on real data sets, in the files that a sweep writes."""

    def __init__(self, folder: Path, methods: dict[str, float] = ACCURACY, seeds: Sequence[int] = (1, 2, 3)):
        self.folder, self.methods, self.seeds = folder, methods, seeds
        self.rows: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def runs(
        self, protocol: str, source: str, tests: Sequence[tuple[Dataset, str, ClassHalf]], shots: int, backbone="emoji"
    ) -> None:
        """Add the runs of each method on `source`; each test is a data set, the name that loads it, and its classes."""
        for place, (method, skill) in enumerate(self.methods.items()):
            learns = method.split("[")[0] != "zeroshot"
            known = {(row["protocol"], row["source"], row["method"], row["backbone"]) for row in self.rows}
            if not learns and (protocol, source, method, backbone) in known:
                continue
            for seed in self.seeds if learns else [0]:
                name = slug(f"{backbone}-{source}-{method}-{shots * learns}shots-seed{seed}-{protocol}")
                run = self.folder / "runs" / name
                run.mkdir(parents=True, exist_ok=True)
                config = TrainConfig(data=tests[0][1], output=run, method=method, shots=shots * learns, seed=seed)
                content = {"config": config.to_json(), "data": source, "template": "{}", "classnames": []}
                write_json(run / "config.json", {**content, "backbone": {"name": backbone, "fingerprint": ""}})
                if learns:
                    write_log(run / "log.csv", seed, 1 + place % 3)
                cost = {"train_seconds": 40.0 * place * learns, "peak_memory_mib": 700.0 + 90 * place}
                cost |= {"parameters": 512 * 4**place * learns, "seconds": 1.0, "run": name}
                if learns and (kind := method.partition("[")[0]) in METHODS:  # other names are made up, too
                    spec, authors = parse_method(kind).for_training(config.conditions)
                    cost["made_with"] = made_with(config, TrainedWith.of(config, spec, authors, tests[0][0]))
                for dataset, name_or_path, classes in tests:
                    part = dataset.half(classes)
                    gain = (skill - 0.45) * (1 + shots / 16) / 2 * (0.2 if classes == "new" else 1)
                    predictions = predict(part, name_or_path, classes, 0.45 + gain, f"{method}{seed}{shots}", method)
                    predictions.save(run / f"test-{slug(dataset.name)}-{classes}.safetensors")
                    right = (predictions.top[:, 0] == predictions.labels).float().mean().item()
                    key = {"protocol": protocol, "source": source, "data": dataset.name, "method": method}
                    key |= {"backbone": backbone, "shots": shots * learns, "seed": seed, "classes": classes}
                    row = {**key, "accuracy": 100 * right, "macro_accuracy": 100 * right, "n": len(predictions.labels)}
                    self.rows.append({**row, **cost})

    def write(self, **files: list[dict[str, Any]]) -> Path:
        """Write the rows and other JSON-lines files, and return the folder."""
        for name, lines in {"results": self.rows, **files}.items():
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (self.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        return self.folder


def write_log(path: Path, seed: int, terms: int) -> None:
    """Write a log of 4 epochs of 25 steps with the first `terms` loss terms."""
    rng = random.Random(seed)
    names = ["ce", "con", "sem"][:terms]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "lr", "total", *names, "val", "seconds"])
        for step in range(100):
            losses = [(3 - index) * 0.97**step + 0.2 * rng.random() for index in range(len(names))]
            val = f"{50 + step / 5 + 5 * rng.random():.2f}" if step % 25 == 24 else ""
            writer.writerow([step // 25, step + 1, 0.002, sum(losses), *losses, val, step / 10])


def predict(part: Dataset, name: str, classes: str, accuracy: float, seed: str, method: str) -> Predictions:
    """Make up predictions of about this accuracy, which varies by class; wrong labels are nearby classes."""
    rng = random.Random(seed)
    count = len(part.classnames)
    ease = [min(1.0, max(0.0, accuracy + random.Random(f"{name}{method}").gauss(0, 0.2))) for name in part.classnames]
    top, probability = [], []
    for sample in part.test:
        near = [(sample.label + step) % count for step in range(1, min(5, count))]
        guesses = [sample.label, *near] if rng.random() < ease[sample.label] else [near[0], sample.label, *near[1:]]
        shares = sorted((rng.random() ** 3 for _ in guesses), reverse=True)
        top.append(guesses)
        probability.append([share / sum(shares) for share in shares])
    labels = torch.tensor([sample.label for sample in part.test])
    return Predictions(name, classes, part.classnames, labels, torch.tensor(top), torch.tensor(probability))


def own_images(folder: Path, names: Sequence[str] = ("apple", "bicycle", "cat", "dog", "elephant", "fig tree")) -> str:
    """Write a folder of classes with two training and four test images each, 640 by 400 pixels; return its path."""
    for number, name in enumerate(names):
        for split, count in {"train": 2, "test": 4}.items():
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                image = Image.new("RGB", (640, 400), (40 * number, 200 - 30 * number, 60 * index))
                image.save(folder / split / name / f"{index}.png")
    return str(folder)


def result_row(data: str, method: str, classes: str, accuracy: float, **other: Any) -> dict[str, Any]:
    """Return a row of base-to-new results with 16 shots, or 0 for zero-shot CLIP."""
    learns = method != "zeroshot"
    row = {"protocol": "base-to-new", "source": data, "data": data, "method": method, "backbone": "ViT-B-16:openai"}
    row |= {"shots": 16 * learns, "seed": int(learns), "classes": classes, "accuracy": accuracy}
    return {**row, **other}


def write_results(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write a results folder with only `results.jsonl`."""
    folder.mkdir(exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows), encoding="utf-8")
    return folder
