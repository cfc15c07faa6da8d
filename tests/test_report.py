"""The report of a results folder: what it says, what it does without, and the page in a real browser."""

from __future__ import annotations

import csv
import html.parser
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from gopro.config import BenchmarkConfig, TrainConfig
from gopro.data import load_dataset
from gopro.data.dataset import ClassHalf, Dataset
from gopro.predictions import Predictions
from gopro.report import write_report
from gopro.run import slug, write_json
from gopro.sweep.sweep import benchmark

HOSTILE = """<img src=x onerror="alert('1')">&"""
ACCURACY = {"zeroshot": 0.45, "coop": 0.55, "gopro": 0.6}
NEXT = ["Put them into one folder a class.", "Train:\n`gopro train --data folder --root " + "x" * 99 + "`"]


class Made:
    """A results folder with made-up predictions of real data sets; rows and files are as a sweep writes them."""

    def __init__(self, folder: Path, methods: dict[str, float] = ACCURACY, seeds: Sequence[int] = (1, 2, 3)):
        self.folder, self.methods, self.seeds = folder, methods, seeds
        self.rows: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def runs(
        self, protocol: str, source: str, tests: Sequence[tuple[Dataset, str, ClassHalf]], shots: int, backbone="emoji"
    ) -> None:
        """Each method's runs on `source`; `tests` are data set, what it is asked for as, and classes."""
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
                    log(run / "log.csv", seed, 1 + place % 3)
                cost = {"train_seconds": 40.0 * place * learns, "peak_memory_mib": 700.0 + 90 * place}
                cost |= {"parameters": 512 * 4**place * learns, "seconds": 1.0, "run": name}
                for dataset, asked, classes in tests:
                    part = dataset.half(classes)
                    gain = (skill - 0.45) * (1 + shots / 16) / 2 * (0.2 if classes == "new" else 1)
                    said = made_up(part, asked, classes, 0.45 + gain, f"{method}{seed}{shots}", method)
                    said.save(run / f"test-{slug(dataset.name)}-{classes}.safetensors")
                    right = (said.top[:, 0] == said.labels).float().mean().item()
                    key = {"protocol": protocol, "source": source, "data": dataset.name, "method": method}
                    key |= {"backbone": backbone, "shots": shots * learns, "seed": seed, "classes": classes}
                    row = {**key, "accuracy": 100 * right, "macro_accuracy": 100 * right, "n": len(said.labels)}
                    self.rows.append({**row, **cost})

    def write(self, **files: list[dict[str, Any]]) -> Path:
        """Writes the rows and other JSON lines."""
        for name, lines in {"results": self.rows, **files}.items():
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (self.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        return self.folder


def log(path: Path, seed: int, terms: int) -> None:
    """A log of 4 epochs of 25 steps with the first of the loss terms."""
    rng = random.Random(seed)
    names = ["ce", "con", "sem"][:terms]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "lr", "total", *names, "val", "seconds"])
        for step in range(100):
            losses = [(3 - index) * 0.97**step + 0.2 * rng.random() for index in range(len(names))]
            val = f"{50 + step / 5 + 5 * rng.random():.2f}" if step % 25 == 24 else ""
            writer.writerow([step // 25, step + 1, 0.002, sum(losses), *losses, val, step / 10])


def made_up(part: Dataset, asked: str, classes: str, accuracy: float, seed: str, method: str) -> Predictions:
    """Predictions that are right as often as said, some classes more than others; wrong ones are of classes nearby."""
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
    return Predictions(asked, classes, part.classnames, labels, torch.tensor(top), torch.tensor(probability))


def own_pictures(
    folder: Path, names: Sequence[str] = ("apple", "bicycle", "cat", "dog", "elephant", "fig tree")
) -> str:
    """A folder of classes of two training and four test pictures, wide ones; as its path."""
    for number, name in enumerate(names):
        for split, count in {"train": 2, "test": 4}.items():
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                picture = Image.new("RGB", (640, 400), (40 * number, 200 - 30 * number, 60 * index))
                picture.save(folder / split / name / f"{index}.png")
    return str(folder)


def all_protocols(folder: Path, methods: dict[str, float] = ACCURACY) -> Path:
    """A results folder of all four protocols, on embedded data sets and on a folder of pictures."""
    made = Made(folder / "results", methods)
    own = own_pictures(folder / "own")
    sets = {name: load_dataset(name) for name in ("emoji-activities", "emoji-food:noto", own)}
    for name, dataset in sets.items():
        made.runs("base-to-new", dataset.name, [(dataset, name, "base"), (dataset, name, "new")], 16)
        for shots in (1, 4, 16):
            made.runs("few-shot", dataset.name, [(dataset, name, "all")], shots)
    tests: list[tuple[Dataset, str, ClassHalf]] = [(dataset, name, "all") for name, dataset in sets.items()]
    made.runs("cross-dataset", tests[0][0].name, tests, 16)
    styles = [f"emoji-activities:{style}" for style in ("noto", "openmoji", "high-contrast")]
    made.runs("domain-generalization", styles[0], [(load_dataset(style), style, "all") for style in styles], 16)
    like = {"protocol": "base-to-new", "source": "own", "backbone": "emoji", "shots": 16, "seed": 4, "method": "maple"}
    failures = [
        {**like, "run": "emoji-own-base-maple", "error": "the loss is not finite: use a lower --lr"},
        {**made.rows[-1], "error": "it has succeeded since"},
    ]
    call = {"machine": "a processor, 2 cores", "versions": "gopro 0.1.0, torch 2.6.0"}
    calls = [
        {**call, "when": f"2026-01-0{day}T10:00:00+00:00", "command": f"gopro benchmark few-shot --seeds {day}"}
        for day in (1, 2)
    ]
    return made.write(failures=failures, history=calls)
