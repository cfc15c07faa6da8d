"""The model card of a run, made of what its folder says."""

from __future__ import annotations

import inspect
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import EvalResult, ModelCardData
from safetensors import SafetensorError, safe_open

from gopro.errors import InputError
from gopro.methods.registry import parse_method
from gopro.runs.hub import OURS
from gopro.runs.results import ResultRow
from gopro.runs.run import COST, HEADS, LEARNED, UNKNOWN, read_cost

SHOWN = 200
"""Most class names that a card lists."""


def model_card(
    folder: Path,
    content: dict[str, Any],
    rows: Sequence[ResultRow],
    repository: str,
    license: str | None = None,
    revision: str | None = None,
) -> str:
    """The card, as Markdown with the Hub's metadata in front.

    Args:
        folder: the run's.
        content: what `config.json` holds, as it goes to the Hub.
        rows: evaluations of the run, with `data`, `classes`, `accuracy`, `macro_accuracy` and `n`.
        repository, revision: by what it will be loaded.
        license: as the Hub calls it.

    Raises:
        InputError: what was learned cannot be read.
    """
    name = repository if revision is None else f"{repository}@{revision}"
    parts = [
        f"---\n{_metadata(content, rows, repository, license)}\n---",
        f"# {repository.partition('/')[2]}",
        _summary(content),
        _use(name, content["classnames"]),
        _facts(folder, content),
        _learned(folder),
        _results(rows),
        _classes(content["classnames"]),
        _licence(license, content),
        OURS,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(content: dict[str, Any]) -> str:
    """The method in the words of its docstring's first paragraph, and what it learned from."""
    config = content["config"]
    kind = parse_method(config["method"]).kind
    title = " ".join(inspect.cleandoc(kind.__doc__ or config["method"]).split("\n\n")[0].split()).rstrip(".")
    said = f"A classifier of images, on a frozen CLIP: {title}."
    if not kind.trained_by:
        return said
    if config["data"] == UNKNOWN:
        return f"{said} What it was trained on is not known here."
    shots = config["shots"]
    of = f"{shots} image{'s' if shots > 1 else ''} a class of " if shots else ""
    return f"{said} Learned from {of}{_plain(content['data'])}{_half(config['classes'])}."


def _half(classes: str) -> str:
    return "" if classes == "all" else f" ({classes} classes)"


def _metadata(content: dict[str, Any], rows: Sequence[ResultRow], repository: str, license: str | None) -> str:
    results = [
        EvalResult(
            task_type="zero-shot-image-classification",
            dataset_type=row["data"],
            dataset_name=f"{row['data']}{_half(row['classes'])}",
            metric_type="accuracy",
            metric_value=row["accuracy"],
        )
        for row in rows
    ]
    return ModelCardData(
        library_name="gopro",
        license=license,
        pipeline_tag="zero-shot-image-classification",
        tags=["gopro", "clip", "prompt-learning", "few-shot", "image-classification"],
        base_model=_base_model(content["backbone"]["name"]),
        eval_results=results or None,
        model_name=repository.partition("/")[2] if results else None,
    ).to_yaml()


def _base_model(backbone: str) -> str | None:
    """The repository on the Hub that open_clip takes a backbone's weights from, if there is one."""
    architecture, _, tag = backbone.partition(":")
    if tag not in open_clip.list_pretrained_tags_by_model(architecture):
        return None
    return (open_clip.get_pretrained_cfg(architecture, tag).get("hf_hub") or "").strip("/") or None


def _use(name: str, classnames: Sequence[str]) -> str:
    some = list(classnames[:2])
    shell = ",".join(some).replace("'", "'\\''")
    return f"""## Use

```python
import gopro

classifier = gopro.load("{name}")
classifier.predict("image.jpg")  # one of the classes below
classifier.for_classes({json.dumps(some, ensure_ascii=False)}).predict("image.jpg", top_k=2)  # or other names
```

```sh
gopro predict {name} IMAGES --classes '{shell}'
```"""


def _facts(folder: Path, content: dict[str, Any]) -> str:
    config, backbone = content["config"], content["backbone"]
    imported = content.get("imported")
    facts: list[tuple[str, Any]] = [
        ("method", f"`{config['method']}`"),
        ("backbone", f"`{backbone['name']}`, frozen, not contained; fingerprint `{backbone['fingerprint']}`"),
        ("data", f"{_plain(content['data'])}, classes: {config['classes']}"),
        ("shots", config["shots"] or "not known"),
        ("seed", config["seed"] or "not known"),
        ("epochs", config["epochs"] or "the method's own"),
        ("template of the data", f"`{content['template']}`"),
    ]
    if imported:
        facts.append(("imported from", f"`{imported['file']}`, a checkpoint of {imported['code']}"))
    if (folder / COST).is_file():
        cost = read_cost(folder)
        memory = "" if cost.peak_memory_mib is None else f", {cost.peak_memory_mib:.0f} MiB at most"
        facts.append(("training took", f"{cost.train_seconds:.0f} s{memory}"))
    if heads := len(list((folder / HEADS).glob("*.safetensors"))):
        facts.append(("first-order heads", heads))
    facts.append(("made with", f"gopro {content['gopro']}"))
    return _table("How it was made", ("", ""), facts)


def _learned(folder: Path) -> str:
    """The parts that were learned, with the sizes of their tensors."""
    parts: defaultdict[str, list[int]] = defaultdict(list)
    try:
        with safe_open(folder / LEARNED, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                parts[key.partition(".")[0]].append(math.prod(file.get_slice(key).get_shape()))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / LEARNED} cannot be read ({str(error).strip().splitlines()[0]})") from error
    if not parts:
        return "## What was learned\n\nNothing: the method takes class names alone."
    rows = [(f"`{part}`", len(sizes), f"{sum(sizes):,}") for part, sizes in sorted(parts.items())]
    return _table("What was learned", ("part", "tensors", "numbers"), rows)


def _results(rows: Sequence[ResultRow]) -> str:
    if not rows:
        return ""
    shown = [
        (_plain(row["data"]), row["classes"], f"{row['accuracy']:.2f}", f"{row['macro_accuracy']:.2f}", row["n"])
        for row in rows
    ]
    return _table("Results", ("test images of", "classes", "accuracy, %", "mean over classes, %", "images"), shown)


def _classes(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"## Classes\n\nTrained on {len(names)}: {', '.join(map(_plain, names[:SHOWN]))}{more}."


def _licence(license: str | None, content: dict[str, Any]) -> str:
    said = f"What was learned: {license}." if license else "Its owner has named none."
    return f"## Licence\n\n{said} The weights of `{content['backbone']['name']}` have their own and are not contained."


def _table(title: str, heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in (heading, ["---"] * len(heading), *rows)]
    return f"## {title}\n\n" + "\n".join(lines)


def _plain(text: str) -> str:
    """Text that Markdown takes for nothing else."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>#|~" else c for c in " ".join(text.split()))
