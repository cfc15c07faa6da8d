"""The prompt of the tested data set: in zero-shot text features, beside learned prompts, and as GOPro's frozen CLIP."""

import pytest
import torch
from torch import Tensor

from gopro.clip.backbone import Backbone
from gopro.clip.text.encode import encode_texts
from gopro.clip.text.full_prompts import FullPrompts
from gopro.data.published.catalog import CATALOG
from gopro.errors import InputError
from gopro.methods.gopro import GOPro
from gopro.methods.mmrl import MMRL
from gopro.methods.parts.class_means import ClassMeans
from gopro.methods.registry import build_method
from gopro.methods.tip_adapter import TipAdapter
from tests.support.methods import NAMES, TEMPLATE, encode_noise, perturb

OTHER_NAMES = ["banded", "cross-hatched", "Annual Crop Land", "2012 Audi A5 coupé"]
BEHIND = "{} texture."

catalog = pytest.mark.parametrize("template", [entry.template for entry in CATALOG.values()], ids=list(CATALOG))


def zero_shot_logits(backbone: Backbone, names: list[str], template: str, images: int = 6) -> Tensor:
    """Compute the zero-shot logits of random images from whole texts."""
    text = encode_texts(backbone.text, [template.format(name) for name in names])
    return backbone.logit_scale * encode_noise(backbone, images).embedding @ text.T


def test_the_catalog_has_other_templates_than_the_default() -> None:
    assert len(CATALOG) == 15 and len({entry.template for entry in CATALOG.values()}) == 8


@catalog
def test_gopro_starts_as_the_zero_shot_row_of_its_data_set(template: str, tiny: Backbone) -> None:
    method = build_method("gopro", tiny, NAMES, template).eval()
    expected = zero_shot_logits(tiny, NAMES, template)
    torch.testing.assert_close(method.logits(encode_noise(tiny, 6)), expected, atol=1e-5, rtol=0)
    zeroshot = build_method("zeroshot", tiny, NAMES, template)
    torch.testing.assert_close(zeroshot.logits(encode_noise(tiny, 6)), expected, atol=1e-5, rtol=0)
    if template != TEMPLATE:
        assert (expected - zero_shot_logits(tiny, NAMES, TEMPLATE)).abs().max() > 1e-3


