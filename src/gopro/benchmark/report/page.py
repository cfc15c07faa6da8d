"""The report: one self-contained HTML page, with the tables and plots as files beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from gopro.benchmark.report.experiment import Comparison, Experiment, comparisons
from gopro.benchmark.report.images import Card, LoadedDatasets, cards
from gopro.benchmark.report.palette import DARK, LIGHT, Mark, marks, ours
from gopro.benchmark.report.per_class import (
    STEADY,
    Confusion,
    ConfusionMatrix,
    Gains,
    confusions,
    gain_plots,
    gains,
    matrices,
    paired_predictions,
)
from gopro.benchmark.report.plots import render
from gopro.benchmark.report.plots.accuracy import (
    MethodCost,
    cost_plots,
    display_title,
    dot_plots,
    method_costs,
    shot_curves,
)
from gopro.benchmark.report.plots.render import Plots
from gopro.benchmark.report.plots.training_curves import training_plots
from gopro.benchmark.report.summary import Headline, headlines
from gopro.benchmark.report.tables.bootstrap import reference
from gopro.benchmark.report.tables.grid import breakable_parts, difference_text, signed
from gopro.benchmark.report.tables.protocol_tables import tables
from gopro.benchmark.report.tables.ranked import ranked
from gopro.benchmark.report.tables.table import AVERAGE
from gopro.benchmark.report.tested_data import DataSize, tested_data
from gopro.benchmark.report.write import write_tables
from gopro.files import write_atomically
from gopro.inference.chance import chance_warnings

NARROW_COLUMNS = 4
"""Columns of figures up to which a table leaves room for a plot beside it."""


@dataclass(frozen=True)
class TableSummary:
    """The first screen's content on a table: its headlines, and what was tested on."""

    title: str
    headlines: Sequence[Headline]
    data: Sequence[DataSize]


@dataclass(frozen=True)
class ComparisonView:
    """The page's content on a comparison; each part may be empty."""

    title: str
    methods: Sequence[str]
    gains: Sequence[Gains]
    gain_plots: Plots | None
    confusions: Sequence[Confusion]
    matrices: Sequence[ConfusionMatrix]
    cards: Sequence[Card]
    cost_title: str
    costs: Sequence[MethodCost]
    cost_plots: Plots | None


def write_report(
    folder: Path,
    *,
    joined: Sequence[Path] = (),
    against: str | None = None,
    title: str | None = None,
    next_steps: Sequence[str] = (),
) -> Path:
    """Write `report.html`, `tables.md`, `tables.tex` and `plots/` into a results folder.

    The page has no script, loads nothing from elsewhere, and is written atomically. All text is escaped; text between
    backticks in `next_steps` becomes code, and a code block if it is one of several lines. Sections without data are
    left out, and notes at the end of the page name what is missing or inconsistent.

    Args:
        folder: the `--output` folder of `gopro benchmark`, into which the report is written.
        joined: folders whose results the report is on, in place of those in `folder`.
        against: the method to compare the others with; by default `gopro`, if it was run.
        title: title of the page; by default the protocols' names.
        next_steps: one sentence or command each.

    Returns:
        Path of the page.

    Raises:
        InputError: a folder has no results or none of `against`, a file in it is broken, or it is not writable; the
            results of joined folders were made with different settings.

    Example:
        >>> from gopro.benchmark.report.page import write_report
        >>> write_report(Path("runs/compare"), against="coop")  # doctest: +SKIP
        PosixPath('runs/compare/report.html')
    """
    experiment = Experiment(*(joined or (folder,)))
    against = reference((row["method"] for row in experiment.rows), against)
    built = [ranked(table) for table in tables(experiment.rows, against)]
    write_tables(folder, experiment.rows, against)
    mark_of = marks(row["method"] for row in experiment.rows)
    loaded: LoadedDatasets = {}
    views = [_view(experiment, comparison, mark_of, loaded) for comparison in comparisons(experiment.rows)]
    dots = [None if table.protocol == "few-shot" else dot_plots(table, mark_of) for table in built]
    curves = shot_curves(experiment.rows, mark_of)
    trainings, hidden_trainings = training_plots(experiment, mark_of)
    all_plots = (*dots, *curves, *trainings, *(v.gain_plots for v in views), *(v.cost_plots for v in views))
    for part in filter(None, all_plots):
        render.save(part, folder / "plots")
    experiment.note_missing_predictions()
    protocols = dict.fromkeys(table.title for table in built)
    html = (
        make_environment()
        .get_template("page.html")
        .render(
            title=title or ("GOPro: " + ", ".join(name.lower() for name in protocols) if protocols else "GOPro"),
            summary=[
                TableSummary(f"{table.title}, {table.setting}", lines, tested_data(experiment, table))
                for table in built
                if (lines := headlines(table))
            ],
            warnings=chance_warnings(experiment.rows, "--backbones"),
            facts=_facts(experiment),
            tables=list(zip(built, dots, strict=True)),
            curves=curves,
            trainings=trainings,
            hidden_trainings=hidden_trainings,
            views=views,
            failures=experiment.failures,
            history=experiment.history,
            notes=dict.fromkeys(experiment.notes),
            next_steps=next_steps,
            marks=mark_of,
            ours=ours(mark_of),
            light=LIGHT,
            dark=DARK,
            AVERAGE=AVERAGE,
            NARROW_COLUMNS=NARROW_COLUMNS,
            STEADY=f"{STEADY:g}",
        )
    )
    path = folder / "report.html"
    write_atomically(path, html.encode())
    return path


