"""`gopro data`: list, check, and prepare under every fault of servers, archives and processes."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from filelock import FileLock
from PIL import Image

from gopro.cli.data import data_app
from gopro.data.published import prepare
from gopro.data.published.catalog import CATALOG, Benchmark
from gopro.data.published.prepare import Preparation, mirror_file
from gopro.data.published.sources import MIRROR, SOURCES, Source
from gopro.errors import InputError
from tests.support.images import blotches
from tests.support.web_server import Site, serving

MIRRORED = [name for name, source in SOURCES.items() if source.mirrored]
PUBLISHED = [name for name, source in SOURCES.items() if source.official]
SPLIT = {"train": [["a/1.jpg", 0, "a"], ["b/1.jpg", 1, "b"]], "val": [], "test": [["a/2.jpg", 0, "a"]]}


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture
def gopro_data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Return a function that runs a command in this process and returns its exit code and output."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            tokens = [str(argument) for argument in arguments]
            data_app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def jpeg(colour: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 90, 40)).save(file, "JPEG")
    return file.getvalue()


def miniature(entry: Benchmark) -> dict[str, bytes]:
    """Make the least content of a benchmark's folder, by path below it."""
    files: dict[str, bytes] = {}
    for path in (*(entry.needs or (entry.images,)), *entry.reads):
        if PurePosixPath(path).suffix in (".txt", ".mat", ".json"):
            files[path] = path.encode()
        else:
            files |= {f"{path}/{name}": jpeg(i) for i, name in enumerate(("a/1.jpg", "a/2.jpg", "b/1.jpg"))}
    return files


def zipped(files: dict[str, bytes], top: str = "") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(top + name, data)
    return content.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mirror(site: Site, name: str, files: dict[str, bytes] | None = None, top: str | None = None) -> dict[str, bytes]:
    """Put a benchmark into the site's stand-in for the mirror; return the content that its folder will have."""
    entry = CATALOG[name]
    files = files or miniature(entry) | ({entry.split: json.dumps(SPLIT).encode()} if entry.split else {})
    archive = zipped(files, f"{entry.folder}/" if top is None else top)
    # food101 is named unlike its folder there
    archives = {
        f"{'food101' if name == 'food101' else entry.folder}.zip": archive,
        "README.md": b"#",
        "mnist.zip": b"PK",
    }
    site.add_hub_repository(MIRROR, archives)
    return files


def publish(site: Site, name: str, files: dict[str, bytes], split: bool = True) -> Source:
    """Publish `files` on the site, packed as the publisher packs them; return the benchmark's source there."""
    source, official = SOURCES[name], []
    for i, file in enumerate(source.official):
        others = [
            other.into or PurePosixPath(other.url).name for other in source.official[:i] + source.official[i + 1 :]
        ]
        if not file.archive:
            content = files[file.into]
        else:
            first = i == 0
            within = {
                f"{file.keep}/{path.removeprefix(file.into)}".strip("/").replace("//", "/"): data
                for path, data in files.items()
                if path not in others and (not first) == path.startswith(SECOND.get(name, ("\0",)))
            }
            content = (
                zipped(within) if file.archive == "zip" else tarred(within, "w" if file.archive == "tar" else "w:gz")
            )
            if file.inner:
                content = zipped({file.inner: tarred(within), "caltech-101/Annotations.tar": b""})
        site.files[f"/{name}/{i}"] = content
        checksum = f"md5:{hashlib.md5(content).hexdigest()}" if file.checksum else None
        official.append(replace(file, url=site.url(f"/{name}/{i}"), checksum=checksum))
    coop = []
    for file in source.coop:
        coop.append(replace(file, url=site.url(f"/coop/{file.into}")))
        if split:
            wanted = json.dumps(SPLIT).encode() if file.into.startswith("split_") else file.into.encode()
            site.files[f"/coop/{file.into}"] = wanted
    return replace(source, official=tuple(official), coop=tuple(coop))


SECOND = {"oxford_pets": ("annotations/",), "sun397": ("ClassName", "Training", "Testing"), "ucf101": ("ucfTrain",)}
"""Content of the second archive where the publisher has two, by the beginning of the paths."""


def prepared_from(
    site: Site, name: str, root: Path, source: Source | None = None, lines: list[str] | None = None
) -> Preparation:
    """Prepare a benchmark from the site alone; what it prints goes to `lines`."""
    print_line = ([] if lines is None else lines).append
    return Preparation(CATALOG[name], source or SOURCES[name], root, print_line, endpoint=site.address, pause=0)


