"""`gopro eval`: the accuracy of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from gopro.cli.backbone_line import TRAIN_AGAIN, print_backbone
from gopro.cli.console import bar, err, out
from gopro.cli.evaluation_output import print_calibration, print_classes, print_confusions
from gopro.cli.head import agreement_in_words
from gopro.cli.parameters import ConfigFile, Device, ReaderProcesses, Root, RunBackbone, RunName, Temperature
from gopro.data.dataset import ClassHalf
from gopro.errors import InputError

if TYPE_CHECKING:
    from gopro.data.dataset import Dataset
    from gopro.inference.evaluate import Evaluation
    from gopro.inference.taylor_head import Agreement
    from gopro.methods.base import Method
    from gopro.runs.evaluation_data import EvaluationData
    from gopro.runs.run import Run


def eval_command(
    run: RunName,
    *,
    data: str | None = None,
    root: Root = None,
    classes: ClassHalf = "all",
    names: Literal["run", "data"] = "run",
    head: Literal["exact", "first-order"] = "exact",
    temperature: Temperature = None,
    report: Annotated[bool, Parameter(negative=())] = False,
    workers: ReaderProcesses = 2,
    device: Device = "auto",
    backbone: RunBackbone = None,
    config_file: ConfigFile = None,
) -> None:
    """Measure the accuracy and the calibration of a run on test images, or on all images of another folder.

    Test images that the run was trained on are left out. Another folder than the run's own is tested whole, over the
    classes of the run; nothing is written into it.

    Prints precision, recall and F1 of each class, the most frequent confusions, and how well calibrated the
    probabilities are. All figures, the confusion matrix and the list of wrong images are written into the run's folder.

    Parameters
    ----------
    data:
        Data set, as gopro train takes it, or a folder with test images alone. Default: the one the run was trained on.
    classes:
        Classes to evaluate: all, or the first half (base) or the second half (new).
    names:
        Class names to choose from for the images of another folder: those of the run, or those of the folder (data).
    report:
        Also write a page with the wrong images, the confusion matrix and plots: report.html in the run's folder, or
        for other data eval-DATA-CLASSES.html.
    head:
        With first-order, also evaluate the first-order head and compare it with the exact one. It is built first if
        the run has none for these classes.
    """
    from gopro.files import slug
    from gopro.inference.evaluation_record import write_record
    from gopro.inference.wrong_images import write_wrong_images, wrong_images
    from gopro.runs.calibration import check_temperature
    from gopro.runs.evaluation_data import evaluation_data
    from gopro.runs.load_run import load_run

    trained = load_run(run, device, backbone)
    if temperature is not None:
        trained.method.temperature = check_temperature(temperature)
    print_backbone(trained.method.backbone.name)

    tested = evaluation_data(trained, data, root, classes=classes, names=names)
    dataset, trained_on = _without_training_images(trained, tested.dataset, run)
    method = trained.method.for_classes(dataset.classnames, dataset.template, other_data=tested.other_data)
    result, warning = _test(method, dataset, workers)
    first_order = _test_first_order(trained, method, dataset, result, workers) if head == "first-order" else None

    path = trained.export_folder / f"eval-{slug(dataset.name)}-{classes}.json"
    wrong, wrong_path = wrong_images(result, dataset.test), path.with_name(f"{path.stem}-wrong.csv")
    write_wrong_images(wrong_path, wrong)
    without_labels = _count_unlabeled(trained, dataset)
    record = _record(trained, tested, result, classes, trained_on, first_order)
    write_record(path, {**record, "used_unlabeled": without_labels})

    _print_accuracy(dataset, classes, result)
    print_classes(result.confusion)
    print_confusions(result.confusion)
    print_calibration(result, trained.calibration)
    if warning is not None:
        err.print_line(f"warning: {warning}")
    _print_training_images(method, tested, dataset, result, trained_on, workers)
    if without_labels:
        out.print_line(
            f"{without_labels} of these {result.n} images were used without labels in training; accuracy on images "
            "that are new to the run may be lower."
        )
    _print_other_classes(tested)
    if first_order is not None:
        out.print_line(first_order.in_words())
    out.print_line(f"Figures and confusion matrix: {path}")
    out.print_line(f"Wrong images ({len(wrong)}): {wrong_path}")
    if not report:
        out.print_line("Add --report for a page with these images, the confusion matrix and plots.")
        return
    from gopro.benchmark.report.run_page import write_run_page

    page = path.with_name("report.html") if tested.is_own and classes == "all" else path.with_suffix(".html")
    part = dataset.name if classes == "all" else f"{dataset.name}, {classes} classes"
    out.print_line(f"Report: {write_run_page(page, trained, result, part, wrong, [path, wrong_path])}")


def _without_training_images(trained: Run, dataset: Dataset, run: str) -> tuple[Dataset, int | None]:
    """Leave out test images that the run was trained on, and count them: None if the run does not record them."""
    from gopro.runs.training_images import leave_out_training_images, read_training_images

    digests = read_training_images(trained.folder) if trained.method.trained_by else []
    if digests is None:
        return dataset, None
    rest = leave_out_training_images(dataset.test, digests)
    if not rest:
        raise InputError(
            f"{run} was trained on all {len(dataset.test)} test images of {dataset.name}: give other --data"
        )
    return replace(dataset, test=rest), len(dataset.test) - len(rest)


def _count_unlabeled(trained: Run, dataset: Dataset) -> int:
    """Count the test images that the run learned from without their labels."""
    from gopro.runs.training_images import read_unlabeled_images

    unlabeled = frozenset(read_unlabeled_images(trained.folder))
    return sum(sample.image.digest() in unlabeled for sample in dataset.test) if unlabeled else 0


def _test(method: Method, dataset: Dataset, workers: int) -> tuple[Evaluation, str | None]:
    """Evaluate a method on the test images. The warning is that zero-shot accuracy is near chance."""
    from gopro.inference.chance import zeroshot_warning
    from gopro.inference.evaluate import encode_samples, evaluate, evaluate_images

    with bar("images", len(dataset.test)) as advance:
        if not method.frozen_images:
            return evaluate_images(method, dataset.test, workers=workers, on_progress=advance), None
        samples = encode_samples(method, dataset.test, workers=workers, on_progress=advance)
        return evaluate(method, samples), zeroshot_warning(method, samples, dataset.name, TRAIN_AGAIN)


@dataclass(frozen=True)
class _FirstOrder:
    """Evaluation of the first-order head, and its agreement with the exact one."""

    result: Evaluation
    terms: int
    agreement: Agreement

    def record(self) -> dict[str, Any]:
        from gopro.benchmark.worker import evaluation_figures

        return {**evaluation_figures(self.result), "terms": self.terms, "agreement": asdict(self.agreement)}

    def in_words(self) -> str:
        return (
            f"first-order head with {self.terms} terms: accuracy {self.result.accuracy:.2f} %, per-class mean "
            f"{self.result.macro_accuracy:.2f} %, {self.result.seconds:.1f} s; {agreement_in_words(self.agreement)}"
        )


def _test_first_order(trained: Run, method: Method, dataset: Dataset, exact: Evaluation, workers: int) -> _FirstOrder:
    """Evaluate the first-order head on the test images; build it if the run has none for these classes."""
    from gopro.inference.evaluate import evaluate_images
    from gopro.inference.taylor_head import Agreement, constant_head
    from gopro.inference.taylor_head_file import load_or_build_head

    if method.text_depends_on_image:
        names, template = dataset.classnames, dataset.template
        with bar("classes", len(names)) as advance:
            head = load_or_build_head(trained, names, template, workers=workers, on_progress=advance)
    else:
        head = constant_head(method, dataset.classnames)
    with bar("images", len(dataset.test)) as advance:
        result = evaluate_images(head, dataset.test, workers=workers, on_progress=advance)
    return _FirstOrder(result, len(head.expansion), Agreement.between(exact.probabilities, result.probabilities))


def _record(
    trained: Run,
    tested: EvaluationData,
    result: Evaluation,
    classes: ClassHalf,
    trained_on: int | None,
    first_order: _FirstOrder | None,
) -> dict[str, Any]:
    """Return what is written into the run's folder."""
    from gopro.benchmark.worker import evaluation_figures
    from gopro.inference.evaluation_record import evaluation_record

    return {
        "data": tested.dataset.name,
        "classes": classes,
        "method": trained.config.method,
        **evaluation_figures(result),
        "trained_on": trained_on,
        "unknown_classes": dict(tested.unknown),
        **evaluation_record(result),
        **({} if first_order is None else {"first_order": first_order.record()}),
    }


