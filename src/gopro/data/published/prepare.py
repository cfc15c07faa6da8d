"""A benchmark downloaded, unpacked and moved into place, where a kill at any moment leaves nothing half-done."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout
from huggingface_hub import HfApi, hf_hub_url

from gopro.data.published.catalog import Benchmark
from gopro.data.published.download import Progress, UnusableSource, download
from gopro.data.published.sources import MIRROR, File, Source
from gopro.data.published.unpack import ARCHIVES, unpack
from gopro.data.splits import read_entries
from gopro.errors import InputError, one_line
from gopro.network import unreachable


@dataclass(frozen=True)
class Preparation:
    """The preparation of one benchmark.

    Everything gathers in `root`/.gopro-NAME first, where downloads of an earlier call are resumed. Complete folders and
    files are then renamed to their places. Nothing that exists is overwritten.
    """

    entry: Benchmark
    source: Source
    root: Path
    print_line: Callable[[str], None] = lambda line: None
    """Takes a line about what happens."""
    progress: Callable[[str], Progress] = lambda what: lambda done, total: None
    """Takes a description ("downloading x.zip") and returns the function that takes its bytes."""
    endpoint: str | None = None
    """Address of the Hugging Face Hub; None for the usual one, or HF_ENDPOINT."""
    pause: float = 2.0
    """Seconds before the second try of a download."""

    @property
    def work(self) -> Path:
        """The folder where everything gathers, on the disk where the data set will be."""
        return self.root / f".gopro-{self.entry.name}"

    @property
    def home(self) -> Path:
        """The place of the data set."""
        return self.root / self.entry.folder

    @property
    def ready(self) -> Path:
        """The data set's folder while it is put together."""
        return self.work / "ready" / self.entry.folder

    @property
    def by_hand(self) -> str:
        """One line with the steps for a person, where no program can download the data set."""
        steps = "; ".join(f"{i}. {step}" for i, step in enumerate(self.source.by_hand, 1))
        return f"{self.entry.name} has to be downloaded by hand: {steps.format(home=self.home)}"

    def run(self) -> bool:
        """Put the data set below `root`, from the mirror if that has it, else from its publisher.

        Returns:
            False if it was complete already.

        Raises:
            InputError: it has to be downloaded by hand, no source has it, the connection broke, there is no room,
                `root` cannot be written, another process is preparing it, or something else is in its place.
        """
        try:
            if not self.entry.missing(self.root) and not self.work.exists():
                return False
            if not self.source.mirrored and not self.source.official:
                raise InputError(self.by_hand)
            self.work.mkdir(parents=True, exist_ok=True)
            with FileLock(self.work / "lock", timeout=0):
                incomplete = bool(self.entry.missing(self.root))
                if incomplete:
                    self._gather()
                    self._move_into_place()
                shutil.rmtree(self.work, ignore_errors=True)
                return incomplete
        except Timeout as error:
            raise InputError(
                f"{self.work}: another process is preparing {self.entry.name}; wait until it is done"
            ) from error
        except OSError as error:
            raise InputError(f"{error.filename or self.root}: cannot be written ({error.strerror or error})") from error

    def _gather(self) -> None:
        if self.source.mirrored:
            try:
                self._get_from_mirror()
                return self._check_complete(f"the mirror {MIRROR}")
            except UnusableSource as error:
                shutil.rmtree(self.work / "mirror", ignore_errors=True)
                if not self.source.official:
                    raise InputError(f"{error}; {self.by_hand}") from error
                self.print_line(f"not from the mirror: {error}")
        self._get_from_publisher()
        for file in self.source.coop:
            self._add_coop(file)
        self._check_complete("what can be downloaded")

    def _check_complete(self, origin: str) -> None:
        if missing := self.entry.missing(self.ready.parent):
            names = ", ".join(path.relative_to(self.ready.parent).as_posix() for path in missing)
            raise UnusableSource(f"{self.entry.name}: {origin} lacks {names}")

    def _get_from_mirror(self) -> None:
        url, name, checksum = mirror_file(self.entry, self.endpoint)
        archive = self.work / "mirror" / PurePosixPath(name).name
        download(url, archive, checksum, self.progress(f"downloading {archive.name}"), self.pause)
        _remove(self.ready.parent)
        folder = _parent_of(self.source.marker, self._unpack(archive, "unpacked"))
        if folder is None:
            raise UnusableSource(f"{url}: has no folder {self.source.marker}")
        self.ready.parent.mkdir()
        folder.rename(self.ready)
        for file in self.source.coop:  # a variant's archive may leave out ImageNet's class names
            if self.entry.missing(self.ready.parent) and not (self.ready / file.into).exists():
                self._add_coop(file)

    def _get_from_publisher(self) -> None:
        paths: list[Path] = []
        for i, file in enumerate(self.source.official):
            name = PurePosixPath(file.into if not file.archive else file.url.partition("?")[0]).name
            paths.append(self.work / "official" / f"{i}-{name}")
            download(file.url, paths[-1], file.checksum, self.progress(f"downloading {name}"), self.pause)
        _remove(self.ready.parent)
        self.ready.mkdir(parents=True)
        for file, path in zip(self.source.official, paths, strict=True):
            if not file.archive:
                shutil.copyfile(path, self.ready / file.into)
                continue
            unpacked = self._unpack(path, "unpacked")
            if file.inner:
                unpacked = self._unpack(unpacked / file.inner, "inner")
            if not (unpacked / file.keep).is_dir():
                raise UnusableSource(f"{file.url}: has no folder {file.keep}")
            if file.into:
                (unpacked / file.keep).rename(self.ready / file.into)
            else:
                for child in (unpacked / file.keep).iterdir():
                    child.rename(self.ready / child.name)

    def _add_coop(self, file: File) -> None:
        """Add one of CoOp's own files if it can be downloaded; `_check_complete` tells whether it was needed."""
        candidates = (self.home / file.into, self.root / "imagenet" / file.into)  # variants share ImageNet's names
        if present := [path for path in candidates if path.is_file()]:
            shutil.copyfile(present[0], self.ready / file.into)
            return
        downloaded = self.work / "coop" / file.into
        try:
            download(file.url, downloaded, pause=self.pause)
            if file.into.startswith("split_"):
                read_entries(downloaded)
        except InputError as error:
            downloaded.unlink(missing_ok=True)
            consequence = ""
            if file.into.startswith("split_"):
                consequence = "; gopro draws a split of its own, and its figures do not compare with published ones"
            self.print_line(
                f"CoOp's {file.into} could not be downloaded ({error}){consequence}: "
                f"download {file.url} by hand to {self.home / file.into}"
            )
        else:
            shutil.copyfile(downloaded, self.ready / file.into)

    def _unpack(self, archive: Path, name: str) -> Path:
        into = self.work / name
        _remove(into)
        try:
            unpack(archive, into, self.progress(f"unpacking {archive.name}"))
        except UnusableSource:
            archive.unlink(missing_ok=True)
            raise
        return into

    def _move_into_place(self) -> None:
        """Rename the folder into place, or its content if a folder is there already.

        The content goes in order: CoOp's files first, the images last, since a later call takes a data set with images
        for complete.
        """
        coop = {file.into for file in self.source.coop}
        in_the_way: list[Path] = []
        if not self.home.exists():
            self.ready.rename(self.home)
        else:
            for child in sorted(
                self.ready.iterdir(), key=lambda c: (c.name == self.source.marker, c.name not in coop, c.name)
            ):
                place = self.home / child.name
                if place.exists():
                    in_the_way.append(place)
                else:
                    child.rename(place)
        if missing := self.entry.missing(self.root):
            raise InputError(
                f"{missing[0]}: still missing, though {self.entry.name} was downloaded, because "
                f"{', '.join(map(str, in_the_way)) or self.home} existed before and was left alone; "
                "move it away and run the same command again"
            )


