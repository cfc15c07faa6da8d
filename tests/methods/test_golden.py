"""Training steps of the authors' own code, reproduced."""

import pytest

from gopro.clip.backbone import Backbone, from_openai
from gopro.methods.registry import build_method
from tests.support.golden import (
    CLASSNAMES,
    GOLDEN,
    deeper_clip,
    deviation,
    golden_deviations,
    random_clip,
    read_golden,
    under,
)

DEEP = ["maple", "promptsrc", "mmrl"]
OTHERS = ("tip-adapter", "training-", "transfer-")  # recordings that other files test
CASES = [path.stem for path in sorted(GOLDEN.glob("*.safetensors")) if not path.stem.startswith(OTHERS)]


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    """The CLIPs that the authors' code ran on, by case."""
    shallow, deep = from_openai(random_clip()), from_openai(deeper_clip())
    return {case: deep if case in DEEP else shallow for case in CASES}


def test_all_recordings_are_tested() -> None:
    assert len(CASES) == 10


@pytest.mark.parametrize("case", CASES)
def test_training_steps_are_the_authors(case: str, backbones: dict[str, Backbone]) -> None:
    deviations = golden_deviations(case, backbones[case])
    assert max(deviations.values()) < 1e-4, deviations


@pytest.mark.parametrize("case", CASES)
def test_a_recording_can_tell_a_wrong_step(case: str) -> None:
    """Every parameter has a gradient, and the steps change the loss and every parameter."""
    golden, _ = read_golden(case)
    init, gradients = under(golden, "init."), under(golden, "grad.")
    assert gradients.keys() == init.keys()
    assert all(gradient.abs().max() > 1e-6 for gradient in gradients.values())
    assert deviation(golden["losses"][-1:], golden["losses"][:1]) > 1e-2
    if case not in DEEP:
        assert all(deviation(tensor, init[key]) > 1e-3 for key, tensor in under(golden, "after.").items())


@pytest.mark.parametrize("case", ["coop-end", "cocoop", "kgcoop"])
def test_the_context_is_initialised_from_the_authors_words(case: str, backbones: dict[str, Backbone]) -> None:
    golden, metadata = read_golden(case)
    method = build_method(metadata["spec"], backbones[case], CLASSNAMES, "a photo of a {}.")
    assert deviation(method.state_dict()["context"], golden["init.ctx"]) < 1e-6


@pytest.mark.parametrize(
    ("case", "spec"),
    [
        ("coop-middle", "coop[tokens=5]"),
        ("coop-front", "coop[tokens=4,position=middle]"),
        ("coop-csc-middle", "coop[tokens=5,csc=true]"),
        ("kgcoop", "kgcoop"),
        ("kgcoop", 'kgcoop[weight=7.9,template="a centered satellite photo of {}."]'),
        ("maple", 'maple[depth=3,template="a photo of the {}."]'),
        ("promptsrc", "promptsrc[depth=3,gpa_mean=3,gpa_std=0.8]"),
        ("promptsrc", "promptsrc[depth=3,gpa_mean=2,gpa_std=0.8,text_weight=24]"),
        ("promptsrc", "promptsrc[depth=3,gpa_mean=2,gpa_std=0.8,image_weight=9]"),
        ("mmrl", "mmrl[tokens=3,dim=32,reg=2]"),
        ("mmrl", "mmrl[tokens=3,dim=32,reg=1.9,alpha=0.6]"),
        ("mmrl", "mmrl[tokens=3,dim=32,reg=2,alpha=0.6,fuse=false]"),
        ("mmrl", 'mmrl[tokens=3,dim=32,reg=2,alpha=0.6,template="a photo of the {}."]'),
    ],
)
def test_other_settings_deviate(case: str, spec: str, backbones: dict[str, Backbone]) -> None:
    assert max(golden_deviations(case, backbones[case], spec).values()) > 1e-3
