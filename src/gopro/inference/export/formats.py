"""The kinds of file there are: ONNX, and torch's own."""

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
"""Images to probabilities."""

KEY = "gopro"
"""What the JSON on a file goes by: a key of ONNX's `metadata_props`; with .json behind it an extra file of torch's."""

MOST_BYTES = 2**31 - 1
"""Protocol buffers, of which an ONNX file is made, hold no more."""


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        suffix: of the file's name.
        runtime: what runs it, for people.
        packages: modules that it needs, of the extra `export`.
        convert: a traced graph as what such a file holds.
        pack: that and a JSON text as the file's bytes.
        open: the file's bytes as something that runs.
    """

    suffix: str
    runtime: str
    packages: tuple[str, ...]
    convert: Callable[[ExportedProgram], Any]
    pack: Callable[[Any, str], bytes]
    open: Callable[[bytes], Runner]

    def check_packages(self) -> None:
        """Raises InputError where a package is missing."""
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            raise InputError(f"this format needs {', '.join(missing)}: pip install '.[export]'")


def _to_onnx(program: ExportedProgram) -> Any:
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > MOST_BYTES:
        raise InputError(f"the weights take {size / 2**30:.1f} GiB, an ONNX file holds 2: use --format torch")
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


def _pack_onnx(converted: Any, about: str) -> bytes:
    converted.model.metadata_props[KEY] = about
    return converted.model_proto.SerializeToString()


def _open_onnx(content: bytes) -> Runner:
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # it would keep a record of its use
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _pack_torch(program: ExportedProgram, about: str) -> bytes:
    file = io.BytesIO()
    with _quiet():
        torch.export.save(program, file, extra_files={f"{KEY}.json": about})
    return file.getvalue()


def _open_torch(content: bytes) -> Runner:
    return torch.export.load(io.BytesIO(content)).module()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the remarks that torch makes on its own parts from people."""
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
