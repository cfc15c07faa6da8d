"""A benchmark downloaded, unpacked and put in place, so that a kill at any moment leaves nothing half-done there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout
from huggingface_hub import HfApi, hf_hub_url

from gopro.data.catalog import Benchmark
from gopro.data.download import Progress, Unusable, fetch
from gopro.data.sources import MIRROR, File, Source
from gopro.data.splits import read_entries
from gopro.data.unpack import ARCHIVES, unpack
from gopro.errors import InputError


@dataclass(frozen=True)
class Preparation:
    """What is to be prepared and who is told how it goes.

    Everything is gathered in `root`/.gopro-NAME first, where an earlier call's downloads are gone on with. Then whole
    folders and files are renamed to where they belong. What is there already is never written over.
    """

    entry: Benchmark
    source: Source
    root: Path
    say: Callable[[str], None] = lambda line: None
    """Takes a line on what happens."""
    progress: Callable[[str], Progress] = lambda what: lambda done, total: None
    """Takes what begins ("downloading x.zip") and gives what to call with its bytes."""
    endpoint: str | None = None
    """Of the Hugging Face Hub; its own, or what HF_ENDPOINT says, if not given."""
    pause: float = 2.0
    """Seconds before a second try to download."""

    @property
    def work(self) -> Path:
        """The folder in which things are gathered, on the disk where they will be."""
        return self.root / f".gopro-{self.entry.name}"

    @property
    def home(self) -> Path:
        """Where the data set will be."""
        return self.root / self.entry.folder

    @property
    def ready(self) -> Path:
        """The data set's folder while it is being put together."""
        return self.work / "ready" / self.entry.folder

    @property
    def by_hand(self) -> str:
        """What to do where no program can: one line."""
        steps = "; ".join(f"{i}. {step}" for i, step in enumerate(self.source.by_hand, 1))
        return f"{self.entry.name} has to be fetched by hand: {steps.format(home=self.home)}"

    def run(self) -> bool:
        """Brings the data set below `root`: from the mirror if that has it, else from its publisher.

        Returns:
            False where it was complete already.

        Raises:
            InputError: it has to be fetched by hand, no source has it, the line was cut, there is no room, `root`
                cannot be written, another process is at it, or something else stands in its place.
        """
        try:
            if not self.entry.missing(self.root) and not self.work.exists():
                return False
            if not self.source.mirrored and not self.source.official:
                raise InputError(self.by_hand)
            self.work.mkdir(parents=True, exist_ok=True)
            with FileLock(self.work / "lock", timeout=0):
                fresh = bool(self.entry.missing(self.root))
                if fresh:
                    self._gather()
                    self._place()
                shutil.rmtree(self.work, ignore_errors=True)
                return fresh
        except Timeout as error:
            raise InputError(
                f"{self.work}: another process is preparing {self.entry.name}; wait until it is done"
            ) from error
        except OSError as error:
            raise InputError(f"{error.filename or self.root}: cannot be written ({error.strerror or error})") from error

    def _gather(self) -> None:
        if self.source.mirrored:
            try:
                self._from_mirror()
                return self._check_complete(f"the mirror {MIRROR}")
            except Unusable as error:
                shutil.rmtree(self.work / "mirror", ignore_errors=True)
                if not self.source.official:
                    raise InputError(f"{error}; {self.by_hand}") from error
                self.say(f"not from the mirror: {error}")
        self._from_publisher()
        for file in self.source.coop:
            self._add_coop(file)
        self._check_complete("what can be downloaded")

    def _check_complete(self, origin: str) -> None:
        if missing := self.entry.missing(self.ready.parent):
            names = ", ".join(path.relative_to(self.ready.parent).as_posix() for path in missing)
            raise Unusable(f"{self.entry.name}: {origin} lacks {names}")

    def _from_mirror(self) -> None:
        url, name, checksum = mirror_file(self.entry, self.endpoint)
        archive = self.work / "mirror" / PurePosixPath(name).name
        fetch(url, archive, checksum, self.progress(f"downloading {archive.name}"), self.pause)
        _clear(self.ready.parent)
        found = _holder(self._unpacked(archive, "unpacked"), self.source.marker)
        if found is None:
            raise Unusable(f"{url}: holds no folder {self.source.marker}")
        self.ready.parent.mkdir()
        found.rename(self.ready)
        for file in self.source.coop:  # a variant's archive may leave ImageNet's class names to ImageNet
            if self.entry.missing(self.ready.parent) and not (self.ready / file.into).exists():
                self._add_coop(file)

    def _from_publisher(self) -> None:
        fetched: list[Path] = []
        for i, file in enumerate(self.source.official):
            name = PurePosixPath(file.into if not file.archive else file.url.partition("?")[0]).name
            fetched.append(self.work / "official" / f"{i}-{name}")
            fetch(file.url, fetched[-1], file.checksum, self.progress(f"downloading {name}"), self.pause)
        _clear(self.ready.parent)
        self.ready.mkdir(parents=True)
        for file, path in zip(self.source.official, fetched, strict=True):
            if not file.archive:
                shutil.copyfile(path, self.ready / file.into)
                continue
            unpacked = self._unpacked(path, "unpacked")
            if file.inner:
                unpacked = self._unpacked(unpacked / file.inner, "inner")
            if not (unpacked / file.keep).is_dir():
                raise Unusable(f"{file.url}: holds no folder {file.keep}")
            if file.into:
                (unpacked / file.keep).rename(self.ready / file.into)
            else:
                for child in (unpacked / file.keep).iterdir():
                    child.rename(self.ready / child.name)

    def _add_coop(self, file: File) -> None:
        """One of CoOp's own files, if it can be had. Whether the data set is of use without it is seen afterwards."""
        there = [path for path in (self.home / file.into, self.root / "imagenet" / file.into) if path.is_file()]
        if there:  # ImageNet's class names are its variants', too
            shutil.copyfile(there[0], self.ready / file.into)
            return
        downloaded = self.work / "coop" / file.into
        try:
            fetch(file.url, downloaded, pause=self.pause)
            if file.into.startswith("split_"):
                read_entries(downloaded)
        except InputError as error:
            downloaded.unlink(missing_ok=True)
            instead = "; without it a split is drawn here, whose figures do not compare with published ones"
            self.say(
                f"CoOp's {file.into} could not be had ({error}){instead if file.into.startswith('split_') else ''}: "
                f"download {file.url} by hand to {self.home / file.into}"
            )
        else:
            shutil.copyfile(downloaded, self.ready / file.into)

    def _unpacked(self, archive: Path, name: str) -> Path:
        into = self.work / name
        _clear(into)
        try:
            unpack(archive, into, self.progress(f"unpacking {archive.name}"))
        except Unusable:
            archive.unlink(missing_ok=True)
            raise
        return into

    def _place(self) -> None:
        """Renames the folder into place, or what it holds where there is such a folder already.

        Then CoOp's own files come first and the images last: it is by the images that a next call sees that all
        is done.
        """
        first = {file.into for file in self.source.coop}
        kept: list[Path] = []
        if not self.home.exists():
            self.ready.rename(self.home)
        else:
            for child in sorted(
                self.ready.iterdir(), key=lambda c: (c.name == self.source.marker, c.name not in first, c.name)
            ):
                place = self.home / child.name
                if place.exists():
                    kept.append(place)
                else:
                    child.rename(place)
        if missing := self.entry.missing(self.root):
            raise InputError(
                f"{missing[0]}: still missing, though {self.entry.name} was downloaded: "
                f"{', '.join(map(str, kept)) or self.home} was there before and was not touched; "
                "move it away and run the same command again"
            )


