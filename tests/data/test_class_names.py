"""Class names are cleaned alike wherever they come from, and a single one is refused."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopro.data.class_names import clean_name, clean_names, parse_names, read_names
from gopro.data.folders.class_folders import folder_dataset
from gopro.data.splits import split_in_three
from gopro.errors import InputError
from tests.support.folders import make_folders

NFC, NFD = "café", unicodedata.normalize("NFD", "café")


@given(st.text(alphabet="ab_ e\u0301é\t", max_size=12))
def test_cleaning_a_name_is_idempotent(name: str) -> None:
    cleaned = clean_name(name)
    assert clean_name(cleaned) == cleaned == clean_name(unicodedata.normalize("NFD", name))
    assert "_" not in cleaned and cleaned == " ".join(cleaned.split())


def test_a_folder_written_by_macos_is_the_same_class(tmp_path: Path) -> None:
    names, splits = [], []
    for written in (NFC, NFD):
        root = make_folders(tmp_path / str(len(written)), [written, "snowy_owl"])
        dataset = folder_dataset(root)
        names.append(dataset.classnames)
        splits.append([sample.image.name.rsplit("/")[-1] for sample in dataset.train])
    assert names == [(NFC, "snowy owl")] * 2 and splits[0] == splits[1]
    both = make_folders(tmp_path / "both", [NFC, NFD])
    with pytest.raises(InputError, match="give the same class name"):
        folder_dataset(both)


def test_the_draw_of_a_class_does_not_depend_on_how_its_accents_are_written() -> None:
    drawn = [split_in_three([(f"{i}.png", 0, name) for i in range(9)])["test"] for name in (NFC, NFD)]
    assert [path for path, *_ in drawn[0]] == [path for path, *_ in drawn[1]]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("red fox,snowy owl", ["red fox", "snowy owl"]),
        ('red fox, "owl, white" ,teapot', ["red fox", "owl, white", "teapot"]),
        ('"the ""Owl"", a film",fox', ['the "Owl", a film', "fox"]),
        ("baker's shop,5\" disk", ["baker's shop", '5" disk']),
        ("red fox\nowl\n", ["red fox", "owl"]),
        (",,red fox,,owl,", ["red fox", "owl"]),
        (' ["owl, white", "\\"A\\"", "fox"]', ["owl, white", '"A"', "fox"]),
        ("", []),
    ],
)
def test_names_in_a_text(text: str, names: list[str]) -> None:
    assert parse_names(text) == names


@given(st.lists(st.text(alphabet="a b,\"'", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=4))
def test_any_name_can_be_quoted(names: list[str]) -> None:
    assert parse_names(", ".join('"' + name.replace('"', '""') + '"' for name in names)) == names
    assert parse_names(json.dumps(names)) == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('fox, "owl, white', "'\"owl, white' starts with a double quote that does not end the name"),
        ("['fox', 'owl']", "not a JSON list of class names"),
        ('["fox", 3]', "JSON, but not a list of class names"),
        ("[" * 100_000, "not a JSON list of class names"),
    ],
)
def test_a_text_that_is_no_list_of_names_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=r"^--classes: ") as caught:
        parse_names(text)
    assert words in str(caught.value)


def test_names_in_a_file(tmp_path: Path) -> None:
    lines, listed, other = tmp_path / "names.txt", tmp_path / "names.json", tmp_path / "object.json"
    lines.write_text('\ufeffred fox\r\n\nowl, white\n"teapot, ""old"""\n"A" or "B"\n', encoding="utf-8")
    assert read_names(lines) == ["red fox", "owl, white", 'teapot, "old"', '"A" or "B"']
    lines.write_text('[\n"red fox",\n"owl, white"\n]', encoding="utf-8")
    listed.write_text('["red fox", "owl, white"]', encoding="utf-8")
    assert read_names(lines) == read_names(listed) == ["red fox", "owl, white"]
    other.write_text('{"0": "fox"}', encoding="utf-8")
    with pytest.raises(InputError, match=r"object\.json: JSON, but not a list of class names; write "):
        read_names(other)
    lines.write_bytes(b"\xff")
    for file, words in ((lines, "not UTF-8 text"), (tmp_path / "none.txt", "No such file")):
        with pytest.raises(InputError, match=words):
            read_names(file)


def test_fewer_than_two_names_are_refused() -> None:
    assert clean_names(iter(["snowy_owl", f" {NFD}"])) == ["snowy owl", NFC]
    with pytest.raises(InputError, match="class name 'snowy owl' alone would get 100 % for every image: give at least"):
        clean_names(["snowy_owl"])
    with pytest.raises(InputError, match="give its names one by one"):
        clean_names(["red fox, snowy owl"])
    for names, words in (([], "give at least two"), (["fox", "_"], "class name '_' is empty"), ("fox, owl", "a list")):
        with pytest.raises(InputError, match=words):
            clean_names(names)
