"""The command line: parses arguments and prints. No other package does either.

A command's module is imported when the command is called, and it imports whatever computes inside its functions. torch
and open_clip take seconds to import, which `--help`, `--version` and a mistyped flag must not wait for.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import cyclopts
import pydantic

from gopro.cli.config_file import read_config_file
from gopro.cli.console import err, printable
from gopro.cli.parameters import DEFAULTS
from gopro.errors import InputError, OtherRankFailed
from gopro.settings import describe_type, explain

app = cyclopts.App(
    name="gopro",
    help="Prompt learning for CLIP with self-supervision.",
    version_flags=["--version"],
    default_parameter=DEFAULTS,
)
app.command("gopro.cli.train:train_command", name="train")
app.command("gopro.cli.evaluate:eval_command", name="eval")
app.command("gopro.cli.predict:predict_command", name="predict")
app.command("gopro.cli.info:info_command", name="info")
app.command("gopro.cli.features:features_command", name="features")
app.command("gopro.cli.head:head_command", name="head")
app.command("gopro.cli.push:push_command", name="push")
app.command("gopro.cli.import_checkpoint:import_command", name="import")
app.command("gopro.cli.serve:serve_command", name="serve")
app.command("gopro.cli.export:export_command", name="export")
app.command("gopro.cli.benchmark:benchmark_app", name="benchmark")
app.command("gopro.cli.tune:tune_command", name="tune")
app.command("gopro.cli.report:report_command", name="report")
app.command("gopro.cli.data:data_app", name="data")
app.command("gopro.cli.cache:cache_app", name="cache")
app.command("gopro.cli.methods:methods_command", name="methods")
app.command("gopro.cli.demo:demo_command", name="demo")


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Bad input is one line on stderr and exit code 2, never a traceback."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    _sleep_rather_than_spin()
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(?!gopro)")
    warnings.filterwarnings("ignore", message="Image size")  # Pillow's on large images; gopro.data has its own limit
    warnings.formatwarning = lambda message, *_: err.wrapped(f"warning: {printable(str(message))}") + "\n"
    try:
        _use_config_file(tokens)
        if not tokens or tokens[0] in app.help_flags:
            app.resolved_commands()  # imports the modules, whose docstrings are the summaries in the list of commands
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except OtherRankFailed:
        sys.exit(2)
    except (InputError, cyclopts.CycloptsError) as error:
        err.print_line(f"error: {_describe(error)}", "red")
        sys.exit(2)
    except KeyboardInterrupt:
        err.print_line("interrupted: run the same command again to continue")
        sys.exit(130)


def _sleep_rather_than_spin() -> None:
    """Let torch's threads wait for each other asleep where a core is taken by something else.

    A thread of libgomp that has done its share of an operation spins 300,000 times, for milliseconds, and then sleeps.
    On idle cores the others finish long before that. But if the processes that read images, or other programs, hold a
    core that a thread of the same operation waits for, the rest of the cores spin all that time, in every operation:
    training for 80 steps took 62 s of processor time and 170 s on a machine with two busy cores, and with 1,000 spins,
    which libgomp takes itself where there are more threads than cores, 15 s and 45 s. libgomp reads this when torch is
    imported, later. A value that the user has set is kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _describe(error: Exception) -> str:
    """Say in one line what is wrong; for a number out of range in the words of `gopro.settings`."""
    if isinstance(error, cyclopts.ValidationError) and isinstance(error.__cause__, pydantic.ValidationError):
        return explain(error.argument.name, error.__cause__) if error.argument else str(error.__cause__)
    if isinstance(error, cyclopts.MissingArgumentError) and error.argument:
        command = " ".join(("gopro", *(error.command_chain or ())))
        name = error.argument.name
        if error.keyword is not None:
            return f"{error.keyword} needs a value: see {command} --help"
        if error.argument.index is None:
            return f"{name} is missing: add {name} {name.lstrip('-').upper()} (see {command} --help)"
        places, missing = _required_places(error), name.lstrip("-").upper()
        first = f"; the {places[0].lower()} comes first" if missing != places[0] else ""
        return f"{missing} is missing: type {command} {' '.join(places)}{first} (see {command} --help)"
    if isinstance(error, cyclopts.CoercionError) and error.token and (kinds := _kinds(error.target_type)):
        name = (error.token.keyword or (error.argument.name if error.argument else "")).strip("[]")
        place = f"{error.token.source}: " if error.token.source not in ("", "cli") else ""
        return f"{place}{name} is {kinds}, not {error.token.value!r}"
    return " ".join(line.strip() for line in str(error).splitlines())


def _kinds(hint: Any) -> str | None:
    """Say what a number may be, such as `a whole number or "all"`; None for a type without numbers."""
    options = get_args(hint) or (hint,)
    plain = [get_args(option)[0] if get_origin(option) is Annotated else option for option in options]
    numbers = [describe_type(option) for option in plain if option in (int, float)]
    words = [f'"{word}"' for option in plain if get_origin(option) is Literal for word in get_args(option)]
    return " or ".join(numbers + words) if numbers else None


def _required_places(error: cyclopts.MissingArgumentError) -> list[str]:
    """Return the names of the arguments that a command needs in their places: RUN, IMAGES."""
    _, (*_, command), _ = app.parse_commands(list(error.command_chain or ()))
    arguments = command.assemble_argument_collection()
    return [a.name.lstrip("-").upper() for a in arguments if a.index is not None and a.required]


def _use_config_file(tokens: list[str]) -> None:
    """Read the file that `--config FILE` names; its settings hold where no flag is given."""
    path = None
    for i, token in enumerate(tokens):
        if token == "--config" or token.startswith("--config="):
            path = Path(token.partition("=")[2] or (tokens[i + 1] if i + 1 < len(tokens) else ""))
    app.config = ()
    if path is None:
        return
    settings = read_config_file(path)
    commands, *_ = app.parse_commands(tokens)
    for command in reversed(commands):  # cyclopts looks a command's settings up below the command's name
        settings = {command: settings}
    app.config = (cyclopts.config.Dict(settings, source=str(path)),)
