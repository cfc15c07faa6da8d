"""Shared parts of the speed benchmarks: a CLIP with random weights, class names, inputs, clocks and options."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import open_clip
import torch
from torch import Tensor

from gopro.clip.backbone import Backbone, from_openai
from gopro.methods.base import Method
from gopro.methods.gopro_release import GOProRelease
from gopro.runs.environment import describe_machine

T = TypeVar("T")

CALTECH = Path(__file__).resolve().parents[2] / "shared/datasets/caltech-101/split_zhou_Caltech101.json"
# fmt: off
ADJECTIVES = (
    "red", "blue", "spotted", "striped", "great", "lesser", "northern", "southern", "golden", "wild", "common", "dwarf",
    "giant", "crested", "woolly", "antique", "folding", "electric", "wooden", "inflatable", "rusty", "hooded", "pygmy",
)
NOUNS = (
    "dog", "cat", "finch", "accordion", "teapot", "lighthouse", "helicopter", "maple", "orchid", "mushroom", "sofa",
    "violin", "tram", "ketch", "anchor", "bonsai", "crocodile", "dragonfly", "menorah", "metronome", "nautilus",
    "pagoda", "platypus", "saxophone", "sunflower", "trilobite", "wheelchair", "windmill", "yin-yang", "wild cat",
    "joshua tree", "water lily", "grand piano", "cougar body", "flamingo head", "ceiling fan", "soccer ball",
    "cash machine", "cellular telephone", "Cavalier King Charles spaniel",
)
# fmt: on


def class_names(count: int) -> list[str]:
    """Return `count` distinct class names, the same every time.

    Up to 100 are Caltech101's if its annotations are in `../shared`; otherwise they are made up, of 1 to 6 words.
    """
    if count <= 100 and CALTECH.is_file():
        rows = json.loads(CALTECH.read_text())["train"]
        return sorted({name.replace("_", " ") for _, _, name in rows})[:count]
    draw = random.Random(0)
    names: dict[str, None] = {}
    while len(names) < count:
        names[" ".join([*draw.sample(ADJECTIVES, draw.choice((0, 1, 1, 1, 2, 2))), draw.choice(NOUNS)])] = None
    return list(names)


def openai_state(architecture: str = "ViT-B-16") -> dict[str, Tensor]:
    """Return random weights of an architecture in OpenAI's layout, the same every time."""
    config = open_clip.get_model_config(architecture)
    assert config is not None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = open_clip.CLIP(**config, quick_gelu=True)
    return dict(model.state_dict())


def make_backbone(architecture: str = "ViT-B-16", device: str = "cpu") -> Backbone:
    """Return a CLIP with the weights of `openai_state`."""
    return from_openai(openai_state(architecture), architecture, device)


def make_method(backbone: Backbone, classnames: Sequence[str], kind: type[Method] = GOProRelease) -> Method:
    """Return a method with its default settings, `gopro-release` if none is named, initialised alike every time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return kind(backbone, classnames, kind.config).to(backbone.device)


def make_views(views: int, batch: int, size: int) -> Tensor:
    """Return normal noise [views, batch, 3, size, size], the same every time: no timing here depends on content."""
    return torch.randn(views, batch, 3, size, size, generator=torch.Generator().manual_seed(0))


class Stopwatch:
    """Wall-clock and processor seconds of calls, and their medians."""

    def __init__(self) -> None:
        self.walls: list[float] = []
        self.cpus: list[float] = []

    def time(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function, record its time and return its result."""
        _synchronize()
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(*arguments)
        _synchronize()
        self.walls.append(time.perf_counter() - wall)
        self.cpus.append(time.process_time() - cpu)
        return result

    @property
    def wall(self) -> float:
        return statistics.median(self.walls)

    @property
    def cpu(self) -> float:
        """Processor time of all threads, which other programs on the machine disturb less."""
        return statistics.median(self.cpus)


def _synchronize() -> None:
    """Wait for work queued on a GPU, which the clock would miss."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def about() -> dict[str, str | int]:
    """Describe the machine of a measurement."""
    return {"machine": describe_machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is a benchmark's docstring, with the option `--json`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser


def print_report(report: dict[str, Any], table: Callable[[dict[str, Any]], str], as_json: bool) -> None:
    """Print a report as JSON, or the machine and the table."""
    if as_json:
        print(json.dumps(report))
    else:
        print(f"{report['machine']}, {report['threads']} threads, torch {report['torch']}")
        print(table(report))
