"""The field's four protocols: the training runs of each, and the tests of each run."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import NamedTuple, get_args

from gopro.benchmark.held_out import HeldOut
from gopro.benchmark.missing_data import check_present
from gopro.benchmark.suites import SUITES, Suite
from gopro.clip.weights.embedded import default_backbone
from gopro.data.dataset import ClassHalf, Dataset
from gopro.data.few_shot import Shots, check_shots, warn_of_short_classes
from gopro.data.folders.domains import compare_classes
from gopro.data.images.restyle import Style
from gopro.data.load_dataset import BENCHMARKS, absolute_name, has_own_name, joined_names, load_dataset, load_target
from gopro.data.match_classes import match_classes
from gopro.errors import InputError, first_few
from gopro.files import slug
from gopro.methods.recipe import Task, Training
from gopro.methods.registry import check_backbone, parse_method
from gopro.runs.config import BenchmarkConfig, SweepConfig, TrainConfig, TransferConfig
from gopro.runs.image_lists import digest_test_list
from gopro.runs.made_with import Record, made_with
from gopro.runs.results import RunKey
from gopro.runs.trained_with import TrainedWith

CLASSES_PER_IMAGE = 20
"""Classes whose text costs as much to encode, under a context of their own, as one image (measured on ViT-B/16)."""


@dataclass(frozen=True)
class PlannedTest:
    """One evaluation of a run.

    Attributes:
        key: of its row in results.jsonl.
        data: the name to load its data set by.
        template: the prompt of that data set.
        images: digest of the list of its test images.
        classnames: those of the source, if a folder is tested over them; None for the data set's own.
        held_out: the images to test on when settings are chosen; None for the test images.
    """

    key: RunKey
    data: str
    template: str
    images: str
    classnames: tuple[str, ...] | None = None
    held_out: HeldOut | None = None


@dataclass(frozen=True)
class PlannedRun:
    """One training run and its tests.

    Attributes:
        made_with: what can change its learned state; see `gopro.runs.made_with.made_with`.
        work: estimated cost relative to other runs, roughly in images through the image tower.
    """

    train: TrainConfig
    tests: tuple[PlannedTest, ...]
    made_with: Record
    work: float

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.train.output.name


def base_to_new(config: BenchmarkConfig) -> list[PlannedRun]:
    """Train on the base classes, test on base and on new classes (CoCoOp, Zhou et al. 2022, arXiv 2203.05557)."""
    planner = _Planner("base-to-new", config, named=config.data is not None)
    names = config.data or planner.suite.base_to_new
    check_present(config.root, "data", names)
    for backbone, data in planner.sources(names):
        planner.add(
            _Training("base-to-new", backbone, data, "base"),
            [_Test(data, "base"), _Test(data, "new")],
            (planner.suite.shots,),
        )
    return planner.runs


def few_shot(config: BenchmarkConfig) -> list[PlannedRun]:
    """Train on 1, 2, 4, 8 and 16 images per class, test on all classes (CoOp, Zhou et al. 2022, arXiv 2109.01134)."""
    planner = _Planner("few-shot", config, named=config.data is not None)
    names = config.data or planner.suite.few_shot
    check_present(config.root, "data", names)
    for backbone, data in planner.sources(names):
        planner.add(_Training("few-shot", backbone, data, "all"), [_Test(data, "all")], planner.suite.few_shot_shots)
    return planner.runs


def cross_dataset(config: TransferConfig) -> list[PlannedRun]:
    """Train on all classes of the source, test on it and, without further training, on other data sets (CoCoOp)."""
    planner = _Planner("cross-dataset", config, named=config.source is not None)
    planner.add_transfer(*_source_and_targets(config, *planner.suite.cross_dataset))
    return planner.runs


def domain_generalization(config: TransferConfig) -> list[PlannedRun]:
    """Train on all classes of the source, test on it and on the same classes in other domains (CoOp).

    A folder is tested over all classes of the source; its images of other classes are left out, with a warning. A
    published domain that lacks classes of the source is tested among its own classes, as ImageNet-A and ImageNet-R are.
    """
    planner = _Planner("domain-generalization", config, named=config.source is not None)
    source, targets = _source_and_targets(config, *planner.suite.domain_generalization)
    planner.compare_domains(source, targets)
    planner.add_transfer(source, targets)
    return planner.runs


def tuning(config: BenchmarkConfig) -> list[PlannedRun]:
    """Train on the base classes as `base_to_new` does, and test on held-out images in place of test images.

    The tests of each run are those on base classes, on new classes, then on base classes in each other style.
    """
    planner = _Planner("tuning", config, named=config.data is not None)
    names = config.data or planner.suite.tuning
    check_present(config.root, "data", names)
    for backbone, data in planner.sources(names):
        styles = [_Test(data, "base", style) for style in get_args(Style) if style != "original"]
        tests = [_Test(data, "base", "original"), _Test(data, "new", "original"), *styles]
        planner.add(_Training("base-to-new", backbone, data, "base"), tests, (planner.suite.shots,))
    return planner.runs


PROTOCOLS: dict[str, Callable[..., list[PlannedRun]]] = {
    "base-to-new": base_to_new,
    "cross-dataset": cross_dataset,
    "domain-generalization": domain_generalization,
    "few-shot": few_shot,
}
"""Function that plans each protocol, by the protocol's name on the command line."""


