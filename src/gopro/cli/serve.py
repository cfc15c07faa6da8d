"""`gopro serve`: a run over HTTP, with a page."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from gopro.cli.console import err
from gopro.cli.parameters import ConfigFile, Flat
from gopro.errors import InputError
from gopro.inference.serve.limits import Limits

EXTRA = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
KEY = "GOPRO_API_KEY"


def serve_command(
    run: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key_file: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    samples: str | None = None,
    root: Path | None = None,
    limits: Annotated[Limits | None, Flat] = None,
    config_file: ConfigFile = None,
) -> None:
    """Serve a run over HTTP, with a page to try it on.

    Ctrl-C or SIGTERM stop it, once the requests in flight are answered.

    Parameters
    ----------
    run:
        Folder of a trained run, or ORG/NAME on the Hugging Face Hub.
    host:
        Address to listen at; 0.0.0.0 for all that this machine has.
    port:
        Port to listen at; 0 for any that is free.
    api_key_file:
        File with a key that requests must carry; the environment variable GOPRO_API_KEY may hold it instead.
    device:
        Where to compute.
    samples:
        Data set, as --data takes it, of whose test images some are shown to everybody; embedded emoji if not given.
    root:
        Directory that holds the benchmarks' folders, for --samples.
    """
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise InputError(f"gopro serve needs more packages ({', '.join(missing)}): pip install '.[serve]'")
    from gopro.inference.classifier import load
    from gopro.inference.serve.app import make_app
    from gopro.inference.serve.auth import checked_key, read_key
    from gopro.inference.serve.server import bound, run_server

    if api_key_file is not None:
        key = read_key(api_key_file)
    else:
        key = checked_key(os.environ[KEY], KEY) if KEY in os.environ else None
    with bound(host, port) as listening:  # before the run is loaded, which takes longer
        classifier = load(run, device)
        assert classifier.run is not None
        limits = limits or Limits()
        app = make_app(classifier.run, limits, key, samples_of=samples, root=root)
        run_server(
            app, listening, limits, lambda address: err.print(f"{run} at {address}", markup=False, soft_wrap=True)
        )
    err.print("stopped")
