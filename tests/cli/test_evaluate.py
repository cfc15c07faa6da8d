"""`gopro eval` and `gopro head`."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from gopro.clip.backbone import load_backbone
from gopro.data.load_dataset import load_dataset
from gopro.inference.evaluate import evaluate_images
from gopro.methods.registry import build_method
from gopro.runs import evaluation_data
from gopro.runs.load_run import load_run


def test_eval_prints_and_writes_the_same_accuracy(coop_run: Path, gopro) -> None:
    code, out, _ = gopro("eval", coop_run, "--classes", "new", "--workers", 0)
    assert code == 0
    row = json.loads((coop_run / "eval-emoji-activities_twemoji-new.json").read_text())
    assert f"accuracy {row['accuracy']:.2f} %" in out
    assert out.startswith("Backbone: emoji, a small CLIP trained on emoji drawings; stronger: train again with")
    assert len(row["per_class"]) * 10 == row["n"]
    mean = sum(entry["accuracy"] for entry in row["per_class"]) / len(row["per_class"])
    assert row["macro_accuracy"] == pytest.approx(mean, abs=1e-3)


def test_eval_tells_classes_confusions_calibration_and_wrong_images(coop_run: Path, gopro, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = gopro("eval", coop_run, "--classes", "new", "--workers", 0)
    assert code == 0
    row = json.loads((coop_run / "eval-emoji-activities_twemoji-new.json").read_text())
    [heading] = [line for line in out.splitlines() if line.startswith("class, lowest F1 first")]
    table = out[out.index(heading) :].splitlines()[2:27]
    worst = min(row["per_class"], key=lambda entry: entry["f1"])
    assert table[0].split()[-2:] == [f"{worst['f1']:.1f}", "%"] and len(row["per_class"]) == 42
    assert "17 more classes, with a higher F1, are in the file below." in out
    matrix = row["confusion_matrix"]
    right = sum(matrix[i][i] for i in range(42))
    assert sum(map(sum, matrix)) == row["n"] and row["accuracy"] == pytest.approx(100 * right / row["n"], abs=1e-3)
    i, j = max(((i, j) for i in range(42) for j in range(42) if i != j), key=lambda at: matrix[at[0]][at[1]])
    assert f"  {matrix[i][j]} of 10 images of " in out
    wrong = list(csv.DictReader((coop_run / "eval-emoji-activities_twemoji-new-wrong.csv").open()))
    assert len(wrong) == row["n"] - right and f"Wrong images ({len(wrong)}): " in out
    assert all(answer["class"] != answer["predicted"] for answer in wrong)
    assert [float(answer["probability"]) for answer in wrong] == sorted(float(a["probability"]) for a in wrong)[::-1]
    fitted = json.loads((coop_run / "calibration.json").read_text())
    assert row["temperature"] == fitted["temperature"] != 1 and row["nll"] > 0
    assert f"(ECE {row['ece']:.1f} %, NLL {row['nll']:.2f})" in out
    assert f"without the temperature {row['temperature']:.2f}: " in out
    named = [line for line in out.splitlines() if str(coop_run) not in line and not line.startswith("Backbone")]
    assert max(map(len, named)) <= 80


def test_a_temperature_can_be_given(coop_run: Path, image: Path, gopro) -> None:
    code, out, _ = gopro("eval", coop_run, "--classes", "base", "--workers", 0, "--temperature", 1)
    row = json.loads((coop_run / "eval-emoji-activities_twemoji-base.json").read_text())
    assert code == 0 and row["ece"] == row["uncalibrated"]["ece"]
    best = []
    for temperature in ("0.5", "5"):
        code, out, _ = gopro("predict", coop_run, image, "--json", "--temperature", temperature)
        best.append(json.loads(out)["predictions"][0])
    assert best[0]["name"] == best[1]["name"] and best[0]["probability"] > best[1]["probability"]
    code, _, err = gopro("predict", coop_run, image, "--temperature", 0)
    assert code == 2 and "temperature is 0.0: give a number from 0.05 to 20" in err


def test_a_run_of_an_earlier_version_has_no_temperature(coop_run: Path, tmp_path: Path, gopro) -> None:
    shutil.copytree(coop_run, tmp_path / "old")
    (tmp_path / "old" / "calibration.json").unlink()
    code, out, _ = gopro("eval", tmp_path / "old", "--classes", "base", "--workers", 0)
    assert code == 0 and "The run has no temperature: it was imported, or an earlier version trained it." in out


def test_eval_leaves_out_images_that_the_run_was_trained_on(two_classes: Path, tmp_path: Path, gopro) -> None:
    """A split that is drawn again tests on trained images."""
    run = tmp_path / "run"
    for i in range(10):
        for name in ("red_things", "blue_things"):
            Image.new("RGB", (40, 40), (20 * i, 100, len(name))).save(two_classes / name / f"more{i}.png")
    code, _, err = gopro(
        *("train", "--data", two_classes, "--backbone", "emoji", "--method", "coop", "--shots", 8, "--epochs", 1),
        *("--workers", 0, "--output", run),
    )
    assert code == 0, err
    trained = {sample.image.digest() for sample in load_dataset(str(two_classes)).few_shot(8, 1).train}
    Image.new("RGB", (40, 40), "green").save(two_classes / "red_things" / "new.png")
    (two_classes / "split_gopro.json").unlink()
    Image.new("RGB", (40, 40), "pink").save(two_classes / "blue_things" / "new.png")
    code, out, err = gopro("eval", run, "--workers", 0)
    assert code == 0, err
    test = load_dataset(str(two_classes)).test
    left_out = sum(sample.image.digest() in trained for sample in test)
    assert 0 < left_out < len(test)
    assert f"{left_out} of {len(test)} test images of mine were trained on; they are left out." in out
    row = json.loads((run / "eval-mine-all.json").read_text())
    assert (row["n"], row["trained_on"]) == (len(test) - left_out, left_out)


def test_eval_leaves_out_trained_images_when_coop_s_split_file_arrives_after_training(tmp_path: Path, gopro) -> None:
    """CoOp's file takes the place of the split that was drawn here, so that test images change."""
    home, run = tmp_path / "caltech-101", tmp_path / "run"
    paths = [f"{name}/{i}.png" for name in ("ant", "bass") for i in range(6)]
    for number, path in enumerate(paths):
        (home / "101_ObjectCategories" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (20 * number, 100, 50)).save(home / "101_ObjectCategories" / path)

    def write_split(file: str, tested: range) -> None:
        entries = {"train": [], "val": [], "test": []}
        for path in paths:
            name, i = path[:-4].split("/")
            entries["test" if int(i) in tested else "train"].append([path, int(name == "bass"), name])
        (home / file).write_text(json.dumps(entries))

    write_split("split_gopro_Caltech101.json", range(2))
    options = ("--data", "caltech101", "--root", tmp_path, "--workers", 0)
    code, _, err = gopro(
        "train", *options, "--backbone", "emoji", "--method", "coop", "--shots", 4, "--epochs", 1, "--output", run
    )
    assert code == 0, err
    assert "left out" not in gopro("eval", run, *options)[1]
    write_split("split_zhou_Caltech101.json", range(3))  # 2.png of both classes was trained on
    code, out, err = gopro("eval", run, *options)
    assert code == 0, err
    assert "2 of 6 test images of caltech101 were trained on; they are left out." in out
    row = json.loads((run / "eval-caltech101-all.json").read_text())
    assert (row["n"], row["trained_on"]) == (4, 2)
    kept = [sample for sample in load_dataset("caltech101", tmp_path).test if "/2.png" not in sample.image.name]
    assert len(kept) == 4
    assert row["accuracy"] == pytest.approx(evaluate_images(load_run(run).method, kept).accuracy, abs=1e-3)


