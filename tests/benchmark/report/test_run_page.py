"""The report of one run: what `gopro report RUN` and `gopro eval --report` write."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from gopro import cli
from gopro.clip.backbone import Backbone
from gopro.runs.config import TrainConfig
from gopro.training.train import train
from tests.support.report_page import ParsedPage, collapsed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a folder with a class name that would be markup."""
    root = tmp_path_factory.mktemp("run-page")
    for split in ("train", "val", "test"):
        for c, name in enumerate(("red", "blue", "a <b>thing")):
            (root / "mine" / split / name).mkdir(parents=True)
            for i in range(3):
                colour = (200 - 90 * c, 20 + 60 * i, 20 + 80 * c)
                Image.new("RGB", (40, 40), colour).save(root / "mine" / split / name / f"{i}.png")
    data, output = root / "mine", root / "run"
    settings = "--backbone emoji --method coop --shots 2 --epochs 2 --workers 0"
    cli.main(["train", "--data", str(data), *settings.split(), "--output", str(output)])
    cli.main(["report", str(output)])
    return output


def test_the_page_has_the_figures_and_every_wrong_image(run: Path) -> None:
    row = json.loads((run / "eval-mine-all.json").read_text())
    html = (run / "report.html").read_text()
    page = ParsedPage(run / "report.html")
    text = collapsed(page.text)
    assert f"{row['accuracy']:.2f} % accuracy" in text and "coop on mine" in text
    wrong = round(row["n"] * (1 - row["accuracy"] / 100))
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert wrong and len(images) == wrong and f"All {wrong} images" in text
    assert all(str(image["src"]).startswith("data:image/webp") for image in images)
    assert set(page.sections) == {"images", "confusions", "classes", "calibration", "training", "made"}
    assert f"temperature {row['temperature']:.2f}" in page.sections["calibration"]
    assert "a <b>thing" in page.text and "<b>thing" not in html  # escaped
    assert not re.search(r'(?:src|href)="http|<script', html)
    lowest = min(entry["f1"] for entry in row["per_class"])
    assert f"{lowest:.1f}" in page.sections["classes"] and "3 classes" in page.sections["classes"]


def test_a_page_on_other_data_leaves_the_first_alone(run: Path, tmp_path: Path, capsys) -> None:
    before = (run / "report.html").read_bytes()
    for name in ("red", "blue"):
        (tmp_path / "other" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), name).save(tmp_path / "other" / name / "1.png")
    cli.main(["eval", str(run), "--data", str(tmp_path / "other"), "--workers", "0", "--report"])
    assert f"Report: {run / 'eval-other-all.html'}" in capsys.readouterr().out
    assert (run / "report.html").read_bytes() == before and (run / "eval-other-all.html").is_file()


def test_a_run_has_no_other_method_to_compare_with(run: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["report", str(run), "--against", "coop"])
    assert "is a single run, with no other method to compare" in capsys.readouterr().err


def test_a_closed_form_method_has_no_training_curves(tmp_path: Path, tiny: Backbone) -> None:
    from gopro.benchmark.report.run_page import write_run_page
    from gopro.data.load_dataset import load_dataset
    from gopro.inference.evaluate import evaluate_images
    from gopro.inference.wrong_images import wrong_images

    config = TrainConfig(
        data="emoji-activities", output=tmp_path / "run", method="zeroshot", shots=1, workers=0, device="cpu"
    )
    trained = train(config, backbone=tiny)
    samples = load_dataset("emoji-activities").test[:170]
    evaluation = evaluate_images(trained.method, samples)
    wrong = wrong_images(evaluation, samples)
    page = ParsedPage(write_run_page(tmp_path / "page.html", trained, evaluation, "emoji", wrong, []))
    assert "training" not in page.sections and f"60 of the {len(wrong)} images" in collapsed(page.text)
    assert "Confusion matrix" not in page.text  # 85 classes are too many for one
