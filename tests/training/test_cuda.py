"""What only a graphics card can show: the same numbers as on the CPU, the same bits again, and who computes where."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

import gopro
from gopro import distributed as ranks
from gopro.clip.backbone import Backbone
from gopro.errors import InputError
from gopro.methods.recipe import Training
from gopro.methods.registry import METHODS
from gopro.runs.config import TrainConfig
from gopro.runs.run import LEARNED, read_cost
from gopro.training.devices import ProcessInfo
from gopro.training.process_group import process_group
from gopro.training.progress import Step
from gopro.training.train import resume, train
from tests.conftest import make_tiny

CONFIG = TrainConfig(
    data="emoji-activities", output=Path(), method="gopro", shots=1, epochs=2, batch=16, classes="base", workers=0
)
TRAINED = [name for name, kind in METHODS.items() if kind.trained_by]

card = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no graphics card here")


class Cut(Exception):
    pass


@pytest.fixture(scope="module")
def tiny_on_card() -> Backbone:
    backbone = make_tiny()
    return Backbone("tiny", backbone.model.cuda(), backbone.text.tokenizer, backbone.preprocess)


def losses_of(config: TrainConfig, backbone: Backbone) -> list[dict[str, float]]:
    steps: list[Step] = []
    train(config, backbone=backbone, on_step=steps.append)
    return [{name: term.item() for name, term in step.terms.items()} for step in steps]


def test_auto_is_where_the_backbone_is(tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a card, if there is one."""

    def stop(main: object, entry_point: object, settings: TrainConfig, *_: object) -> None:
        raise Cut(settings.device)

    monkeypatch.setattr(sys.modules["gopro.training.train"], "launch", stop)  # `gopro.train` is the function
    for device in ("auto", "cpu"):
        with pytest.raises(Cut, match=r"^cpu$"):
            train(replace(CONFIG, output=tmp_path / "run", device=device), backbone=tiny)


@card
def test_a_backbone_that_is_elsewhere_is_refused(tmp_path: Path, tiny: Backbone, tiny_on_card: Backbone) -> None:
    for backbone in (tiny, tiny_on_card):
        where = backbone.device
        run = train(replace(CONFIG, output=tmp_path / where.type / "auto", epochs=1), backbone=backbone)
        assert {t.device for t in run.method.state_dict().values()} == {where}
    for device, backbone, where in (("cuda", tiny, "cpu"), ("cpu", tiny_on_card, "cuda:0")):
        config = replace(CONFIG, output=tmp_path / device / "other", device=device)
        with pytest.raises(InputError, match=f"device {device}: the backbone is on {where}"):
            train(config, backbone=backbone)
        assert not config.output.exists()


@card
@pytest.mark.parametrize("method", TRAINED)
def test_it_trains_as_the_cpu_does(method: str, tmp_path: Path, tiny: Backbone, tiny_on_card: Backbone) -> None:
    """Plain descent, as Adam makes much of the rounding in small gradients."""
    config = replace(CONFIG, method=method)
    if Training.STEPS in METHODS[method].trained_by:
        config = replace(config, optimizer="sgd", lr=0.01)
    here = losses_of(replace(config, output=tmp_path / "cpu"), tiny)
    there = losses_of(replace(config, output=tmp_path / "cuda"), tiny_on_card)
    for a, b in zip(here, there, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-3)
    cpu, cuda = load_file(tmp_path / "cpu" / LEARNED), load_file(tmp_path / "cuda" / LEARNED)
    for key, tensor in cpu.items():
        torch.testing.assert_close(cuda[key], tensor, rtol=1e-2, atol=1e-3)


@card
@pytest.mark.parametrize("method", TRAINED)
def test_the_same_bits_twice_and_after_a_cut(method: str, tmp_path: Path, tiny_on_card: Backbone) -> None:
    learned = []
    config = replace(CONFIG, method=method, deterministic=True)
    for turn in ("one", "two"):
        train(replace(config, output=tmp_path / turn), backbone=tiny_on_card)
        learned.append(load_file(tmp_path / turn / LEARNED))
    if Training.STEPS in METHODS[method].trained_by:
        with pytest.raises(Cut):
            train(replace(config, output=tmp_path / "cut"), backbone=tiny_on_card, on_step=cut)
        resume(tmp_path / "cut", backbone=tiny_on_card)
        learned.append(load_file(tmp_path / "cut" / LEARNED))
    first, *others = learned
    assert all(torch.equal(other[key], tensor) for key, tensor in first.items() for other in others)


def cut(step: Step) -> None:
    if step.epoch == 1:
        raise Cut


@card
@pytest.mark.parametrize("method", TRAINED)
def test_bf16(method: str, tmp_path: Path, tiny_on_card: Backbone) -> None:
    config = replace(CONFIG, method=method, output=tmp_path / "run", precision="bf16")
    terms = losses_of(config, tiny_on_card)
    assert all(torch.tensor(value).isfinite() for step in terms for value in step.values())
    peak = read_cost(config.output).peak_memory_mib
    assert peak is not None and 0 < peak < 2000  # of the card, not of the process, which has more by its libraries


@card
def test_a_classifier_says_the_same(tmp_path: Path) -> None:
    train(replace(CONFIG, output=tmp_path / "run", device="cpu", classes="all"))
    images = [sample.image.open() for sample in gopro.load_dataset("emoji-activities").test[:40]]
    cpu, cuda = gopro.load(tmp_path / "run", "cpu"), gopro.load(tmp_path / "run")
    assert cuda.method.backbone.device.type == "cuda"
    assert np.allclose(cuda.predict_proba(images), cpu.predict_proba(images), rtol=1e-3, atol=1e-3)
    cpu, cuda = cpu.first_order(), cuda.first_order()
    assert np.allclose(cuda.predict_proba(images), cpu.predict_proba(images), rtol=1e-3, atol=1e-3)


@card
def test_nccl_joins_the_shares_of_a_batch() -> None:
    """Of one process: NCCL wants a card for each."""
    store = TCPStore("127.0.0.1", 0, 1, is_master=True, wait_for_workers=False)
    process = ProcessInfo(0, 1, 0, 1, "127.0.0.1", store.port, "gopro")
    with process_group(replace(CONFIG, device="cuda"), process, store) as runtime:
        assert dist.get_backend() == "nccl"
        x = torch.randn(5, 3, device=runtime.device, requires_grad=True)
        token = ranks._share.set(ranks._Share(0, 5, 5))
        try:
            whole = ranks.gather(x)
            (whole**2).sum().backward()
        finally:
            ranks._share.reset(token)
        assert torch.equal(whole, x)
        assert x.grad is not None and torch.equal(x.grad, 2 * x.detach())
        said = ["agreed"]
        dist.broadcast_object_list(said)
        dist.barrier()
        assert said == ["agreed"]