def refusal(preparation: Preparation) -> str:
    with pytest.raises(InputError) as caught:
        preparation.run()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sources_match_the_catalog():
    assert list(SOURCES) == list(CATALOG)
    for name, source in SOURCES.items():
        entry = CATALOG[name]
        assert source.marker in (entry.needs or (entry.images,)), name
        assert source.mirrored or source.official or source.by_hand, name
        assert (entry.split in {file.into for file in source.coop}) == bool(entry.split), name
        for file in (*source.official, *source.coop):
            assert file.url.startswith("http")
            assert file.checksum is None or re.fullmatch("md5:[0-9a-f]{32}", file.checksum)
            assert not file.archive or f".{file.archive}" in prepare.ARCHIVES
            assert file.archive or file.into
    urls = [file.url for name in PUBLISHED for file in SOURCES[name].official]
    assert len(urls) == len(set(urls))


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("name", MIRRORED)
def test_prepare_from_the_mirror(site: Site, tmp_path: Path, name: str, folded: bool):
    files = mirror(site, name, top=None if folded else "")
    preparation = prepared_from(site, name, tmp_path / "data")
    assert preparation.run() is True
    home = tmp_path / "data" / CATALOG[name].folder
    assert tree(home) == files and os.listdir(tmp_path / "data") == [home.name]
    before, requests = home.stat().st_mtime_ns, len(site.requests)
    assert preparation.run() is False and len(site.requests) == requests and home.stat().st_mtime_ns == before


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("name", PUBLISHED)
def test_prepare_from_the_publisher_without_the_mirror(site: Site, tmp_path: Path, name: str, split: bool):
    files = miniature(CATALOG[name])
    for file in SOURCES[name].coop:
        files.pop(file.into, None)
    lines: list[str] = []
    preparation = prepared_from(site, name, tmp_path, publish(site, name, files, split), lines)
    theirs = {file.into: site.files.get(f"/coop/{file.into}", b"") for file in SOURCES[name].coop}
    needed = [path for path in CATALOG[name].reads if path in theirs]
    if needed and not split:
        assert f"lacks {CATALOG[name].folder}/{needed[0]}" in refusal(preparation)
        assert not (tmp_path / CATALOG[name].folder).exists()
        return
    assert preparation.run() is True
    assert tree(tmp_path / CATALOG[name].folder) == files | (theirs if split else {})
    assert lines[0].startswith("not from the mirror")
    assert ("draws a split of its own" in " ".join(lines)) == (not split and CATALOG[name].split is not None)


def test_an_invalid_split_file_is_left_out(site: Site, tmp_path: Path):
    source, lines = publish(site, "dtd", miniature(CATALOG["dtd"])), []
    site.files[f"/coop/{CATALOG['dtd'].split}"] = b'{"train": []}'
    assert prepared_from(site, "dtd", tmp_path, source, lines).run()
    assert os.listdir(tmp_path / "dtd") == ["images"] and "not a split file" in lines[-1]


def test_imagenet_variants_take_imagenet_s_class_names(site: Site, tmp_path: Path):
    files = mirror(site, "imagenet_a", {"imagenet-a/n01/1.jpg": jpeg()})
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "classnames.txt").write_bytes(b"n01 tench")
    assert prepared_from(site, "imagenet_a", tmp_path).run()
    assert tree(tmp_path / "imagenet-adversarial").keys() >= files.keys()


def test_the_archive_is_found_in_the_mirror_by_name(site: Site):
    for files, expected in [
        (["dtd.zip", "mnist.zip"], "dtd.zip"),
        (["DTD.tar.gz"], "DTD.tar.gz"),
        (["data/dtd.tgz"], "data/dtd.tgz"),
        (["dtd/all.zip", "dtd/README.md"], "dtd/all.zip"),
    ]:
        site.add_hub_repository(MIRROR, {file: b"PK" for file in files})
        url, name, checksum = mirror_file(CATALOG["dtd"], site.address)
        assert name == expected and url.endswith(f"resolve/0123456789abcdef0123456789abcdef01234567/{expected}")
        assert checksum == f"sha256:{hashlib.sha256(b'PK').hexdigest()}"
    for files, listing in [
        (["dtd.zip", "dtd.tgz"], "dtd.zip, dtd.tgz"),
        (["mnist.zip"], "mnist.zip"),
        ([], "no archives"),
    ]:
        site.add_hub_repository(MIRROR, {file: b"PK" for file in files})
        with pytest.raises(InputError, match=f"not {listing}"):
            mirror_file(CATALOG["dtd"], site.address)


