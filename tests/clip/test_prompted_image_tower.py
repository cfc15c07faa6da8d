"""The image tower with learned tokens in some of its layers."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gopro.clip.prompted_image_tower import PromptedImageTower
from tests.support.golden import deviation
from tests.support.towers import images, vit

BUILDS = [{}, {"pool_type": "avg"}, {"no_ln_pre": True}, {"final_ln_after_pool": True}, {"ls_init_value": 0.1}]


@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_without_tokens_it_equals_the_plain_tower(build: dict[str, object]) -> None:
    backbone = vit(**build)
    tower = PromptedImageTower(backbone)
    assert (tower.width, tower.layers) == (64, 3)
    none = [torch.zeros(0, 64)] * 3
    torch.testing.assert_close(tower(images(4), none), backbone.encode(images(4)).embedding, atol=1e-6, rtol=1e-5)


def learned_tokens(depth: int) -> list[Tensor]:
    return [torch.randn(2, 64, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(depth)]


def run_with_hooks(visual: Any, modules: Sequence[nn.Module], tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Run open_clip's own forward, with hooks that replace two tokens at the input of each of some modules.

    Returns:
        The unit features, and the two tokens at the output of the last block.
    """
    removed: list[Tensor] = []

    def replace(layer: int) -> Callable:
        def hook(module: object, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = arguments[0] if layer == 0 else arguments[0][:, :-2]
            return (torch.cat([x, tokens[layer].expand(len(x), -1, -1)], dim=1), *arguments[1:])

        return hook

    def remove(module: object, arguments: object, output: Tensor) -> Tensor:
        removed.append(output[:, -2:])
        return output[:, :-2]

    handles = [module.register_forward_pre_hook(replace(i)) for i, module in enumerate(modules)]
    handles.append(visual.transformer.register_forward_hook(remove))
    features = F.normalize(visual(images(3)), dim=-1)
    for handle in handles:
        handle.remove()
    return features, removed[0]


def assert_same_gradients(ours: Tensor, theirs: Tensor, tokens: Sequence[Tensor]) -> None:
    for gradient, expected in zip(torch.autograd.grad(ours, tokens), torch.autograd.grad(theirs, tokens), strict=True):
        assert expected.abs().max() > 1e-4
        assert deviation(gradient, expected) < 1e-4


@pytest.mark.parametrize("build", BUILDS, ids=str)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_tokens_in_the_first_blocks_against_hooks(build: dict[str, object], depth: int) -> None:
    visual, tokens = (backbone := vit(**build)).model.visual, learned_tokens(depth)
    modules = [visual.ln_pre, *visual.transformer.resblocks[1:depth]]
    expected, _ = run_with_hooks(visual, modules, tokens)
    features = PromptedImageTower(backbone)(images(3), tokens)
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(7))
    assert_same_gradients((features * weights).sum(), (expected * weights).sum(), tokens)


@pytest.mark.parametrize("build", BUILDS, ids=str)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_tokens_in_the_last_blocks_against_hooks(build: dict[str, object], depth: int) -> None:
    """Besides the features, `upper` returns the mean of the tokens at the output."""
    visual, tokens = (backbone := vit(**build)).model.visual, learned_tokens(depth)
    expected, at_output = run_with_hooks(visual, visual.transformer.resblocks[-depth:], tokens)
    expected_mean = torch.stack([visual.ln_post(at_output[:, i]) for i in range(2)]).mean(dim=0)
    features, mean = PromptedImageTower(backbone).upper(images(3), tokens)
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(mean, expected_mean, atol=1e-5, rtol=1e-5)
    ours, theirs = (
        f.square()[:, 0].sum() + m.square()[:, 0].sum() for f, m in ((features, mean), (expected, expected_mean))
    )
    assert_same_gradients(ours, theirs, tokens)
