"""Runs to the Hub and back, against a stand-in of its endpoints."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file

import gopro
from gopro import cli
from gopro.errors import InputError
from gopro.inference.export import ExportSettings, export_run
from gopro.inference.serve.samples import sample_images
from gopro.inference.taylor_head_file import build_head, head_path, load_head
from gopro.runs.config import TrainConfig
from gopro.runs.hub import OURS
from gopro.runs.push import evaluations, push
from gopro.runs.results import KEY
from gopro.runs.run import load_run
from gopro.training.train import train
from tests.support.hub_server import Hub, serving

NAMES = ["chess pawn", "soccer ball", "paint palette"]
HERE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a first-order head, in a folder whose path must not get out."""
    folder = tmp_path_factory.mktemp("my-secret-place") / "run"
    train(
        TrainConfig(
            data="emoji-activities", classes="base", shots=2, epochs=1, batch=32, workers=0, output=folder, device="cpu"
        )
    )
    build_head(load_run(folder), NAMES)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "my-secret-place" / "run")
    return tmp_path / "my-secret-place" / "run"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that the client asks, with one user, alice, who is not logged in yet."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    with serving() as hub:
        hub.tokens["alices-token"] = {"alice"}
        for name, value in {
            "ENDPOINT": hub.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        yield hub


@pytest.fixture
def alice(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "alices-token")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i, sample in enumerate(gopro.load_dataset("emoji-activities").test[::60]):
        sample.image.open().save(folder / f"{i:03}.png")
    return folder


def refusal(function, *arguments, **settings) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_comes_back_the_same_in_another_process(
    run: Path, hub: Hub, alice: None, images: Path, tmp_path: Path
) -> None:
    address = push(run, "alice/activities", license="mit")
    assert address.startswith(f"{hub.address}/alice/activities/commit/")
    head = f"heads/{head_path(load_run(run), NAMES).name}"
    wanted = {"config.json", "cost.json", "learned.safetensors", head, "README.md", ".gitattributes"}
    assert set(hub.files("alice/activities")) == wanted
    expected = gopro.load(run, "cpu").predict_proba(images)
    script = (
        "import sys, numpy, torch, gopro;"
        f"torch.set_num_threads({torch.get_num_threads()});"
        "numpy.save(sys.argv[2], gopro.load('alice/activities', 'cpu').predict_proba(sys.argv[1]))"
    )
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(HERE / "src"),
    }
    command = [sys.executable, "-c", script, str(images), str(tmp_path / "there.npy")]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)
    there = np.load(tmp_path / "there.npy")
    assert there.shape == expected.shape and len(expected) > 5 and np.array_equal(there, expected)


def test_its_first_order_head_comes_with_it(run: Path, hub: Hub, alice: None) -> None:
    push(run, "alice/activities")
    there = load_run("alice/activities")
    assert there.folder != run
    terms, own = vars(load_head(there, NAMES).expansion), vars(load_head(load_run(run), NAMES).expansion)
    assert all(torch.equal(terms[key], own[key]) for key in own)


def test_no_path_of_this_machine_gets_out(run: Path, hub: Hub, alice: None) -> None:
    content = json.loads((run / "config.json").read_text())
    content["config"] |= {"root": "/home/my-secret-place", "data": "/home/my-secret-place/birds"}
    weights = "ViT-B-16:/home/my-secret-place/weights.safetensors"
    content["config"]["backbone"] = content["backbone"]["name"] = weights
    (run / "config.json").write_text(json.dumps(content))
    push(run, "alice/birds")
    for name, file in hub.files("alice/birds").items():
        assert b"my-secret-place" not in file, name
    said = refusal(gopro.load, "alice/birds")
    assert "alice/birds was trained on a backbone" in said and "'weights.safetensors' is neither a file" in said


def card(hub: Hub, repository: str = "alice/activities") -> tuple[dict, str]:
    match = re.fullmatch(r"---\n(.*?)\n---\n(.*)", hub.files(repository)["README.md"].decode(), re.DOTALL)
    assert match
    return yaml.safe_load(match[1]), match[2]