def test_eval_on_trained_images_alone_is_refused(two_classes: Path, tmp_path: Path, gopro) -> None:
    run, seen = tmp_path / "run", tmp_path / "seen"
    gopro(
        *("train", "--data", two_classes, "--backbone", "emoji", "--method", "coop", "--shots", 3, "--epochs", 1),
        *("--workers", 0, "--output", run),
    )
    for sample in load_dataset(str(two_classes)).few_shot(3, 1).train:
        path = Path(sample.image.name)
        for split in ("train", "test"):
            (seen / split / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, seen / split / path.parent.name)
    code, _, err = gopro("eval", run, "--data", seen, "--workers", 0)
    assert code == 2 and "was trained on all 6 test images of seen: give other --data" in err


def test_another_folder_is_tested_whole_over_the_classes_of_the_run(two_classes: Path, tmp_path: Path, gopro) -> None:
    """A class may have a single image, and `--shots all` takes them all."""
    run, other = tmp_path / "run", tmp_path / "other"
    for name in ("red things", "wolf"):
        (other / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (40, 40), (200, 90 + i, len(name))).save(other / name / f"{i}.png")
    (two_classes / "green").mkdir()
    Image.new("RGB", (40, 40), "green").save(two_classes / "green" / "0.png")
    train = ("train", "--data", two_classes, "--backbone", "emoji", "--method", "coop", "--epochs", 1, "--workers", 0)
    with pytest.warns(UserWarning, match=r"mine: 1 of 3 classes have fewer than 3 .*green \(1\)"):
        code, _, err = gopro(*train, "--shots", 3, "--output", run)
    assert code == 0, err
    code, _, err = gopro(*train, "--shots", "all", "--output", tmp_path / "all")
    assert code == 0, err
    assert load_run(tmp_path / "all").config.shots == "all"
    assert len(json.loads((tmp_path / "all" / "training_images.json").read_text())["digests"]) == 7
    shutil.copy(
        next(Path(s.image.name) for s in load_dataset(str(two_classes)).few_shot(3, 1).train if s.label == 2),
        other / "red things" / "seen.png",
    )
    code, out, err = gopro("eval", run, "--data", other, "--workers", 0)
    assert code == 0, err
    assert "on 5 images of 3 classes" in out and "There are no images of blue things, green, among which" in out
    assert "1 of 6 test images of other were trained on; they are left out. With them, accuracy is" in out
    assert "5 images of classes that the run does not know are left out: wolf (5)." in out
    row = json.loads((run / "eval-other-all.json").read_text())
    assert (row["n"], row["trained_on"], row["unknown_classes"]) == (5, 1, {"wolf": 5})
    assert sorted(path.name for path in other.iterdir()) == ["red things", "wolf"]


