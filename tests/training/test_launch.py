"""Several processes train as one does, and if one fails or is lost the others end too."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric.utilities.rank_zero import rank_zero_info
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from gopro.clip.backbone import Backbone
from gopro.distributed import SINGLE_PROCESS, Ranks, gather
from gopro.errors import InputError, OtherRankFailed
from gopro.methods.recipe import Training
from gopro.methods.registry import METHODS, parse_method
from gopro.runs.config import TrainConfig
from gopro.runs.run import LEARNED
from gopro.training.devices import ProcessInfo, find_process
from gopro.training.launch import SpawnedProcesses
from gopro.training.progress import Step
from gopro.training.resume_state import RESUME
from gopro.training.train import resume, train
from tests.support.process_pair import Processes, TrainingOutcome, TrainingRequest, run_training

CONFIG = TrainConfig(
    data="emoji-activities",
    output=Path(),
    method="coop",
    shots=1,
    epochs=3,
    batch=8,
    lr=0.01,
    classes="base",
    workers=0,
    device="cpu",
)  # 43 images: five batches of 8, and one of 3 where the recipe does not drop it

LOSSES, TENSORS = 1e-5, 1e-4
"""Largest allowed differences: of the losses of a step, and of tensors learned in some twenty steps at a learning rate
of 0.01, where Adam amplifies the rounding of small gradients."""

DEAD = {"rho_bias"}
"""Parameters without influence. `rho_bias` adds one number to all channels of a token, which LayerNorm removes again:
its gradient is rounding, which Adam amplifies to whole steps. (So is a bias before a batch norm; those use SGD.)"""


def config(folder: Path, **changes: object) -> TrainConfig:
    return replace(CONFIG, output=folder, **changes)


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    processes = Processes(2)
    yield processes
    processes.close()


def differences(one: TrainingOutcome, many: TrainingOutcome) -> tuple[float, float]:
    """Return the largest difference of the losses and of the learned tensors, relative where these are above 1."""
    assert one.error is None and many.error is None, (one.error, many.error)
    losses = [
        abs(a[name] - b[name]) / max(1.0, abs(a[name]))
        for a, b in zip(one.losses, many.losses, strict=True)
        for name in a
    ]
    assert one.learned.keys() == many.learned.keys()
    tensors = [
        (one.learned[key].double() - many.learned[key].double()).abs().max().item()
        / max(1.0, one.learned[key].abs().max().item())
        / (30 if key.startswith("probe_") else 1)  # a fit to separable images amplifies what its features differ by
        for key in one.learned
        if key not in DEAD and one.learned[key].numel()
    ]
    return max(losses), max(tensors)


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@given(st.integers(1, 64), st.integers(1, 9))
def test_shares_partition_the_batch_in_order(images: int, count: int) -> None:
    batch = list(range(images))
    shares = [batch[Ranks(rank, count).share(images)] for rank in range(count)]
    if images < count:
        assert all(share == batch for share in shares)
        return
    assert [image for share in shares for image in share] == batch
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_single_process_gathers_nothing() -> None:
    x = torch.randn(3, 2)
    assert gather(x) is x
    with SINGLE_PROCESS.batch(3) as weight:
        assert gather(x) is x and weight == 1
    assert SINGLE_PROCESS.broadcast("this") == "this"
    SINGLE_PROCESS.average_gradients([nn.Parameter(x)])


STEPPED = [name for name, kind in METHODS.items() if Training.STEPS in kind.trained_by]
SETTINGS = [
    "gopro[con_form=supervised,sem_classes=7,bank=0]",  # the same views again amplify rounding: losses by 1.9e-5
    "gopro-release[con=1]",  # its batch norm needs the whole batch
    "gopro-release[con=0,sem=0]",  # leaves a projector without a gradient
    "gopro[projectors=inside,compare=augmix,rho=shared]",
    "coop[csc=true,tokens=3]",
]


@pytest.mark.parametrize("method", [*STEPPED, *SETTINGS])
def test_two_processes_step_as_one(method: str, two: Processes, tmp_path: Path, tiny: Backbone) -> None:
    changes = {"epochs": 4, "method": method}
    one = run_training(TrainingRequest(config(tmp_path / "one", **changes)), tiny)
    first, second = two(TrainingRequest(config(tmp_path / "two", **changes)))
    batches = 5 if parse_method(method).kind.recipe.drop_last else 6
    assert len(one.losses) == 4 * batches
    losses, tensors = differences(one, first)
    assert losses < LOSSES and tensors < TENSORS
    assert first.losses == second.losses and same_bits(first.learned, second.learned)
    assert same_bits(first.learned, load_file(tmp_path / "two" / LEARNED))


@pytest.mark.parametrize(
    "changes",
    [
        {"batch": 9, "accumulate": 2},  # shares of 4 and 5
        {"select": "val", "shots": 2, "method": "slip"},
        {"select": "val", "shots": 2, "method": "maple"},
        {"optimizer": "adamw", "batch": 2},
        {"bank": 2, "method": "gopro", "optimizer": "sgd"},  # Adam would amplify rounding beyond the bound
        {
            "bank": 1,
            "method": "gopro[unlabeled_shots=1,unlabeled_steps=true,con=3,probe=false]",
            "optimizer": "sgd",
            "classes": "base",
        },
        {"precision": "bf16", "method": "coop", "epochs": 1},
    ],
    ids=str,
)
def test_settings_work_on_two_processes(changes: dict, two: Processes, tmp_path: Path, tiny: Backbone) -> None:
    one = run_training(TrainingRequest(config(tmp_path / "one", **changes)), tiny)
    first, second = two(TrainingRequest(config(tmp_path / "two", **changes)))
    losses, tensors = differences(one, first)
    loose = 1e3 if changes.get("precision") else 1
    assert losses < LOSSES * loose and tensors < TENSORS * loose
    assert same_bits(first.learned, second.learned)
    log = (tmp_path / "two" / "log.csv").read_text().splitlines()
    assert len(log) == 1 + len(first.losses), "written by one process alone"
    assert [line.split(",")[:2] for line in log] == [
        line.split(",")[:2] for line in (tmp_path / "one" / "log.csv").read_text().splitlines()
    ]


def test_a_batch_of_fewer_images_than_processes(tmp_path: Path, tiny: Backbone) -> None:
    three = Processes(3)
    try:
        for method in ("gopro", "gopro-release"):
            # and a batch of 2; AdamW would divide gradients of rho near 0 by their size, and so amplify their rounding
            changes = {"batch": 41, "method": method, "epochs": 2, "optimizer": "sgd"}
            one = run_training(TrainingRequest(config(tmp_path / f"one-{method}", **changes)), tiny)
            many = three(TrainingRequest(config(tmp_path / f"three-{method}", **changes)))
            losses, tensors = differences(one, many[0])
            assert losses < LOSSES and tensors < TENSORS
            assert same_bits(many[0].learned, many[2].learned)
    finally:
        three.close()


@pytest.mark.parametrize("method", ["gopro-release", "promptsrc[gpa_mean=2]"])
def test_resume_on_the_same_and_on_another_number_of_devices(
    method: str, two: Processes, tmp_path: Path, tiny: Backbone
) -> None:
    whole, _ = two(TrainingRequest(config(tmp_path / "whole", method=method)))
    for name in ("two", "one"):
        cut = TrainingRequest(config(tmp_path / name, method=method), cut_in_epoch=1)
        assert {str(trained.error) for trained in two(cut)} == {"cut"}
        assert (tmp_path / name / RESUME).is_file()
    on_two, _ = two(TrainingRequest(config(tmp_path / "two"), resumes=True))
    assert same_bits(on_two.learned, whole.learned)
    on_one = run_training(TrainingRequest(config(tmp_path / "one"), resumes=True), tiny)
    rest = TrainingOutcome(whole.losses[5:], whole.learned)  # after the first epoch
    losses, tensors = differences(on_one, rest)
    assert losses < LOSSES and tensors < TENSORS


@pytest.mark.parametrize("rank", [0, 1])
def test_one_failure_ends_all_processes_and_is_reported_once(rank: int, two: Processes, tmp_path: Path) -> None:
    ends = two(TrainingRequest(config(tmp_path / "run", method="slip"), failing_rank=rank))
    errors = [trained.error for trained in ends]
    assert type(errors[rank]) is InputError and type(errors[1 - rank]) is OtherRankFailed
    assert {str(error) for error in errors} == {f"process {rank} failed"}
    assert two(TrainingRequest(config(tmp_path / "again")))[1].error is None


def test_an_error_of_all_processes_is_reported_once(two: Processes, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    errors = [trained.error for trained in two(TrainingRequest(config(tmp_path)))]
    assert [type(error) for error in errors] == [InputError, OtherRankFailed]
    assert all("is not empty" in str(error) for error in errors)
    errors = [trained.error for trained in two(TrainingRequest(config(tmp_path / "run"), devices=3))]
    assert all("--devices 3: torchrun has started 2 processes" in str(error) for error in errors)


def test_a_killed_child_is_reported_and_the_run_resumes(tmp_path: Path) -> None:
    """Started by `gopro.train`; the second process is killed in the middle of the run."""
    steps: list[Step] = []
    before = set(multiprocessing.active_children())

    def kill_one(step: Step) -> None:
        steps.append(step)
        if step.epoch == 1:
            [other] = set(multiprocessing.active_children()) - before
            other.kill()

    one = train(config(tmp_path / "one"))
    with pytest.raises(InputError, match=r"process 2 of 2 ended by signal 9; .*--resume") as caught:
        train(config(tmp_path / "two"), devices=2, on_step=kill_one)
    assert "\n" not in str(caught.value) and steps[-1].epoch == 1
    assert set(multiprocessing.active_children()) <= before and not torch.distributed.is_initialized()
    many = resume(tmp_path / "two", devices=2)
    for key, tensor in one.method.state_dict().items():
        torch.testing.assert_close(many.method.state_dict()[key], tensor, atol=TENSORS, rtol=0)


def _close_all_files_and_die_later(process: ProcessInfo) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    os.closerange(3, parent.sentinel)
    os.closerange(parent.sentinel + 1, 256)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_exit_code_of_a_lost_process_is_waited_for() -> None:
    """The sentinel closes before the exit code is known; without waiting, nobody could say how the process ended."""
    with SpawnedProcesses(2, _close_all_files_and_die_later) as others:
        assert others.wait_for_an_end(60)
        assert others.describe_lost() == "process 2 of 2 ended by signal 9"


def test_an_error_in_a_child_process_is_reported_by_the_first(tmp_path: Path) -> None:
    """The other process trains on another folder, where images cannot be read."""
    for place in ("here", "there"):
        for name in ("fox", "owl"):
            folder = tmp_path / place / name
            folder.mkdir(parents=True)
            for i in range(16):
                Image.new("RGB", (64, 64), (15 * i, 90, 30)).save(folder / f"{i}.png")
    for path in (tmp_path / "there/owl").iterdir():
        path.write_bytes(path.read_bytes()[:80])

    class Elsewhere(str):
        def __reduce__(self) -> tuple[type[str], tuple[str]]:
            return str, (str(tmp_path / "there"),)

    changes = config(tmp_path / "run", data=str(tmp_path / "here"), classes="all", shots=8, batch=2)
    object.__setattr__(changes, "data", Elsewhere(tmp_path / "here"))  # pickled, it names the other folder
    with pytest.raises(InputError, match=r"there/owl/.*cannot be read"):
        train(changes, devices=2)


def test_fabrics_advice_against_fp32_is_silenced(capsys: pytest.CaptureFixture[str]) -> None:
    logger, handler = logging.getLogger("lightning_fabric"), logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    try:
        rank_zero_info("You should set `torch.set_float32_matmul_precision('medium' | 'high')`")
        rank_zero_info("something else")
    finally:
        logger.removeHandler(handler)
    printed = capsys.readouterr().err
    assert "matmul" not in printed and "something else" in printed


def test_impossible_numbers_of_devices_are_refused(tmp_path: Path, tiny: Backbone) -> None:
    for devices, changes, message in (
        (0, {}, "--devices 0: give at least 1"),
        (9, {}, "batch is 8: give at least 9"),
        (2, {"method": "linear-probe"}, "linear-probe is not trained in steps: it runs on one device, not 2"),
        (2, {}, "cannot share this one's backbone"),
    ):
        with pytest.raises(InputError, match=message):
            train(config(tmp_path / "run", **changes), devices=devices, backbone=tiny)
    assert not (tmp_path / "run").exists()


def test_a_process_on_its_own_is_recognised() -> None:
    assert find_process({}) is None
    step = {"SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
    assert find_process(step) is None, "a batch script by itself"


def test_slurm_processes_train_together(tmp_path: Path) -> None:
    """Two processes with the variables that srun sets; one machine stands for the cluster."""
    arguments = ["--data", "emoji-activities", "--method", "coop", "--shots", "1", "--epochs", "3", "--batch", "8"]
    arguments += ["--lr", "0.01", "--classes", "base", "--workers", "0", "--device", "cpu"]
    command = [sys.executable, "-m", "gopro.cli", "train", *arguments, "--output", str(tmp_path / "slurm")]
    srun = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
    }
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **srun, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "on 43 classes of" in outputs[0] and outputs[1] == ""
    one = train(config(tmp_path / "one"))
    many = load_file(tmp_path / "slurm" / LEARNED)
    for key, tensor in one.method.state_dict().items():
        torch.testing.assert_close(many[key], tensor, atol=TENSORS, rtol=0)


def test_the_process_info_under_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    step = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}
    step |= {"SLURM_NODEID": "1", "SLURM_JOB_ID": "71234", "SLURM_NODELIST": "node[7-8]"}
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    with pytest.raises(InputError, match="--ntasks-per-node"):
        find_process()
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    assert find_process() == ProcessInfo(5, 8, 1, 4, "node7", 16234, "SLURM")
