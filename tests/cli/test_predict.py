"""`gopro predict`."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

import gopro as package
from gopro.cli import console
from gopro.data.folders.sorted_folders import MARK

NAMES = "red fox,snowy owl,teapot"


@pytest.fixture
def predict(zeroshot_run: Path, gopro):
    """Run `gopro predict` on the zero-shot run and return its exit code and the texts it wrote to stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        return gopro("predict", zeroshot_run, *arguments)

    return run


def command(run: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "gopro.cli", "predict", str(run), *map(str, arguments)]


def paint(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8))
    small.resize((60, 50)).save(path)
    return path


@pytest.fixture
def pics(tmp_path: Path) -> Path:
    """Five images in three folders, two of a name; two files that cannot be read; one that is no image by name."""
    for i, name in enumerate(("a.png", "b.jpg", "deep/a.png", "deep/ü 日本.webp", "deep/deeper/c.PNG")):
        paint(tmp_path / "pics" / name, i)
    (tmp_path / "pics" / "deep" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (tmp_path / "pics" / "empty.png").write_bytes(b"")
    (tmp_path / "pics" / "notes.txt").write_text("notes")
    return tmp_path / "pics"


def tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != MARK)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_predict_prints_names_or_json(coop_run: Path, image: Path, gopro) -> None:
    code, out, _ = gopro("predict", coop_run, image, image, "--classes", "red fox, snow owl", "--json")
    objects = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(objects) == 2
    probabilities = {p["name"]: p["probability"] for p in objects[0]["predictions"]}
    assert set(probabilities) == {"red fox", "snow owl"}
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    code, out, _ = gopro("predict", coop_run, image, "--top-k", 2)
    assert code == 0 and out.count("%") == 2 and out.startswith(str(image))


def test_unreadable_images_of_a_folder_are_listed_at_the_end(pics: Path, predict) -> None:
    code, out, err = predict(pics, pics / "no.jpg", "--classes", NAMES, "--top-k", 2)
    lines = out.splitlines()
    assert code == 1
    assert [line.split(": ")[0] for line in lines] == [
        str(pics / name) for name in ("a.png", "b.jpg", "deep/a.png", "deep/deeper/c.PNG", "deep/ü 日本.webp")
    ]
    assert all(line.count("%") == 2 for line in lines)
    backbone, *said = err.splitlines()
    assert backbone.startswith("Backbone: emoji, ") and "train again with --backbone ViT-B-16:openai" in backbone
    assert said[0] == "skipped 1 file without an image suffix" and said[1] == "3 could not be read:"
    for line, (name, reason) in zip(
        said[2:],
        {"deep/broken.jpg": "not an image", "empty.png": "the file is empty", "no.jpg": "no such image"}.items(),
        strict=True,
    ):
        assert line.startswith(f"  {pics / name}: ") and reason in line


def test_json_csv_and_python_agree(pics: Path, zeroshot_run: Path, predict) -> None:
    paths = package.find_images(pics)
    paths = [path for path in paths if path.name not in ("broken.jpg", "empty.png")]
    expected = package.load(zeroshot_run, "cpu").for_classes(NAMES.split(",")).predict(paths, top_k=3)
    how = ("--classes", NAMES, "--device", "cpu")  # where the batch size does not change the result
    _, out, _ = predict(pics, *how, "--json")
    objects = [json.loads(line) for line in out.splitlines()]
    _, out, _ = predict(pics, *how, "--csv", "--batch", 2)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(objects) == 5 and len(rows) == 15 and list(rows[0]) == ["path", "rank", "name", "probability"]
    for i, (path, predictions) in enumerate(zip(paths, expected, strict=True)):
        assert objects[i]["image"] == str(path)
        for rank, (p, said) in enumerate(zip(predictions, objects[i]["predictions"], strict=True), 1):
            row = rows[3 * i + rank - 1]
            assert (row["path"], row["rank"], row["name"]) == (str(path), str(rank), p.name) and said["name"] == p.name
            for value in (said["probability"], float(row["probability"])):
                assert value == pytest.approx(p.probability, abs=2e-6)


def test_class_names_are_read_from_a_file(pics: Path, tmp_path: Path, predict) -> None:
    (tmp_path / "names.txt").write_text("\ufeffred fox\r\n\nsnowy owl, white\n  teapot\n", encoding="utf-8")
    code, out, _ = predict(pics / "a.png", "--classes-file", tmp_path / "names.txt", "--json")
    assert code == 0
    assert {p["name"] for p in json.loads(out)["predictions"]} == {"red fox", "snowy owl, white", "teapot"}


