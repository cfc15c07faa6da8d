"""`gopro features`: the image features of a run, in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gopro.cli.console import bar, err, out
from gopro.cli.image_paths import ImagePaths
from gopro.cli.parameters import ConfigFile, Device, RunBackbone, RunName
from gopro.errors import InputError


def features_command(
    run: RunName,
    images: Annotated[list[str], Parameter(allow_leading_hyphen=True)],  # for -
    *,
    output: Path,
    batch: int = 64,
    workers: int | None = None,
    device: Device = "auto",
    backbone: RunBackbone = None,
    config_file: ConfigFile = None,
) -> None:
    """Write the image features of a run to a file, one row per image.

    They have length 1, so dot products are cosine similarities. Images that cannot be read are listed at the end, and
    the exit code is then 1.

    Parameters
    ----------
    images:
        Image files, folders (with their subfolders), or - to read paths from stdin, one per line.
    output:
        File to write: .npz with the arrays paths and features, or .parquet with these columns.
    batch:
        Images per pass through the image tower.
    workers:
        Threads that read images. Default: one per core, at most 16.
    """
    from gopro.inference.classifier import load
    from gopro.inference.feature_file import check_feature_file, encode_files, write_features

    for setting, value in (("--batch", batch), ("--workers", workers)):
        if value is not None and value < 1:
            raise InputError(f"{setting} is {value}: give at least 1")
    check_feature_file(output)
    paths = ImagePaths(images, ignored=None)
    classifier = load(run, device, backbone=backbone)
    with bar("images", paths.count) as advance:
        features = encode_files(
            classifier, paths, batch=batch, workers=workers, on_progress=advance, on_error=paths.add_error
        )
    if features.paths:
        write_features(output, features)
        rows, width = features.features.shape
        out.print_line(f"Features of {rows} images, {width} numbers each: {output}")
    else:
        err.print_line(f"no image could be read, so {output} was not written", "red")
    if paths.errors:
        err.print_line(f"{len(paths.errors)} could not be read:", "red")
        for error in paths.errors:
            err.print_line(f"  {error}", "red")
    if paths.errors or not features.paths:
        sys.exit(1)