def test_the_card_says_what_the_run_is_and_does(run: Path, hub: Hub, alice: None, capsys) -> None:
    cli.main(["eval", str(run), "--classes", "base", "--workers", "0"])
    row = json.loads(next(run.glob("eval-*.json")).read_text())
    capsys.readouterr()
    cli.main(["push", str(run), "alice/activities", "--license", "cc-by-4.0"])
    printed = capsys.readouterr().out
    assert "is on the Hub" in printed and "gopro predict alice/activities IMAGES" in printed
    data, text = card(hub)
    assert data["license"] == "cc-by-4.0" and data["library_name"] == "gopro" and "base_model" not in data
    [result] = data["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == row["accuracy"]
    assert f"| {row['data']} | base | {row['accuracy']:.2f} | {row['macro_accuracy']:.2f} | {row['n']} |" in text
    assert "Learned from 2 images a class of emoji-activities:twemoji (base classes)" in text and "| seed | 1 |" in text
    for words in (
        "arXiv 2308.11605",
        "`emoji`, frozen",
        "| `context` | 1 | 512 |",
        "cc-by-4.0",
        "| first-order heads | 1 |",
    ):
        assert words in text, words
    [example] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    compile(example, "README.md", "exec")
    assert 'gopro.load("alice/activities")' in example


def test_the_weights_of_a_backbone_that_the_hub_has_are_linked(run: Path, hub: Hub, alice: None) -> None:
    content = json.loads((run / "config.json").read_text())
    content["backbone"]["name"] = "ViT-B-16:openai"
    (run / "config.json").write_text(json.dumps(content))
    push(run, "alice/activities")
    assert re.fullmatch(r"[\w-]+/[\w.-]*vit[\w.-]*16[\w.-]*openai", card(hub)[0]["base_model"])


def row(run: str, data: str, accuracy: float) -> dict:
    return dict.fromkeys(KEY, "x") | {
        "data": data, "classes": "all", "accuracy": accuracy, "macro_accuracy": accuracy, "n": 7, "run": run,
    }  # fmt: skip


def test_results_of_a_benchmark_are_those_of_the_run(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "out" / "runs" / "mine")
    rows = [row("runs/mine", "food", 50.0), row("runs/other", "food", 60.0), row("runs/mine", "animals", 40.0)]
    results = tmp_path / "out" / "results.jsonl"
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine = tmp_path / "out" / "runs" / "mine"
    assert [(r["data"], r["accuracy"]) for r in evaluations(mine)] == [("animals", 40.0), ("food", 50.0)]
    assert evaluations(mine, results) == evaluations(mine)
    (mine / "eval-food-all.json").write_text(json.dumps(row("", "food", 70.0)))  # asked for by hand, later
    assert [r["accuracy"] for r in evaluations(mine)] == [40.0, 70.0]
    shutil.copytree(made, tmp_path / "stranger")
    assert evaluations(tmp_path / "stranger") == []
    assert "says nothing of" in refusal(evaluations, tmp_path / "stranger", results)
    assert "no such file" in refusal(evaluations, mine, tmp_path / "none.jsonl")
    (mine / "eval-food-all.json").write_text("{}")
    assert "eval-food-all.json is not what gopro eval writes" in refusal(evaluations, mine)


def test_a_private_run_is_for_those_who_may(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "alices-token")
    push(run, "alice/mine", private=True)
    assert hub.repositories["alice/mine"].private
    assert gopro.load("alice/mine", "cpu").classes_.size == 43
    shutil.rmtree(constants.HF_HUB_CACHE)
    monkeypatch.delenv("HF_TOKEN")
    said = refusal(gopro.load, "alice/mine")
    assert "alice/mine" in said and "private" in said and "HF_TOKEN" in said
    hub.tokens["bobs-token"] = {"bob"}
    monkeypatch.setenv("HF_TOKEN", "bobs-token")
    assert "your token does not open it" in refusal(gopro.load, "alice/mine")


def test_what_is_to_be_private_is_not_put_where_everyone_sees_it(run: Path, hub: Hub, alice: None) -> None:
    hub.put("alice/open", {".gitattributes": b""})
    assert "everyone sees it" in refusal(push, run, "alice/open", private=True)
    assert set(hub.files("alice/open")) == {".gitattributes"}


def test_a_branch_of_its_own(run: Path, hub: Hub, alice: None) -> None:
    push(run, "alice/activities", revision="v2")
    assert set(hub.files("alice/activities")) == {".gitattributes"}
    assert gopro.load("alice/activities@v2", "cpu").classes_.size == 43
    assert "alice/activities@v2" in hub.files("alice/activities", "v2")["README.md"].decode()
    assert "no config.json" in refusal(gopro.load, "alice/activities")
    assert "no revision v3" in refusal(gopro.load, "alice/activities@v3")


def test_pushing_again_clears_old_heads_and_leaves_an_edited_card(run: Path, hub: Hub, alice: None) -> None:
    push(run, "alice/activities")
    first = hub.files("alice/activities")
    head = next((run / "heads").iterdir())
    head.rename(head.with_name("first-order-other.safetensors"))
    push(run, "alice/activities", license="mit")
    second = hub.files("alice/activities")
    assert [f for f in second if f.startswith("heads/")] == ["heads/first-order-other.safetensors"]
    assert first["README.md"] != second["README.md"]
    edited = second["README.md"].replace(OURS.encode(), b"My own words.")
    hub.repositories["alice/activities"].commit("main", {**second, "README.md": edited})
    push(run, "alice/activities", license="cc0-1.0")
    assert hub.files("alice/activities")["README.md"] == edited


@pytest.mark.parametrize("name", ["one", "a/b/c", "alice/with space", "alice/", "../up"])
def test_names_that_are_no_repositories(name: str, run: Path, hub: Hub, alice: None) -> None:
    said = refusal(push, run, name)
    assert name in said and not hub.repositories


def test_pushing_takes_a_token_that_may(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hf auth login" in refusal(push, run, "alice/activities")
    monkeypatch.setenv("HF_TOKEN", "alices-token")
    assert "does not let your token" in refusal(push, run, "bob/activities")
    assert not hub.repositories


def test_only_a_finished_run_is_pushed(run: Path, hub: Hub, alice: None) -> None:
    (run / "learned.safetensors").unlink()
    assert "not finished" in refusal(push, run, "alice/activities")
    (run / "config.json").unlink()
    assert "no config.json" in refusal(push, run, "alice/activities")


def test_nothing_but_our_files_is_fetched(run: Path, hub: Hub, alice: None) -> None:
    push(run, "alice/activities")
    files = hub.files("alice/activities")
    more = {name: b"cos\nsystem\n." for name in ("pytorch_model.bin", "heads/x.pt", "learned.pkl", "code.py")}
    hub.repositories["alice/activities"].commit("main", {**files, **more})
    hub.seen.clear()
    folder = load_run("alice/activities").folder
    fetched = {line.rpartition("/")[2] for line in hub.seen if "/resolve/" in line}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == set(files) - {"README.md", ".gitattributes"} and fetched == {Path(f).name for f in there}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": b"{}", "model.safetensors": b""}, "no learned.safetensors"),
        ({"README.md": b"# a model"}, "no config.json"),
        ({"config.json": b"{}", "learned.safetensors": b""}, "is not the config of a run"),
    ],
)
def test_what_is_no_run_is_told(files: dict[str, bytes], words: str, hub: Hub) -> None:
    hub.put("bob/other", files)
    assert words in refusal(gopro.load, "bob/other")