def test_names_may_be_quoted_or_json_and_are_cleaned(pics: Path, tmp_path: Path, predict) -> None:
    (tmp_path / "names.json").write_text('["red_fox", "owl, white"]', encoding="utf-8")
    answers = [
        predict(pics / "a.png", *how, "--json")
        for how in (
            ("--classes", 'red_fox, "owl, white"'),
            ("--classes", '["red fox", "owl, white"]'),
            ("--classes", tmp_path / "names.json"),
            ("--classes-file", tmp_path / "names.json"),
        )
    ]
    assert len({out for _, out, _ in answers}) == 1 and answers[0][0] == 0
    assert {p["name"] for p in json.loads(answers[0][1])["predictions"]} == {"red fox", "owl, white"}
    code, _, err = predict(pics / "a.png", "--classes", "red fox")
    assert code == 2 and err.startswith("error: --classes: class name 'red fox' alone would get 100 % for every image")


def test_paths_that_are_not_utf8_are_printed_unchanged(tmp_path: Path, predict, zeroshot_run: Path) -> None:
    strange = os.path.join(os.fsencode(tmp_path), b"\xff,\xe9.png")
    try:
        os.close(os.open(strange, os.O_CREAT))
    except OSError:
        pytest.skip("this file system takes no such name")
    shutil.copy(paint(tmp_path / "a.png"), strange)
    code, out, _ = predict(tmp_path, "--json")
    assert code == 0 and {os.fsencode(json.loads(line)["image"]) for line in out.splitlines()} > {strange}
    code, _, _ = predict(tmp_path, "--sort-into", tmp_path / "sorted")
    assert code == 0 and len(tree(tmp_path / "sorted")) == 2


def test_folders_without_images_and_link_loops_are_reported(pics: Path, tmp_path: Path, predict) -> None:
    (tmp_path / "bare").mkdir()
    (pics / "deep" / "loop").symlink_to(pics)
    code, out, err = predict(tmp_path / "bare", pics, "--top-k", 1)
    assert code == 1 and len(out.splitlines()) == 5
    assert f"{tmp_path / 'bare'}: no images in this folder" in err and "loop: a link that leads back" in err
    code, out, err = predict(tmp_path / "bare")
    assert code == 1 and out == "" and "1 could not be read" in err


def test_missing_permissions_are_reported(pics: Path, predict) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read anything")
    (pics / "a.png").chmod(0)
    (pics / "deep").chmod(0)
    code, out, err = predict(pics)
    (pics / "deep").chmod(0o700)
    assert code == 1 and len(out.splitlines()) == 1 and err.count("Permission denied") == 2


def test_sorting_copies_and_prints_counts(pics: Path, tmp_path: Path, predict) -> None:
    goal = pics / "sorted"  # inside the folder being sorted
    arguments = (pics, "--classes", NAMES, "--sort-into", goal)
    code, out, err = predict(*arguments)
    assert code == 1 and "2 could not be read" in err and out.splitlines()[-1] == f"      5 images in {goal}"
    found = tree(goal)
    with pytest.warns(UserWarning, match=f"{goal}: holds images that gopro predict sorted"):
        whole = [path for path in package.find_images(pics) if path.name not in ("broken.jpg", "empty.png")]
    assert sorted(found.values()) == sorted(path.read_bytes() for path in whole)
    code, again, _ = predict(*arguments)
    assert again.splitlines()[-1] == f"      5 images in {goal}, 5 of them were there already" and tree(goal) == found
    code, out, err = predict(*arguments, "--json")
    assert len(out.splitlines()) == 5 and "5 of them were there already" in err and tree(goal) == found


def test_sorting_puts_each_image_where_its_prediction_says(pics: Path, tmp_path: Path, predict) -> None:
    _, out, _ = predict(pics, "--classes", NAMES, "--json")
    best = {o["image"]: o["predictions"][0] for o in map(json.loads, out.splitlines())}
    middle = sorted(p["probability"] for p in best.values())[2]
    arguments = (pics, "--classes", NAMES, "--sort-into", tmp_path / "sorted", "--link", "symbolic")
    _, out, _ = predict(*arguments, "--min-confidence", middle - 1e-5)
    where = {str(path.resolve()): path.parent.name for path in (tmp_path / "sorted").rglob("*") if path.is_symlink()}
    assert where == {path: p["name"] if p["probability"] >= middle else "_unsure" for path, p in best.items()}
    assert "      2 _unsure/  (probability below " in out


