"""Sort images into folders: nothing is overwritten or lost, and sorting again changes nothing."""

import doctest
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopro.data.folders.sorted_folders import MARK
from gopro.errors import InputError
from gopro.inference import sort_images
from gopro.inference.sort_images import UNSURE, Sorter, folder_names


def tree(root: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, hidden ones too, but for the mark."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != MARK)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Three files with the same name, of which the last two have the same content, and one more."""
    return [
        write(tmp_path / "a" / "1.jpg", "one"),
        write(tmp_path / "b" / "1.jpg", "two"),
        write(tmp_path / "c" / "1.jpg", "two"),
        write(tmp_path / "c" / "2.jpg", "three"),
    ]


def sort(root: Path, sources: list[Path], **settings) -> Sorter:
    sorter = Sorter(root, ["cat"], **settings)
    for source in sources:
        sorter.add(source, "cat", 0.9)
    sorter.close()
    return sorter


EXPECTED = {"cat/1.jpg": b"one", "cat/1 (2).jpg": b"two", "cat/1 (3).jpg": b"two", "cat/2.jpg": b"three"}


def test_a_folder_that_held_nothing_is_marked(tmp_path: Path, sources: list[Path]) -> None:
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "new" / "sorted", tmp_path / "empty"):
        sort(root, sources)
        sort(root, sources)
        assert "Remove this file" in (root / MARK).read_text()


def test_a_folder_of_images_that_are_sorted_by_hand_is_not_marked(tmp_path: Path, sources: list[Path]) -> None:
    write(tmp_path / "mine" / "cat" / "0.jpg", "zero")
    sort(tmp_path / "mine", sources)
    assert not (tmp_path / "mine" / MARK).exists()


@pytest.mark.parametrize("link", [None, "hard", "symbolic"])
def test_equal_file_names_get_numbers_once(tmp_path: Path, sources: list[Path], link) -> None:
    root = tmp_path / "sorted"
    first = sort(root, sources, link=link)
    assert tree(root) == EXPECTED and first.counts == {"cat": 4} and first.already == 0
    for order in (sources, sources[::-1], sources[1:], [*sources, *sources]):
        again = sort(root, order, link=link)
        assert tree(root) == EXPECTED and again.already == again.counts["cat"] == len(set(order))
    image = root / "cat" / "1.jpg"
    assert image.is_symlink() == (link == "symbolic") and image.samefile(sources[0]) == (link is not None)


def test_existing_files_are_never_overwritten(tmp_path: Path, sources: list[Path]) -> None:
    root = tmp_path / "sorted"
    mine = {"cat/1.jpg": "mine", "cat/1 (2).jpg": "mine too"}
    for name, content in mine.items():
        write(root / name, content)
    (root / "cat" / "1 (3).jpg").symlink_to(tmp_path / "nothing")
    (root / "cat" / "1 (4).jpg").mkdir()
    for _ in range(2):
        sort(root, sources)
        files = tree(root)
        assert {name: files[name].decode() for name in mine} == mine
        assert (root / "cat" / "1 (3).jpg").is_symlink() and (root / "cat" / "1 (4).jpg").is_dir()
        assert [files[f"cat/1 ({i}).jpg"] for i in (5, 6, 7)] == [b"one", b"two", b"two"] and len(files) == 6


