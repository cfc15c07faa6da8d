"""`gopro serve`: a run over HTTP, with a web page."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gopro.cli.backbone_line import print_backbone
from gopro.cli.console import err
from gopro.cli.parameters import ConfigFile, Device, Flat, Root, RunBackbone, RunName
from gopro.errors import InputError
from gopro.inference.serve.limits import Limits

EXTRA = ("cachetools", "fastapi", "prometheus_client", "python_multipart", "uvicorn")
"""Packages of the extra `serve`."""
KEY = "GOPRO_API_KEY"


def serve_command(
    run: RunName,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key_file: Path | None = None,
    allow_origin: Annotated[tuple[str, ...], Parameter(show_default=False)] = (),
    device: Device = "auto",
    backbone: RunBackbone = None,
    samples: str | None = None,
    root: Root = None,
    limits: Annotated[Limits | None, Flat] = None,
    config_file: ConfigFile = None,
) -> None:
    """Serve a run over HTTP, with a web page to try it.

    Stop it with Ctrl-C or SIGTERM; requests in progress are still answered.

    Parameters
    ----------
    host:
        Address to listen on; 0.0.0.0 for all addresses of this machine.
    port:
        Port to listen on; 0 for any free port.
    api_key_file:
        File with an API key that requests must carry. Default: the environment variable GOPRO_API_KEY, if set.
    allow_origin:
        Origins whose web pages may ask the server, such as https://example.org or http://localhost:3000; * for all.
        Default: only the server's own page.
    samples:
        Data set, as gopro train takes it, whose test images the web page shows as samples to everybody. Default:
        images that come with the package, of classes that the run knows.
    """
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise InputError(f"gopro serve needs more packages ({', '.join(missing)}): pip install '.[serve]'")
    from gopro.inference.classifier import load
    from gopro.inference.serve.app import make_app
    from gopro.inference.serve.auth import check_key, read_key
    from gopro.inference.serve.cors import check_origins
    from gopro.inference.serve.server import listen, run_server

    if api_key_file is not None:
        key = read_key(api_key_file)
    else:
        key = check_key(os.environ[KEY], KEY) if KEY in os.environ else None
    origins = check_origins(allow_origin)
    with listen(host, port) as listener:  # before loading the run: a port that is taken is reported at once
        classifier = load(run, device, backbone=backbone)
        assert classifier.run is not None
        app = make_app(classifier.run, limits or Limits(), key, origins=origins, samples_of=samples, root=root)

        def on_ready(address: str) -> None:
            _print(f"Serving {run} at {address} (Ctrl-C stops it)")
            print_backbone(classifier.method.backbone.name, screen=err)

        run_server(app, listener, on_ready)
    _print("Stopped.")


def _print(line: str) -> None:
    err.print(line, markup=False, soft_wrap=True)