def spoil(site: Site, how: str) -> None:
    """Make the mirror of dtd unusable."""
    if how == "other bytes":
        site.files["/cdn/dtd.zip"] = zipped({"dtd/images/a/1.jpg": jpeg(7)})
    elif how == "gone":
        del site.files["/cdn/dtd.zip"]
    elif how == "no archive":
        site.add_hub_repository(MIRROR, {"dtd.zip": b"<html>"})
    elif how == "hostile":
        site.add_hub_repository(MIRROR, {"dtd.zip": zipped({"dtd/images/a/1.jpg": b"", "../../evil": b""})})
    elif how == "another layout":
        site.add_hub_repository(MIRROR, {"dtd.zip": zipped({"photos/a/1.jpg": b""})})
    else:
        site.files[f"/api/models/{MIRROR}"] = b"not JSON"


FAULTS = ["other bytes", "gone", "no archive", "hostile", "another layout", "no listing"]


@pytest.mark.parametrize("how", FAULTS)
def test_an_unusable_mirror_is_replaced_by_the_publisher(site: Site, tmp_path: Path, how: str):
    mirror(site, "dtd")
    spoil(site, how)
    files = miniature(CATALOG["dtd"])
    preparation = prepared_from(site, "dtd", tmp_path / "data", publish(site, "dtd", files))
    assert preparation.run()
    assert tree(tmp_path / "data" / "dtd").keys() == files.keys() | {CATALOG["dtd"].split}
    assert [path.name for path in tmp_path.rglob("evil")] == []


@pytest.mark.parametrize("how", FAULTS)
def test_steps_by_hand_without_any_source(site: Site, tmp_path: Path, how: str):
    mirror(site, "dtd")
    spoil(site, how)
    by_hand = replace(SOURCES["dtd"], official=(), by_hand=("ask {home}",))
    text = refusal(prepared_from(site, "dtd", tmp_path, by_hand))
    assert f"ask {tmp_path / 'dtd'}" in text and not (tmp_path / "dtd").exists()
    files = mirror(site, "dtd")
    assert prepared_from(site, "dtd", tmp_path, by_hand).run(), "an unusable download was used again"
    assert tree(tmp_path / "dtd") == files


def test_a_publisher_s_archive_without_the_images_is_refused(site: Site, tmp_path: Path):
    source = publish(site, "dtd", {"other/1.jpg": b""})
    assert "lacks dtd/images" in refusal(prepared_from(site, "dtd", tmp_path, source))
    source = replace(source, official=(replace(source.official[0], keep="another"),))
    assert "has no folder another" in refusal(prepared_from(site, "dtd", tmp_path, source))
    assert not (tmp_path / "dtd").exists()


