"""Commands given untrusted files of every kind that gopro reads: code, decompression bombs, false headers, damage.

Each command must end within two minutes and 16 GiB of address space with one line that says what is wrong (or with a
result, where the file is harmless). It must execute nothing, write nothing elsewhere and print no control characters.
Two cases of each kind are tried; `--trials 15` tries thirty, `--trials 100` all of them.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from gopro.data.published.unpack import unpack
from gopro.errors import InputError
from gopro.runs.load_run import load_run
from tests.support import hostile_files
from tests.support.commands import CommandProcess, CommandResult

ESCAPES = "\x1b[31m\x1b]0;owned\x07[bold]red\x9b31m"

pytestmark = pytest.mark.slow


class Trials:
    """A folder for hostile files, and a process that runs commands on them.

    Attributes:
        marker: file that executed code would create.
        count: maximum number of cases tried of each kind.
    """

    def __init__(self, folder: Path, count: int):
        self.folder, self.count = folder, count
        self.marker = folder / "executed"
        self.commands = CommandProcess(folder, GOPRO_CACHE=str(folder / "cache"), HF_HUB_OFFLINE="1", COLUMNS="200")

    def some(self, cases: Iterable[Any]) -> list[Any]:
        """Return at most `count` of the cases, evenly spaced."""
        cases = list(cases)
        return cases[:: -(-len(cases) // self.count)]

    def run(
        self, name: str, *arguments: Any, check: Callable[[CommandResult], bool] = CommandResult.refused
    ) -> CommandResult:
        """Run a command, and check its result and that it executed no code."""
        result = self.commands.run(*arguments)
        assert check(result), f"{name}: exit code {result.code}, {result.err[-300:]}{result.out[-300:]}"
        assert not self.marker.exists(), f"{name}: code was executed"
        return result

    def file(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
        return path

    def empty_folder(self, name: str) -> Path:
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def trained(self) -> Path:
        """Return a run folder, trained on the first call."""
        folder = self.folder / "run"
        if not folder.exists():
            data = ("--data", "emoji-activities", "--shots", "1", "--epochs", "1", "--workers", "0")
            result = self.commands.run("train", *data, "--method", "gopro", "--output", folder, seconds=600)
            assert result.code == 0, result
        return folder

    def tampered(self, file: str, content: bytes) -> Path:
        """Return a copy of the trained run with one file replaced."""
        copy = self.folder / "tampered"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.trained(), copy)
        (copy / file).write_bytes(content)
        return copy


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Trials]:
    trials = Trials(tmp_path_factory.mktemp("hostile"), 2 * pytestconfig.getoption("--trials"))
    yield trials
    trials.commands.close()


# Checkpoints and weights


def test_importing_checkpoints_with_code_is_refused(trials: Trials) -> None:
    for name, content in trials.some(hostile_files.files_with_code(trials.marker, {"ctx": torch.zeros(4, 512)})):
        trials.run(name, "import", trials.file("model.pth.tar-50", content), "--output", trials.folder / "imported")


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".pth"])
def test_backbone_weights_with_code_are_refused(ending: str, trials: Trials) -> None:
    source = "ViT-S-32-alt" if ending == ".pth" else "openai"
    for name, content in trials.some(hostile_files.files_with_code(trials.marker, {"ctx": torch.zeros(4, 512)})):
        weights = trials.file(f"weights{ending}", content)
        train = ("train", "--data", "emoji-activities", "--output", trials.folder / "never")
        trials.run(name, *train, "--backbone", f"{source}:{weights}")


def test_small_files_that_claim_much_memory_are_refused(trials: Trials) -> None:
    for name, content in trials.some(hostile_files.memory_bombs()):
        path = trials.file("bomb.pth", content)
        trials.run(name, "import", path, "--output", trials.folder / "imported")
        train = ("train", "--data", "emoji-activities", "--output", trials.folder / "never")
        trials.run(name, *train, "--backbone", f"openai:{path}")


def test_damaged_checkpoints_are_refused(trials: Trials) -> None:
    whole = hostile_files.torch_file({"state_dict": {"ctx": torch.zeros(4, 512)}, "epoch": 50})
    for name, content in trials.some(hostile_files.damaged_copies(whole, 30, seed=7)):
        # A changed number goes unnoticed, so import for a backbone of width 64, which no context of width 512 fits.
        path = trials.file("model.pth.tar-9", content)
        trials.run(name, "import", path, "--output", trials.folder / "imported", "--backbone", "emoji")


# Run folders


def test_run_folders_with_code_are_refused(trials: Trials) -> None:
    image = trials.file("good.png", hostile_files.image("PNG"))
    for name, content in trials.some(hostile_files.files_with_code(trials.marker, {})):
        for file in ("learned.safetensors", "config.json"):
            trials.run(f"{file}, {name}", "predict", trials.tampered(file, content), image)
        folder = trials.tampered("resume.safetensors", content)
        (folder / "learned.safetensors").unlink()
        trials.run(f"resume, {name}", "train", "--resume", folder)


def test_learned_tensors_with_a_false_header_are_refused(trials: Trials) -> None:
    image = trials.file("good.png", hostile_files.image("PNG"))
    for name, content in trials.some(hostile_files.false_safetensors("rho")):
        trials.run(name, "predict", trials.tampered("learned.safetensors", content), image)


def test_run_configs_with_impossible_values_are_refused(trials: Trials) -> None:
    image = trials.file("good.png", hostile_files.image("PNG"))
    config = json.loads((trials.trained() / "config.json").read_text())
    for name, content in trials.some(hostile_configs(config, trials.marker)):
        trials.run(name, "predict", trials.tampered("config.json", content), image)


def test_every_value_of_a_wrong_type_in_a_run_config_is_refused(trials: Trials) -> None:
    """Try all cases in this process, except those that load a backbone, which takes a second each."""
    config = json.loads((trials.trained() / "config.json").read_text())
    for name, content in hostile_configs(config, trials.marker):
        if not any(word in name for word in ("template", "names", "weights", "name of", "backbone")):
            with pytest.raises(InputError) as refusal:
                load_run(trials.tampered("config.json", content))
            assert len(str(refusal.value)) < 1000 and "\n" not in str(refusal.value), name


def test_unusual_class_names_end_with_a_result_or_one_message(trials: Trials) -> None:
    image = trials.file("good.png", hostile_files.image("PNG"))
    names = {
        "escapes": ESCAPES,
        "10 MB": "x" * 10_000_000,
        "10 MB in words": "a b " * 2_500_000,
        "one twice": "a\na",
        "no text": b"\xff\xfe\x00",
        "zeros": "\0\0",
        "markup": "[red]x[/red]\n[/]\n[link=file:///etc/passwd]y[/link]",
        "emptiness": "\n \n\t\n",
        "marks": "́" * 5000,
        "reserved": "<|endoftext|>\n<|startoftext|>",
        "right to left": "‮gpj.exe",
    }
    for name, content in trials.some(names.items()):
        file = trials.file("names.txt", content)
        ends = lambda result: result.clean() and result.code in (0, 1, 2)  # noqa: E731
        trials.run(name, "predict", trials.trained(), image, "--classes-file", file, check=ends)


# Data sets


def test_split_files_with_code_or_false_entries_are_refused(trials: Trials) -> None:
    root = trials.empty_folder("own")
    for name in ("ant", "bee"):
        (root / name).mkdir()
        for i in range(3):
            (root / name / f"{i}.png").write_bytes(hostile_files.image("PNG"))
    for name, content in trials.some(hostile_splits(trials.marker)):
        (root / "split_gopro.json").write_bytes(content)
        trials.run(name, "data", "check", root, check=CommandResult.found_problems)
    (root / "split_gopro.json").unlink()
    for i, (name, content) in enumerate(trials.some(hostile_files.files_with_code(trials.marker, {}))):
        (root / "split_fewshot").mkdir(exist_ok=True)  # CoOp's code keeps its pickled few-shot samples here
        (root / "split_fewshot" / f"shot_{i}-seed_1.pkl").write_bytes(content)
        trials.run(name, "data", "check", root, check=CommandResult.found_problems)  # a folder without images
        shutil.rmtree(root / "split_fewshot")


def test_wrong_matlab_annotations_are_refused(trials: Trials) -> None:
    cars = trials.empty_folder("benchmarks/stanford_cars")
    for part in ("cars_train", "cars_test", "devkit"):
        (cars / part).mkdir()
    for name, content in trials.some(hostile_mats(trials.marker)):
        for file in ("devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat", "devkit/cars_meta.mat"):
            (cars / file).write_bytes(content)
        trials.run(name, "data", "check", "stanford_cars", "--root", trials.folder / "benchmarks")


def test_files_with_image_names_that_are_not_images_are_reported(trials: Trials) -> None:
    alone = trials.empty_folder("alone")
    named = lambda result: result.clean() and result.code == 1 and name in result.err  # noqa: E731
    for name, content in trials.some(hostile_files.bad_images(trials.marker).items()):
        content(alone / name) if callable(content) else (alone / name).write_bytes(content)
        trials.run(name, "predict", trials.trained(), alone / name, check=named)
        os.unlink(alone / name)


def test_a_data_set_with_many_unreadable_images(trials: Trials) -> None:
    root = trials.empty_folder("mixed")
    (root / "ant").mkdir()
    (root / "bee").mkdir()
    for i in range(4):
        (root / "ant" / f"{i}.png").write_bytes(hostile_files.image("PNG"))
    (root / "ant" / "folder.jpg").mkdir()
    (root / "ant" / "folder.jpg" / "in.png").write_bytes(hostile_files.image("PNG"))
    for name, content in hostile_files.good_images().items():
        (root / "bee" / name).write_bytes(content)
    trials.run("unusual images", "data", "check", root, check=lambda result: result.code == 0)
    bad = hostile_files.bad_images(trials.marker)
    for name, content in bad.items():
        content(root / "bee" / name) if callable(content) else (root / "bee" / name).write_bytes(content)

    def all_named(result: CommandResult) -> bool:
        return result.clean() and result.code == 1 and all(name in result.out + result.err for name in bad)

    trials.run("check", "data", "check", root, check=all_named)
    trials.run("predict", "predict", trials.trained(), root, check=all_named)
    options = ("--data", root, "--backbone", "emoji", "--shots", "4", "--epochs", "1", "--method", "coop", "--workers")
    for workers in (0, 2):
        trials.run("train", "train", *options, workers, "--output", trials.folder / f"t{workers}")
        trials.run("bank", "train", *options, workers, "--output", trials.folder / f"b{workers}", "--bank", "1")
    trials.run("eval", "eval", trials.trained(), "--data", root)


def test_hostile_archives_write_nothing_outside_their_folder(trials: Trials) -> None:
    for i, (name, content) in enumerate(trials.some(hostile_files.archives())):
        folder = trials.empty_folder(f"archives/{i}")
        (folder / "archive").write_bytes(content)
        outside = lambda folder=folder: {  # noqa: E731
            path for path in trials.folder.rglob("*") if not path.is_relative_to(folder / "into")
        }
        before = outside()
        try:
            unpack(folder / "archive", folder / "into")
            assert name.startswith("tar, a file and"), f"{name}: unpacked"
        except InputError as error:
            assert "\n" not in str(error), name
        assert outside() == before and not Path("/out").exists(), name
        assert all(not path.is_symlink() and (path.is_file() or path.is_dir()) for path in (folder / "into").rglob("*"))


# Settings and results


def test_hostile_settings_files_are_refused(trials: Trials) -> None:
    for name, content in trials.some(hostile_settings(trials.marker).items()):
        file = trials.file("settings.yaml", content)
        command = ("train", "--config", file, "--output", trials.folder / "never")
        trials.run(name, *command, *([] if name == "nothing" else ["--data", "emoji-activities"]))


def test_hostile_results_put_no_script_into_the_report(trials: Trials) -> None:
    for name, content in trials.some(hostile_results().items()):
        folder = trials.empty_folder("results")
        (folder / "results.jsonl").write_bytes(content)
        trials.run(name, "report", folder, check=lambda result: result.clean() and result.code in (0, 2))
        page = folder / "report.html"
        assert not page.is_file() or "<script" not in page.read_text(), f"{name}: a script in the page"


# The cases


def hostile_configs(config: dict[str, Any], marker: Path) -> Iterator[tuple[str, bytes]]:
    """Yield copies of a run's config with one error each."""

    def with_(**more: Any) -> bytes:
        return json.dumps({**config, **more}).encode()

    def inner(**more: Any) -> bytes:
        return with_(config={**config["config"], **more})

    yield "nothing", b""
    yield "a list", b"[]"
    yield "deeply nested", b'{"a":' * 100_000
    yield "deeply nested lists", b"[" * 100_000
    yield "not UTF-8", b"\xff\xfe{}"
    yield "a huge number", with_().replace(b'"seed": 1', b'"seed": ' + b"9" * 6000)
    for key in ("config", "data", "template", "classnames", "backbone"):
        yield f"no {key}", json.dumps({k: v for k, v in config.items() if k != key}).encode()
        yield f"{key} is a number", with_(**{key: 5})
        yield f"{key} is null", with_(**{key: None})
    yield "names that are no text", with_(classnames=[1, None, {}])
    yield "a name of 10 MB", with_(classnames=["x" * 10_000_000, "b"])
    yield "no names", with_(classnames=[])
    yield "other names", with_(classnames=["", " "])
    yield "escapes", with_(classnames=[ESCAPES * 90])
    yield "template", with_(template="a photo")
    yield "template twice", with_(template="{} {}")
    yield "template with format", with_(template="{0.__class__}")
    for name in ("openai:/etc/passwd", f"openai:{marker}", "openai:/dev/zero", "openai:/dev/stdin", "openai:", "x:y"):
        yield f"backbone {name[:20]}", with_(backbone={**config["backbone"], "name": name})
    yield "backbone escapes", with_(backbone={**config["backbone"], "name": ESCAPES})
    yield "backbone long", with_(backbone={**config["backbone"], "name": "../" * 5000})
    yield "other weights", with_(backbone={**config["backbone"], "fingerprint": "0" * 16})
    for key, value in {
        "method": 5, "seed": "1", "shots": "many", "epochs": [1], "lr": float("nan"), "output": 5, "root": 5,
        "data": ["x"], "device": "tpu", "workers": None, "evil": 1, "bank": True, "precision": "fp8",
    }.items():  # fmt: skip
        yield f"config.{key}", inner(**{key: value})
    for method in (
        "nothing",
        "gopro[",
        "gopro[con=!!python/object/apply:os.system ['x']]",
        "gopro[con=1e999]",
        "gopro[template=[[[[",
        "zeroshot[template=" + "x" * 100_000 + "]",
        ESCAPES,
        "__import__('os')",
    ):
        yield f"method {method[:20]!r}", inner(method=method)


