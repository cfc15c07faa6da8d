"""A folder of class folders: its classes, its split that is written once, and its errors."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gopro.data.dataset import Dataset
from gopro.data.extend_split import draw
from gopro.data.folders.class_folders import SPLIT_FILE, folder_dataset, folder_target
from gopro.errors import InputError


def fill(folder: Path, count: int, prefix: str = "p") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (8, 8), (i, i, i)).save(folder / f"{prefix}{i}.png")
    return folder


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    fill(root / "snow_owl", 10)
    fill(root / "red_fox", 20)
    return root


def names(dataset: Dataset, part: str) -> list[tuple[str, int]]:
    return [(s.image.name, s.label) for s in dataset.split(part)]  # pyright: ignore[reportArgumentType]


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        folder_dataset(root)
    message = str(caught.value)
    assert root.as_posix() in message and "\n" not in message
    return message


def test_classes_are_sorted_cleaned_and_split_50_20_30(pets: Path):
    dataset = folder_dataset(pets)
    assert dataset.name == "pets" and dataset.classnames == ("red fox", "snow owl")
    counts = [Counter(s.label for s in part) for part in (dataset.train, dataset.val, dataset.test)]
    assert counts == [{0: 10, 1: 5}, {0: 4, 1: 2}, {0: 6, 1: 3}]
    everything = names(dataset, "train") + names(dataset, "val") + names(dataset, "test")
    folders = {"red_fox": 0, "snow_owl": 1}
    assert sorted(everything) == sorted((p.as_posix(), folders[p.parent.name]) for p in pets.glob("*/*.png"))
    assert dataset.train[0].image.open().mode == "RGB"


def test_the_split_is_written_once_in_coop_s_format(pets: Path):
    first = folder_dataset(pets, seed=3)
    written = json.loads((pets / SPLIT_FILE).read_text())
    assert list(written) == ["train", "val", "test"]
    assert all((pets / path).is_file() and [label, name] in ([0, "red_fox"], [1, "snow_owl"])
               for part in written.values() for path, label, name in part)  # fmt: skip
    before = (pets / SPLIT_FILE).stat().st_mtime_ns
    assert folder_dataset(pets, seed=4) == first
    assert (pets / SPLIT_FILE).stat().st_mtime_ns == before
    assert [p.name for p in pets.iterdir() if p.is_file()] == [SPLIT_FILE]  # nothing partial is left


def test_the_draw_of_a_class_depends_on_the_seed_but_not_on_other_classes(pets: Path):
    first = folder_dataset(pets, seed=1)
    (pets / SPLIT_FILE).unlink()
    fill(pets / "another", 6)
    again = folder_dataset(pets, seed=1)
    assert {n for n, _ in names(first, "train")} < {n for n, _ in names(again, "train")}
    (pets / SPLIT_FILE).unlink()
    assert names(folder_dataset(pets, seed=2), "train") != names(again, "train")


def test_a_moved_folder_keeps_its_split(pets: Path, tmp_path: Path):
    first = folder_dataset(pets)
    moved = tmp_path / "elsewhere" / "pets"
    shutil.copytree(pets, moved)
    shutil.rmtree(pets)
    second = folder_dataset(moved)
    assert [n.removeprefix(moved.as_posix()) for n, _ in names(second, "test")] == [
        n.removeprefix(pets.as_posix()) for n, _ in names(first, "test")
    ]


def test_an_unwritable_folder_is_split_with_a_warning(pets: Path, monkeypatch: pytest.MonkeyPatch):
    plain_open = Path.open

    def refuse(path: Path, mode: str = "r", *args, **kwargs):
        if "w" in mode:
            raise PermissionError(13, "Permission denied")
        return plain_open(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.warns(UserWarning, match=r"split_gopro\.json cannot be written: Permission denied"):
        drawn = folder_dataset(pets)
    monkeypatch.undo()
    assert drawn == folder_dataset(pets)


def test_added_images_are_dealt_and_all_others_stay(pets: Path):
    first = folder_dataset(pets)
    fill(pets / "red_fox", 5, "new")
    fill(pets / "Barn_owl", 4)
    with pytest.warns(
        UserWarning, match=r"Barn_owl/p1.png, Barn_owl/p2.png and 6 more; dealt .*the new class Barn_owl"
    ):
        second = folder_dataset(pets)
    assert second.classnames == ("red fox", "snow owl", "Barn owl")
    for part in ("train", "val", "test"):
        assert set(names(first, part)) < set(names(second, part)), part
    counts = [Counter(s.label for s in part) for part in (second.train, second.val, second.test)]
    assert counts == [{0: 13, 1: 5, 2: 2}, {0: 5, 1: 2, 2: 1}, {0: 7, 1: 3, 2: 1}]
    assert folder_dataset(pets) == second  # without a warning: the file lists them now


def test_removed_images_are_named_and_keep_their_place(pets: Path):
    first = folder_dataset(pets)
    gone = Path(first.test[0].image.name)
    content = gone.read_bytes()
    gone.unlink()
    with pytest.warns(UserWarning, match=rf"lists red_fox/{gone.name}, no longer there; left out"):
        second = folder_dataset(pets)
    assert second.test == first.test[1:] and second.train == first.train
    gone.write_bytes(content)
    assert folder_dataset(pets) == first
    shutil.rmtree(pets / "snow_owl")
    fill(pets / "barn_owl", 3)
    with pytest.warns(UserWarning, match="new class barn_owl"):
        message = refusal(pets)
    assert "no image of the class snow_owl" in message and "remove split_gopro.json" in message


def test_a_renamed_class_folder_keeps_its_class(pets: Path):
    folder_dataset(pets)
    (pets / "snow_owl").rename(pets / "Snow owl")
    with (
        pytest.warns(UserWarning, match=r"lists snow_owl/p0.png"),
        pytest.warns(UserWarning, match=r"did not list Snow owl/p0.png, .* dealt 5 to train, 2 to val, 3 to test; all"),
    ):
        dataset = folder_dataset(pets)
    assert dataset.classnames == ("red fox", "snow owl") and len(dataset.train) == 15


@given(counts=st.lists(st.integers(2, 60), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_every_image_is_in_one_split_and_each_class_in_train_and_test(counts: list[int], seed: int):
    images = {f"c{i}": [f"c{i}/{j}.png" for j in range(count)] for i, count in enumerate(counts)}
    entries = draw([(path, label, name) for label, name in enumerate(images) for path in images[name]], seed)
    assert sorted(path for part in entries.values() for path, _, _ in part) == sorted(
        path for paths in images.values() for path in paths
    )
    for label, count in enumerate(counts):
        train, val, test = (sum(e[1] == label for e in entries[part]) for part in ("train", "val", "test"))
        assert train >= 1 and test >= 1 and train + val + test == count
        if count > 3:
            assert (train, val) == (round(0.5 * count), round(0.2 * count))
    shuffled = [(path, label, name) for label, name in enumerate(images) for path in images[name]]
    random.shuffle(shuffled)
    assert draw(shuffled, seed) == entries  # the disk's order of listing does not matter


def test_a_class_of_one_image_is_trained_on_and_gets_a_test_image_next(pets: Path):
    fill(pets / "arctic_hare", 1)
    dataset = folder_dataset(pets)
    assert [sum(s.label == 0 for s in part) for part in (dataset.train, dataset.val, dataset.test)] == [1, 0, 0]
    fill(pets / "arctic_hare", 2)
    with pytest.warns(UserWarning, match=r"arctic_hare/p1.png; dealt 1 to test; all other"):
        dataset = folder_dataset(pets)
    assert [sum(s.label == 0 for s in part) for part in (dataset.train, dataset.val, dataset.test)] == [1, 0, 1]


def test_train_and_test_folders_are_used_as_they_are(tmp_path: Path):
    for part, count in (("train", 4), ("test", 3)):
        for name in ("oak", "silver_birch"):
            fill(tmp_path / part / name, count)
    dataset = folder_dataset(tmp_path)
    assert dataset.classnames == ("oak", "silver birch")
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (8, 0, 6)
    assert all(f"/train/{'oak' if s.label == 0 else 'silver_birch'}/" in s.image.name for s in dataset.train)
    assert not (tmp_path / SPLIT_FILE).exists()
    fill(tmp_path / "val" / "oak", 1)
    assert "val: lacks the class silver_birch" in refusal(tmp_path)
    fill(tmp_path / "val" / "silver_birch", 1)
    assert len(folder_dataset(tmp_path).val) == 2
    fill(tmp_path / "test" / "elm", 1)
    assert "test: has the class elm, which train lacks" in refusal(tmp_path)


@pytest.mark.parametrize(
    "parts",
    [("train", "valid", "test"), ("Train", "Validation", "Test"), ("TRAINING", "dev", "testing"),
     ("training_set", "val-set", "test_set")],
)  # fmt: skip
def test_parts_are_known_by_their_usual_names(parts: tuple[str, ...], tmp_path: Path):
    for part, count in zip(parts, (3, 2, 1), strict=True):
        fill(tmp_path / part / "red fox", count)
        fill(tmp_path / part / "owl", count)
    dataset = folder_dataset(tmp_path)
    assert dataset.classnames == ("owl", "red fox")
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (6, 4, 2)


def test_a_class_is_the_same_in_parts_that_spell_it_differently(tmp_path: Path):
    for folder, count in (("train/snowy_owl", 3), ("train/fox", 3), ("test/Snowy owl", 2), ("test/fox", 1)):
        fill(tmp_path / folder, count)
    dataset = folder_dataset(tmp_path)
    assert dataset.classnames == ("fox", "snowy owl")
    assert Counter(s.label for s in dataset.test) == {0: 1, 1: 2}


def test_without_test_the_images_of_val_are_the_test_images(tmp_path: Path):
    for folder in ("Train/a", "Train/b", "valid/a", "valid/b"):
        fill(tmp_path / folder, 2)
    with pytest.warns(UserWarning, match="no test folder; the images of valid are the test images, and none are left"):
        dataset = folder_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (4, 0, 4)
    assert all("/valid/" in s.image.name for s in dataset.test)


def test_split_folders_that_are_incomplete_or_mixed_with_classes_are_refused(tmp_path: Path):
    fill(tmp_path / "train" / "a", 1)
    fill(tmp_path / "train" / "b", 1)
    assert f"no folder beside train; add test, or give {tmp_path / 'train'}" in refusal(tmp_path)
    fill(tmp_path / "test" / "a", 1)
    fill(tmp_path / "extra" / "a", 1)
    assert "holds test and train beside extra" in refusal(tmp_path)
    (tmp_path / "extra").rename(tmp_path / "Training")
    assert "Training and train both mean train" in refusal(tmp_path)
    shutil.rmtree(tmp_path / "Training")
    shutil.rmtree(tmp_path / "train")
    assert (
        f"has test but no train folder to train on; add one. To test a run on it: gopro eval RUN --data {tmp_path}"
        in (refusal(tmp_path))
    )


def test_a_part_beside_classes_is_taken_for_a_class_with_a_warning(tmp_path: Path):
    for folder in ("train/a", "train/b", "unlabelled"):
        fill(tmp_path / folder, 2)
    with pytest.warns(UserWarning, match="train: is taken for a class, though it holds only the folders a, b"):
        assert folder_dataset(tmp_path).classnames == ("train", "unlabelled")


def test_a_folder_in_a_folder_is_pointed_to(tmp_path: Path):
    fill(tmp_path / "images" / "a", 2)
    fill(tmp_path / "images" / "b", 2)
    assert f"only one class (images); give {tmp_path / 'images'} if its folders a, b are the classes" in refusal(
        tmp_path
    )


def test_a_target_needs_nothing_but_test(tmp_path: Path):
    fill(tmp_path / "Testing" / "red_fox", 3)
    target = folder_target(tmp_path)
    assert target.classnames == ("red fox",) and len(target.test) == 3 and not target.train
    fill(tmp_path / "train" / "Red fox", 1)
    fill(tmp_path / "train" / "owl", 1)
    target = folder_target(tmp_path)
    assert target.classnames == ("owl", "red fox") and {s.label for s in target.test} == {1} and len(target.test) == 3


def test_a_target_is_tested_whole_whether_or_not_it_was_split(pets: Path):
    whole = folder_target(pets)
    assert len(whole.test) == 30 and not (pets / SPLIT_FILE).exists()
    folder_dataset(pets)
    before = (pets / SPLIT_FILE).read_bytes()
    assert folder_target(pets) == whole
    fill(pets / "snow_owl", 2, "new")
    assert len(folder_target(pets).test) == 32 and (pets / SPLIT_FILE).read_bytes() == before
    fill(pets / "red_fox" / "deep", 1)
    (pets / SPLIT_FILE).write_text(
        json.dumps({"train": [["red_fox/p0.png", 1, "fox"]], "val": [], "test": [["snow_owl/p0.png", 0, "owl"]]})
    )
    renamed = folder_target(pets)
    assert renamed.classnames == ("owl", "fox") and Counter(s.label for s in renamed.test) == {0: 12, 1: 21}


def test_a_class_may_be_called_train(tmp_path: Path):
    fill(tmp_path / "train", 4)
    fill(tmp_path / "bus", 4)
    assert folder_dataset(tmp_path).classnames == ("bus", "train")


def test_nested_and_linked_images_count_and_hidden_files_do_not(pets: Path, tmp_path: Path):
    fill(pets / "red_fox" / "winter" / "2020", 2)
    elsewhere = fill(tmp_path / "elsewhere", 4)
    (pets / "arctic_hare").symlink_to(elsewhere, target_is_directory=True)
    for litter in (".DS_Store", "red_fox/Thumbs.db", "red_fox/.hidden.txt", "snow_owl/desktop.ini", "README.md"):
        (pets / litter).write_text("x")
    (pets / ".git").mkdir()
    (pets / "red_fox" / "__MACOSX").mkdir()
    (pets / "red_fox" / "__MACOSX" / "._p0.png").touch()
    dataset = folder_dataset(pets)
    assert dataset.classnames == ("arctic hare", "red fox", "snow owl")
    assert Counter(s.label for part in (dataset.train, dataset.val, dataset.test) for s in part) == {0: 4, 1: 22, 2: 10}
    folder_dataset(pets)  # the written split agrees with the images


def test_invalid_folders_are_refused(tmp_path: Path):
    assert "no such folder" in refusal(tmp_path / "nowhere")
    root = tmp_path / "root"
    root.mkdir()
    assert "no class folders" in refusal(root)
    fill(root / "a_cat", 3)
    assert "only one class (a_cat)" in refusal(root)
    (root / "dog").mkdir()
    assert "dog: no images" in refusal(root)
    fill(root / "dog", 3)
    (root / "dog" / "clip.mp4").touch()
    assert "dog/clip.mp4: not an image" in refusal(root)
    (root / "dog" / "clip.mp4").unlink()
    fill(root / "A cat", 3)
    assert "A cat and a_cat" in refusal(root)
    shutil.rmtree(root / "A cat")
    fill(root / "__", 3)
    assert "empty class name" in refusal(root)
    shutil.rmtree(root / "__")
    Image.new("RGB", (8, 8)).save(root / "stray.jpg")
    assert "stray.jpg: an image outside any class folder" in refusal(root)
    (root / "stray.jpg").unlink()
    (root / "dog" / "loop").symlink_to(root / "dog", target_is_directory=True)
    assert "leads back" in refusal(root)
    (root / "dog" / "loop").unlink()
    assert len(folder_dataset(root).classnames) == 2
    (root / SPLIT_FILE).write_text("{")
    assert "invalid JSON" in refusal(root)


def test_three_classes_of_caltech101(shared: Path, tmp_path: Path):
    source = shared / "datasets" / "caltech-101" / "101_ObjectCategories"
    root = tmp_path / "part"
    root.mkdir()
    for name in ("grand_piano", "yin_yang", "accordion"):
        (root / name).symlink_to(source / name, target_is_directory=True)
    dataset = folder_dataset(root)
    assert dataset.classnames == ("accordion", "grand piano", "yin yang")
    total = sum(len(list((source / name).iterdir())) for name in ("grand_piano", "yin_yang", "accordion"))
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == total
    drawn = dataset.half("base").few_shot(16, seed=1)
    assert Counter(s.label for s in drawn.train) == {0: 16, 1: 16}
    assert drawn.train[0].image.open().mode == "RGB"
