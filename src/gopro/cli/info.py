"""`gopro info`: what a run is."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from gopro.cli.console import out
from gopro.cli.parameters import ConfigFile, RunName


def info_command(run: RunName, *, config_file: ConfigFile = None) -> None:
    """Describe a run: method, data, classes, backbone, training, accuracies and calibration."""
    from gopro.runs.describe_run import describe_run
    from gopro.runs.load_run import find_run

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for topic, text in describe_run(find_run(run)).items():
        table.add_row(Text(topic), Text(text))
    out.print(table)
