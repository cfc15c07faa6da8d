"""The wheel, the declared dependencies, and the set-up by `make`."""

import ast
import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def normalized(requirement: str) -> str:
    """Return the name of a distribution, normalised as in PEP 503."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def imported(folder: Path) -> set[str]:
    """Return the top-level modules that the Python files of a folder import, anywhere in them."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return (
        {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"gopro", "benchmarks", "tests", "tools"}
    )


def undeclared(folder: Path, *requirements: str) -> dict[str, list[str]]:
    owners = importlib.metadata.packages_distributions()
    declared = set(map(normalized, requirements))
    return {
        module: owners.get(module, [])
        for module in imported(folder)
        # a module that is not installed here counts by its own name
        if declared.isdisjoint(map(normalized, owners.get(module, [module])))
    }


def test_every_import_is_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    used = ("ray", "serve", "export", "parquet", "datasets", "heif", "tensorboard", "wandb", "mlflow")
    runs = PROJECT["dependencies"] + [requirement for name in used for requirement in extras[name]]
    assert undeclared(ROOT / "src", *runs) == {}
    assert undeclared(ROOT / "benchmarks", *PROJECT["dependencies"], *extras["export"], *extras["dev"]) == {}
    assert undeclared(ROOT / "tools", *PROJECT["dependencies"], *extras["tools"], *extras["docs"], *extras["dev"]) == {}
    others = undeclared(ROOT / "tests", *PROJECT["dependencies"], *extras["dev"], *extras["tools"])
    assert others == {}


def test_every_dependency_is_used_and_installed() -> None:
    owners = importlib.metadata.packages_distributions()
    used = {normalized(owner) for module in imported(ROOT / "src") for owner in owners.get(module, [])}
    for requirement in PROJECT["dependencies"]:
        assert normalized(requirement) in used, f"{requirement} is declared and never imported"
        floor = re.search(r">=([\d.]+)", requirement)
        assert floor, f"{requirement} has no lower bound"
        assert "==" not in requirement
        installed = importlib.metadata.version(normalized(requirement))
        assert [int(part) for part in re.findall(r"\d+", installed)] >= [int(part) for part in floor[1].split(".")]


def test_all_files_give_the_same_version() -> None:
    version = PROJECT["version"]
    released = re.findall(r"^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert released[0] == version
    assert citation["version"] == version
    assert importlib.metadata.version("gopro") == version


def test_the_console_script_loads() -> None:
    [script] = [entry for entry in importlib.metadata.entry_points(group="console_scripts") if entry.name == "gopro"]
    assert callable(script.load())


def test_the_wheel_contains_every_tracked_file(tmp_path: Path) -> None:
    listing = subprocess.run(["git", "ls-files", "-z", "src"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout: there is no list of files to compare with")
    tracked = {name.removeprefix("src/") for name in listing.stdout.split("\0") if name and (ROOT / name).exists()}
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert tracked - names == set()
    assert {"gopro/py.typed", "gopro/benchmark/report/templates/page.html"} <= names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


FAKE_PYTHON = """#!/bin/sh
# A python3 that logs its arguments, and on `-m venv` copies itself into the environment.
echo "$@" >> "{log}"
case "$1$2" in
    -mvenv) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
    -c*) exit {too_old} ;;
esac
"""


class Clone:
    """A folder with the Makefile, the project file and a fake Python."""

    def __init__(self, folder: Path, *, too_old: bool = False) -> None:
        self.folder = folder
        self.log = folder / "log"
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        python = folder / "python3"
        python.write_text(FAKE_PYTHON.format(log=self.log, too_old=int(too_old)), encoding="utf-8")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)

    def make(self, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """Run make. Returns the finished process and the arguments of each call of Python."""
        self.log.write_text("", encoding="utf-8")
        environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "VENV")}
        done = subprocess.run(
            ["make", f"PYTHON={self.folder / 'python3'}", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done, self.log.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    return Clone(tmp_path)


def test_make_installs_once_and_again_when_the_project_file_changes(clone: Clone) -> None:
    done, calls = clone.make("setup")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in calls][-2:] == [["-m", "venv"], ["-m", "pip"]]
    assert "pip install" in calls[-1]
    assert ".[dev]" in calls[-1]
    assert "several minutes" in done.stdout

    done, calls = clone.make("setup")
    assert (done.returncode, calls) == (0, [])

    ready = (clone.folder / ".venv" / ".ready").stat().st_mtime
    os.utime(clone.folder / "pyproject.toml", (ready + 5, ready + 5))
    done, calls = clone.make("setup")
    assert done.returncode == 0
    assert any("pip install" in line for line in calls)
    assert not any("venv" in line for line in calls), "the existing environment is kept"


def test_make_rejects_an_old_python_in_one_line(tmp_path: Path, clone: Clone) -> None:
    (tmp_path / "old").mkdir()
    done, calls = Clone(tmp_path / "old", too_old=True).make("demo")
    assert done.returncode != 0
    assert len(calls) == 1
    assert "Python 3.11 or newer is needed" in done.stderr.splitlines()[0]


def test_make_lists_its_targets(clone: Clone) -> None:
    done, calls = clone.make()
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    assert listed == {"help", "setup", "demo", "test", "test-fast", "repeat", "lint", "torture", "docs", "clean"}
    assert calls == []