def _view(
    experiment: Experiment, comparison: Comparison, mark_of: Mapping[str, Mark], loaded: LoadedDatasets
) -> ComparisonView:
    pairs = paired_predictions(experiment, comparison)
    entries = sorted(gains(pairs, comparison.zeroshot), key=lambda entry: -entry.mean)
    cost_title, costs = method_costs(comparison)
    return ComparisonView(
        title=comparison.title,
        methods=comparison.methods,
        gains=entries,
        gain_plots=gain_plots(comparison, entries, mark_of) if entries else None,
        confusions=confusions(pairs),
        matrices=matrices(pairs),
        cards=cards(experiment, comparison, loaded),
        cost_title=cost_title,
        costs=costs,
        cost_plots=cost_plots(comparison, costs, mark_of) if costs else None,
    )


def _facts(experiment: Experiment) -> list[str]:
    """Count what was run, for the page's header; a single data set or backbone is named."""
    rows = experiment.rows
    counts = {
        "data set": {row["data"] for row in rows},
        "backbone": {row["backbone"] for row in rows},
        "method": {row["method"] for row in rows},
        "seed": {row["seed"] for row in rows} - {0},  # 0 stands for methods that are not trained
        "run": {row.get("run") for row in rows},
    }
    facts = []
    for name, values in counts.items():
        if name in ("data set", "backbone") and len(values) == 1:
            facts.append(f"{name} {values.pop()}")
        elif values:
            facts.append(f"{len(values):,} {name}{'' if len(values) == 1 else 's'}")
    return facts


def make_environment() -> jinja2.Environment:
    """Return the environment of the page's templates, with their filters."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gopro.benchmark.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    salts = count()
    environment.filters |= {
        "breakable": lambda name: Markup("<wbr>").join(breakable_parts(name)),
        "code_spans": code_spans,
        "difference_text": difference_text,
        "display_title": display_title,
        "inline": lambda panel: render.inline(panel, f"p{next(salts)}"),
        "minutes": lambda iso: str(iso)[:16].replace("T", " "),  # an ISO time without its seconds
        "signed": signed,
    }
    return environment


def code_spans(text: str) -> Markup:
    """Escape the text and set `…` as <code>, in a block if it is one of several lines."""
    lines = text.splitlines()
    html = Markup()
    for line in lines:
        if len(lines) > 1 and (code := re.fullmatch(r"\s*`([^`]+)`\s*", line)):
            html += Markup("<pre><code>{}</code></pre>").format(code[1])
        else:
            for index, part in enumerate(re.split(r"`([^`]+)`", line)):
                html += Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
            html += "\n"
    return html
