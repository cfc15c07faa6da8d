"""Bit-for-bit repeatable computation on one machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Let torch use only operations whose bits do not depend on the order in which a device's threads finish.

    An operation without such a variant raises torch's own error. On exit the earlier settings are restored, save the
    size of cuBLAS's workspace, which a process reads only once.

    Example:
        >>> with deterministic(True):
        ...     torch.are_deterministic_algorithms_enabled()
        True
    """
    if not enabled:
        yield
        return
    cudnn = torch.backends.cudnn
    enabled_before = torch.are_deterministic_algorithms_enabled()
    warn_only_before = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn_before = cudnn.benchmark, cudnn.deterministic
    # cuBLAS is only deterministic with a fixed workspace: 8 buffers of 4096 KiB, as torch's documentation asks for.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled_before, warn_only=warn_only_before)
        cudnn.benchmark, cudnn.deterministic = cudnn_before
