"""The field's protocols: which runs they consist of, and what each run is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gopro.benchmark.suites import SUITES, Suite
from gopro.data.dataset import ClassHalf, Dataset
from gopro.data.load_dataset import find_folder, load_dataset
from gopro.errors import InputError
from gopro.files import slug
from gopro.methods.registry import parse_method
from gopro.runs.config import BenchmarkConfig, SweepConfig, TrainConfig, TransferConfig
from gopro.runs.results import RunKey


@dataclass(frozen=True)
class Test:
    """One evaluation of a run: the row that it becomes, and what to load its data set by."""

    key: RunKey
    data: str


@dataclass(frozen=True)
class Job:
    """One training run and all that is tested of it.

    Attributes:
        work: what it costs beside others, in images through the image tower, roughly.
    """

    train: TrainConfig
    tests: tuple[Test, ...]
    work: float

    @property
    def run(self) -> str:
        """Name of the run's folder."""
        return self.train.output.name


def base_to_new(config: BenchmarkConfig) -> list[Job]:
    """Train on the base classes, test on base and on new classes (CoCoOp, Zhou et al. 2022, arXiv 2203.05557)."""
    plan = _Plan("base-to-new", config, named=config.data is not None)
    jobs = []
    for backbone, data in plan.each(config.data or plan.suite.base_to_new):
        jobs += plan.runs(backbone, data, "base", [(data, "base"), (data, "new")], plan.shots(plan.suite.shots))
    return plan.checked(jobs)


def few_shot(config: BenchmarkConfig) -> list[Job]:
    """Train on 1, 2, 4, 8 and 16 images of all classes, test on all (CoOp, Zhou et al. 2022, arXiv 2109.01134)."""
    plan = _Plan("few-shot", config, named=config.data is not None)
    jobs = []
    for backbone, data in plan.each(config.data or plan.suite.few_shot):
        jobs += plan.runs(backbone, data, "all", [(data, "all")], plan.shots(*plan.suite.curve))
    return plan.checked(jobs)


def cross_dataset(config: TransferConfig) -> list[Job]:
    """Train on all classes of the source, test on it and on other data sets as they are (CoCoOp)."""
    plan = _Plan("cross-dataset", config, named=config.source is not None)
    return plan.transfer(config, *plan.suite.cross_dataset)


def domain_generalization(config: TransferConfig) -> list[Job]:
    """Train on all classes of the source, test on it and on the same kinds of things in other domains (CoOp)."""
    plan = _Plan("domain-generalization", config, named=config.source is not None)
    return plan.transfer(config, *plan.suite.domain_generalization)


