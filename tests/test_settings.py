"""`gopro.settings`: values are checked when a settings dataclass is made, and the message says what to give."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import pytest
from pydantic import Strict

from gopro.errors import InputError
from gopro.settings import AnyPath, PositiveFloat, PositiveInt, Texts, describe_type, settings


@settings
class Example:
    epochs: PositiveInt | None = None
    lr: PositiveFloat = 0.1
    weight: float = 1.0
    optimizer: Literal["sgd", "adamw", 7] = "sgd"
    shuffle: bool = False
    template: str | None = None
    names: Texts = ()
    seeds: Annotated[tuple[PositiveInt | Literal["all"], ...], Strict(False)] = (1,)
    root: AnyPath | None = None


@settings
class Derived(Example):
    data: str


def test_an_int_stands_for_a_float_a_list_for_a_tuple_and_a_string_for_a_path() -> None:
    made = Derived(data="cars", lr=1, names=["owl"], seeds=[3], root="x")  # pyright: ignore[reportArgumentType]
    assert made.lr == 1.0 and isinstance(made.lr, float)
    assert (made.names, made.seeds, made.root) == (("owl",), (3,), Path("x"))
    assert dataclasses.replace(made, epochs=2).epochs == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs is 0: give at least 1"),
        ({"epochs": True}, "epochs is True: give a whole number, at least 1, or null"),
        ({"epochs": 1.5}, "epochs is 1.5: give a whole number, at least 1, or null"),
        ({"lr": 0}, "lr is 0: give a number above 0"),
        ({"lr": False}, "lr is False: give a number, above 0"),
        ({"weight": float("nan")}, "weight is nan: give a number"),
        ({"weight": float("inf")}, "weight is inf: give a number"),
        ({"optimizer": "adam"}, "optimizer is 'adam': give sgd, adamw or 7"),
        ({"shuffle": 1}, "shuffle is 1: give true or false"),
        ({"template": 1}, "template is 1: give a text or null"),
        ({"names": "owl"}, "names is 'owl': give a list"),
        ({"names": [1]}, "names is 1: give a text"),
        ({"seeds": [0]}, "seeds is 0: give at least 1"),
        ({"seeds": ["every"]}, "seeds is 'every': give a whole number, at least 1, or all"),
        ({"root": 1}, "root is 1: give a path or null"),
        ({"epoch": 1}, "no setting 'epoch'; choose from epochs, lr"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    for kind, others in ((Example, {}), (Derived, {"data": "cars"})):
        with pytest.raises(InputError) as error:
            kind(**others, **values)
        assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_missing_value_and_a_long_one_are_named() -> None:
    with pytest.raises(InputError, match=r"^data is missing$"):
        Derived()  # pyright: ignore[reportCallIssue]
    with pytest.raises(InputError) as error:
        Example(weight="9" * 1000)  # pyright: ignore[reportArgumentType]
    assert len(str(error.value)) < 120


def test_replace_checks_values_too() -> None:
    with pytest.raises(InputError, match="epochs is 0: give at least 1"):
        dataclasses.replace(Example(), epochs=0)


def test_types_are_described_for_a_person() -> None:
    hints = get_type_hints(Example, include_extras=True)
    assert describe_type(hints["epochs"]) == "a whole number, at least 1, or null"
    assert describe_type(hints["shuffle"]) == "true or false"


def test_settings_need_neither_torch_nor_open_clip() -> None:
    code = "import sys, gopro.settings; assert not {'torch', 'open_clip'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