@pytest.mark.parametrize("trained", [TEMPLATE, BEHIND])
@catalog
def test_gopro_leaves_images_to_the_zero_shot_row_of_the_tested_data_set(
    trained: str, template: str, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = perturb(build_method("gopro", tiny, NAMES, trained))
    with monkeypatch.context() as patch:
        patch.setattr(ClassMeans, "distance", lambda self, x: torch.full(x.shape[:-1], torch.inf))
        logits = method.for_classes(OTHER_NAMES, template).logits(encode_noise(tiny, 6))
    torch.testing.assert_close(logits, zero_shot_logits(tiny, OTHER_NAMES, template), atol=1e-5, rtol=0)
    learned = method.for_classes(OTHER_NAMES, template).logits(encode_noise(tiny, 6))  # the gate lets all images pass
    assert (learned - logits).abs().max() > 0.1


@pytest.mark.parametrize("trained", [TEMPLATE, BEHIND, "a photo of a person doing {}."])
def test_the_learned_prompt_of_gopro_keeps_the_words_of_the_trained_data_set(trained: str, tiny: Backbone) -> None:
    method = perturb(build_method("gopro", tiny, NAMES, trained))
    contexts = method.image_contexts(encode_noise(tiny, 3))
    here, there = method.for_classes(OTHER_NAMES), method.for_classes(OTHER_NAMES, "a centered satellite photo of {}.")
    torch.testing.assert_close(there.text_features(contexts), here.text_features(contexts))
    assert isinstance(here, GOPro) and isinstance(there, GOPro)
    assert (there.frozen_text() - here.frozen_text()).abs().max() > 1e-3


def test_gopro_anchors_its_text_to_the_prompt_of_its_data_set(tiny: Backbone) -> None:
    method = build_method("gopro", tiny, NAMES, BEHIND)
    views, labels = encode_noise(tiny, 3, 4), torch.tensor([0, 1, 2, 3])
    assert method.losses(views, labels)["anchor"].item() == pytest.approx(0, abs=1e-4)
    other = method.for_classes(NAMES, TEMPLATE)
    assert other.losses(views, labels)["anchor"].item() > 1e-2


def test_a_context_behind_the_name_is_generated_per_image(tiny: Backbone) -> None:
    method = perturb(build_method("gopro", tiny, NAMES, BEHIND))
    contexts = method.image_contexts(encode_noise(tiny, 3))
    assert contexts is not None and contexts.shape == (3, 1, 64)
    full = FullPrompts(tiny.text, NAMES, after=1)
    alone = torch.stack([full(after=context)[0] for context in contexts])
    bare = build_method("gopro[projectors=image]", tiny, NAMES, BEHIND)
    torch.testing.assert_close(bare.text_features(contexts), alone, atol=1e-5, rtol=1e-4)
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    views, labels = encode_noise(tiny, 3, 4), torch.tensor([0, 1, 2, 3])
    sum(method.train().losses(views, labels).values()).backward()
    idle = {n for n, p in method.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle - {"rho_bias"} == {"probe_weight", "probe_bias"}


@pytest.mark.parametrize("template", [BEHIND, "an icon of {}!"])
@pytest.mark.parametrize("spec", ["zeroshot", "slip", "mmrl", "tip-adapter", "tip-adapter-f"])
def test_a_method_compares_with_the_prompt_of_the_tested_data_set(spec: str, template: str, tiny: Backbone) -> None:
    method = perturb(build_method(spec, tiny, NAMES, TEMPLATE))
    if isinstance(method, TipAdapter):
        method.solve(lambda count: [encode_noise(tiny, 5)] * max(1, count), torch.arange(5))
    built = build_method(spec, tiny, NAMES, template)
    built.load_state_dict(method.state_dict())
    images = encode_noise(method, 4)
    tested = method.for_classes(NAMES, template)
    torch.testing.assert_close(tested.logits(images), built.eval().logits(images), atol=1e-5, rtol=1e-5)
    assert (tested.logits(images) - method.logits(images)).abs().max() > 1e-3
    torch.testing.assert_close(tested.for_classes(NAMES[:2]).logits(images), tested.logits(images)[:, :2])
    assert tested.trained_template == method.template == TEMPLATE and tested.template == template
    if isinstance(tested, MMRL):
        assert tested.fused, "the class names decide, not the template"


@pytest.mark.parametrize("spec", ["zeroshot", "slip", "mmrl", "tip-adapter", "gopro"])
def test_a_template_in_the_settings_holds_for_every_data_set(spec: str, tiny: Backbone) -> None:
    method = perturb(build_method(f'{spec}[template="an icon of {{}}."]', tiny, NAMES, TEMPLATE))
    images = encode_noise(method, 4)
    torch.testing.assert_close(method.for_classes(NAMES, BEHIND).logits(images), method.logits(images))
    assert method.for_classes(NAMES, BEHIND).zero_shot_template == "an icon of {}."


def test_kgcoop_stays_near_the_prompt_of_its_data_set(tiny: Backbone) -> None:
    method = build_method("kgcoop", tiny, NAMES, BEHIND)
    torch.testing.assert_close(method.zero_shot_text, encode_texts(tiny.text, [BEHIND.format(n) for n in NAMES]))


@pytest.mark.parametrize("spec", ["zeroshot", "mmrl", "slip", "tip-adapter"])
def test_a_tested_template_without_a_place_for_the_name_is_refused(spec: str, tiny: Backbone) -> None:
    with pytest.raises(InputError, match=r"write \{\} exactly once"):
        build_method(spec, tiny, NAMES, TEMPLATE).for_classes(NAMES, "a photo.")
