"""`gopro methods`, and the method of docs/add-a-method.md as a researcher's own file."""

import dataclasses
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from gopro import cli
from gopro.cli.methods import field_docs
from gopro.clip.backbone import Backbone, load_backbone
from gopro.methods.registry import METHODS, build_method

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def emoji() -> Backbone:
    return load_backbone("emoji")


def test_methods_are_listed_with_their_learned_parameters(gopro, emoji: Backbone) -> None:
    lines = gopro("methods")[1].splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert set(METHODS) <= set(rows)
    dim = emoji.embed_dim
    assert rows["zeroshot"][1] == rows["tip-adapter"][1] == "0"
    assert rows["linear-probe"][1] == f"{50 * (dim + 1):,}"
    assert rows["tip-adapter-f"][1] == f"{50 * 16 * dim:,}"
    coop = build_method("coop", emoji, ["owl"], "a {}.")
    assert rows["coop"][1] == f"{sum(p.numel() for p in coop.parameters()):,}"
    assert {name for line in lines if "vision transformer" in line for name in re.findall(r"[\w-]+", line)} >= {
        name for name, kind in METHODS.items() if kind.needs_vit
    }
    assert all(len(rows[name]) > 5 for name in METHODS)  # each has a description, however wide the terminal


def test_measure_times_steps_relative_to_coop(gopro, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: METHODS[name] for name in ("zeroshot", "coop", "tip-adapter-f")}
    # Not by deleting the others: put back, they would stand at the end of METHODS.
    monkeypatch.setattr("gopro.methods.registry.METHODS", few)
    text = gopro("methods", "--measure")[1]
    times = dict(re.findall(r"^(\S+) .* (\d+\.\d) x ", text, flags=re.MULTILINE))
    assert set(times) == {"coop", "tip-adapter-f"} and times["coop"] == "1.0"


def test_a_method_is_described_with_its_settings(gopro) -> None:
    text = gopro("methods", "tip-adapter[alpha=2]")[1]
    assert "arXiv 2111.03930" in text and re.search(r"alpha\s+2\.0\s+float\s+Weight of the cache", text)
    assert re.search(r"template\s+the data set's", text) and re.search(r"search\s+null\s+true or false", text)
    assert "epoch" not in text[text.index("Recipe by task") :]  # without steps the recipe is its views and settings
    assert "20 epochs, batches of 256, AdamW at 0.001" in gopro("methods", "tip-adapter-f")[1]
    assert "Recipe" not in gopro("methods", "zeroshot")[1]


def test_a_method_is_described_with_its_recipes_and_their_files(gopro, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gopro.cli.methods.out.width", 80)
    text = gopro("methods", "promptsrc")[1].partition("Recipe by task")[2].partition("\nsetting ")[0]
    tasks = dict(re.findall(r"^(base-to-new|transfer|few-shot): (.*(?:\n\w.*)*)", text, flags=re.MULTILINE))
    assert "20 epochs" in tasks["transfer"] and "depth=3" in tasks["transfer"] and "50 epochs" in tasks["few-shot"]
    assert "  stanford_cars, oxford_flowers, fgvc_aircraft, dtd, eurosat: gpa_mean=45,\n  gpa_std=5\n" in text
    assert "\n    configs/trainers/PromptSRC/vit_b16_c2_ep50_batch4_4+4ctx_few_shot.yaml\n" in text
    assert "https://github.com/muzairkhattak/PromptSRC at commit bb95c77" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "few-shot: as base-to-new" in gopro("methods", "cocoop")[1]
    assert "Recipe for every task, ours: 5 epochs, batches of 4, AdamW at 0.001" in gopro("methods", "gopro")[1]


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_names_its_paper_and_documents_every_setting(name: str) -> None:
    kind, config = METHODS[name], METHODS[name].config
    texts = " ".join(base.__doc__ or "" for base in kind.__mro__[:-1])
    assert "arXiv" in texts and "repository" in texts
    docs = field_docs(type(config))
    assert [field.name for field in dataclasses.fields(config) if not docs.get(field.name)] == []


def test_a_mistyped_method_is_suggested(gopro) -> None:
    code, _, err = gopro("methods", "tip-adapte")
    assert code == 2 and "did you mean tip-adapter?" in err


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's file, in a folder of its own."""
    page = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(code.splitlines()) < 60
    path = tmp_path_factory.mktemp("own") / "residual.py"
    path.write_text(code, encoding="utf-8")
    return path


def test_a_file_of_ones_own_is_a_method_also_in_other_processes(own: Path, capsys) -> None:
    benchmark = "benchmark base-to-new --methods residual[ratio=0.5] --jobs 2 --output all"
    shared = "--data emoji-activities --shots 1 --epochs 1 --batch 32 --seeds 1 --workers 0"
    command = [sys.executable, str(own), *benchmark.split(), *shared.split()]
    done = subprocess.run(command, cwd=own.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (own.parent / "all" / "results.jsonl").read_text().splitlines()]
    assert [(row["method"], row["classes"]) for row in rows] == [
        ("residual[ratio=0.5]", "base"),
        ("residual[ratio=0.5]", "new"),
    ]
    [folder] = (own.parent / "all" / "runs").iterdir()
    with pytest.raises(SystemExit):
        cli.main(["eval", str(folder)])
    assert "no such method" in capsys.readouterr().err  # a run brings no code with it


def test_the_pages_method_keeps_what_every_method_keeps(own: Path, tiny: Backbone, gopro, monkeypatch) -> None:
    monkeypatch.setitem(METHODS, "residual", None)  # so that it is taken out again
    monkeypatch.syspath_prepend(str(own.parent))
    residual = import_module("residual")
    method = build_method("residual", tiny, ["owl", "dog", "red fox"], "a {}.").eval()
    assert isinstance(method, residual.Residual)
    images = tiny.encode(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    other = method.for_classes(["red fox", "owl"])
    torch.testing.assert_close(other.logits(images), method.logits(images)[:, [2, 0]], atol=1e-4, rtol=1e-5)
    views = images[None]
    method.losses(views, torch.tensor([0, 1, 2, 0]))["ce"].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    text = gopro("methods", "residual")[1]
    assert "arXiv 2110.04544" in text and "Share of the network's output" in text
