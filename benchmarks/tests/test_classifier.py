"""From a folder of images to a tested classifier, by gopro and by the expert's program."""

import argparse
import os
from pathlib import Path

import pytest
import timm
import torch

from benchmarks import classifier
from gopro.data.load_dataset import load_dataset
from tests.support.killable_command import write_images

ROOT = Path(__file__).resolve().parents[2]


def test_both_ways_are_tested_on_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="the expert's program needs scikit-learn, of the extra dev")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    images = write_images(tmp_path / "images", classes=2, per_class=3)
    options = argparse.Namespace(
        data=str(images), root=None, shots=2, backbone="emoji", methods=["zeroshot"], seeds=[1], workers=0
    )
    report = classifier.compare(options)
    first, second = (classifier.Measured(**row) for row in report["results"])
    assert (first.way, second.way) == ("zeroshot", classifier.EXPERT)
    assert first.n == second.n == 6
    assert first.cpu_seconds > 0 and second.accuracy in [pytest.approx(100 * i / 6) for i in range(7)]
    table = classifier.table(report)
    assert table.startswith("2 classes of images, 2 images per class, backbone emoji, 6 test images.")
    assert f"| {classifier.EXPERT} | {second.accuracy:.2f} % |" in table


def test_the_expert_has_the_tower_s_own_features_and_the_training_images_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the expert's program needs scikit-learn, of the extra dev")
    from benchmarks.expert_classifier import Images, load_tower

    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=0).eval()
    torch.save(model.state_dict(), tmp_path / "tower.pt")
    loaded = load_tower({"weights": str(tmp_path / "tower.pt"), "timm_model": "test_efficientnet"})
    images = write_images(tmp_path / "images", classes=2, per_class=3)
    drawn = load_dataset(str(images)).few_shot(2, 1)
    listed = [(classifier._path(sample.image), sample.label) for sample in drawn.train]
    [(view, label), *_] = Images(listed, 64, [0.5] * 3, [0.5] * 3)
    assert label == 0 and view.shape == (3, 64, 64) and view.min() >= -1
    with torch.no_grad():
        assert torch.equal(loaded(view[None]), model(view[None]))


def test_images_that_are_no_files_are_refused() -> None:
    with pytest.raises(SystemExit, match="not a file; give --data FOLDER"):
        classifier._path(load_dataset("emoji-activities").test[0].image)


def test_a_failed_command_stops_the_measurement() -> None:
    with pytest.raises(SystemExit, match="ended with exit status 1"):
        classifier.timed(["python", "-c", "raise SystemExit(1)"])
