"""The command line: what stands in the config dataclasses, as commands. The one place that prints."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import cyclopts
from cyclopts import App
from PIL import Image

from gopro.cli.benchmark import benchmark, demo_command, report_command
from gopro.cli.cache import cache_app
from gopro.cli.checkpoint import import_command
from gopro.cli.console import DEFAULTS, err, shown
from gopro.cli.data import data_app
from gopro.cli.export import export_command
from gopro.cli.head import head_command
from gopro.cli.methods import methods_command
from gopro.cli.predict import predict_command
from gopro.cli.push import push_command
from gopro.cli.runs import eval_command, train_command
from gopro.cli.serve import serve_command
from gopro.cli.settings import read_settings
from gopro.errors import InputError, ToldElsewhere

app = App(
    name="gopro",
    help="Prompt learning for CLIP with self-supervision.",
    version_flags=["--version"],
    default_parameter=DEFAULTS,
)
app.command(train_command, name="train")
app.command(eval_command, name="eval")
app.command(predict_command, name="predict")
app.command(head_command, name="head")
app.command(push_command, name="push")
app.command(import_command, name="import")
app.command(serve_command, name="serve")
app.command(export_command, name="export")
app.command(benchmark)
app.command(report_command, name="report")
app.command(data_app)
app.command(cache_app)
app.command(methods_command, name="methods")
app.command(demo_command, name="demo")


def main(arguments: list[str] | None = None) -> None:
    """Runs a command. Bad input is one line on stderr and exit code 2, never a traceback."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(?!gopro)")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # we have a limit of our own
    warnings.formatwarning = lambda message, *_: f"warning: {shown(str(message))}\n"
    try:
        _use_config_file(tokens)
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except ToldElsewhere:
        sys.exit(2)
    except InputError as error:
        err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except cyclopts.CycloptsError as error:
        err.print(f"error: {' '.join(str(error).split())}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("stopped; what is written stays, and the same command or --resume goes on from it")
        sys.exit(130)


def _use_config_file(tokens: list[str]) -> None:
    """Lets a `--config FILE` among the tokens give the command's settings, under the flags."""
    path = None
    for i, token in enumerate(tokens):
        if token == "--config" or token.startswith("--config="):
            path = Path(token.partition("=")[2] or (tokens[i + 1] if i + 1 < len(tokens) else ""))
    app.config = ()
    if path is None:
        return
    content = read_settings(path)
    commands, *_ = app.parse_commands(tokens)
    for command in reversed(commands):  # as if the file had named the command: a flat one may not say data
        content = {command: content}
    app.config = (cyclopts.config.Dict(content, source=str(path)),)
