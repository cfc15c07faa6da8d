"""Run many `gopro` commands in one subprocess, which imports gopro once. Run as a module, this is that subprocess."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEMORY = 16 << 30
"""Limit of a command's address space in bytes, libraries included. CUDA would map more, so GPUs are hidden."""


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command. The code is negative for a signal, and None if the command hung."""

    code: int | None
    out: str
    err: str

    @property
    def messages(self) -> list[str]:
        """Return the lines on stderr except warnings."""
        return [line for line in self.err.splitlines() if line.strip() and not line.startswith("warning: ")]

    @property
    def output(self) -> str:
        return self.out + self.err

    def refused(self) -> bool:
        """Return whether the command refused its input: exit code 2, one message, no control characters."""
        return self.code == 2 and len(self.messages) == 1 and self.messages[0].startswith("error: ") and self.clean()

    def found_problems(self) -> bool:
        """Return whether `gopro data check` listed problems: exit code 1, and nothing on stderr."""
        return self.code == 1 and " problem" in self.out and not self.err and self.clean()

    def clean(self) -> bool:
        """Return whether the command ended and printed no traceback and no control characters."""
        has_control = any(character in self.output for character in "\x1b\x07\x9b")
        return self.code is not None and "Traceback" not in self.output and not has_control


class CommandProcess:
    """A subprocess that runs commands in `folder`, with `variables` added to its environment."""

    def __init__(self, folder: Path, **variables: str):
        self.folder, self.variables = folder, variables
        self._process: subprocess.Popen[str] | None = None

    def run(self, *arguments: Any, seconds: float = 120) -> CommandResult:
        """Run `gopro ARGUMENTS`, and kill the subprocess if the command takes longer than `seconds`."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], seconds)[0]:
            self.close()
            return CommandResult(None, "", f"no end after {seconds:.0f} s")
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self._process = None
            return CommandResult(None, "", f"the process ended with {code}")
        return CommandResult(**json.loads(line))

    def close(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join([str(root / "src"), str(root), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.commands"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", **self.variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def main() -> None:
    """Run the commands given as JSON, one per line, and print the result of each as JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w")
    from gopro.cli import main as command

    for line in sys.stdin:
        answers.write(json.dumps(_run(command, json.loads(line))) + "\n")
        answers.flush()


def _run(command: Any, arguments: list[str]) -> dict[str, Any]:
    """Run a command and return its result. Redirect file descriptors, to capture the output of C libraries too."""
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        code = 0
        try:
            command(arguments)
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in saved:
            os.close(descriptor)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return {"code": code, "out": texts[0], "err": texts[1]}


if __name__ == "__main__":
    main()
