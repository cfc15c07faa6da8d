"""Train and evaluate on real photographs: Caltech101."""

import shutil
from pathlib import Path

import pytest
import torch

from gopro.data.dataset import Sample
from gopro.data.load_dataset import load_dataset
from gopro.inference.evaluate import encode_samples, evaluate
from gopro.runs.config import TrainConfig
from gopro.runs.load_run import load_run
from gopro.training.progress import Step
from gopro.training.resume_state import RESUME
from gopro.training.train import resume, train


class Interrupted(Exception):
    """Ends a run early."""


@pytest.fixture(scope="module")
def datasets(shared: Path) -> Path:
    return shared / "datasets"


@pytest.mark.slow
def test_gopro_steps_on_the_base_classes_have_a_finite_loss(datasets: Path, tmp_path: Path) -> None:
    """A full-size backbone of random weights, ViT-B/32; 50 classes, three views."""
    steps: list[Step] = []

    def stop_after_two(step: Step) -> None:
        steps.append(step)
        if step.step == 2:
            raise Interrupted

    config = TrainConfig(
        data="caltech101",
        root=datasets,
        output=tmp_path / "run",
        backbone="ViT-B-32:random",
        shots=1,
        classes="base",
        epochs=3,
        batch=2,
        bank=0,  # encode the images of the two steps, not those of all
        workers=0,
    )
    with pytest.raises(Interrupted):
        train(config, on_step=stop_after_two)
    assert steps[0].steps == 3 * 50 // 2
    assert all(torch.isfinite(term) for step in steps for term in step.terms.values())
    assert steps[0].terms["ce"] > 0 and steps[0].terms["con"] > 0


def test_a_folder_of_photographs_can_be_trained_on_resumed_and_evaluated(datasets: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    for name in ("grand_piano", "sunflower", "cup", "stop_sign"):
        (mine / name).mkdir(parents=True)
        images = sorted((datasets / "caltech-101" / "101_ObjectCategories" / name).iterdir())
        for image in images[:8]:
            shutil.copy(image, mine / name)

    def interrupt(step: Step) -> None:
        if step.epoch == 1:
            raise Interrupted

    config = TrainConfig(
        data=str(mine),
        output=tmp_path / "run",
        shots=2,
        epochs=2,
        batch=4,
        workers=1,
    )
    with pytest.raises(Interrupted):
        train(config, on_step=interrupt)
    assert (tmp_path / "run" / RESUME).exists()
    resume(tmp_path / "run")
    run = load_run(tmp_path / "run")
    dataset = load_dataset(str(mine))
    assert dataset.classnames == ("cup", "grand piano", "stop sign", "sunflower")
    result = evaluate(run.method, encode_samples(run.method, dataset.test))
    assert result.n == len(dataset.test) and 0 <= result.accuracy <= 100
    # The loaded run predicts the same again.
    again = evaluate(load_run(tmp_path / "run").method, encode_samples(run.method, dataset.test))
    torch.testing.assert_close(result.probabilities, again.probabilities)


def test_training_images_are_never_those_of_new_classes_or_tests(datasets: Path) -> None:
    dataset = load_dataset("caltech101", datasets)
    base, new = dataset.half("base"), dataset.half("new")
    assert len(base.classnames) == len(new.classnames) == 50
    images = {sample.image.name for sample in base.few_shot(16, 1).train}
    assert len(images) == 800
    others: list[Sample] = [*new.train, *new.test, *base.test, *base.val]
    assert not images & {sample.image.name for sample in others}
