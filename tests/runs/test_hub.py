"""Push runs to the Hugging Face Hub and load them from there, against a stand-in of its endpoints."""

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
from gopro.runs.hub import CARD_MARK
from gopro.runs.load_run import load_run
from gopro.runs.push import evaluations, push
from gopro.runs.results import KEY
from gopro.training.train import train
from tests.support.hub_server import Hub, serving

NAMES = ["chess pawn", "soccer ball", "paint palette"]
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a first-order head, in a folder whose path must not be published."""
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
    """A Hub that the client uses, with one user, alice, who is not logged in yet."""
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


def test_a_pushed_run_predicts_the_same_in_another_process(
    run: Path, hub: Hub, alice: None, images: Path, tmp_path: Path
) -> None:
    address = push(run, "alice/activities", license="mit")
    assert address.startswith(f"{hub.address}/alice/activities/commit/")
    head = f"heads/{head_path(load_run(run), NAMES).name}"
    files = {"config.json", "training_images.json", "cost.json", "calibration.json", "learned.safetensors", head}
    files.add("README.md")
    assert set(hub.files("alice/activities")) == {*files, ".gitattributes"}
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
        "PYTHONPATH": str(REPOSITORY / "src"),
    }
    command = [sys.executable, "-c", script, str(images), str(tmp_path / "probabilities.npy")]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)
    probabilities = np.load(tmp_path / "probabilities.npy")
    assert len(expected) > 5 and np.array_equal(probabilities, expected)


def test_a_run_on_photographs_is_loaded_from_the_hub(hub: Hub, alice: None, tmp_path: Path) -> None:
    config = TrainConfig(data="photos", method="zeroshot", output=tmp_path / "run", workers=0, device="cpu")
    assert config.backbone == "photo"
    train(config)
    push(tmp_path / "run", "alice/photos")
    assert "`photo`, frozen" in card(hub, "alice/photos")[1]
    images = [sample.image.open() for sample in gopro.load_dataset("photos").test[::60]]
    local, loaded = (gopro.load(run, "cpu").predict_proba(images) for run in (tmp_path / "run", "alice/photos"))
    assert np.array_equal(local, loaded)


def test_first_order_heads_are_pushed_with_the_run(run: Path, hub: Hub, alice: None) -> None:
    push(run, "alice/activities")
    loaded = load_run("alice/activities")
    assert loaded.folder != run
    expansion, expected = (vars(load_head(each, NAMES).expansion) for each in (loaded, load_run(run)))
    assert all(torch.equal(expansion[key], expected[key]) for key in expected)


def test_no_path_of_this_machine_is_pushed(run: Path, hub: Hub, alice: None) -> None:
    content = json.loads((run / "config.json").read_text())
    content["config"] |= {"root": "/home/my-secret-place", "data": "/home/my-secret-place/birds"}
    weights = "ViT-B-16:/home/my-secret-place/weights.safetensors"
    content["config"]["backbone"] = content["backbone"]["name"] = weights
    (run / "config.json").write_text(json.dumps(content))
    push(run, "alice/birds")
    for name, file in hub.files("alice/birds").items():
        assert b"my-secret-place" not in file, name
    message = refusal(gopro.load, "alice/birds")
    assert "alice/birds: the backbone it was trained on cannot be loaded" in message
    assert "'weights.safetensors' is neither a file" in message


def card(hub: Hub, repository: str = "alice/activities") -> tuple[dict, str]:
    match = re.fullmatch(r"---\n(.*?)\n---\n(.*)", hub.files(repository)["README.md"].decode(), re.DOTALL)
    assert match
    return yaml.safe_load(match[1]), match[2]


def test_the_card_describes_the_run_and_its_results(run: Path, hub: Hub, alice: None, capsys) -> None:
    cli.main(["eval", str(run), "--classes", "base", "--workers", "0"])
    row = json.loads(next(run.glob("eval-*.json")).read_text())
    capsys.readouterr()
    cli.main(["push", str(run), "alice/activities", "--license", "cc-by-4.0"])
    printed = capsys.readouterr().out
    assert f"Uploaded {run} to {hub.address}" in printed and "gopro predict alice/activities IMAGES" in printed
    data, text = card(hub)
    assert data["license"] == "cc-by-4.0" and data["library_name"] == "gopro" and "base_model" not in data
    [result] = data["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == row["accuracy"]
    assert f"| {row['data']} | base | {row['accuracy']:.2f} | {row['macro_accuracy']:.2f} | {row['n']} |" in text
    assert "Trained on 2 images per class of emoji-activities:twemoji (base classes)" in text and "| seed | 1 |" in text
    for words in (
        "arXiv 2308.11605",
        "`emoji`, frozen",
        "| `context` | 1 | 512 |",
        "cc-by-4.0",
        "| first-order heads | 1 |",
        "| recipe for base-to-new | 1 epoch, batches of 32, AdamW at 0.001 |",
        "| its schedule and weight decay | warm-up of 0.1 epochs at 1e-5, cosine per step, weight decay 0.0005 |",
        "| random views | crops from 0.5 of the area |",
    ):
        assert words in text, words
    [example] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    compile(example, "README.md", "exec")
    assert 'gopro.load("alice/activities")' in example


def test_the_card_links_backbone_weights_on_the_hub(run: Path, hub: Hub, alice: None) -> None:
    content = json.loads((run / "config.json").read_text())
    content["backbone"]["name"] = "ViT-B-16:openai"
    (run / "config.json").write_text(json.dumps(content))
    push(run, "alice/activities")
    assert re.fullmatch(r"[\w-]+/[\w.-]*vit[\w.-]*16[\w.-]*openai", card(hub)[0]["base_model"])


def row(run: str, data: str, accuracy: float) -> dict:
    return dict.fromkeys(KEY, "x") | {
        "data": data, "classes": "all", "accuracy": accuracy, "macro_accuracy": accuracy, "n": 7, "run": run,
    }  # fmt: skip


def test_only_the_runs_own_rows_of_a_benchmark_are_used(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "out" / "runs" / "mine")
    rows = [row("runs/mine", "food", 50.0), row("runs/other", "food", 60.0), row("runs/mine", "animals", 40.0)]
    results = tmp_path / "out" / "results.jsonl"
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine = tmp_path / "out" / "runs" / "mine"
    assert [(r["data"], r["accuracy"]) for r in evaluations(mine)] == [("animals", 40.0), ("food", 50.0)]
    assert evaluations(mine, results) == evaluations(mine)
    (mine / "eval-food-all.json").write_text(json.dumps(row("", "food", 70.0)))  # written later by gopro eval
    assert [r["accuracy"] for r in evaluations(mine)] == [40.0, 70.0]
    shutil.copytree(made, tmp_path / "stranger")
    assert evaluations(tmp_path / "stranger") == []
    assert "has no results of" in refusal(evaluations, tmp_path / "stranger", results)
    assert "no such file" in refusal(evaluations, mine, tmp_path / "none.jsonl")
    (mine / "eval-food-all.json").write_text("{}")
    assert "eval-food-all.json was not written by gopro eval" in refusal(evaluations, mine)


def test_a_private_run_needs_a_token_with_access(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "alices-token")
    push(run, "alice/mine", private=True)
    assert hub.repositories["alice/mine"].private
    assert gopro.load("alice/mine", "cpu").classes_.size == 43
    shutil.rmtree(constants.HF_HUB_CACHE)
    monkeypatch.delenv("HF_TOKEN")
    message = refusal(gopro.load, "alice/mine")
    assert "alice/mine" in message and "private" in message and "HF_TOKEN" in message
    hub.tokens["bobs-token"] = {"bob"}
    monkeypatch.setenv("HF_TOKEN", "bobs-token")
    assert "your token has no access" in refusal(gopro.load, "alice/mine")


def test_private_is_refused_for_a_public_repository(run: Path, hub: Hub, alice: None) -> None:
    hub.put("alice/open", {".gitattributes": b""})
    assert "is public" in refusal(push, run, "alice/open", private=True)
    assert set(hub.files("alice/open")) == {".gitattributes"}


def test_a_run_can_be_pushed_to_a_branch(run: Path, hub: Hub, alice: None) -> None:
    push(run, "alice/activities", revision="v2")
    assert set(hub.files("alice/activities")) == {".gitattributes"}
    assert gopro.load("alice/activities@v2", "cpu").classes_.size == 43
    assert "alice/activities@v2" in hub.files("alice/activities", "v2")["README.md"].decode()
    assert "no config.json" in refusal(gopro.load, "alice/activities")
    assert "no revision v3" in refusal(gopro.load, "alice/activities@v3")


def test_pushing_again_deletes_old_heads_and_keeps_an_edited_card(run: Path, hub: Hub, alice: None) -> None:
    push(run, "alice/activities")
    first = hub.files("alice/activities")
    head = next((run / "heads").iterdir())
    head.rename(head.with_name("first-order-other.safetensors"))
    push(run, "alice/activities", license="mit")
    second = hub.files("alice/activities")
    assert [f for f in second if f.startswith("heads/")] == ["heads/first-order-other.safetensors"]
    assert first["README.md"] != second["README.md"]
    edited = second["README.md"].replace(CARD_MARK.encode(), b"My own words.")
    hub.repositories["alice/activities"].commit("main", {**second, "README.md": edited})
    push(run, "alice/activities", license="cc0-1.0")
    assert hub.files("alice/activities")["README.md"] == edited


@pytest.mark.parametrize("name", ["one", "a/b/c", "alice/with space", "alice/", "../up"])
def test_invalid_repository_names_are_refused(name: str, run: Path, hub: Hub, alice: None) -> None:
    assert name in refusal(push, run, name) and not hub.repositories


def test_pushing_needs_a_token_with_write_access(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hf auth login" in refusal(push, run, "alice/activities")
    monkeypatch.setenv("HF_TOKEN", "alices-token")
    assert "your token may not do that" in refusal(push, run, "bob/activities")
    assert not hub.repositories


def test_only_a_finished_run_can_be_pushed(run: Path, hub: Hub, alice: None) -> None:
    (run / "learned.safetensors").unlink()
    assert "not finished" in refusal(push, run, "alice/activities")
    (run / "config.json").unlink()
    assert "no config.json" in refusal(push, run, "alice/activities")


def test_only_files_of_a_run_are_downloaded(run: Path, hub: Hub, alice: None) -> None:
    push(run, "alice/activities")
    files = hub.files("alice/activities")
    others = {name: b"cos\nsystem\n." for name in ("pytorch_model.bin", "heads/x.pt", "learned.pkl", "code.py")}
    hub.repositories["alice/activities"].commit("main", {**files, **others})
    hub.requests.clear()
    folder = load_run("alice/activities").folder
    requested = {line.rpartition("/")[2] for line in hub.requests if "/resolve/" in line}
    downloaded = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert downloaded == set(files) - {"README.md", ".gitattributes"}
    assert requested == {Path(file).name for file in downloaded}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": b"{}", "model.safetensors": b""}, "no learned.safetensors"),
        ({"README.md": b"# a model"}, "no config.json"),
        ({"config.json": b"{}", "learned.safetensors": b""}, "is not the config of a run"),
    ],
)
def test_a_repository_without_a_run_is_refused(files: dict[str, bytes], words: str, hub: Hub) -> None:
    hub.put("bob/other", files)
    assert words in refusal(gopro.load, "bob/other")


def test_a_missing_repository_is_refused(hub: Hub, alice: None, tmp_path: Path) -> None:
    assert refusal(gopro.load, "bob/nothing").startswith("bob/nothing is neither a folder nor on the Hub")
    hub.requests.clear()
    assert "there is no such folder" in refusal(gopro.load, tmp_path / "nothing")
    assert "there is no such folder" in refusal(gopro.load, "nothing")
    assert not hub.requests, "a request for a name that cannot be a repository"


def test_a_folder_is_preferred_to_the_hub(run: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(run, tmp_path / "alice" / "activities")
    monkeypatch.chdir(tmp_path)
    assert gopro.load("alice/activities", "cpu").classes_.size == 43 and not hub.requests


def test_downloaded_runs_load_offline(run: Path, hub: Hub, alice: None, monkeypatch: pytest.MonkeyPatch) -> None:
    push(run, "alice/activities")
    gopro.load("alice/activities", "cpu")
    with serving() as stopped:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", stopped.address)
    assert gopro.load("alice/activities", "cpu").classes_.size == 43
    assert "cannot be reached" in refusal(gopro.load, "alice/another")
    assert stopped.address in refusal(push, run, "alice/activities")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "cannot be reached" in refusal(gopro.load, "alice/another")


def test_other_weights_under_the_same_name_are_refused(run: Path, hub: Hub, alice: None) -> None:
    content = json.loads((run / "config.json").read_text())
    content["backbone"]["fingerprint"] = "0" * 16
    (run / "config.json").write_text(json.dumps(content))
    push(run, "alice/activities")
    assert "alice/activities was trained on other weights of emoji" in refusal(gopro.load, "alice/activities")


def test_commands_accept_a_name_on_the_hub(run: Path, hub: Hub, alice: None, images: Path, capsys) -> None:
    push(run, "alice/activities")
    cli.main(["predict", str(run), str(images), "--json"])
    expected = capsys.readouterr().out
    cli.main(["predict", "alice/activities", str(images), "--json"])
    assert capsys.readouterr().out == expected and expected.count("\n") > 5
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict", "alice/nothing", str(images)])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.startswith("error: alice/nothing") and "Traceback" not in message


def test_paths_in_a_config_from_the_hub_are_not_followed(
    run: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Neither images nor weights of this machine are opened, and nothing is written beside the images."""
    monkeypatch.chdir(tmp_path)
    private = tmp_path / "private"
    for name in ("ant", "bee"):
        (private / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (40, 40), (i, 0, 0)).save(private / name / f"{i}.png")
    config = json.loads((run / "config.json").read_text())
    files = {name: (run / name).read_bytes() for name in ("learned.safetensors", "cost.json")}

    def put(**changes) -> None:
        content = {**config, **changes}
        hub.put("bob/trap", {**files, "config.json": json.dumps(content).encode()})
        shutil.rmtree(tmp_path / "hub-cache", ignore_errors=True)

    for data, root in ((str(private), None), ("private", str(tmp_path)), ("caltech101", str(tmp_path))):
        put(config={**config["config"], "data": data, "root": root})
        loaded = load_run("bob/trap")
        assert loaded.hub == "bob/trap" and loaded.config.root is None
        for use_data in (loaded.dataset, lambda loaded=loaded: build_head(loaded, ["a", "b"])):
            assert "comes from the Hub" in refusal(use_data)
        assert "comes from the Hub" in refusal(export_run, "bob/trap", None, ExportSettings(output=tmp_path / "x.onnx"))
        with pytest.raises(SystemExit):
            cli.main(["eval", "bob/trap"])
        assert "comes from the Hub" in capsys.readouterr().err
        images = sample_images(loaded)
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


