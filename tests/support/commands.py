"""A process that has imported gopro once and runs one command after the other; run as a module, it is that process."""

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
"""Bytes of address space that a command may take, libraries included. CUDA would map more, so commands see no card."""


@dataclass(frozen=True)
class Finished:
    """How a command ended; code None: it did not end and was killed."""

    code: int | None
    out: str
    err: str

    @property
    def messages(self) -> list[str]:
        """The lines on stderr, without warnings."""
        return [line for line in self.err.splitlines() if line.strip() and not line.startswith("warning: ")]

    def refused(self) -> bool:
        """Return whether it refused its input: one line, exit code 2, no control characters."""
        return self.code == 2 and len(self.messages) == 1 and self.messages[0].startswith("error: ") and self.clean()

    def clean(self) -> bool:
        """Return whether it ended, without a traceback or control characters."""
        text = self.out + self.err
        return self.code is not None and "Traceback" not in text and not any(c in text for c in "\x1b\x07\x9b")


class CommandProcess:
    """Runs commands in `folder`, with `variables` added to the environment."""

    def __init__(self, folder: Path, **variables: str):
        self.folder, self.variables = folder, variables
        self._process: subprocess.Popen[str] | None = None

    def run(self, *arguments: Any, seconds: float = 120) -> Finished:
        """Run `gopro ARGUMENTS`."""
        process = self._process = self._process or self._started()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], seconds)[0]:
            self.close()
            return Finished(None, "", f"no end after {seconds:.0f} s")
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self._process = None
            return Finished(None, "", f"the process ended with {code}")
        return Finished(**json.loads(line))

    def close(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _started(self) -> subprocess.Popen[str]:
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
    """Read a command per line and answer with how it ended."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w")
    from gopro.cli import main as command

    for line in sys.stdin:
        answers.write(json.dumps(_finished(command, json.loads(line))) + "\n")
        answers.flush()


def _finished(command: Any, arguments: list[str]) -> dict[str, Any]:
    """Run a command with the file descriptors of stdout and stderr in files, so that nothing printed is missed."""
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        code = 0
        try:
            command(arguments)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
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