def test_what_is_not_there_is_told(hub: Hub, alice: None, tmp_path: Path) -> None:
    said = refusal(gopro.load, "bob/nothing")
    assert said.startswith("bob/nothing is neither a folder nor on the Hub")
    hub.seen.clear()
    assert "there is no such folder" in refusal(gopro.load, tmp_path / "nothing")
    assert "there is no such folder" in refusal(gopro.load, "nothing")
    assert not hub.seen, "what cannot be a repository is not asked for"


def test_a_folder_comes_before_the_hub(run: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(run, tmp_path / "alice" / "activities")
    monkeypatch.chdir(tmp_path)
    assert gopro.load("alice/activities", "cpu").classes_.size == 43 and not hub.seen


def test_without_a_connection(run: Path, hub: Hub, alice: None, monkeypatch: pytest.MonkeyPatch) -> None:
    push(run, "alice/activities")
    gopro.load("alice/activities", "cpu")
    with serving() as gone:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", gone.address)
    assert gopro.load("alice/activities", "cpu").classes_.size == 43, "what was fetched is there"
    assert "cannot be reached" in refusal(gopro.load, "alice/another")
    assert gone.address in refusal(push, run, "alice/activities")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "cannot be reached" in refusal(gopro.load, "alice/another")


def test_other_weights_under_the_same_name_are_refused(run: Path, hub: Hub, alice: None) -> None:
    content = json.loads((run / "config.json").read_text())
    content["backbone"]["fingerprint"] = "0" * 16
    (run / "config.json").write_text(json.dumps(content))
    push(run, "alice/activities")
    assert "alice/activities was trained on other weights of emoji" in refusal(gopro.load, "alice/activities")


def test_the_commands_take_it_by_its_name(run: Path, hub: Hub, alice: None, images: Path, capsys) -> None:
    push(run, "alice/activities")
    cli.main(["predict", str(run), str(images), "--json"])
    here = capsys.readouterr().out
    cli.main(["predict", "alice/activities", str(images), "--json"])
    assert capsys.readouterr().out == here and here.count("\n") > 5
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict", "alice/nothing", str(images)])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith("error: alice/nothing") and "Traceback" not in said


def test_what_a_strangers_config_names_is_not_followed(
    run: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Neither to images nor to weights of this machine, and nothing is written into the Hub's cache."""
    monkeypatch.chdir(tmp_path)
    private = tmp_path / "private"
    for name in ("ant", "bee"):
        (private / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (40, 40), (i, 0, 0)).save(private / name / f"{i}.png")
    config = json.loads((run / "config.json").read_text())
    files = {name: (run / name).read_bytes() for name in ("learned.safetensors", "cost.json")}

    def put(**more) -> None:
        content = {**config, **more}
        hub.put("bob/trap", {**files, "config.json": json.dumps(content).encode()})
        shutil.rmtree(tmp_path / "hub-cache", ignore_errors=True)

    for data, root in ((str(private), None), ("private", str(tmp_path)), ("caltech101", str(tmp_path))):
        put(config={**config["config"], "data": data, "root": root})
        there = load_run("bob/trap")
        assert there.hub == "bob/trap" and there.config.root is None
        for ask in (there.dataset, lambda there=there: build_head(there, ["a", "b"])):
            assert "comes from the Hub" in refusal(ask)
        assert "comes from the Hub" in refusal(export_run, "bob/trap", None, ExportSettings(output=tmp_path / "x.onnx"))
        with pytest.raises(SystemExit):
            cli.main(["eval", "bob/trap"])
        assert "comes from the Hub" in capsys.readouterr().err
        images = sample_images(there)
        assert not {image.label for image in images} & {"ant", "bee"}
    assert not (private / "split_gopro.json").exists()
    for weights in (
        "openai:/etc/passwd",
        "openai:~/x",
        "ViT-B-16:../x.pt",
        "openai:a\\b",
        "openai:C:x",
        "openai:\\\\h\\s",
    ):
        put(backbone={**config["backbone"], "name": weights})
        assert "by a path" in refusal(load_run, "bob/trap")


def test_what_is_made_of_a_run_from_the_hub_is_not_put_into_its_cache(
    run: Path, hub: Hub, alice: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    shutil.rmtree(run / "heads")
    push(run, "alice/activities")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    there = load_run("alice/activities")
    before = {path for path in there.folder.rglob("*")}
    cli.main(["eval", "alice/activities", "--workers", "0"])
    assert [path.name for path in Path().iterdir()] == ["eval-emoji-activities_twemoji-all.json"]
    head = build_head(there, NAMES)
    assert head_path(there, NAMES).is_relative_to(cache)
    assert torch.equal(vars(load_head(there, NAMES).terms)["weights"], vars(head.terms)["weights"])
    assert {path for path in there.folder.rglob("*")} == before


def test_an_imported_run_says_where_it_is_from(run: Path, hub: Hub, alice: None) -> None:
    content = json.loads((run / "config.json").read_text())
    content["imported"] = {"file": "model.pth.tar-50", "code": "CoOp", "epoch": 50}
    content["config"] |= {"shots": 0, "seed": 0, "data": "unknown"}
    content["data"] = "unknown"
    (run / "config.json").write_text(json.dumps(content))
    (run / "cost.json").unlink()
    save_file({}, run / "learned.safetensors")
    push(run, "alice/activities")
    text = card(hub)[1]
    assert "| imported from | `model.pth.tar-50`, a checkpoint of CoOp |" in text and "| seed | not known |" in text
    assert "What it was trained on is not known here." in text and "cost.json" not in hub.files("alice/activities")
    assert "Nothing: the method takes class names alone." in text


def test_the_summary_of_a_method_that_learns_nothing(run: Path, hub: Hub, alice: None) -> None:
    train(replace(TrainConfig(data="emoji-activities", output=run.parent / "zero"), method="zeroshot", device="cpu"))
    push(run.parent / "zero", "alice/zero")
    assert "CLIP as it is" in card(hub, "alice/zero")[1] and "Learned from" not in card(hub, "alice/zero")[1]
