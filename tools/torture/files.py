"""Files from strangers, given to gopro's commands: checkpoints, weights and configs with code in them, bombs, lies and
damage. Each must end with one line that says what is wrong, and nothing executed, written outside or waited for."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gopro.errors import InputError
from tools.torture import hostile
from tools.torture.commands import Commands, Done
from tools.torture.rows import Row

SEED = 7
ESCAPES = "\x1b[31m\x1b]0;owned\x07[bold]red\x9b31m"


@dataclass
class Group:
    """Trials of one kind. `judge` says whether a command ended as it must."""

    what: str
    judge: Callable[[Done], bool] = Done.refused
    tried: int = 0
    held: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, name: str, held: bool, seen: str = "") -> None:
        self.tried += 1
        self.held += held
        if not held:
            self.faults.append(f"{name}: {seen[-300:]}")

    def row(self) -> Row:
        return Row(self.what, self.tried, self.held, "; ".join(self.faults))


class Trials:
    """Where files are put and commands are run; `mark` is what executed code would leave behind."""

    def __init__(self, work: Path, times: int | None):
        self.work, self.times = work, times
        self.mark = work / "executed"
        self.commands = Commands(work, GOPRO_CACHE=str(work / "cache"), HF_HUB_OFFLINE="1", COLUMNS="200")

    def some(self, cases: Any) -> list[Any]:
        """The cases, or as many of them as are to be tried, spread over all."""
        cases = list(cases)
        if self.times is None or self.times >= len(cases):
            return cases
        return cases[:: -(-len(cases) // self.times)]

    def run(self, group: Group, name: str, *arguments: Any) -> Done:
        done = self.commands.run(*arguments)
        held = group.judge(done) and not self.mark.exists()
        self.mark.unlink(missing_ok=True) if not self.mark.is_dir() else self.mark.rmdir()
        group.add(name, held, f"code {done.code}, {done.err}{done.out}")
        return done

    def folder(self, *parts: str) -> Path:
        """A new folder."""
        path = self.work.joinpath(*parts)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def file(self, name: str, content: bytes | str) -> Path:
        path = self.work / name
        path.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
        return path


def run(work: Path, times: int | None) -> Iterator[Row]:
    """See the module."""
    trials = Trials(work, times)
    try:
        for part in (checkpoints, runs, data_sets, images, archives, settings, results):
            for group in part(trials):
                yield group.row()
    finally:
        trials.commands.close()


def checkpoints(trials: Trials) -> Iterator[Group]:
    """`gopro import` and `--backbone`."""
    state = {"ctx": torch.zeros(4, 512)}
    coded = list(hostile.coded(trials.mark, state))
    out = trials.work / "imported"
    group = Group("code in a checkpoint (.pth.tar) that is imported")
    for name, content in trials.some(coded):
        trials.run(group, name, "import", trials.file("model.pth.tar-50", content), "--output", out)
    yield group
    group = Group("code in the weights of a backbone, openai:FILE and ARCHITECTURE:FILE, .pt, .pth, .safetensors")
    pretended = [(name, content, ending) for name, content in coded for ending in (".pt", ".safetensors")]
    for name, content, ending in trials.some(pretended):
        weights = trials.file(f"weights{ending}", content)
        command = ("train", "--data", "emoji-activities", "--output", out, "--backbone", f"openai:{weights}")
        trials.run(group, f"{name} {ending}", *command)
    weights = trials.file("weights.pth", coded[0][1])
    trials.run(group, "architecture", *command[:-1], f"ViT-S-32-alt:{weights}")
    yield group
    group = Group("bombs: a few bytes that claim much memory, imported and as weights")
    for name, content in trials.some(hostile.bombs()):
        path = trials.file("bomb.pth", content)
        trials.run(group, f"import {name}", "import", path, "--output", out)
        trials.run(group, f"backbone {name}", *command[:-1], f"openai:{path}")
    yield group
    group = Group("a checkpoint cut or changed anywhere, imported")
    whole = hostile.torch_file({"state_dict": state, "epoch": 50})
    for name, content in trials.some(hostile.damaged(whole, 30, SEED)):
        # A changed number is no damage that could be seen; CoOp's context then fits no backbone of 64.
        trials.run(
            group, name, "import", trials.file("model.pth.tar-9", content), "--output", out, "--backbone", "emoji"
        )
    yield group


def trained(trials: Trials) -> Path:
    """A run to do harm to."""
    folder = trials.work / "run"
    if not folder.exists():
        what = ("--data", "emoji-activities", "--method", "gopro", "--shots", "1", "--epochs", "1", "--workers", "0")
        done = trials.commands.run("train", *what, "--output", folder, seconds=600)
        assert done.code == 0, done
    return folder


def runs(trials: Trials) -> Iterator[Group]:
    """Runs' folders that somebody sent, given to predict, head, push and train --resume."""
    whole, bad = trained(trials), trials.work / "bad"
    image = trials.file("good.png", hostile.image("PNG"))

    def broken(file: str, content: bytes) -> Path:
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(whole, bad)
        (bad / file).parent.mkdir(exist_ok=True)
        (bad / file).write_bytes(content)
        return bad

    coded = [content for _, content in hostile.coded(trials.mark, {})]
    group = Group("code in a run's files, which are JSON and safetensors by name")
    for i, content in enumerate(trials.some(coded)):
        for file in ("learned.safetensors", "config.json"):
            trials.run(group, f"{file} {i}", "predict", broken(file, content), image)
    for i, content in enumerate(trials.some(coded[-8:])):
        folder = broken("resume.safetensors", content)
        (folder / "learned.safetensors").unlink()
        trials.run(group, f"resume {i}", "train", "--resume", folder)
    yield group
    group = Group("learned.safetensors whose header lies")
    for name, content in trials.some(hostile.lying_safetensors("rho")):
        trials.run(group, name, "predict", broken("learned.safetensors", content), image)
    yield group
    group = Group("config.json with values that make no sense")
    config = json.loads((whole / "config.json").read_text())
    for name, content in trials.some(bad_configs(config, trials.mark)):
        trials.run(group, name, "predict", broken("config.json", content), image)
    yield group
    group = Group("class names of all kinds, asked for", lambda done: done.clean() and done.code in (0, 1, 2))
    names = {
        "escapes": ESCAPES,
        "10 MB": "x" * 10_000_000,
        "10 MB in words": "a b " * 2_500_000,
        "many": "\n".join(f"n{i}" for i in range(20_000)),
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
        if name == "many":  # is refused nowhere: 20,000 names are encoded, which takes minutes
            continue
        trials.run(group, name, "predict", whole, image, "--classes-file", file)
    yield group


def bad_configs(config: dict[str, Any], mark: Path) -> Iterator[tuple[str, bytes]]:
    """A run's config with one thing wrong."""

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
    for name in ("openai:/etc/passwd", f"openai:{mark}", "openai:/dev/zero", "openai:/dev/stdin", "openai:", "x:y"):
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


def data_sets(trials: Trials) -> Iterator[Group]:
    """`gopro data check` of folders with strange splits, and of benchmarks whose annotations are not what they were."""
    root = trials.folder("own")
    for name in ("ant", "bee"):
        (root / name).mkdir()
        for i in range(3):
            (root / name / f"{i}.png").write_bytes(hostile.image("PNG"))
    group = Group("a split file with code or lies in it")
    split = root / "split_gopro.json"
    for name, content in trials.some(bad_splits(trials.mark)):
        split.write_bytes(content)
        trials.run(group, name, "data", "check", root)
    split.unlink()
    yield group
    group = Group("CoOp's pickled few-shot splits and other pickles beside the images")
    for i, content in enumerate(trials.some([c for _, c in hostile.coded(trials.mark, {})][:12])):
        fewshot = trials.folder("own", "split_fewshot")
        (fewshot / f"shot_{i}-seed_1.pkl").write_bytes(content)
        trials.run(group, f"own {i}", "data", "check", root)  # not an image by its name
        shutil.rmtree(fewshot)
    group.judge = lambda done: done.clean() and done.code == 0
    pets = trials.folder("bench", "caltech-101")
    for name in ("ant", "bee"):
        (pets / "101_ObjectCategories" / name).mkdir(parents=True)
        for i in range(4):
            (pets / "101_ObjectCategories" / name / f"{i}.jpg").write_bytes(hostile.image("JPEG"))
    (pets / "split_fewshot").mkdir()
    for seed in (1, 2, 3):
        (pets / "split_fewshot" / f"shot_1-seed_{seed}.pkl").write_bytes(pickle.dumps(hostile.Code(trials.mark)))
    group.judge = Done.refused  # two classes are fewer than Caltech101's
    trials.run(group, "caltech101", "data", "check", "caltech101", "--root", trials.work / "bench")
    yield group
    group = Group("annotations in MATLAB's format that are something else")
    cars = trials.folder("bench", "stanford_cars")
    for part in ("cars_train", "cars_test", "devkit"):
        (cars / part).mkdir()
    for name, content in trials.some(bad_mats(trials.mark)):
        for file in ("devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat", "devkit/cars_meta.mat"):
            (cars / file).write_bytes(content)
        trials.run(group, name, "data", "check", "stanford_cars", "--root", trials.work / "bench")
    yield group


def bad_splits(mark: Path) -> Iterator[tuple[str, bytes]]:
    def split(*train: Any, **more: Any) -> bytes:
        rest = [["bee/0.png", 1, "bee"], ["bee/1.png", 1, "bee"], ["bee/2.png", 1, "bee"]]
        return json.dumps({"train": [*train, *rest[:2]], "val": [], "test": rest[2:], **more}).encode()

    for protocol in range(6):
        yield f"pickle {protocol}", pickle.dumps({"train": hostile.Code(mark)}, protocol)
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


def bad_mats(mark: Path) -> Iterator[tuple[str, bytes]]:
    import io

    import numpy as np
    from scipy.io import savemat

    def mat(**variables: Any) -> bytes:
        file = io.BytesIO()
        savemat(file, variables, do_compression=True)
        return file.getvalue()

    kinds = np.zeros((1, 2), dtype=[("fname", object), ("class", object)])
    yield "pickle", pickle.dumps(hostile.Code(mark))
    yield "numpy", hostile.numpy_archive(hostile.Code(mark))
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
    yield from hostile.damaged(mat(annotations=kinds, class_names=names), 8, SEED)


def images(trials: Trials) -> Iterator[Group]:
    """Files that are called images, given to check, predict, eval and train."""
    run = trained(trials)
    bad, good = hostile.bad_images(trials.mark), hostile.good_images()
    alone = trials.folder("alone")
    group = Group("files called images, alone, to predict", lambda done: done.clean() and done.code == 1)
    for name, made in trials.some(bad.items()):
        made(alone / name) if callable(made) else (alone / name).write_bytes(made)
        done = trials.run(group, name, "predict", run, alone / name)
        if name not in done.err:
            group.held -= 1
            group.faults.append(f"{name} is not named")
        os.unlink(alone / name)
    yield group
    root = trials.folder("mixed")
    for i in range(4):
        (root / "ant").mkdir(exist_ok=True)
        (root / "ant" / f"{i}.png").write_bytes(hostile.image("PNG"))
    (root / "bee").mkdir()
    (root / "ant" / "folder.jpg").mkdir()
    (root / "ant" / "folder.jpg" / "in.png").write_bytes(hostile.image("PNG"))
    for name, content in good.items():
        (root / "bee" / name).write_bytes(content)
    group = Group("unusual images that are images, and a folder called x.jpg: check", lambda d: d.code == 0)
    trials.run(group, "check", "data", "check", root)
    group.tried, group.held = group.tried * len(good), group.held * len(good)
    yield group
    group = Group("all of them in one data set: check, predict, and train, which must name the first")
    for name, made in bad.items():
        path = root / "bee" / name
        made(path) if callable(made) else path.write_bytes(made)
    (root / "split_gopro.json").unlink()
    group.judge = lambda done: done.clean() and done.code == 1 and all(name in done.out for name in bad)
    trials.run(group, "check", "data", "check", root)
    group.judge = lambda done: done.clean() and done.code == 1 and all(name in done.err for name in bad)
    trials.run(group, "predict", "predict", run, root)
    group.judge = Done.refused
    what = ("--data", root, "--shots", "4", "--epochs", "1", "--workers")
    for workers in (0, 2):
        trials.run(group, "train", "train", *what, workers, "--output", trials.work / f"t{workers}", "--method", "coop")
        trials.run(group, "bank", "train", *what, workers, "--output", trials.work / f"b{workers}", "--bank", "1")
    trials.run(group, "eval", "eval", run, "--data", root)
    yield group


def archives(trials: Trials) -> Iterator[Group]:
    """What `gopro data prepare` unpacks. The function itself, as the command takes archives from its sources alone."""
    from gopro.data.unpack import unpack

    group = Group("archives that lead out of their folder, hold devices, lie or claim much")
    for i, (name, content) in enumerate(trials.some(hostile.archives())):
        folder = trials.folder("archives", str(i))
        path = folder / "in" / "archive"
        path.parent.mkdir()
        path.write_bytes(content)
        before = {p for p in trials.work.rglob("*") if not p.is_relative_to(folder / "in" / "into")}
        try:
            unpack(path, folder / "in" / "into")
            held, seen = name.startswith("tar, a file and"), "taken"
        except InputError as error:
            held, seen = "\n" not in str(error), str(error)
        except BaseException as error:
            held, seen = False, repr(error)
        there = {p for p in trials.work.rglob("*") if not p.is_relative_to(folder / "in" / "into")}
        within = (folder / "in" / "into").rglob("*")
        plain = all(p.is_file() or p.is_dir() for p in within) and not any(p.is_symlink() for p in within)
        group.add(name, held and there == before and plain and not Path("/out").exists(), seen)
    yield group


def settings(trials: Trials) -> Iterator[Group]:
    """`--config`."""
    group = Group("--config files with code, bombs and nonsense in them")
    mark = trials.mark
    bomb = "a: &a [x, x]\n" + "".join(
        f"{n}: &{n} [*{p}, *{p}, *{p}]\n" for p, n in zip("abcdefghijk", "bcdefghijkl", strict=True)
    )
    files = {
        "system": f"method: !!python/object/apply:os.system ['touch {mark}']",
        "subprocess": f"method: !!python/object/apply:subprocess.check_output [[touch, {mark}]]",
        "new": f"!!python/object/new:os.system ['touch {mark}']",
        "eval": f"lr: !!python/object/apply:eval [\"open('{mark}','w')\"]",
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
        "a pickle": pickle.dumps(hostile.Code(mark)),
        "a key that is a list": "? [a, b]\n: c",
        "undefined alias": "a: *b",
        "two documents": "a: b\n---\nc: d",
    }  # fmt: skip
    for name, content in trials.some(files.items()):
        file = trials.file("settings.yaml", content)
        command = ("train", "--config", file, "--output", trials.work / "never")
        trials.run(group, name, *command, *([] if name == "nothing" else ["--data", "emoji-activities"]))
    yield group


def results(trials: Trials) -> Iterator[Group]:
    """`gopro report` of a folder of results that somebody sent."""
    row = {
        "protocol": "base-to-new", "source": "d", "data": "d", "method": "gopro", "backbone": "emoji", "shots": 1,
        "seed": 1, "classes": "base", "accuracy": 50.0, "macro_accuracy": 50.0, "n": 10, "run": "runs/x",
    }  # fmt: skip
    group = Group("results.jsonl with lies and markup in it", lambda done: done.clean() and done.code in (0, 2))
    markup = "<script>alert(1)</script>$x^{$\\input{/etc/passwd}|[a](javascript:x)"
    lines = {
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
    for name, content in trials.some(lines.items()):
        folder = trials.folder("results")
        (folder / "results.jsonl").write_bytes(content)
        trials.run(group, name, "report", folder)
        page = folder / "report.html"
        if page.is_file() and "<script" in page.read_text():
            group.held -= 1
            group.faults.append(f"{name}: a script in the page")
    yield group
