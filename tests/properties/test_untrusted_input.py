"""Reading untrusted files in this process executes no code, follows no link and never blocks."""

from __future__ import annotations

import ast
import gzip
import io
import os
import pickle
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gopro import cli
from gopro.cli.console import Screen, printable
from gopro.clip.backbone import Backbone
from gopro.clip.weights.safe_load import safe_load, state_dict
from gopro.data.images.image_file import ImageFile
from gopro.data.load_dataset import load_dataset
from gopro.data.published.unpack import unpack
from gopro.errors import InputError
from gopro.methods.registry import build_method
from tests.support import hostile_files
from tests.support.serve import serve_in_thread, untrained_run

SOURCE = Path(__file__).resolve().parents[2] / "src"


def refusal(function, *arguments, **settings) -> str:
    """Return the one-line message of the `InputError` that a call raises."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_payload_executes_when_unpickled_without_protection(tmp_path: Path) -> None:
    """Show that the payloads work; otherwise the tests that they are refused would prove nothing."""
    mark = tmp_path / "mark"
    for name, content in hostile_files.files_with_code(mark, {"ctx": torch.zeros(2)}):
        if name == "numpy archive":
            np.load(io.BytesIO(content), allow_pickle=True)["ctx"]
        elif name == "TorchScript":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                pickle.loads(archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl"))))
        elif name.startswith("plain"):
            pickle.loads(content)
        else:
            torch.load(io.BytesIO(content), weights_only=False)
        assert mark.exists(), name
        mark.rmdir() if mark.is_dir() else mark.unlink()


def test_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    for name, content in hostile_files.memory_bombs():
        path = tmp_path / "bomb.pt"
        path.write_bytes(content)
        message = refusal(lambda path=path: state_dict(path, safe_load(path)))
        reasons = ("claims", "compressed", "not a dense tensor", "damaged")
        assert str(path) in message and any(reason in message for reason in reasons), name
    tied = torch.ones(8, 4)
    torch.save({"a": tied, "b": tied[:2], "c": tied.T}, tmp_path / "tied.pt")
    assert state_dict(tmp_path / "tied.pt", safe_load(tmp_path / "tied.pt"))["c"].shape == (4, 8)


def test_the_source_calls_no_shell_no_pickle_and_no_eval() -> None:
    """Search the source for calls that could execute an untrusted file."""
    dangerous = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            dangerous += [f"{path.name}:{node.lineno}: {why}" for why in _dangers(node)]
    assert not dangerous


BAD = """
import pickle
from dill import loads
os.system(x)
subprocess.run(x, shell=True)
eval(x)
exec(x)
yaml.load(x)
torch.load(x)
torch.load(x, weights_only=False)
np.load(x, allow_pickle=True)
torch.jit.load(x)
os.popen(x)
__import__(x)
jinja2.Environment(loader=x)
"""


def test_the_search_for_dangerous_calls_finds_each_of_them() -> None:
    lines = {node.lineno for node in ast.walk(ast.parse(BAD)) if hasattr(node, "lineno") and list(_dangers(node))}
    assert lines == set(range(2, BAD.count("\n") + 1))
    fine = "torch.load(x, weights_only=True); np.load(x); yaml.safe_load(x); module.eval(); subprocess.run([x])"
    assert not [why for node in ast.walk(ast.parse(fine)) for why in _dangers(node)]


def _dangers(node: ast.AST) -> Iterator[str]:
    """Yield the reasons why an import or a call could execute untrusted content."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
        yield from {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"} & {n.split(".")[0] for n in names}
    if not isinstance(node, ast.Call):
        return
    name, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
    if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"):
        yield name
    if keywords.get("shell", "False") != "False" or keywords.get("allow_pickle", "False") != "False":
        yield f"{name} with {keywords}"
    if name.endswith("torch.load") and keywords.get("weights_only") != "True":
        yield name
    if name.endswith("jit.load") or (name.endswith("jinja2.Environment") and keywords.get("autoescape") != "True"):
        yield name


@pytest.mark.parametrize("kind", ["pipe", "loop", "socket", "folder", "device"])
def test_a_path_named_as_an_image_but_not_a_regular_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    for read in (ImageFile(path).open, ImageFile(path).digest):
        assert str(path) in refusal(read)


def test_a_symbolic_link_to_itself_is_reported_as_unreadable(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (9, 9)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "a" / "loop.png").symlink_to("loop.png")
    data = load_dataset(str(tmp_path))
    messages = [refusal(s.image.open) for s in (*data.train, *data.val, *data.test) if "loop" in s.image.name]
    assert len(messages) == 1 and "Too many levels" in messages[0]


@pytest.mark.parametrize(
    "archive",
    [*map(hostile_files.long_name, (b"L", b"K", b"x", b"g")), hostile_files.many_parts()],
    ids=[*"LKxg", "parts"],
)
def test_a_tar_header_larger_than_a_mebibyte_is_refused(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(archive)
    assert "a name or header of more than 1048576 bytes" in refusal(unpack, tmp_path / "a", tmp_path / "into")


def test_a_tar_cut_inside_a_sparse_file_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.decompress(hostile_files.many_parts(2)))
    assert "not an archive that can be unpacked" in refusal(unpack, tmp_path / "a", tmp_path / "into")


def test_a_large_tar_header_after_many_files_is_refused(tmp_path: Path) -> None:
    """The limit applies to each header: 2000 files with long names unpack, a large header after them does not."""
    plain = hostile_files.tar_file([(f"{i}/{'x' * 200}", b"y" * 3000, {}) for i in range(2000)])
    end = len(plain.rstrip(b"\0"))
    end += -end % 512
    (tmp_path / "good").write_bytes(plain)
    unpack(tmp_path / "good", tmp_path / "into good")
    assert len(list((tmp_path / "into good").rglob("x*"))) == 2000
    (tmp_path / "bad").write_bytes(plain[:end] + gzip.decompress(hostile_files.long_name(b"L")))
    assert "a name or header of more than" in refusal(unpack, tmp_path / "bad", tmp_path / "into bad")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, ü 日本 [bold]x[/]", "plain, ü 日本 [bold]x[/]"),
        ("\x1b[31mred\x07", "␛[31mred␇"),
        ("a\x9bb\x7f", "a�b�"),
        ("a\u202eb\u2066c", "a�b�c"),
        ("a\nb\tc", "a\nb\tc"),
        ("a\rb\0", "a␍b␀"),
    ],
)
def test_control_characters_are_replaced_before_printing(text: str, expected: str) -> None:
    assert printable(text) == expected
    screen = Screen(record=True, width=200, force_terminal=True, color_system=None)
    with screen.capture() as output:
        screen.print(text, markup=False, highlight=False)
    assert not set(output.get()) & set("\x1b\x07\x9b\x7f\r\0\u202e\u2066")