def test_an_interrupted_copy_is_made_again(
    tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leave a partial file without cleaning up, as SIGKILL in the middle of a copy does."""
    root = tmp_path / "sorted"

    def killed(source: str, target: str) -> None:
        Path(target).write_text("on")
        monkeypatch.setattr(Path, "unlink", lambda *a, **k: None)
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr("shutil.copy2", killed)
        with pytest.raises(KeyboardInterrupt):
            Sorter(root, ["cat"]).add(sources[0], "cat", 0.9)
    monkeypatch.undo()
    assert [Path(name).parts[0] for name in tree(root)] == [".partial"]
    sort(root, sources)
    assert tree(root) == EXPECTED and not (root / ".partial").exists()


def test_copies_work_without_hard_links(tmp_path: Path, sources, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    for _ in range(2):
        sort(tmp_path / "sorted", sources)
        assert tree(tmp_path / "sorted") == EXPECTED
    with pytest.raises(InputError, match="Operation not permitted; give --link symbolic"):
        sort(tmp_path / "linked", sources, link="hard")


def test_images_below_the_confidence_go_to_their_own_folder(tmp_path: Path, sources: list[Path]) -> None:
    sorter = Sorter(tmp_path / "sorted", [UNSURE, "cat"], min_confidence=0.7)
    sorter.add(sources[0], UNSURE, 0.7)  # also the name of a class
    sorter.add(sources[1], UNSURE, 0.69)
    sorter.add(sources[3], "cat", 1.0)
    assert tree(tmp_path / "sorted") == {"unsure/1.jpg": b"one", "_unsure/1.jpg": b"two", "cat/2.jpg": b"three"}


def test_a_hard_link_to_a_symbolic_link_is_to_the_image(tmp_path: Path, sources: list[Path]) -> None:
    (tmp_path / "a" / "link.jpg").symlink_to("1.jpg")
    sort(tmp_path / "sorted", [tmp_path / "a" / "link.jpg"], link="hard")
    linked = tmp_path / "sorted" / "cat" / "link.jpg"
    assert not linked.is_symlink() and linked.samefile(sources[0])


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, sources: list[Path]) -> None:
    write(tmp_path / "sorted" / "cat", "a file")
    with pytest.raises(InputError, match=r"1\.jpg cannot be copied to .*sorted/cat: File exists"):
        sort(tmp_path / "sorted", sources)
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="Permission denied"):
        sort(tmp_path / "locked", sources)


def test_long_file_names_are_cut_to_fit_their_number(tmp_path: Path) -> None:
    sources = [write(tmp_path / folder / f"{'ü' * 125}.jpg", folder) for folder in "ab"]
    sort(tmp_path / "sorted", sources)
    assert sorted(tree(tmp_path / "sorted").values()) == [b"a", b"b"]


@given(st.lists(st.text(max_size=30) | st.text(alphabet="aA._ /\\:é\u0301日", max_size=300), unique=True, max_size=12))
def test_any_class_names_get_unique_valid_folders(tmp_path_factory, names: list[str]) -> None:
    folders = folder_names(names)
    assert list(folders) == names
    assert len({folder.casefold() for folder in folders.values()}) == len(names)
    root = tmp_path_factory.mktemp("folders")
    for folder in folders.values():
        assert not folder.startswith(("_", ".", " ")) and not folder.endswith((".", " "))
        assert not set(folder) & set('<>:"/\\|?*\0\n') and len(folder.encode()) < 240
        (root / folder).mkdir()  # fails if it exists or leads elsewhere
    assert sorted(os.listdir(root)) == sorted(folders.values())


def test_the_examples_of_the_docstrings_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in "12":
        write(tmp_path / "images" / f"{number}.jpg", number)
    result = doctest.testmod(sort_images)
    assert result.attempted == 5 and result.failed == 0


def test_two_classes_of_one_name_share_a_folder() -> None:
    assert folder_names(["crane", "owl", "crane"]) == {"crane": "crane", "owl": "owl"}


def test_folder_names_change_as_little_as_possible() -> None:
    ordinary = ["red fox", "jack-o'-lantern", "Ōtsu 日本", "St. Bernard", "café (bar)"]
    assert folder_names(ordinary) == {name: name for name in ordinary}
    odd = {
        "AC/DC": "AC_DC",
        "..": "class",
        "": "class (2)",
        "Con": "Con_",
        "lpt1.txt": "lpt1.txt_",
        "crane": "crane",
        "Crane": "Crane (2)",
        "crane (2)": "crane (2) (2)",
        "e.g.": "e.g",
    }
    assert folder_names(list(odd)) == odd
    composed, decomposed = "é", unicodedata.normalize("NFD", "é")
    assert list(folder_names([composed, decomposed]).values()) == ["é", "é (2)"]
