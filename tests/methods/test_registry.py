"""Methods by name and settings."""

import pytest
import torch

from gopro.clip.backbone import Backbone
from gopro.errors import InputError
from gopro.methods.gopro import GOProConfig
from gopro.methods.registry import build_method, parse_method
from tests.support.methods import NAMES, TEMPLATE, encode_noise


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("gopr", "did you mean gopro"),
        ("", "choose one of"),
        ("gopro[", "no such method"),
        ("residual", "python residual.py train"),
        ("gopro[lr=0]", "lr is 0: give a number above 0"),
        ("gopro[epochs=1.5]", "epochs is 1.5: give a whole number, at least 1"),
        ("gopro[crop=2]", "crop is 2: give at most 1"),
        ("gopro[weightdecay=1]", "or of its recipe optimizer, lr, epochs, batch, warmup, schedule, weight_decay"),
        ("tip-adapter[crop=0.5,lr=0.1]", "tip-adapter is not trained in steps: leave lr out"),
        ("zeroshot[crop=0.5]", "leave crop out"),
        ("gopro[sen=1]", "no setting 'sen'"),
        ("gopro[sem]", "no setting 'sem'"),
        ("gopro[sem=much]", "sem is 'much': give a number"),
        ("gopro[sem=nan]", "sem is nan: give a number"),
        ("gopro[rank=true]", "rank is True: give a whole number, at least 1, or null"),
        ("gopro[rho=each]", "give view or shared"),
        ('gopro[template="a photo]', "a quote is not closed"),
        ("gopro[template=a baker's {}]", "a value with a comma or an apostrophe stands in double quotes"),
        ("gopro[template=a {}, a pet]", "no setting 'a pet'; write settings as key=value"),
    ],
)
def test_wrong_specs_are_refused_in_one_line(spec: str, words: str) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        parse_method(spec)
    assert words.lower() in str(caught.value).lower()


def test_settings_are_parsed_to_their_types() -> None:
    config = parse_method('gopro[sem=2, con=1e-3, rank=null, rho=shared, template="an icon, of {}."]').config
    assert config == GOProConfig(sem=2.0, con=0.001, rank=None, rho="shared", template="an icon, of {}.")
    config = parse_method("""gopro[sem=2,template="a baker's \\"{}\\", a shop."]""").config
    assert config == GOProConfig(sem=2.0, template="""a baker's "{}", a shop.""")


def test_settings_of_the_recipe_stand_beside_those_of_the_method() -> None:
    spec = parse_method("gopro[lr=0.01,con=0,epochs=10,weight_decay=0,optimizer=sgd]")
    assert spec.config == GOProConfig(con=0.0)
    assert spec.recipe_settings == {"lr": 0.01, "epochs": 10, "weight_decay": 0, "optimizer": "sgd"}


@pytest.mark.parametrize("template", ["a photo.", "{} and {}", "{}."])
def test_a_template_without_words_for_the_context_is_refused(template: str, tiny: Backbone) -> None:
    with pytest.raises(InputError, match="template"):
        build_method(f'gopro[template="{template}"]', tiny, NAMES, TEMPLATE)


def test_zeroshot_uses_the_template_of_the_data_set(tiny: Backbone) -> None:
    def logits(spec: str, template: str) -> torch.Tensor:
        return build_method(spec, tiny, NAMES, template).logits(encode_noise(tiny, 2))

    own = logits('zeroshot[template="a drawing of {}"]', TEMPLATE)
    torch.testing.assert_close(logits("zeroshot", "a drawing of {}"), own)
    assert not torch.allclose(logits("zeroshot", TEMPLATE), own)
