"""`gopro features`: image features in a file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gopro as package


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (40, 40), (80 * i, 120, 10)).save(folder / f"{i}.png")
    return folder


def test_features_are_those_of_python_in_the_order_of_the_files(
    coop_run: Path, images: Path, tmp_path: Path, gopro
) -> None:
    code, out, err = gopro("features", coop_run, images, "--output", tmp_path / "f.npz")
    assert code == 0, err
    assert out == f"Features of 3 images, 128 numbers each: {tmp_path / 'f.npz'}\n"
    with np.load(tmp_path / "f.npz") as file:
        assert file["paths"].tolist() == [str(images / f"{i}.png") for i in range(3)]
        np.testing.assert_allclose(file["features"], package.load(coop_run, "cpu").features(images), atol=1e-5)


def test_images_are_opened_at_the_levels_of_the_run(coop_run: Path, tmp_path: Path, gopro) -> None:
    run = tmp_path / "run"
    shutil.copytree(coop_run, run)
    content = json.loads((run / "config.json").read_text())
    content["config"]["levels"] = [0, 4095]
    (run / "config.json").write_text(json.dumps(content))
    eight_bits = np.random.default_rng(1).integers(0, 256, (40, 40))
    Image.fromarray(eight_bits.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray((eight_bits * 4095 / 255).round().astype(np.uint16)).save(tmp_path / "12.png")
    assert gopro("features", run, tmp_path / "8.png", tmp_path / "12.png", "--output", tmp_path / "f.npz")[0] == 0
    with np.load(tmp_path / "f.npz") as file:
        np.testing.assert_allclose(*file["features"], atol=1e-5)


def test_parquet_has_the_same_rows(coop_run: Path, images: Path, tmp_path: Path, gopro) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow, of the extra parquet")
    for file in ("f.npz", "f.parquet"):
        assert gopro("features", coop_run, images, "--output", tmp_path / file)[0] == 0
    table = parquet.read_table(tmp_path / "f.parquet")
    with np.load(tmp_path / "f.npz") as file:
        assert table["path"].to_pylist() == file["paths"].tolist()
        np.testing.assert_array_equal(np.array(table["features"].to_pylist(), np.float32), file["features"])


def test_unreadable_images_are_listed_and_the_others_written(
    coop_run: Path, images: Path, tmp_path: Path, gopro
) -> None:
    (images / "1.png").write_bytes(b"broken")
    code, out, err = gopro("features", coop_run, images, "--output", tmp_path / "f.npz")
    assert code == 1 and "Features of 2 images" in out and f"{images / '1.png'}: not an image" in err
    code, out, err = gopro("features", coop_run, images / "1.png", "--output", tmp_path / "none.npz")
    assert code == 1 and not (tmp_path / "none.npz").exists() and "was not written" in err


def test_a_file_that_cannot_be_written_is_refused_before_the_run_is_loaded(
    images: Path, tmp_path: Path, gopro, monkeypatch
) -> None:
    monkeypatch.setattr("gopro.inference.feature_file.find_spec", lambda name: None)
    for file, words in {
        "f.csv": "give a file that ends with .npz or .parquet",
        "f.parquet": "Parquet needs pyarrow: pip install '.[parquet]'",
        "there/f.npz": "there is no folder",
    }.items():
        code, _, err = gopro("features", "runs/nowhere", images, "--output", tmp_path / file)
        assert code == 2 and words in err and err.count("\n") == 1