class _Plan:
    """What the protocols share: settings filled in, data sets loaded once, jobs put together.

    Raises:
        InputError: a method, data set or number that cannot be had.
    """

    def __init__(self, protocol: str, config: SweepConfig, *, named: bool):
        # Named data without a suite get the field's 16 shots, not the embedded benchmark's few.
        own = Suite(base_to_new=(), few_shot=(), cross_dataset=("", ()), domain_generalization=("", ()))
        self.suite = SUITES[config.suite or "emoji"] if config.suite or not named else own
        # Absolute, as a run may go on, or be reported on, from another folder or machine of the same file system.
        root = None if config.root is None else config.root.expanduser().resolve()
        self.protocol, self.config = protocol, replace(config, output=config.output.resolve(), root=root)
        self.methods = config.methods or self.suite.methods
        self.kinds = {method: parse_method(method)[0] for method in self.methods}
        self.seeds = config.seeds or self.suite.seeds
        self.datasets: dict[str, Dataset] = {}
        for name in ("jobs", "methods", "seeds", "backbones", "shots"):
            value = getattr(config, name)
            if value == () or (isinstance(value, tuple) and len(set(value)) < len(value)):
                raise InputError(f"{name} {' '.join(map(str, value))}: give at least one, and none twice")
        if config.jobs < 1:
            raise InputError(f"jobs is {config.jobs}: give at least 1")

    def each(self, data: Sequence[str]) -> list[tuple[str, str]]:
        """Backbones and data sets, these innermost."""
        if len(set(data)) < len(data):
            raise InputError(f"data {' '.join(data)}: name each data set once")
        return [(backbone, name) for backbone in self.config.backbones or self.suite.backbones for name in data]

    def shots(self, *otherwise: int) -> tuple[int, ...]:
        return self.config.shots or otherwise

    def dataset(self, name: str) -> Dataset:
        if name not in self.datasets:
            loaded = load_dataset(name, self.config.root)
            for other, there in self.datasets.items():
                if there.name == loaded.name:
                    raise InputError(f"{other} and {name} are both called {loaded.name} in results: rename one")
            self.datasets[name] = loaded
        return self.datasets[name]

    def path(self, name: str) -> str:
        """What to load a data set by from any folder."""
        folder = find_folder(name, self.config.root)
        return name if folder is None else str(folder.resolve())

    def transfer(self, config: TransferConfig, source: str, targets: tuple[str, ...]) -> list[Job]:
        """The jobs of a protocol that trains on one data set and tests on others, and on it."""
        source, targets = config.source or source, config.targets or targets
        if not source or not targets or source in targets:
            raise InputError(
                f"source {source or 'none'}, targets {' '.join(targets) or 'none'}: name a source and other targets"
            )
        jobs = []
        for backbone, data in self.each([source]):
            tests: list[tuple[str, ClassHalf]] = [(name, "all") for name in (data, *targets)]
            jobs += self.runs(backbone, data, "all", tests, self.shots(self.suite.shots))
        return self.checked(jobs)

    def runs(
        self,
        backbone: str,
        source: str,
        half: ClassHalf,
        tests: Sequence[tuple[str, ClassHalf]],
        shots: Sequence[int],
    ) -> list[Job]:
        """The jobs on one source. What learns from no images is run once, with each tested data set's own prompt."""
        jobs = []
        for method, kind in self.kinds.items():
            if kind.learns:
                jobs += [
                    self._job(backbone, source, source, method, count, seed, half, tests)
                    for count in shots
                    for seed in self.seeds
                ]
            else:
                for name in dict.fromkeys(name for name, _ in tests):
                    own = [test for test in tests if test[0] == name]
                    jobs.append(self._job(backbone, source, name, method, 0, 0, half, own))
        return jobs

    def _job(
        self,
        backbone: str,
        source: str,
        data: str,
        method: str,
        shots: int,
        seed: int,
        half: ClassHalf,
        tests: Sequence[tuple[str, ClassHalf]],
    ) -> Job:
        name = f"{slug(backbone)}-{slug(self.dataset(data).name)}-{half}-{slug(method)}-{shots}shots-seed{seed}"
        train = self.config.run(
            self.path(data), method, backbone, shots, seed, half, self.config.output / "runs" / name
        )
        learner = self.kinds[method]
        work = 0.0
        if learner.learns:
            part = self.dataset(data).half(half)
            part.few_shot(shots, seed)
            if learner.recipe is not None:
                # An image of ViT-B/16 costs about as much as the text of 20 classes under its own context.
                epochs = train.recipe(learner.recipe).epochs
                work += epochs * shots * len(part.classnames) * (len(learner.views) + len(part.classnames) / 20)
        listed = []
        for tested, classes in tests:
            dataset = self.dataset(tested)
            key = RunKey(
                protocol=self.protocol,
                source=self.dataset(source).name,
                data=dataset.name,
                method=method,
                backbone=backbone,
                shots=shots,
                seed=seed,
                classes=classes,
            )
            listed.append(Test(key, self.path(tested)))
            work += len(dataset.half(classes).test)
        return Job(train, tuple(listed), work)

    def checked(self, jobs: list[Job]) -> list[Job]:
        """The jobs, none of which writes to another's folder."""
        folders: dict[str, TrainConfig] = {}
        for job in jobs:
            if folders.setdefault(job.run, job.train) != job.train:
                raise InputError(f"{job.train.method} and {folders[job.run].method} would share {job.train.output}")
        return jobs