@pytest.mark.slow
def test_paths_from_stdin_are_answered_one_by_one(pics: Path, zeroshot_run: Path, tmp_path: Path) -> None:
    """Each answer arrives before the next path is written; a large image and one over the limit are among them."""
    Image.new("1", (10000, 9000)).save(tmp_path / "huge.png")  # Pillow warns about such an image
    Image.new("1", (16000, 16000)).save(tmp_path / "hugest.png")
    process = subprocess.Popen(
        command(zeroshot_run, "-", "--top-k", 1),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=pics,
    )
    assert process.stdin and process.stdout and process.stderr
    for line, answered in {
        b"./a.png\n": b"./a.png: ",
        b"\r\n\nb.jpg\r\n": b"b.jpg: ",
        "deep/ü 日本.webp\n".encode(): "deep/ü 日本.webp: ".encode(),
    }.items():
        process.stdin.write(line)
        process.stdin.flush()
        assert process.stdout.readline().startswith(answered)
    out, err = process.communicate(f"no.png\n{tmp_path}/hugest.png\n{tmp_path}/huge.png\ndeep/deeper\na.png".encode())
    assert [line.split(b": ")[0] for line in out.splitlines()] == [
        os.fsencode(tmp_path / "huge.png"),
        b"deep/deeper/c.PNG",
        b"a.png",
    ]
    _, *said = err.decode().splitlines()
    assert process.returncode == 1 and len(said) == 3 and said[0] == "2 could not be read:"
    assert "no.png: there is no such image" in said[1] and "pixels" in said[2]


@pytest.mark.slow
def test_a_closed_pipe_ends_the_command_quietly(pics: Path, zeroshot_run: Path) -> None:
    many = "a.png\n" * 10_000  # fits into the pipe's buffer, so that writing does not block
    process = subprocess.Popen(
        command(zeroshot_run, "-", "--batch", 4),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=pics,
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(many.encode())
    assert process.stdout.readline().startswith(b"a.png: ")
    process.stdout.close()
    assert process.wait(60) == 141 and process.stderr.read() == b""


def test_the_progress_bar_appears_on_the_terminal_only(pics: Path, predict, monkeypatch: pytest.MonkeyPatch) -> None:
    pty = pytest.importorskip("pty", reason="no pseudo-terminals on this system")
    ours, theirs = pty.openpty()
    shown = b""

    def read() -> None:
        nonlocal shown
        with suppress(OSError):  # Linux raises when the last writer is gone
            while chunk := os.read(ours, 1 << 16):
                shown += chunk

    reader = Thread(target=read)
    reader.start()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(console.err, "is_interactive", True)  # rich determines it once, at import
        code, out, _ = predict(*[pics / "a.png"] * 40, "--batch", 4, "--csv", "--top-k", 1)
    reader.join()
    os.close(ours)
    assert code == 0 and len(out.splitlines()) == 41
    assert b"images" in shown and b"/40" in shown and b"a.png" not in shown


@pytest.mark.slow
def test_a_killed_sort_is_finished_by_the_same_command(zeroshot_run: Path, tmp_path: Path, predict) -> None:
    for i in range(300):
        paint(tmp_path / "pics" / str(i % 3) / f"{i // 3}.png", i)
    arguments = (tmp_path / "pics", "--classes", NAMES, "--batch", 4, "--sort-into")
    goal = tmp_path / "sorted"
    process = subprocess.Popen(command(zeroshot_run, *arguments, goal), stdout=subprocess.DEVNULL)
    while sum(len(names) for _, _, names in os.walk(goal)) < 20:  # os.walk tolerates files that move meanwhile
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = tree(goal)
    assert len(before) < 300
    assert predict(*arguments, goal)[0] == 0
    assert predict(*arguments, tmp_path / "whole")[0] == 0
    assert tree(goal) == tree(tmp_path / "whole") and len(tree(goal)) == 300


def test_photographs_are_sorted_better_than_chance(shared: Path, zeroshot_run: Path, tmp_path: Path, predict) -> None:
    """Zero-shot with the small embedded CLIP, which was trained on emoji."""
    classes = {"sunflower": "sunflower", "stop_sign": "stop sign", "pizza": "pizza"}
    for folder in classes:
        found = sorted((shared / "datasets" / "caltech-101" / "101_ObjectCategories" / folder).iterdir())[:20]
        for path in found:
            (tmp_path / "pics").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "pics" / f"{folder}-{path.name}")
    code, out, _ = predict(tmp_path / "pics", "--classes", ",".join(classes.values()), "--sort-into", tmp_path / "out")
    assert code == 0 and out.splitlines()[-1] == f"     60 images in {tmp_path / 'out'}"
    right = sum(classes[path.name.split("-")[0]] == path.parent.name for path in (tmp_path / "out").rglob("*.jpg"))
    assert right > 30


def test_names_of_images_without_labels_are_reported(zeroshot_run: Path, image: Path, tmp_path: Path, gopro) -> None:
    run = shutil.copytree(zeroshot_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    names = [*config["classnames"], "otter", "red panda"]
    (run / "config.json").write_text(json.dumps({**config, "unlabeled_names": names}))
    code, out, err = gopro("predict", run, image)
    assert code == 0 and "otter" not in out
    assert "85 trained classes. Images without labels taught it 2 classes: otter, red panda; to choose" in " ".join(
        err.split()
    )
    code, _, err = gopro("predict", run, image, "--classes", "otter,red panda,hockey stick")
    assert code == 0 and "trained classes" not in err