def _print_accuracy(dataset: Dataset, classes: ClassHalf, result: Evaluation) -> None:
    out.print_line(
        f"{dataset.name}, {classes} classes: accuracy {result.accuracy:.2f} %, per-class mean "
        f"{result.macro_accuracy:.2f} %\n  on {result.n} images of {len(dataset.classnames)} classes in "
        f"{result.seconds:.1f} s"
    )


def _print_training_images(
    method: Method, tested: EvaluationData, dataset: Dataset, result: Evaluation, trained_on: int | None, workers: int
) -> None:
    """Say how many test images are left out because the run was trained on them.

    For another folder than the run's own, say also how accurate the run is with them.
    """
    from gopro.inference.evaluate import evaluate_images

    test = tested.dataset.test
    if trained_on is None and tested.is_own:
        out.print_line(
            "The run does not record its training images: if the split was drawn again since, some of them may be "
            "among these test images."
        )
    if not trained_on:
        return
    line = f"{trained_on} of {len(test)} test images of {dataset.name} were trained on; they are left out."
    if not tested.is_own:
        kept = set(dataset.test)
        left_out = evaluate_images(method, [sample for sample in test if sample not in kept], workers=workers)
        both = (result.accuracy * result.n + left_out.accuracy * left_out.n) / len(test)
        line += f" With them, accuracy is {both:.2f} % on {len(test)} images."
    out.print_line(line)


def _print_other_classes(tested: EvaluationData) -> None:
    """Name the classes of the folder that the run does not know, and those of the run that the folder lacks."""
    from gopro.errors import first_few

    if tested.unknown:
        unknown = first_few([f"{name} ({count})" for name, count in tested.unknown.items()])
        out.print_line(
            f"{sum(tested.unknown.values())} images of classes that the run does not know are left out: {unknown}. "
            "To test over the classes of the folder: --names data."
        )
    if tested.absent:
        out.print_line(f"There are no images of {first_few(list(tested.absent))}, among which the run can choose too.")
