"""What the speed benchmarks share: a CLIP with random weights, class names, inputs, clocks."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from gopro.clip.backbone import Backbone, from_openai
from gopro.methods.gopro import RELEASE, GOPro, GOProConfig, GOProRelease
from gopro.runs.environment import describe_machine

CALTECH = Path(__file__).resolve().parents[2] / "shared/datasets/caltech-101/split_zhou_Caltech101.json"
# fmt: off
QUALITIES = (
    "red", "blue", "spotted", "striped", "great", "lesser", "northern", "southern", "golden", "wild", "common", "dwarf",
    "giant", "crested", "woolly", "antique", "folding", "electric", "wooden", "inflatable", "rusty", "hooded", "pygmy",
)
THINGS = (
    "dog", "cat", "finch", "accordion", "teapot", "lighthouse", "helicopter", "maple", "orchid", "mushroom", "sofa",
    "violin", "tram", "ketch", "anchor", "bonsai", "crocodile", "dragonfly", "menorah", "metronome", "nautilus",
    "pagoda", "platypus", "saxophone", "sunflower", "trilobite", "wheelchair", "windmill", "yin-yang", "wild cat",
    "joshua tree", "water lily", "grand piano", "cougar body", "flamingo head", "ceiling fan", "soccer ball",
    "cash machine", "cellular telephone", "Cavalier King Charles spaniel",
)
# fmt: on


def class_names(count: int) -> list[str]:
    """`count` different class names, the same every time: Caltech101's where they suffice, else of 1 to 6 words."""
    if count <= 100 and CALTECH.is_file():
        rows = json.loads(CALTECH.read_text())["train"]
        return sorted({name.replace("_", " ") for _, _, name in rows})[:count]
    draw = random.Random(0)
    names: dict[str, None] = {}
    while len(names) < count:
        names[" ".join([*draw.sample(QUALITIES, draw.choice((0, 1, 1, 1, 2, 2))), draw.choice(THINGS)])] = None
    return list(names)


def openai_state(architecture: str = "ViT-B-16") -> dict[str, Tensor]:
    """Random weights of that shape in OpenAI's layout, the same every time."""
    config = open_clip.get_model_config(architecture)
    assert config is not None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = open_clip.CLIP(**config, quick_gelu=True)
    return dict(model.state_dict())


def make_backbone(architecture: str = "ViT-B-16", device: str = "cpu") -> Backbone:
    """A CLIP of that shape with the weights of `openai_state`."""
    return from_openai(openai_state(architecture), architecture, device)


def start(
    backbone: Backbone, classnames: Sequence[str], kind: type[GOPro] = GOProRelease, config: GOProConfig = RELEASE
) -> GOPro:
    """`gopro-release` or a variant of it, with the same random start every time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return kind(backbone, classnames, config).to(backbone.device)


def make_views(views: int, batch: int, size: int) -> Tensor:
    """Normalised noise [views, batch, 3, size, size], the same every time: no computation here depends on content."""
    return torch.randn(views, batch, 3, size, size, generator=torch.Generator().manual_seed(0))


class Stopwatch:
    """Medians of the wall-clock and processor seconds of calls."""

    def __init__(self) -> None:
        self.walls: list[float] = []
        self.cpus: list[float] = []

    def time(self, function, *arguments):
        _wait()
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(*arguments)
        _wait()
        self.walls.append(time.perf_counter() - wall)
        self.cpus.append(time.process_time() - cpu)
        return result

    @property
    def wall(self) -> float:
        return statistics.median(self.walls)

    @property
    def cpu(self) -> float:
        """Of all threads: what is left of the noise that other programs make."""
        return statistics.median(self.cpus)


def _wait() -> None:
    """For what the clock would miss: the work that is still queued on a GPU."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def about() -> dict[str, str | int]:
    """Where a measurement was made."""
    return {"machine": describe_machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
