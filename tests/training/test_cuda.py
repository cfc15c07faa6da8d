"""Training on a GPU: the same numbers as on the CPU, the same bits twice, the right device."""

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
from tests.support.interrupt import Cut, cut_in

CONFIG = TrainConfig(
    data="emoji-activities", output=Path(), method="gopro", shots=1, epochs=2, batch=16, classes="base", workers=0
)
TRAINED = [name for name, kind in METHODS.items() if kind.trained_by]

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU on this machine")


@pytest.fixture(scope="module")
def tiny_on_gpu() -> Backbone:
    backbone = make_tiny()
    return Backbone("tiny", backbone.model.cuda(), backbone.text.tokenizer, backbone.preprocess)


def losses_of(config: TrainConfig, backbone: Backbone) -> list[dict[str, float]]:
    steps: list[Step] = []
    train(config, backbone=backbone, on_step=steps.append)
    return [{name: term.item() for name, term in step.terms.items()} for step in steps]


def test_device_auto_is_the_backbones_device(tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if there is a GPU."""

    def stop(main: object, entry_point: object, settings: TrainConfig, *_: object) -> None:
        raise Cut(settings.device)

    monkeypatch.setattr(sys.modules["gopro.training.train"], "launch", stop)  # `gopro.train` is the function
    for device in ("auto", "cpu"):
        with pytest.raises(Cut, match=r"^cpu$"):
            train(replace(CONFIG, output=tmp_path / "run", device=device), backbone=tiny)


@needs_gpu
def test_a_backbone_on_another_device_is_refused(tmp_path: Path, tiny: Backbone, tiny_on_gpu: Backbone) -> None:
    for backbone in (tiny, tiny_on_gpu):
        where = backbone.device
        run = train(replace(CONFIG, output=tmp_path / where.type / "auto", epochs=1), backbone=backbone)
        assert {t.device for t in run.method.state_dict().values()} == {where}
    for device, backbone, where in (("cuda", tiny, "cpu"), ("cpu", tiny_on_gpu, "cuda:0")):
        config = replace(CONFIG, output=tmp_path / device / "other", device=device)
        with pytest.raises(InputError, match=f"device {device}: the backbone is on {where}"):
            train(config, backbone=backbone)
        assert not config.output.exists()


@needs_gpu
@pytest.mark.parametrize("method", TRAINED)
def test_training_agrees_with_the_cpu(method: str, tmp_path: Path, tiny: Backbone, tiny_on_gpu: Backbone) -> None:
    """With plain SGD, as Adam amplifies the rounding of small gradients."""
    config = replace(CONFIG, method=method)
    if Training.STEPS in METHODS[method].trained_by:
        config = replace(config, optimizer="sgd", lr=0.01)
    here = losses_of(replace(config, output=tmp_path / "cpu"), tiny)
    there = losses_of(replace(config, output=tmp_path / "cuda"), tiny_on_gpu)
    for a, b in zip(here, there, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-3)
    cpu, cuda = load_file(tmp_path / "cpu" / LEARNED), load_file(tmp_path / "cuda" / LEARNED)
    for key, tensor in cpu.items():
        torch.testing.assert_close(cuda[key], tensor, rtol=1e-2, atol=1e-3)


@needs_gpu
@pytest.mark.parametrize("method", TRAINED)
def test_deterministic_runs_have_the_same_bits(method: str, tmp_path: Path, tiny_on_gpu: Backbone) -> None:
    learned = []
    config = replace(CONFIG, method=method, deterministic=True)
    for turn in ("one", "two"):
        train(replace(config, output=tmp_path / turn), backbone=tiny_on_gpu)
        learned.append(load_file(tmp_path / turn / LEARNED))
    if Training.STEPS in METHODS[method].trained_by:
        with pytest.raises(Cut):
            train(replace(config, output=tmp_path / "cut"), backbone=tiny_on_gpu, on_step=cut_in(1))
        resume(tmp_path / "cut", backbone=tiny_on_gpu)
        learned.append(load_file(tmp_path / "cut" / LEARNED))
    first, *others = learned
    assert all(torch.equal(other[key], tensor) for key, tensor in first.items() for other in others)


@needs_gpu
@pytest.mark.parametrize("method", TRAINED)
def test_bf16(method: str, tmp_path: Path, tiny_on_gpu: Backbone) -> None:
    config = replace(CONFIG, method=method, output=tmp_path / "run", precision="bf16")
    terms = losses_of(config, tiny_on_gpu)
    assert all(torch.tensor(value).isfinite() for step in terms for value in step.values())
    peak = read_cost(config.output).peak_memory_mib
    assert peak is not None and 0 < peak < 2000  # the GPU's peak; the process with its libraries has more


@needs_gpu
def test_predictions_agree_with_the_cpu(tmp_path: Path) -> None:
    train(replace(CONFIG, output=tmp_path / "run", device="cpu", classes="all"))
    images = [sample.image.open() for sample in gopro.load_dataset("emoji-activities").test[:40]]
    cpu, cuda = gopro.load(tmp_path / "run", "cpu"), gopro.load(tmp_path / "run")
    assert cuda.method.backbone.device.type == "cuda"
    assert np.allclose(cuda.predict_proba(images), cpu.predict_proba(images), rtol=1e-3, atol=1e-3)
    cpu, cuda = cpu.first_order(), cuda.first_order()
    assert np.allclose(cuda.predict_proba(images), cpu.predict_proba(images), rtol=1e-3, atol=1e-3)


@needs_gpu
def test_nccl_gathers_the_shares_of_a_batch() -> None:
    """In one process, because NCCL needs a GPU for each."""
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
        values = ["agreed"]
        dist.broadcast_object_list(values)
        dist.barrier()
        assert values == ["agreed"]