def hostile_splits(marker: Path) -> Iterator[tuple[str, bytes]]:
    """Yield split files that hold code or one wrong entry."""

    def split(*train: Any, **more: Any) -> bytes:
        rest = [["bee/0.png", 1, "bee"], ["bee/1.png", 1, "bee"], ["bee/2.png", 1, "bee"]]
        return json.dumps({"train": [*train, *rest[:2]], "val": [], "test": rest[2:], **more}).encode()

    for protocol in range(6):
        yield f"pickle {protocol}", pickle.dumps({"train": hostile_files.Payload(marker)}, protocol)
    yield "deep", b'{"train":' * 50_000
    yield "lists", b"[" * 50_000
    for path in ("../ant/0.png", "/etc/passwd", "ant/../../x.png", "ant/0.png\0", "", "\\\\host\\x.png", "a" * 5000):
        yield f"path {path[:12]!r}", split([path, 0, "ant"])
    good = "ant/0.png"
    for entry in (
        *([1, 0, "ant"], [good, "0", "ant"], [good, 0], None, [good, 0, ""], {}, [good, 7, "ant"]),
        *([good, 1e99, "ant"], [good, True, "ant"], [ESCAPES, 0, "a"]),
    ):
        yield f"entry {str(entry)[:12]!r}", split(entry)
    yield "NaN", b'{"train": NaN, "val": [], "test": []}'
    yield "a huge label", split(["ant/0.png", 0, "ant"]).replace(b", 0,", b", " + b"9" * 6000 + b",")
    yield "twice", split(["bee/2.png", 1, "bee"])
    yield "nothing", b""
    yield "UTF-16", "{}".encode("utf-16")