def test_eval_says_if_a_run_does_not_record_its_training_images(coop_run: Path, tmp_path: Path, gopro) -> None:
    shutil.copytree(coop_run, tmp_path / "old")
    (tmp_path / "old" / "training_images.json").unlink()
    code, out, _ = gopro("eval", tmp_path / "old", "--classes", "new", "--workers", 0)
    assert code == 0 and "The run does not record its training images" in out


def test_eval_counts_test_images_that_were_used_without_labels(coop_run: Path, tmp_path: Path, gopro) -> None:
    shutil.copytree(coop_run, tmp_path / "run")
    test = load_dataset("emoji-activities").half("new").test
    used = [sample.image.digest() for sample in (*test[:3], load_dataset("emoji-food").test[0])]
    images = json.loads((tmp_path / "run" / "training_images.json").read_text())
    (tmp_path / "run" / "training_images.json").write_text(json.dumps({**images, "unlabeled": used}))
    code, out, _ = gopro("eval", tmp_path / "run", "--classes", "new", "--workers", 0)
    assert code == 0 and f"3 of these {len(test)} images were used without labels in training" in out
    row = json.loads((tmp_path / "run" / "eval-emoji-activities_twemoji-new.json").read_text())
    assert (row["used_unlabeled"], row["n"]) == (3, len(test))
    assert f"{len(images['digests'])} images, 4 more without labels" in gopro("info", tmp_path / "run")[1]


