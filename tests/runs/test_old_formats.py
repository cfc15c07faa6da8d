"""Runs, heads, features, results and settings written by commit fc62a3e still load and give what its code gave."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gopro
from gopro import cli
from gopro.benchmark.report.experiment import Experiment
from gopro.clip.backbone import Backbone, load_backbone
from gopro.clip.features.encode_views import ViewRequest, encode_views
from gopro.clip.features.store import FeatureStore
from gopro.data.load_dataset import load_dataset
from gopro.inference.taylor_head_file import load_head
from gopro.runs.config import BenchmarkConfig, TrainConfig
from gopro.runs.load_run import load_run
from gopro.runs.results import Results
from gopro.runs.run import read_cost
from gopro.training.train import resume

OLD = Path(__file__).parent / "fc62a3e"
EXPECTED: dict[str, Any] = json.loads((OLD / "expected.json").read_text())


@pytest.fixture(scope="module")
def emoji() -> Backbone:
    return load_backbone("emoji")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """The four test images that fc62a3e classified."""
    return [sample.image.open() for sample in load_dataset("emoji-activities").test[:400:100]]


def assert_probabilities(probabilities: np.ndarray, expected: Sequence[Sequence[float]]) -> None:
    """Compare the first eight classes, which were recorded to six digits."""
    np.testing.assert_allclose(probabilities[:, :8], expected, atol=2e-5)


@pytest.mark.parametrize("name", ["gopro", "coop", "tip-adapter-f"])
def test_a_run_predicts_as_before(name: str, images: list[Image.Image], emoji: Backbone) -> None:
    run = load_run(OLD / "runs" / name, backbone=emoji)
    classifier, expected = gopro.Classifier(run.method), EXPECTED[name]
    assert len(classifier.classes_) == expected["classes"]
    assert_probabilities(classifier.predict_proba(images), expected["probabilities"])
    if expected["other"] is not None:
        others = classifier.for_classes(EXPECTED["head"]["names"])
        assert_probabilities(others.predict_proba(images), expected["other"])
    assert read_cost(run.folder).parameters > 0


def test_gopro_had_one_prompt_for_all_data_sets(tmp_path: Path, images: list[Image.Image], emoji: Backbone) -> None:
    folder, expected = tmp_path / "run", EXPECTED["gopro"]
    shutil.copytree(OLD / "runs" / "gopro", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"template": "{} texture."}))
    run = load_run(folder, backbone=emoji)
    assert run.template == "{} texture."
    assert_probabilities(gopro.Classifier(run.method).predict_proba(images), expected["probabilities"])
    others = gopro.Classifier(run.method).for_classes(EXPECTED["head"]["names"], "a photo of {}, a type of food.")
    assert_probabilities(others.predict_proba(images), expected["other"])


def test_a_head_predicts_as_before(images: list[Image.Image], emoji: Backbone) -> None:
    expected = EXPECTED["head"]
    head = load_head(load_run(OLD / "runs" / "gopro", backbone=emoji), expected["names"])
    assert len(head.expansion.terms) == expected["terms"] == 5
    assert_probabilities(gopro.Classifier(head).predict_proba(images), expected["probabilities"])


@pytest.mark.parametrize(("gate", "number"), [("true", 1), ("false", 0)])
def test_the_gate_of_gopro_could_only_be_on_or_off(gate: str, number: int, tmp_path: Path, tiny: Backbone) -> None:
    config = TrainConfig(
        data="emoji-activities",
        method=f"gopro[gate={number},con=0]",
        shots=1,
        epochs=1,
        batch=64,
        output=tmp_path / "run",
    )
    trained = gopro.train(config, backbone=tiny).method
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    content["config"]["method"] = f"gopro[gate={gate},con=0]"
    content["trained_with"]["settings"]["gate"] = gate == "true"
    path.write_text(json.dumps(content))
    run = load_run(tmp_path / "run", backbone=tiny)
    assert run.config.method == config.method and run.method.config == trained.config


def test_the_view_bank_was_recorded_beside_the_recipe(tmp_path: Path, tiny: Backbone) -> None:
    config = TrainConfig(data="emoji-activities", method="coop", shots=1, epochs=1, bank=2, output=tmp_path / "run")
    gopro.train(config, backbone=tiny)
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    del content["trained_with"]["recipe"]["bank"]
    path.write_text(json.dumps(content))
    trained_with = load_run(tmp_path / "run", backbone=tiny).trained_with
    assert trained_with is not None and trained_with.recipe is not None and trained_with.recipe.bank == 2


def test_features_are_found_and_not_encoded_again(
    tmp_path: Path, emoji: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(OLD / "features", tmp_path / "features")
    monkeypatch.setattr(Backbone, "encode", lambda *_: pytest.fail("encoded again"))
    samples = load_dataset("emoji-activities").test[:3]
    store = FeatureStore(emoji, tmp_path / "features")
    features = encode_views(store, [ViewRequest(sample.image, "eval") for sample in samples])
    np.testing.assert_allclose(features[:].embedding[:, :6], EXPECTED["features"], atol=1e-3)


def test_an_interrupted_run_resumes_to_the_same_end(tmp_path: Path, emoji: Backbone) -> None:
    shutil.copytree(OLD / "interrupted", tmp_path / "run")
    run = resume(tmp_path / "run", backbone=emoji)
    expected = EXPECTED["resumed"]
    context = run.method.state_dict()["context"].flatten()[:12]
    np.testing.assert_allclose(context, expected["context"], atol=1e-4)
    log = [line.split(",") for line in (tmp_path / "run" / "log.csv").read_text().splitlines()]
    assert log[0] == expected["log"][0].split(",")
    assert [(row[:2], row[-1]) for row in log[1:]] == [
        (row.split(",")[:2], row.split(",")[-1]) for row in expected["log"][1:]
    ], "steps, or accuracies on the validation images, differ"


def test_an_interrupted_run_keeps_the_recipe_of_its_version(tmp_path: Path, emoji: Backbone) -> None:
    folder = tmp_path / "run"
    shutil.copytree(OLD / "interrupted", folder)
    (folder / "resume.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["config"] |= {"method": "tip-adapter-f", "epochs": 1}
    (folder / "config.json").write_text(json.dumps(config))
    trained_with = resume(folder, backbone=emoji).trained_with
    assert trained_with is not None and trained_with.recipe is not None
    recipe = trained_with.recipe
    assert (recipe.eps, recipe.schedule, recipe.drop_last, recipe.crop) == (1e-8, "step", False, 0.5)


def test_results_are_read_but_not_reused(tmp_path: Path) -> None:
    """They do not say what they were trained with, and recipes have changed since."""
    shutil.copytree(OLD / "benchmark", tmp_path / "results")
    rows = Results(tmp_path / "results" / "results.jsonl").rows
    assert [(row["method"], row["classes"], row["accuracy"]) for row in rows] == [
        ("zeroshot", "base", 55.3488),
        ("zeroshot", "new", 54.0476),
        ("coop", "base", 55.3488),
        ("coop", "new", 54.0476),
    ]
    config = BenchmarkConfig(
        output=tmp_path / "results",
        data=("emoji-activities",),
        methods=("zeroshot", "coop"),
        seeds=(1,),
        shots=(1,),
        epochs=1,
        bank=1,
        workers=0,
    )
    for name in ("runs", "results.jsonl"):
        with pytest.raises(gopro.InputError, match=r"was made by an earlier version .*choose another --output"):
            gopro.benchmark("base-to-new", config)
        (tmp_path / "results" / name).rename(tmp_path / name)
    assert len(gopro.benchmark("base-to-new", config).rows) == 4


def test_predictions_of_a_benchmark_are_read(tmp_path: Path) -> None:
    shutil.copytree(OLD / "benchmark", tmp_path / "results")
    experiment = Experiment(tmp_path / "results")
    predictions = experiment.predictions(experiment.rows[-1])
    assert predictions is not None and len(predictions.labels) == experiment.rows[-1]["n"]


def test_config_files_mean_what_they_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[TrainConfig] = []

    def stop(config: TrainConfig, **_: object) -> None:
        configs.append(config)
        raise gopro.InputError("stop")

    monkeypatch.setattr(sys.modules["gopro.training.train"], "train", stop)
    with pytest.raises(SystemExit):
        cli.main(["train", "--config", str(OLD / "train.yaml"), "--shots", "8"])
    assert configs == [
        TrainConfig(
            data="emoji-activities",
            method="gopro[con=0]",
            shots=8,
            epochs=3,
            lr=2.5e-3,
            bank=5,
            select="val",
            output=Path("runs/mine"),
        )
    ]
