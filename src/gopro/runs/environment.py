"""The machine and the package versions that a result depends on, and the memory that it took."""

from __future__ import annotations

import os
import platform
import re
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch


def describe_machine() -> str:
    """Return the processor, cores, GPU and operating system in one line."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file() and (model := re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)):
        cpu = model[1].strip()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cpu}, {os.cpu_count()} cores{gpu}, {platform.system()} {platform.machine()}"


def describe_versions() -> str:
    """Return the versions of Python and of the packages that results depend on, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("gopro", "torch", "torchvision", "open_clip_torch"))
    return f"{packages}, Python {platform.python_version()}"


class PeakMemory:
    """The peak memory since this object was made: the GPU's for a CUDA device, otherwise this process's.

    A process's memory includes its libraries, several hundred MiB, but not the processes that make views. Only Linux
    can reset the peak; elsewhere, or if it refuses, it is the peak since the process began.
    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # 5 resets VmHWM, which `mib` reads (man 5 proc)

    @property
    def mib(self) -> float | None:
        """Return the peak so far in MiB, or None if the system does not say."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        status = Path("/proc/self/status")
        if status.is_file() and (peak := re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)):
            return int(peak[1]) / 2**10
        try:
            import resource
        except ImportError:  # Windows
            return None
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
        return usage / (2**20 if sys.platform == "darwin" else 2**10)