def hostile_mats(marker: Path) -> Iterator[tuple[str, bytes]]:
    """Yield wrong annotation files for Stanford Cars."""

    def mat(**variables: Any) -> bytes:
        file = io.BytesIO()
        savemat(file, variables, do_compression=True)
        return file.getvalue()

    kinds = np.zeros((1, 2), dtype=[("fname", object), ("class", object)])
    yield "pickle", pickle.dumps(hostile_files.Payload(marker))
    yield "numpy", hostile_files.numpy_archive(hostile_files.Payload(marker))
    yield "nothing", b""
    yield "zeros", bytes(4096)
    yield "empty cells", mat(annotations=kinds, class_names=np.zeros((1, 2), dtype=object))
    kinds["fname"], kinds["class"] = [["a.jpg", "b.jpg"]], [[np.array([[9]]), np.array([[1]])]]
    names = np.array([["A Car 2000", "B Car 2001"]], dtype=object)
    yield "a label beyond the names", mat(annotations=kinds, class_names=names)
    yield "empty names", mat(annotations=kinds, class_names=np.array([["", " "]], dtype=object))
    yield "numbers", mat(annotations=np.ones((1, 3)), class_names=np.ones((1, 3)))
    kinds["fname"] = "../../../etc/passwd"
    kinds["class"] = [[np.array([[1]]), np.array([[2]])]]
    yield "paths that lead out", mat(annotations=kinds, class_names=names)
    yield from hostile_files.damaged_copies(mat(annotations=kinds, class_names=names), 8, seed=7)


