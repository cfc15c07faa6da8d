"""Image features of many files, written to one file: `gopro features`."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gopro.data.images.image_file import ImageFile
from gopro.errors import InputError
from gopro.files import write_atomically
from gopro.inference.classifier import Classifier

SUFFIXES = (".npz", ".parquet")


@dataclass(frozen=True)
class FileFeatures:
    """Unit image features by file.

    Attributes:
        paths: of the files, as they were given.
        features: a row for each path; dot products are cosine similarities.
    """

    paths: list[str]
    features: Float[np.ndarray, "images embed"]


def check_feature_file(path: Path) -> None:
    """Check that a feature file can be written, before anything is computed.

    Raises:
        InputError: the suffix is unknown, its package is not installed, or the folder does not exist.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: the format is chosen by the suffix; give a file that ends with .npz or .parquet")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise InputError(f"{path}: Parquet needs pyarrow: pip install '.[parquet]', or give a file that ends with .npz")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; create it first")


def encode_files(
    classifier: Classifier,
    paths: Iterable[str],
    *,
    batch: int = 64,
    workers: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
    on_error: Callable[[InputError], None],
) -> FileFeatures:
    """Compute the features of image files, in their order, opened at the levels of the classifier's run.

    Args:
        batch: images to encode at once.
        workers: threads that decode images; by default one per core, at most 16.
        on_progress: called with the number of images in each batch.
        on_error: called for each file that cannot be read, which is left out.
    """
    names: list[str] = []
    rows: list[Tensor] = []
    images = (ImageFile(Path(path), path, classifier.levels) for path in paths)
    with closing(classifier.encode_batches(images, batch, workers)) as batches:
        for sources, errors, encoded in batches:
            for source, error in zip(sources, errors, strict=True):
                if error is None:
                    names.append(source.name)
                else:
                    on_error(error)
            if encoded is not None:
                with torch.no_grad():
                    rows.append(classifier.method.image_features(encoded).float().cpu())
            on_progress(len(sources))
    width = classifier.method.backbone.embed_dim
    return FileFeatures(names, torch.cat(rows).numpy() if rows else np.zeros((0, width), np.float32))


def write_features(path: Path, features: FileFeatures) -> None:
    """Write features atomically: `paths` and `features` in a NumPy archive, `path` and `features` in a Parquet file."""
    content = io.BytesIO()
    if path.suffix.lower() == ".npz":
        np.savez(content, paths=np.array(features.paths, dtype=np.str_), features=features.features)
    else:
        import pyarrow
        import pyarrow.parquet

        width = features.features.shape[1]
        rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(features.features.ravel()), width)
        paths = [os.fsencode(name).decode("utf-8", "replace") for name in features.paths]  # Parquet's text is UTF-8
        pyarrow.parquet.write_table(pyarrow.table({"path": paths, "features": rows}), content)
    write_atomically(path, content.getvalue())
