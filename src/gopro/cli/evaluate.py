"""`gopro eval`: the accuracy of a run."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Literal

from cyclopts import Parameter

from gopro.cli.backbone_line import TRAIN_AGAIN, print_backbone
from gopro.cli.console import bar, err, out
from gopro.cli.evaluation_output import print_calibration, print_classes, print_confusions
from gopro.cli.head import agreement_in_words
from gopro.cli.parameters import ConfigFile, Device, ReaderProcesses, Root, RunBackbone, RunName, Temperature
from gopro.data.dataset import ClassHalf
from gopro.errors import InputError


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
    from gopro.benchmark.worker import evaluation_figures
    from gopro.data.find_images import first_few
    from gopro.files import slug
    from gopro.inference.chance import zeroshot_warning
    from gopro.inference.evaluate import encode_samples, evaluate, evaluate_images
    from gopro.inference.evaluation_record import evaluation_record, write_record
    from gopro.inference.taylor_head import Agreement, constant_head
    from gopro.inference.taylor_head_file import load_or_build_head
    from gopro.inference.wrong_images import write_wrong_images, wrong_images
    from gopro.runs.calibration import check_temperature
    from gopro.runs.evaluation_data import evaluation_data
    from gopro.runs.load_run import load_run
    from gopro.runs.training_images import leave_out_training_images, read_training_images

    trained = load_run(run, device, backbone)
    if temperature is not None:
        trained.method.temperature = check_temperature(temperature)
    print_backbone(trained.method.backbone.name)
    tested = evaluation_data(trained, data, root, classes=classes, names=names)
    dataset, test = tested.dataset, tested.dataset.test
    digests = read_training_images(trained.folder) if trained.method.trained_by else []
    if digests is not None:
        dataset = replace(dataset, test=leave_out_training_images(test, digests))
        if not dataset.test:
            raise InputError(f"{run} was trained on all {len(test)} test images of {dataset.name}: give other --data")
    left_out = len(test) - len(dataset.test)
    with bar("images", len(dataset.test)) as advance:
        method = trained.method.for_classes(dataset.classnames, dataset.template, other_data=tested.other_data)
        if method.frozen_images:
            samples = encode_samples(method, dataset.test, workers=workers, on_progress=advance)
            result = evaluate(method, samples)
            warning = zeroshot_warning(method, samples, dataset.name, TRAIN_AGAIN)
        else:
            result = evaluate_images(method, dataset.test, workers=workers, on_progress=advance)
            warning = None
    row = {
        "data": dataset.name,
        "classes": classes,
        "method": trained.config.method,
        **evaluation_figures(result),
        "trained_on": None if digests is None else left_out,
        "unknown_classes": dict(tested.unknown),
        **evaluation_record(result),
    }
    head_line = None
    if head == "first-order":
        if method.text_depends_on_image:
            with bar("classes", len(dataset.classnames)) as advance:
                first_order = load_or_build_head(
                    trained, dataset.classnames, dataset.template, workers=workers, on_progress=advance
                )
        else:
            first_order = constant_head(method, dataset.classnames)
        with bar("images", len(dataset.test)) as advance:
            approximate = evaluate_images(first_order, dataset.test, workers=workers, on_progress=advance)
        agreement = Agreement.between(result.probabilities, approximate.probabilities)
        terms = len(first_order.expansion)
        row["first_order"] = {**evaluation_figures(approximate), "terms": terms, "agreement": asdict(agreement)}
        head_line = (
            f"first-order head with {terms} terms: accuracy {approximate.accuracy:.2f} %, per-class mean "
            f"{approximate.macro_accuracy:.2f} %, {approximate.seconds:.1f} s; {agreement_in_words(agreement)}"
        )
    path = trained.export_folder / f"eval-{slug(dataset.name)}-{classes}.json"
    wrong, wrong_path = wrong_images(result, dataset.test), path.with_name(f"{path.stem}-wrong.csv")
    write_wrong_images(wrong_path, wrong)
    write_record(path, row)
    out.print_line(
        f"{dataset.name}, {classes} classes: accuracy {result.accuracy:.2f} %, per-class mean "
        f"{result.macro_accuracy:.2f} %\n  on {result.n} images of {len(dataset.classnames)} classes in "
        f"{result.seconds:.1f} s"
    )
    print_classes(result.confusion)
    print_confusions(result.confusion)
    print_calibration(result, trained.calibration)
    if warning is not None:
        err.print_line(f"warning: {warning}")
    if left_out:
        line = f"{left_out} of {len(test)} test images of {dataset.name} were trained on; they are left out."
        if not tested.is_own:
            kept = set(dataset.test)
            trained_on = evaluate_images(method, [sample for sample in test if sample not in kept], workers=workers)
            both = (result.accuracy * result.n + trained_on.accuracy * trained_on.n) / len(test)
            line += f" With them, accuracy is {both:.2f} % on {len(test)} images."
        out.print_line(line)
    elif digests is None and tested.is_own:
        out.print_line(
            "The run does not record its training images: if the split was drawn again since, some of them may be "
            "among these test images."
        )
    if tested.unknown:
        unknown = first_few([f"{name} ({count})" for name, count in tested.unknown.items()])
        out.print_line(
            f"{sum(tested.unknown.values())} images of classes that the run does not know are left out: {unknown}. "
            "To test over the classes of the folder: --names data."
        )
    if tested.absent:
        out.print_line(f"There are no images of {first_few(list(tested.absent))}, among which the run can choose too.")
    if head_line is not None:
        out.print_line(head_line)
    out.print_line(f"Figures and confusion matrix: {path}")
    out.print_line(f"Wrong images ({len(wrong)}): {wrong_path}")
    if not report:
        out.print_line("Add --report for a page with these images, the confusion matrix and plots.")
        return
    from gopro.benchmark.report.run_page import write_run_page

    page = path.with_name("report.html") if tested.is_own and classes == "all" else path.with_suffix(".html")
    part = dataset.name if classes == "all" else f"{dataset.name}, {classes} classes"
    out.print_line(f"Report: {write_run_page(page, trained, result, part, wrong, [path, wrong_path])}")