def mirror_file(entry: Benchmark, endpoint: str | None) -> tuple[str, str, str | None]:
    """Find the benchmark's archive in the mirror: its address (at a fixed commit), name and SHA-256.

    Raises:
        UnusableSource: the Hub cannot be asked, or not exactly one archive goes by the benchmark's name.
    """
    if (reason := unreachable(HfApi(endpoint=endpoint).endpoint)) is not None:
        raise UnusableSource(f"{MIRROR} cannot be listed (no connection to {reason})")
    try:
        info = HfApi(endpoint=endpoint).model_info(MIRROR, files_metadata=True, timeout=30, token=False)
    except Exception as error:  # huggingface_hub's HTTP client, and so its errors, differ between versions
        raise UnusableSource(f"{MIRROR} cannot be listed ({one_line(error)})") from error
    archives = [file for file in info.siblings or () if file.rfilename.endswith(ARCHIVES)]
    names = {_letters_and_digits(entry.name), _letters_and_digits(entry.folder)}
    matching = [
        file
        for file in archives
        if names & {_letters_and_digits(part) for part in PurePosixPath(_stem(file.rfilename)).parts}
    ]
    if len(matching) != 1:
        listing = ", ".join(file.rfilename for file in matching or archives) or "no archives at all"
        raise UnusableSource(f"{MIRROR}: expected one archive named like {entry.folder} or {entry.name}, not {listing}")
    file = matching[0]
    checksum = f"sha256:{file.lfs['sha256']}" if file.lfs else None
    return hf_hub_url(MIRROR, file.rfilename, revision=info.sha, endpoint=endpoint), file.rfilename, checksum


def _stem(name: str) -> str:
    return next(name.removesuffix(ending) for ending in ARCHIVES if name.endswith(ending))


def _letters_and_digits(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _remove(folder: Path) -> None:
    """Remove a folder that an earlier call may have left half-done."""
    if folder.exists():
        shutil.rmtree(folder)


def _parent_of(name: str, folder: Path, depth: int = 2) -> Path | None:
    """Find the folder that holds a folder `name`: `folder` itself or one up to `depth` levels below it."""
    level = [folder]
    for _ in range(depth + 1):
        level = [child for parent in level for child in sorted(parent.iterdir()) if child.is_dir()]
        for child in level:
            if child.name == name:  # compared here, as some file systems ignore case
                return child.parent
    return None