def test_colours_of_our_own_are_printed() -> None:
    screen = Screen(force_terminal=True, color_system="standard", width=80)
    with screen.capture() as output:
        screen.print("wrong: \x1b[2J", style="red", markup=False, highlight=False)
    assert output.get().startswith("\x1b[31m") and "␛[2J" in output.get()


def test_class_names_with_control_characters_or_of_10_mb_are_refused(tiny: Backbone) -> None:
    for name in ("a\x1b[31m", "a\nb", "\u202egpj", "\x9b", "a\0"):
        assert "control characters" in refusal(build_method, "zeroshot", tiny, ["b", name], "a photo of a {}.")
    message = refusal(build_method, "zeroshot", tiny, ["x" * 10_000_000], "a photo of a {}.")
    assert "1000001" in message and "shorten it" in message and len(message) < 200
    build_method("zeroshot", tiny, ["naïve 👨‍👩‍👧", "a\tb", "日本"], "a photo of a {}.")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("method: !!python/object/apply:os.system ['touch mark']", "is not YAML"),
        ("a: &a [*a]", "a: expected a text"),
        ("a: &a [x]\nb: &b [*a, *a]", "b: expected a text"),
        ("seed: 2026-99-99", "is not YAML"),
        ("seed: " + "9" * 6000, "is not YAML"),
        ("[" * 20_000, "is not YAML"),
        ("data: {a: b}", "data: expected a text"),
    ],
)
def test_settings_files_with_code_or_nonsense_are_refused(
    content: str, words: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("settings.yaml").write_text(content)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--config", "settings.yaml"])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and words in message and message.count("\n") == 1
    assert os.listdir() == ["settings.yaml"]


def test_samples_never_come_from_the_data_set_that_a_config_names(tmp_path: Path, tiny: Backbone) -> None:
    """A run from a stranger may name a folder of private images as its data set.

    The package has photographs of one of its classes, which are shown instead.
    """
    private, names = tmp_path / "private", ["ant", "starfish"]
    for name in names:
        (private / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (40, 40), "red").save(private / name / f"{i}.png")
    run = untrained_run("zeroshot", tiny, names, tmp_path / "run", data=str(private))
    with serve_in_thread(run) as server:
        assert [sample["label"] for sample in server.get("/samples").json()] == ["starfish"]
        assert not _is_private(server.get("/samples/0").content)
    assert not (private / "split_gopro.json").exists()
    with serve_in_thread(run, samples_of=str(private)) as server:
        assert [sample["label"] for sample in server.get("/samples").json()] == names
        assert _is_private(server.get("/samples/0").content)
    assert "no such data set" in refusal(lambda: serve_in_thread(run, samples_of="nothing").__enter__())


def _is_private(content: bytes) -> bool:
    """Return whether a sample is one of the red images of the private folder."""
    return Image.open(io.BytesIO(content)).convert("RGB").getcolors() == [(40 * 40, (255, 0, 0))]