def test_eval_compares_with_the_prompt_of_the_tested_data_set(
    zeroshot_run: Path, gopro, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = replace(load_dataset("emoji-activities"), template="{} texture.")
    monkeypatch.setattr(evaluation_data, "load_dataset", lambda *_, **__: dataset)
    code, _, err = gopro("eval", zeroshot_run, "--data", "emoji-activities", "--classes", "new", "--workers", 0)
    assert code == 0, err
    row = json.loads((zeroshot_run / "eval-emoji-activities_twemoji-new.json").read_text())
    part, backbone = dataset.half("new"), load_backbone("emoji")
    own, default = (
        evaluate_images(build_method("zeroshot", backbone, part.classnames, template), part.test).accuracy
        for template in ("{} texture.", "a photo of a {}.")
    )
    assert row["accuracy"] == pytest.approx(own, abs=1e-3) and own != default


@pytest.mark.slow
def test_a_first_order_head_is_built_and_compared_with_the_exact_one(tmp_path: Path, gopro) -> None:
    run, names = tmp_path / "run", tmp_path / "names.txt"
    settings = "--data emoji-activities --classes base --shots 1 --epochs 1 --batch 8 --workers 0"
    code, _, err = gopro(*f"train {settings} --method cocoop --output {run}".split())
    assert code == 0, err
    names.write_text("red fox\n\n snowy owl \ntrain\n", "utf-8")
    code, out, _ = gopro("head", run, "--classes-file", names, "--error", 0.1, "--workers", 0)
    assert code == 0 and "3 classes" in out and "21 images not used to build it" in out
    assert len(list((run / "heads").iterdir())) == 1
    code, out, _ = gopro("eval", run, "--classes", "new", "--head", "first-order", "--workers", 0)
    assert code == 0 and len(list((run / "heads").iterdir())) == 2
    [head] = [line for line in out.splitlines() if line.startswith("first-order head")]
    row = json.loads((run / "eval-emoji-activities_twemoji-new.json").read_text())
    assert f"accuracy {row['accuracy']:.2f} %" in out
    assert f"accuracy {row['first_order']['accuracy']:.2f} %" in head
    assert f"same top class as the exact head for {row['first_order']['agreement']['top1']:.2f} %" in head
    assert row["first_order"]["agreement"]["images"] == row["n"]


@pytest.mark.slow
def test_the_head_treats_other_data_as_the_exact_one_does(tmp_path: Path, gopro) -> None:
    """On images in another style MMRL leaves out its representation tokens, whatever the class names."""
    run = tmp_path / "run"
    settings = "--data emoji-activities --classes base --shots 1 --epochs 1 --batch 16 --workers 0"
    code, _, err = gopro(*f"train {settings} --method mmrl[dim=8] --output {run}".split())
    assert code == 0, err
    flags = "--data emoji-activities:noto --classes base --head first-order --workers 0"
    code, _, err = gopro("eval", run, *flags.split())
    assert code == 0, err
    row = json.loads((run / "eval-emoji-activities_noto-base.json").read_text())
    assert row["first_order"]["agreement"]["max"] < 1e-4 and not (run / "heads").exists()


def test_the_head_of_a_method_with_shared_text_is_exact(coop_run: Path, gopro) -> None:
    code, out, _ = gopro("head", coop_run, "--classes", "red fox, snowy owl", "--workers", 0)
    assert code == 0 and "for 2 classes:" in out and "It equals the exact head" in out


def test_the_commands_warn_on_images_that_the_backbone_does_not_know(tmp_path: Path, gopro) -> None:
    random = Random(1)
    for split, name, number in ((s, n, i) for s in ("train", "test") for n in ("c01", "c02", "c03") for i in range(4)):
        (tmp_path / "mine" / split / name).mkdir(parents=True, exist_ok=True)
        image = Image.frombytes("RGB", (24, 24), random.randbytes(24 * 24 * 3))
        image.save(tmp_path / "mine" / split / name / f"{number}.png")
    data = ("--data", tmp_path / "mine", "--workers", 0)
    methods = ("--methods", "zeroshot", "--backbones", "emoji")
    warning = "warning: zero-shot accuracy on mine"
    train = ("train", *data, "--method", "coop", "--shots", 2, "--epochs", 1, "--backbone", "emoji")
    code, _, err = gopro(*train, "--output", tmp_path / "run")
    assert code == 0 and "\nwarning: zero-shot accuracy on 6 training images of mine is" in err
    code, _, err = gopro("eval", tmp_path / "run", "--workers", 0)
    assert code == 0 and warning in err and "train again with --backbone photo" in err
    code, _, err = gopro("benchmark", "few-shot", *data, *methods, "--output", tmp_path / "out")
    assert code == 0 and warning in err and "for photographs: --backbones photo" in err
    assert gopro("report", tmp_path / "out")[0] == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("Near chance:") == 1 and "for photographs: --backbones photo" in page