def test_nothing_is_written_into_the_hubs_cache(
    run: Path, hub: Hub, alice: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    shutil.rmtree(run / "heads")
    push(run, "alice/activities")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    loaded = load_run("alice/activities")
    before = set(loaded.folder.rglob("*"))
    cli.main(["eval", "alice/activities", "--classes", "base", "--workers", "0"])
    evaluation = "eval-emoji-activities_twemoji-base"
    assert {path.name for path in Path().iterdir()} == {f"{evaluation}.json", f"{evaluation}-wrong.csv"}
    head = build_head(loaded, NAMES)
    assert head_path(loaded, NAMES).is_relative_to(cache)
    assert torch.equal(load_head(loaded, NAMES).expansion.weights, head.expansion.weights)
    assert set(loaded.folder.rglob("*")) == before


def test_the_card_of_an_imported_run_names_its_checkpoint(run: Path, hub: Hub, alice: None) -> None:
    content = json.loads((run / "config.json").read_text())
    content["imported"] = {"file": "model.pth.tar-50", "code": "CoOp", "epoch": 50}
    content["config"] |= {"shots": 0, "seed": 0, "data": "unknown", "epochs": 50}
    del content["trained_with"]  # as in runs of earlier versions
    content["data"] = "unknown"
    (run / "config.json").write_text(json.dumps(content))
    (run / "cost.json").unlink()
    save_file({}, run / "learned.safetensors")
    push(run, "alice/activities")
    text = card(hub)[1]
    assert "| imported from | `model.pth.tar-50`, a checkpoint of CoOp |" in text and "| seed | unknown |" in text
    assert "| epochs | 50 |" in text and "recipe" not in text
    assert "Its training data are unknown." in text and "cost.json" not in hub.files("alice/activities")
    assert "Nothing: the method only needs class names." in text


def test_the_card_names_a_prompt_that_was_chosen(run: Path, hub: Hub, alice: None) -> None:
    config = TrainConfig(data="emoji-activities", output=run.parent / "zero", method="zeroshot[template=one {}.]")
    train(replace(config, device="cpu"))
    push(run.parent / "zero", "alice/zero")
    text = card(hub, "alice/zero")[1]
    assert "| prompt in use | `one {}.` |" in text and "epoch" not in text


def test_the_card_of_a_method_without_training_names_no_data(run: Path, hub: Hub, alice: None) -> None:
    train(replace(TrainConfig(data="emoji-activities", output=run.parent / "zero"), method="zeroshot", device="cpu"))
    push(run.parent / "zero", "alice/zero")
    assert "CLIP without training" in card(hub, "alice/zero")[1] and "per class of" not in card(hub, "alice/zero")[1]
