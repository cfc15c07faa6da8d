"""What images without labels tell about new names: the bias, the rows of the probe, and where they are kept."""

import pytest
import torch
from torch import Tensor

from gopro.methods.parts.new_names import NewNames, even_bias


@pytest.mark.parametrize("trained", [0, 1, 4])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_with_the_bias_new_names_are_predicted_equally_often(trained: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = scale * torch.randn(200, 7, generator=generator) + 2 * torch.randn(7, generator=generator)
    bias = even_bias(logits, trained)
    before, after = (x.softmax(dim=-1).mean(dim=0)[trained:] for x in (logits, logits + bias))
    assert before.max() / before.min() > 1.5
    assert after.max() / after.min() < 1.02
    assert not bias[:trained].any()


def test_a_name_that_no_image_shows_does_not_make_the_bias_infinite() -> None:
    logits = torch.zeros(8, 3)
    logits[:, 2] = -1000.0
    assert even_bias(logits, 1).isfinite().all()


def state_of(names: NewNames) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in names.state_dict().items()}


def test_the_state_of_any_number_of_names_loads() -> None:
    saved = NewNames(4)
    saved.set_bias(torch.tensor([1.0, 2.0]))
    saved.set_probe(torch.ones(2, 4), torch.tensor([3.0, 4.0]))
    loaded = NewNames(4)
    loaded.load_state_dict(state_of(saved))
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in state_of(saved).items())
    loaded.load_state_dict({})  # of a run from before images without labels had names
    assert len(loaded.bias) == len(loaded.probe_weight) == len(loaded.probe_bias) == 0