def mirror_file(entry: Benchmark, endpoint: str | None) -> tuple[str, str, str | None]:
    """Address (at a fixed commit), name and SHA-256 of the benchmark's archive in the mirror.

    Raises:
        Unusable: the Hub cannot be asked, or no archive, or more than one, goes by the benchmark's name.
    """
    try:
        info = HfApi(endpoint=endpoint).model_info(MIRROR, files_metadata=True, timeout=30, token=False)
    except Exception as error:  # the HTTP client underneath, and so its errors, differ between versions
        raise Unusable(f"{MIRROR} cannot be listed ({' '.join(str(error).split())})") from error
    archives = [file for file in info.siblings or () if file.rfilename.endswith(ARCHIVES)]
    wanted = {_plain(entry.name), _plain(entry.folder)}
    matching = [f for f in archives if wanted & {_plain(part) for part in PurePosixPath(_stem(f.rfilename)).parts}]
    if len(matching) != 1:
        found = ", ".join(f.rfilename for f in matching or archives) or "no archives at all"
        raise Unusable(f"{MIRROR}: expected one archive named like {entry.folder} or {entry.name}, found {found}")
    file = matching[0]
    checksum = f"sha256:{file.lfs['sha256']}" if file.lfs else None
    return hf_hub_url(MIRROR, file.rfilename, revision=info.sha, endpoint=endpoint), file.rfilename, checksum


def _stem(name: str) -> str:
    return next(name.removesuffix(ending) for ending in ARCHIVES if name.endswith(ending))


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _clear(folder: Path) -> None:
    """What an earlier call left half-done is begun again."""
    if folder.exists():
        shutil.rmtree(folder)


def _holder(folder: Path, marker: str, depth: int = 2) -> Path | None:
    """The folder that `marker` lies in: `folder` itself or one up to `depth` below it."""
    level = [folder]
    for _ in range(depth + 1):
        level = [child for above in level for child in sorted(above.iterdir()) if child.is_dir()]
        for child in level:
            if child.name == marker:  # compared, as some file systems find names in another case, too
                return child.parent
    return None
