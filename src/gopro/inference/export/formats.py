"""File formats: ONNX, and that of `torch.export`."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import ExportedProgram

from gopro.errors import InputError

FormatName = Literal["onnx", "torch"]
Runner = Callable[[Tensor], Tensor]
"""A function from images to probabilities."""

KEY = "gopro"
"""Name of the metadata: a key of ONNX's `metadata_props`, or `gopro.json` among the extra files of torch's format."""

MAX_ONNX_BYTES = 2**31 - 1
"""Size limit of protocol buffers, the encoding of ONNX files."""


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        suffix: of the file name.
        runtime: name of the software that runs it, for messages.
        packages: modules that it needs, from the extra `export`.
        convert: turns a traced graph into a model.
        pack: turns a model and its metadata, as JSON, into the content of a file.
        open: turns the content of a file into a function.
    """

    suffix: str
    runtime: str
    packages: tuple[str, ...]
    convert: Callable[[ExportedProgram], Any]
    pack: Callable[[Any, str], bytes]
    open: Callable[[bytes], Runner]

    def check_packages(self) -> None:
        """Raise InputError if a package is missing."""
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            raise InputError(f"this format needs {', '.join(missing)}: pip install '.[export]'")


def _to_onnx(program: ExportedProgram) -> Any:
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > MAX_ONNX_BYTES:
        raise InputError(f"the weights take {size / 2**30:.1f} GiB, an ONNX file holds 2 at most: use --format torch")
    with _quiet():
        converted = torch.onnx.export(
            program,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes={"images": {0: "batch"}},
            dynamo=True,
            verbose=False,
        )
    return converted


def _pack_onnx(converted: Any, metadata: str) -> bytes:
    converted.model.metadata_props[KEY] = metadata
    return converted.model_proto.SerializeToString()


def _open_onnx(content: bytes) -> Runner:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _pack_torch(program: ExportedProgram, metadata: str) -> bytes:
    file = io.BytesIO()
    with _quiet():
        torch.export.save(program, file, extra_files={f"{KEY}.json": metadata})
    return file.getvalue()


def _open_torch(content: bytes) -> Runner:
    return torch.export.load(io.BytesIO(content)).module()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's log messages and warnings about its own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


FORMATS: dict[FormatName, Format] = {
    "onnx": Format(".onnx", "onnxruntime", ("onnx", "onnxruntime", "onnxscript"), _to_onnx, _pack_onnx, _open_onnx),
    "torch": Format(".pt2", "torch.export", (), lambda program: program, _pack_torch, _open_torch),
}