def test_a_damaged_archive_is_downloaded_again(site: Site, tmp_path: Path):
    files = miniature(CATALOG["imagenetv2"])
    source = publish(site, "imagenetv2", files)
    whole = site.files["/imagenetv2/0"]
    site.files["/imagenetv2/0"] = whole[: len(whole) // 2]
    assert "not an archive that can be unpacked" in refusal(prepared_from(site, "imagenetv2", tmp_path, source))
    site.files["/imagenetv2/0"] = whole
    assert prepared_from(site, "imagenetv2", tmp_path, source).run()


def test_existing_files_are_not_overwritten(site: Site, tmp_path: Path):
    files = mirror(site, "dtd")
    home = tmp_path / "dtd"
    home.mkdir()
    (home / "split_zhou_DescribableTextures.json").write_text("mine")
    (home / "notes.txt").write_text("mine")
    assert prepared_from(site, "dtd", tmp_path).run()
    existing = {"split_zhou_DescribableTextures.json": b"mine", "notes.txt": b"mine"}
    assert tree(home) == files | existing


def test_a_folder_in_the_way_is_named(site: Site, tmp_path: Path):
    mirror(site, "stanford_cars")
    home = tmp_path / "stanford_cars"
    (home / "devkit").mkdir(parents=True)
    (home / "devkit" / "mine").write_text("mine")
    split = zipped(miniature(CATALOG["stanford_cars"]), "stanford_cars/")
    site.add_hub_repository(MIRROR, {"stanford_cars.zip": split})
    text = refusal(prepared_from(site, "stanford_cars", tmp_path))
    assert str(home / "devkit") in text and "move it away" in text
    assert tree(home / "devkit") == {"mine": b"mine"}
    shutil.rmtree(home / "devkit")
    assert prepared_from(site, "stanford_cars", tmp_path).run()


def test_an_unwritable_root_is_named(site: Site, tmp_path: Path):
    mirror(site, "dtd")
    (tmp_path / "file").touch()
    assert "cannot be written" in refusal(prepared_from(site, "dtd", tmp_path / "file" / "data"))
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "cannot be written" in refusal(prepared_from(site, "dtd", tmp_path / "locked"))


def test_only_one_process_prepares_a_benchmark(site: Site, tmp_path: Path):
    mirror(site, "dtd")
    (tmp_path / ".gopro-dtd").mkdir()
    with FileLock(tmp_path / ".gopro-dtd" / "lock"):
        assert "another process" in refusal(prepared_from(site, "dtd", tmp_path))
    assert prepared_from(site, "dtd", tmp_path).run()


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Interrupt before the given one of the calls that change files; return a function that counts them."""
    count = 0

    def wrap(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for name in ("rename", "replace", "mkdir", "unlink"):
        wrap(Path, name)
    for name in ("rmtree", "copyfile"):
        wrap(shutil, name)
    return lambda: count


@pytest.mark.parametrize("home_exists", [True, False])
@pytest.mark.parametrize("origin", ["mirror", "publisher"])
def test_prepare_interrupted_at_any_step_and_repeated(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str, home_exists: bool
):
    name, images = ("caltech101", "101_ObjectCategories") if origin == "mirror" else ("sun397", "SUN397")
    folder = CATALOG[name].folder
    if origin == "mirror":
        files, source = mirror(site, name), SOURCES[name]
    else:
        files = miniature(CATALOG[name])
        source = publish(site, name, files)
        files[CATALOG[name].split or ""] = json.dumps(SPLIT).encode()
    step = 0
    while True:
        step += 1
        root = tmp_path / str(step)
        home = root / folder
        if home_exists:
            home.mkdir(parents=True)
        with monkeypatch.context() as patch:
            steps = interrupt_at(patch, step)
            try:
                prepared_from(site, name, root, source).run()
            except KeyboardInterrupt:
                pass
            else:
                break
        assert not (home / images).exists() or len(tree(home / images)) == 3, f"half-done after step {step}"
        prepared_from(site, name, root, source).run()
        assert tree(home) == files and os.listdir(root) == [folder], f"after step {step}"
        shutil.rmtree(root)
    assert steps() == step - 1 > 10


def test_prepare_interrupted_where_the_images_exist(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = publish(site, "sun397", miniature(CATALOG["sun397"]))
    done = False
    for step in range(1, 100):
        home = tmp_path / str(step) / "sun397"
        (home / "SUN397" / "a").mkdir(parents=True)
        with monkeypatch.context() as patch:
            interrupt_at(patch, step)
            with suppress(KeyboardInterrupt):
                done = prepared_from(site, "sun397", home.parent, source).run()
        prepared_from(site, "sun397", home.parent, source).run()
        assert (home / "split_zhou_SUN397.json").is_file(), f"no split file after step {step}"
        if done:
            break
    assert done


@pytest.mark.slow
def test_prepare_killed_while_downloading_and_while_unpacking(site: Site, tmp_path: Path):
    files = {f"images/{i % 50}/{i}.jpg": os.urandom(300) for i in range(12_000)}
    mirror(site, "dtd", files)
    command = [sys.executable, "-c", "from gopro.cli.data import data_app; data_app()"]
    command += ["prepare", "dtd", "--root", str(tmp_path)]
    environment = os.environ | {"HF_ENDPOINT": site.address, "HF_HUB_OFFLINE": "0"}
    work = tmp_path / ".gopro-dtd"

    def killed_when(reached: Callable[[], bool]) -> None:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not reached():
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.kill()
        process.communicate()
        assert not (tmp_path / "dtd").exists()

    site.delay = 0.05
    part = work / "mirror" / "dtd.zip.part"
    killed_when(lambda: part.exists() and part.stat().st_size > 1_000_000)
    downloaded, site.delay = part.stat().st_size, 0
    killed_when(lambda: (work / "unpacked" / "images" / "7").exists() or (work / "unpacked" / "dtd").exists())
    assert site.requests[-1].range == f"bytes={downloaded}-"
    requests = sum(request.path == "/cdn/dtd.zip" for request in site.requests)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "gopro data check dtd --root" in done.stdout
    assert tree(tmp_path / "dtd") == files and os.listdir(tmp_path) == ["dtd"]
    assert sum(request.path == "/cdn/dtd.zip" for request in site.requests) == requests, (
        "a complete download was repeated"
    )


def test_prepare_names_the_steps_by_hand(tmp_path: Path, gopro_data):
    with pytest.raises(InputError, match=r"register at https://image-net\.org") as caught:
        gopro_data("prepare", "imagenet", "--root", tmp_path)
    assert str(tmp_path / "imagenet" / "images" / "train") in str(caught.value) and "\n" not in str(caught.value)
    for name, reason in [("emoji-food", "comes with the package"), ("./mine", "is not a benchmark")]:
        with pytest.raises(InputError, match=reason):
            gopro_data("prepare", name, "--root", tmp_path)
    assert not list(tmp_path.iterdir())


def test_prepare_says_when_there_is_nothing_to_do(shared: Path, gopro_data):
    code, out, _ = gopro_data("prepare", "caltech101", "--root", shared / "datasets")
    assert code == 0 and "nothing to do" in out


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Two classes of six images."""
    for c, name in enumerate(("red", "blue")):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(6):
            blotches(seed=6 * c + i).save(tmp_path / "own" / name / f"{i}.jpg")
    return tmp_path / "own"


def test_check_of_a_sound_folder(own: Path, gopro_data):
    code, out, _ = gopro_data("check", own)
    assert code == 0 and "12 images opened" in out and "no problems" in out
    code, out, _ = gopro_data("check", "own", "--root", own.parent, "--json", "--workers", 1)
    found = json.loads(out)
    size = sum(path.stat().st_size for path in own.rglob("*.jpg"))
    assert code == 0 and found["problems"] == [] and found["bytes"] == size and found["counts"] == [6, 2, 4]
    code, out, _ = gopro_data("check", "emoji-activities:noto")
    assert code == 0 and "4250 images opened" in out


@pytest.mark.parametrize("workers", [1, 3])
def test_check_names_every_problem(own: Path, gopro_data, workers: int):
    (own / "red" / "0.jpg").write_bytes(b"")
    (own / "red" / "1.jpg").write_bytes(jpeg()[:-200])
    (own / "blue" / "2.jpg").write_bytes(b"no image")
    code, out, _ = gopro_data("check", own, "--workers", workers)
    *problems, summary = out.splitlines()
    assert code == 1 and "3 problems" in summary
    assert sorted(line.split(":")[0] for line in problems) == sorted(
        str(own / path) for path in ("red/0.jpg", "red/1.jpg", "blue/2.jpg")
    )
    code, out, _ = gopro_data("check", own, "--json")
    assert code == 1 and sorted(json.loads(out)["problems"]) == sorted(problems)
    assert not list(own.glob("split*")), "a check wrote a split"


def test_check_lists_faults_of_every_kind_at_once(own: Path, gopro_data):
    for name in ("wolf", "zebra", "Red"):
        (own / name).mkdir()
    (own / "Red" / "0.jpg").write_bytes(jpeg(9))
    for path in ("red/raw.cr2", "blue/clip.mp4", "red/0.json", "blue/0.txt"):
        (own / path).write_text("x")
    (own / "outside.jpg").write_bytes(jpeg())
    (own / "blue" / "1.jpg").write_bytes((own / "red" / "1.jpg").read_bytes())
    Image.new("RGB", (30, 30), "white").save(own / "red" / "2.jpg")
    run = own / "runs" / "mine"
    run.mkdir(parents=True)
    for name in ("config.json", "learned.safetensors"):
        (run / name).write_text("{}")
    code, out, err = gopro_data("check", own)
    assert code == 1 and not err
    for expected in (
        "wolf: no images in this class folder",
        "zebra: no images in this class folder",
        "folders Red and red give the same class name",
        "red/raw.cr2: not an image by its name",
        "blue/clip.mp4: not an image by its name",
        "outside.jpg: an image outside any class folder",
        "note: " + str(own / "runs") + ": holds runs rather than images of a class; passed over",
        "2 files beside the images are passed over (.json .txt)",
    ):
        assert expected in out, expected
    (own / "Red" / "0.jpg").unlink()
    (own / "Red").rmdir()
    _, out, _ = gopro_data("check", own, "--json")
    found = json.loads(out)
    assert len(found["problems"]) == 7 and len(found["notes"]) == 2 and found["images"] == 12
    assert any("the same image as" in problem and "classes blue and red" in problem for problem in found["problems"])
    assert f"{own}/red/2.jpg: nearly uniform: all values are 255 of 255" in found["problems"]


def test_check_opens_the_images_of_a_folder_that_is_no_data_set(tmp_path: Path, gopro_data):
    (tmp_path / "flat").mkdir()
    blotches().save(tmp_path / "flat" / "0.jpg")
    (tmp_path / "flat" / "1.jpg").write_bytes(b"")
    code, out, _ = gopro_data("check", tmp_path / "flat")
    assert code == 1 and "2 images, but no class folders" in out and "1.jpg: the file is empty" in out


@pytest.mark.parametrize("name", ["no-such-folder", "no-such.csv", "caltech101"])
def test_check_prints_json_also_of_an_error(gopro_data, name: str):
    code, out, _ = gopro_data("check", name, "--json")
    found = json.loads(out)
    assert code == 2 and found["data"] == name and len(found["problems"]) == 1 and found["images"] == 0


def test_check_of_a_csv(own: Path, gopro_data):
    rows = [f"{path.relative_to(own.parent).as_posix()},{path.parent.name}" for path in own.rglob("*.jpg")]
    (own.parent / "labels.csv").write_text("\n".join(["path,label", *rows, "own/gone.jpg,red"]))
    code, out, _ = gopro_data("check", own.parent / "labels.csv")
    assert code == 1 and "own/gone.jpg: there is no such image" in out and "1 problem" in out
    assert [path.name for path in own.parent.glob("*.json")] == []


def test_check_compares_a_benchmark_with_the_catalog(tmp_path: Path, gopro_data):
    home = tmp_path / "dtd"
    for path, content in miniature(CATALOG["dtd"]).items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(content)
    (home / "split_zhou_DescribableTextures.json").write_text(json.dumps(SPLIT))
    (home / "images" / "a" / "2.jpg").unlink()
    code, out, _ = gopro_data("check", "dtd", "--root", tmp_path)
    assert code == 1
    assert "dtd (part): 2 classes, the benchmark has 47" in out
    for part, count, expected in [("train", 2, 2820), ("val", 0, 1128), ("test", 1, 1692)]:
        assert f"dtd (part): {count} images in {part}, the benchmark has {expected}" in out
    assert f"{home / 'images/a/2.jpg'}: there is no such image" in out
    assert "class 'b' has no images in test" in out
    with pytest.raises(InputError, match="--root"):
        gopro_data("check", "dtd")
    with pytest.raises(InputError, match="workers is 0"):
        gopro_data("check", "dtd", "--root", tmp_path, "--workers", 0)


@pytest.mark.slow
def test_check_of_real_caltech101(shared: Path, gopro_data):
    code, out, _ = gopro_data("check", "caltech101", "--root", shared / "datasets", "--json")
    found = json.loads(out)
    assert code == 0 and found["images"] == 8242 and found["counts"] == [4128, 1649, 2465] and not found["problems"]


def test_list_shows_every_data_set_and_its_state(tmp_path: Path, own: Path, gopro_data):
    _, out, _ = gopro_data("list")
    for name in (*CATALOG, "emoji-animals", "emoji-travel"):
        assert f"\n{name} " in out
    assert "CC BY-SA 4.0" in out and "8,242" in out
    (tmp_path / "dtd").mkdir()
    home = tmp_path / "eurosat"
    (home / "2750" / "a").mkdir(parents=True)
    (home / "2750" / "a" / "1.jpg").write_bytes(bytes(1_230_000))
    (home / "2750" / "a" / "loop").symlink_to(home)
    code, out, _ = gopro_data("list", "--root", tmp_path, "--sizes")
    assert code == 0 and f"dtd lacks {tmp_path / 'dtd' / 'images'}" in out
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert "absent" in rows["imagenet"] and "complete, 0.00 GB" in rows["eurosat"]
    assert "in the package" in rows["emoji-food"]
    with pytest.raises(InputError, match="--root"):
        gopro_data("list", "--sizes")
