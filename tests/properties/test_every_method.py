"""Properties of every method."""

import pytest
import torch

from gopro.clip.backbone import Backbone
from gopro.errors import InputError
from gopro.methods.base import Method
from gopro.methods.linear_probe import LinearProbe
from gopro.methods.registry import METHODS, build_method
from tests.support.methods import NAMES, TEMPLATE, encode_noise, perturb


@pytest.fixture(params=list(METHODS))
def method(request: pytest.FixtureRequest, tiny: Backbone) -> Method:
    return perturb(build_method(request.param, tiny, NAMES, TEMPLATE))


def test_permuting_classes_permutes_logits(method: Method) -> None:
    order = [3, 0, 4, 2, 1]
    logits = method.logits(encode_noise(method, 3))
    permuted = method.for_classes([NAMES[i] for i in order]).logits(encode_noise(method, 3))
    torch.testing.assert_close(permuted, logits[:, order], atol=1e-4, rtol=1e-5)


def test_logits_are_scaled_products_of_image_and_class_vectors(method: Method) -> None:
    images = encode_noise(method, 3)
    contexts = method.image_contexts(images)
    image, classes = method.image_vectors(images), method.class_vectors(contexts)
    assert len(classes) == (1 if contexts is None else 3)
    expected = method.backbone.logit_scale * (image[:, None] * classes).sum(-1)
    torch.testing.assert_close(method.logits(images), expected, atol=1e-4, rtol=1e-5)


def test_the_logit_of_a_class_does_not_depend_on_the_other_classes(method: Method) -> None:
    logits = method.logits(encode_noise(method, 3))
    one = method.for_classes(["dog"])
    torch.testing.assert_close(one.logits(encode_noise(method, 3))[:, 0], logits[:, 3], atol=1e-4, rtol=1e-5)
    assert one.classnames == ("dog",) and method.classnames == tuple(NAMES)


def test_images_do_not_depend_on_their_batch(method: Method) -> None:
    images = encode_noise(method, 4)
    alone = torch.cat([method.logits(images[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(method.logits(images), alone, atol=1e-4, rtol=1e-5)


def test_learned_state_holds_no_class_name_and_no_backbone(method: Method, tiny: Backbone) -> None:
    if isinstance(method, LinearProbe):
        return  # a classifier of its classes, which refuses others: tests/methods/test_closed_form.py
    many = type(method)(tiny, [f"thing number {i}" for i in range(40)], method.config)
    many.load_state_dict(method.state_dict())  # what is learned at its trained classes brings their number along
    shapes = {key: tensor.shape for key, tensor in method.state_dict().items()}
    assert {key: tensor.shape for key, tensor in many.state_dict().items()} == shapes
    frozen = sum(p.numel() for p in tiny.model.parameters())
    assert sum(shape.numel() for shape in shapes.values()) < frozen / 10


def test_state_dict_moves_between_instances(method: Method, tiny: Backbone) -> None:
    other = type(method)(tiny, NAMES, method.config)
    other.load_state_dict(method.state_dict())
    torch.testing.assert_close(other.eval().logits(encode_noise(method, 2)), method.logits(encode_noise(method, 2)))


@pytest.mark.parametrize("spec", ["coop", "gopro", "gopro-paper", "slip"])
@pytest.mark.parametrize("template", [TEMPLATE, "an icon of a {}, a type of thing."])
def test_learning_starts_at_zero_shot(spec: str, template: str, tiny: Backbone) -> None:
    method = build_method(f'{spec}[template="{template}"]', tiny, NAMES, TEMPLATE)
    zeroshot = build_method("zeroshot", tiny, NAMES, template)
    images = encode_noise(tiny, 64)
    logits, expected = method.logits(images), zeroshot.logits(images)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-5)
    assert (logits.argmax(-1) == expected.argmax(-1)).all()


def test_text_features_are_the_first_columns_of_the_class_vectors(method: Method) -> None:
    contexts = method.image_contexts(encode_noise(method, 3))
    if isinstance(method, LinearProbe):
        with pytest.raises(InputError, match="no text"):
            method.text_features(contexts)
        return
    text, dim = method.text_features(contexts), method.backbone.embed_dim
    assert text.shape == (3 if method.text_depends_on_image else 1, len(NAMES), dim)
    torch.testing.assert_close(method.class_vectors(contexts)[..., :dim], text)
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(text.shape[:-1]))


def test_only_a_method_whose_text_depends_on_the_image_generates_contexts(method: Method) -> None:
    assert (method.image_contexts(encode_noise(method, 2)) is not None) == method.text_depends_on_image


def test_for_classes_shares_what_was_learned_and_changes_nothing_else(method: Method) -> None:
    images = encode_noise(method, 2)
    logits, state = method.logits(images), {key: tensor.clone() for key, tensor in method.state_dict().items()}
    other = method.for_classes(NAMES[1:3])
    assert all(a is b for a, b in zip(other.parameters(), method.parameters(), strict=True))
    assert all(torch.equal(tensor, state[key]) for key, tensor in method.state_dict().items())
    assert torch.equal(method.logits(images), logits) and method.classnames == tuple(NAMES)