def _source_and_targets(config: TransferConfig, source: str, targets: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the data sets of the config, or those given here where it names none.

    The source is tested in any case; among the targets, where a shell puts it for `mine/*`, it is ignored. So are the
    data sets that are joined in the source, with a warning, as a target is tested on all its images.
    """
    source, targets = config.source or source, config.targets or targets
    paths = {target: absolute_name(target, config.root) for target in targets}
    joined = [absolute_name(name, config.root) for name in joined_names(source, config.root)]
    others = tuple(target for target in targets if paths[target] not in (absolute_name(source, config.root), *joined))
    if len(joined) > 1 and (trained := [target for target in targets if paths[target] in joined]):
        warnings.warn(
            f"not among the targets, because methods are trained on them: {', '.join(trained)}; their test images are "
            "among those of the source",
            stacklevel=3,
        )
    if not source or not others:
        raise InputError(
            f"source {source or 'none'}, targets {' '.join(targets) or 'none'}: name one source and other targets"
        )
    check_present(config.root, "targets", others, source)
    return source, others


class _Test(NamedTuple):
    """A data set and the half of its classes to test on: its test images, or held-out images in a style."""

    data: str
    classes: ClassHalf
    style: Style | None = None


@dataclass(frozen=True)
class _Training:
    """Task, backbone, source data set and half of its classes that several methods are trained on."""

    task: Task
    backbone: str
    source: str
    half: ClassHalf


class _Planner:
    """Collects the runs of a protocol: fills in defaults, loads each data set once and checks names.

    Attributes:
        runs: what `add` has planned so far.

    Raises:
        InputError: the config asks for a method, data set or number that does not exist, or for a method that does not
            suit a backbone.
    """

    def __init__(self, protocol: str, config: SweepConfig, *, named: bool):
        # Data named without a suite get the field's 16 shots, not the few shots of the embedded benchmark.
        self.suite = SUITES[config.suite or "emoji"] if config.suite or not named else Suite()
        # Absolute paths, as a run may be resumed or reported on from another folder or machine of the same file system.
        root = None if config.root is None else config.root.expanduser().resolve()
        self.protocol, self.config = protocol, replace(config, output=config.output.resolve(), root=root)
        self.methods = {method: parse_method(method).kind for method in config.methods or self.suite.methods}
        self.seeds = config.seeds or self.suite.seeds
        self.runs: list[PlannedRun] = []
        self._configs: dict[str, TrainConfig] = {}
        self._datasets: dict[str, Dataset] = {}
        self._tested: dict[tuple[str, ClassHalf, HeldOut | None], tuple[str, int]] = {}
        self._matched: set[str] = set()
        for name in ("methods", "seeds", "backbones", "shots"):
            values = getattr(config, name)
            if values is not None and (not values or len(set(values)) < len(values)):
                raise InputError(f"{name} {' '.join(map(str, values))}: give at least one, and each only once")

    def sources(self, data: Sequence[str]) -> list[tuple[str, str]]:
        """Return each pair of a backbone and a data set to train on, backbone by backbone."""
        if len(set(data)) < len(data):
            raise InputError(f"data {' '.join(data)}: name each data set once")
        backbones = self.config.backbones or self.suite.backbones
        if backbones is None:
            sources = sorted(((default_backbone(name), name) for name in data), key=itemgetter(0))
        else:
            sources = [(backbone, name) for backbone in backbones for name in data]
        for backbone in {backbone for backbone, _ in sources}:
            check_backbone(self.methods, backbone)
        return sources

    def add(self, training: _Training, tests: Sequence[_Test], shots: Sequence[Shots]) -> None:
        """Plan all methods on one source, with `shots` unless the config has its own.

        A method that learns from no images is run once per tested data set, with that data set's own prompt.
        """
        for method, kind in self.methods.items():
            if kind.trained_by:
                for count in self.config.shots or shots:
                    for seed in self.seeds:
                        self._add_run(training, training.source, method, (count, seed), tests)
            else:
                for data in dict.fromkeys(test.data for test in tests):
                    self._add_run(training, data, method, (0, 0), [test for test in tests if test.data == data])

    def add_transfer(self, source: str, targets: Sequence[str]) -> None:
        """Plan all methods on all classes of one data set, tested on it and on others."""
        for backbone, data in self.sources([source]):
            tests = [_Test(name, "all") for name in (data, *targets)]
            self.add(_Training("transfer", backbone, data, "all"), tests, (self.suite.shots,))

    def compare_domains(self, source: str, targets: Sequence[str]) -> None:
        """Give the folders among the targets the classes of the source, and check that others have no more classes.

        A warning names what a target lacks. ImageNet-A and ImageNet-R are known to lack classes, and no warning is
        given for such benchmarks.
        """
        classes = self._load(source, source).classnames
        domains = {name: self._load(name, source) for name in targets}
        for name in [name for name in targets if not has_own_name(name)]:
            self._match(name, domains.pop(name), classes, source)
        lacking = compare_classes(classes, {name: domain.classnames for name, domain in domains.items()})
        for name, names in lacking.items():
            if name not in BENCHMARKS:
                warnings.warn(
                    f"{name} lacks {first_few(names)} of the {len(classes)} classes of {source}; it is tested among "
                    f"its own {len(domains[name].classnames)}",
                    stacklevel=2,
                )

    def _match(self, name: str, domain: Dataset, classes: Sequence[str], source: str) -> None:
        """Test a folder over the classes of the source, and say what that leaves out.

        Raises:
            InputError: the folder has none of these classes.
        """
        matched = match_classes(domain, classes)
        if not matched.dataset.test:
            raise InputError(
                f"{name}: none of its classes ({first_few(list(domain.classnames))}) is one of {source} "
                f"({first_few(list(classes))}); rename its folders, or use gopro benchmark cross-dataset"
            )
        if matched.unknown:
            images = first_few([f"{unknown} ({count})" for unknown, count in matched.unknown.items()])
            warnings.warn(f"{name}: images of classes that {source} lacks are left out: {images}", stacklevel=2)
        if matched.absent:
            warnings.warn(
                f"{name} has no images of {first_few(list(matched.absent))}; it is tested over all {len(classes)} "
                f"classes of {source}",
                stacklevel=2,
            )
        self._datasets[name] = matched.dataset
        self._matched.add(name)

    def _add_run(
        self,
        training: _Training,
        data: str,
        method: str,
        shots_and_seed: tuple[Shots, int],
        tests: Sequence[_Test],
    ) -> None:
        backbone, half, (shots, seed) = training.backbone, training.half, shots_and_seed
        # The protocols few-shot and cross-dataset both train on all classes, but with different recipes.
        part = "few-shot" if training.task == "few-shot" and shots else half
        dataset = self._load(data, training.source)
        name = f"{slug(backbone)}-{slug(dataset.name)}-{part}-{slug(method)}-{shots}shots-seed{seed}"
        output = self.config.output / "runs" / name
        train = TrainConfig(
            data=absolute_name(data, self.config.root),
            output=output,
            method=method,
            backbone=backbone,
            shots=shots,
            seed=seed,
            classes=half,
            task=training.task if shots else None,
            **{**self.config.shared(), "unlabeled": self._unlabeled(method)},
        )
        if self._configs.setdefault(name, train) != train:
            raise InputError(f"{method} and {self._configs[name].method} would share {output}: leave one out")
        planned, test_images = [], 0
        for tested, classes, style in tests:
            target = self._load(tested, training.source)
            held_out = None if style is None else HeldOut(shots, seed, style)
            key = RunKey(
                protocol=self.protocol,
                source=self._load(training.source, training.source).name,
                data=target.name if style is None else f"{target.name} ({style})",
                method=method,
                backbone=backbone,
                shots=shots,
                seed=seed,
                classes=classes,
            )
            if (tested, classes, held_out) not in self._tested:
                part = (target if held_out is None else held_out.of(target)).half(classes)
                self._tested[tested, classes, held_out] = digest_test_list(part), len(part.test)
            images, count = self._tested[tested, classes, held_out]
            names = target.classnames if tested in self._matched else None
            planned.append(
                PlannedTest(key, absolute_name(tested, self.config.root), target.template, images, names, held_out)
            )
            test_images += count
        spec, authors = parse_method(method).for_training(train.conditions)
        trained_with = TrainedWith.of(train, spec, authors, dataset)
        work = self._training_work(train, trained_with, dataset) + test_images
        self.runs.append(PlannedRun(train, tuple(planned), made_with(train, trained_with), work))

    def _unlabeled(self, method: str) -> str | None:
        """Return where a method finds images without labels; None if it learns nothing from them."""
        source = self.config.unlabeled
        if source is None or not self.methods[method].uses_unlabeled:
            return None
        return absolute_name(source, self.config.root)

    def _training_work(self, train: TrainConfig, trained_with: TrainedWith, dataset: Dataset) -> float:
        """Estimate the cost of training in images through the image tower, and check that there are enough images.

        A class of the user's own folder may have fewer than `shots`; one of a published data set may not.
        """
        kind = self.methods[train.method]
        if not kind.trained_by:
            return 0.0
        part = dataset.half(train.classes)
        if has_own_name(train.data):
            check_shots(part, train.shots)  # figures on published data are compared with those of others
        else:
            warn_of_short_classes(part, train.shots)
        few = part.few_shot(train.shots, train.seed)
        if trained_with.recipe is None or Training.STEPS not in kind.trained_by:
            return 0.0
        epochs, bank = trained_with.recipe.epochs, trained_with.recipe.bank
        draws = min(epochs, bank) if bank and kind.frozen_images else epochs
        return len(few.train) * (draws * len(kind.views) + epochs * len(part.classnames) / CLASSES_PER_IMAGE)

    def _load(self, name: str, source: str) -> Dataset:
        """Load a data set to train on if it is the source, else to test on."""
        if name not in self._datasets:
            loaded = (load_dataset if name == source else load_target)(name, self.config.root)
            for other, dataset in self._datasets.items():
                if dataset.name == loaded.name:
                    raise InputError(f"{other} and {name} are both called {loaded.name} in results: rename one of them")
                if common := {dataset.name, *dataset.domains} & {loaded.name, *loaded.domains}:
                    raise InputError(f"{other} and {name} both have the images of {min(common)}: leave one out")
            self._warn_of_parts(name, loaded)
            if len(loaded.classnames) < 2 and self.protocol == "cross-dataset":
                raise InputError(
                    f"{name}: only one class ({', '.join(loaded.classnames)}), so every answer would be right"
                )
            self._datasets[name] = loaded
        return self._datasets[name]

    def _warn_of_parts(self, name: str, loaded: Dataset) -> None:
        """Warn of each benchmark, alone or joined with others, of which only a part of the images is there."""
        images = Counter(sample.domain for sample in (*loaded.train, *loaded.val, *loaded.test))
        for each, called in zip(joined_names(name, self.config.root), loaded.domains or (loaded.name,), strict=True):
            if each in BENCHMARKS and called != each:
                count = images[called if loaded.domains else ""]
                warnings.warn(
                    f"only {count:,} of the {sum(BENCHMARKS[each].counts):,} images of {each} are there; results call "
                    f"it {called}",
                    stacklevel=3,
                )