def hostile_settings(marker: Path) -> dict[str, str | bytes]:
    """Return YAML files for `--config` by name; none holds valid settings."""
    bomb = "a: &a [x, x]\n" + "".join(
        f"{n}: &{n} [*{p}, *{p}, *{p}]\n" for p, n in zip("abcdefghijk", "bcdefghijkl", strict=True)
    )
    return {
        "system": f"method: !!python/object/apply:os.system ['touch {marker}']",
        "subprocess": f"method: !!python/object/apply:subprocess.check_output [[touch, {marker}]]",
        "new": f"!!python/object/new:os.system ['touch {marker}']",
        "eval": f"lr: !!python/object/apply:eval [\"open('{marker}','w')\"]",
        "name": "method: !!python/name:os.system",
        "module": "method: !!python/module:os",
        "tuple": "method: !!python/tuple [a]",
        "billion laughs": bomb,
        "an alias of itself": "a: &a [*a]",
        "deep": "[" * 20_000,
        "deep lines": "a: " * 3000,
        "no date": "seed: 2026-99-99",
        "a date": "seed: 2026-01-01",
        "a huge number": "seed: " + "9" * 6000,
        "nested": "train: {data: {a: {b: c}}}",
        "binary": b"\xff\xfe\x00\x01",
        "zeros": b"\0\0\0",
        "tabs": "\tdata: x",
        "a list": "- a\n- b",
        "a text": "data",
        "nothing": "",
        "unknown": f"nonsense: {ESCAPES!r}",
        "escapes": 'method: "\\e[31m\\e]0;x\\a"',
        "duplicate": "data: [a\nb: }",
        "not a number": "epochs: .nan",
        "infinite": "epochs: .inf",
        "a pickle": pickle.dumps(hostile_files.Payload(marker)),
        "a key that is a list": "? [a, b]\n: c",
        "undefined alias": "a: *b",
        "two documents": "a: b\n---\nc: d",
    }  # fmt: skip


def hostile_results() -> dict[str, bytes]:
    """Return `results.jsonl` files by name; every line of each is invalid."""
    row = {
        "protocol": "base-to-new", "source": "d", "data": "d", "method": "gopro", "backbone": "emoji", "shots": 1,
        "seed": 1, "classes": "base", "accuracy": 50.0, "macro_accuracy": 50.0, "n": 10, "run": "runs/x",
    }  # fmt: skip
    markup = "<script>alert(1)</script>$x^{$\\input{/etc/passwd}|[a](javascript:x)"
    return {
        "no JSON": b"nothing\n",
        "deep": b"[" * 50_000 + b"\n",
        "a list": b"[]\n",
        "a number": b"5\n",
        "zeros": bytes(100) + b"\n",
        "no UTF-8": b'{"a": "\xff"}\n',
        **{f"{key} is {value!r:.20}": (json.dumps({**row, key: value}) + "\n").encode()
           for key in ("protocol", "data", "method", "shots", "seed", "classes", "accuracy", "n", "run")
           for value in (None, [], {"a": 1}, ESCAPES + markup, -1e308)},
        "NaN": (json.dumps(row) + "\n").replace("50.0", "NaN").encode(),
    }  # fmt: skip
