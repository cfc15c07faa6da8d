"""The report: one HTML page that needs nothing but itself, and the tables and plots as files beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from gopro.benchmark.report import plots
from gopro.benchmark.report.accuracy import Cost, average_or, cost_plots, costs, dots, shot_curves
from gopro.benchmark.report.bootstrap import reference
from gopro.benchmark.report.cells import compared, pieces, signed
from gopro.benchmark.report.classes import Confusion, Gains, Matrix, confusions, gain_plots, gains, matrices, tests
from gopro.benchmark.report.experiment import Experiment, Group, groups
from gopro.benchmark.report.images import Card, cards
from gopro.benchmark.report.palette import DARK, LIGHT, Mark, marks
from gopro.benchmark.report.plots import Plots
from gopro.benchmark.report.summary import Headline, headlines
from gopro.benchmark.report.table import AVERAGE, Table
from gopro.benchmark.report.tables import tables
from gopro.benchmark.report.training_curves import learning_plots
from gopro.benchmark.report.write import write_tables
from gopro.data.dataset import Dataset
from gopro.files import write_atomically

NARROW = 4
"""Columns of figures up to which a table leaves room for a plot beside it."""


@dataclass(frozen=True)
class GroupView:
    """What the page shows of a group of evaluations; each part may be empty."""

    title: str
    methods: Sequence[str]
    gains: Sequence[Gains]
    gain_plots: Plots | None
    confusions: Sequence[Confusion]
    matrices: Sequence[Matrix]
    cards: Sequence[Card]
    figure: str
    costs: Sequence[Cost]
    cost_plots: Plots | None


def write_report(
    folder: Path, *, against: str | None = None, title: str | None = None, next_steps: Sequence[str] = ()
) -> Path:
    """Makes `report.html`, `tables.md`, `tables.tex` and `plots/` of a results folder, in it.

    The page has no script and asks for nothing outside itself. It appears whole or not at all. All text is escaped;
    what stands between backticks in `next_steps` is set as code, as a block where it is a line of its own among
    several. What there are no data for takes no room; what is missing or unlike is said at the page's end.

    Args:
        folder: what `gopro benchmark` wrote.
        against: the method that the others are compared with; by default `gopro`, where it was run.
        title: of the page; by default the protocols' names.
        next_steps: one sentence or command each.

    Returns: path of the page.

    Raises:
        InputError: the folder has no results or none of `against`, a file in it is broken, or it cannot be written to.
    """
    experiment = Experiment(folder)
    against = reference((row["method"] for row in experiment.rows), against)
    made = tables(experiment.rows, against)
    write_tables(folder, experiment.rows, against)
    mark = marks(row["method"] for row in experiment.rows)
    loaded: dict[str, Dataset | None] = {}
    views = [_view(experiment, group, mark, loaded) for group in groups(experiment.rows)]
    dotted = [None if table.protocol == "few-shot" else dots(table, mark) for table in made]
    curves = shot_curves(experiment.rows, mark)
    learning, unshown = learning_plots(experiment, mark)
    for part in (*dotted, *curves, *learning, *(v.gain_plots for v in views), *(v.cost_plots for v in views)):
        if part is not None:
            plots.save(part, folder / "plots")
    experiment.note_missing()
    salts = count()
    environment = _environment()
    environment.filters["inline"] = lambda panel: plots.inline(panel, f"p{next(salts)}")
    protocols = dict.fromkeys(table.title for table in made)
    html = environment.get_template("page.html").render(
        title=title or ("GOPro: " + ", ".join(name.lower() for name in protocols) if protocols else "GOPro"),
        summary=_summary(made),
        datasets=list(dict.fromkeys(row["data"] for row in experiment.rows)),
        backbones=list(dict.fromkeys(row["backbone"] for row in experiment.rows)),
        facts=_facts(experiment),
        tables=list(zip(made, dotted, strict=True)),
        curves=curves,
        learning=learning,
        unshown=unshown,
        views=views,
        failures=experiment.failures,
        history=experiment.history,
        notes=dict.fromkeys(experiment.notes),
        next_steps=next_steps,
        marks=mark,
        light=LIGHT,
        dark=DARK,
        AVERAGE=AVERAGE,
        NARROW=NARROW,
    )
    path = folder / "report.html"
    write_atomically(path, html.encode())
    return path


def _view(
    experiment: Experiment, group: Group, mark: Mapping[str, Mark], loaded: dict[str, Dataset | None]
) -> GroupView:
    tested = tests(experiment, group)
    gained = gains(tested, group.zeroshot)
    figure, cost = costs(group)
    return GroupView(
        title=group.title,
        methods=group.methods,
        gains=gained,
        gain_plots=gain_plots(group, gained, mark) if gained else None,
        confusions=confusions(tested),
        matrices=matrices(tested),
        cards=cards(experiment, group, loaded),
        figure=figure,
        costs=cost,
        cost_plots=cost_plots(group, figure, cost, mark) if cost else None,
    )


def _summary(made: Sequence[Table]) -> list[tuple[str, list[Headline]]]:
    """By protocol and setting."""
    return [(f"{table.title}, {table.setting}", found) for table in made if (found := headlines(table))]


def _facts(experiment: Experiment) -> dict[str, str]:
    """What was run, in figures."""
    rows = experiment.rows

    def distinct(key: str) -> list:
        return list(dict.fromkeys(row[key] for row in rows))

    seeds = [seed for seed in distinct("seed") if seed]
    facts = {
        "protocols": len(distinct("protocol")),
        "data sets": len(distinct("data")),
        "methods": len(distinct("method")),
        "backbones": len(distinct("backbone")),
        "seeds": len(seeds),
        "runs": len({row.get("run") for row in rows}),
        "evaluations": len(rows),
    }
    return {(name if number != 1 else name[:-1]): f"{number:,}" for name, number in facts.items() if number}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gopro.benchmark.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "code_spans": code_spans,
        "average_or": average_or,
        "signed": signed,
        "compared": compared,
        "when": _when,
    }
    environment.filters["breakable"] = lambda name: Markup("<wbr>").join(pieces(name))
    return environment


def _when(iso: str) -> str:
    """An ISO time as far as its minutes."""
    return str(iso)[:16].replace("T", " ")


def code_spans(text: str) -> Markup:
    """The text escaped, with `…` as <code>, in a block where it is a line of its own among several."""
    lines = text.splitlines()
    html = Markup()
    for line in lines:
        if len(lines) > 1 and (alone := re.fullmatch(r"\s*`([^`]+)`\s*", line)):
            html += Markup("<pre><code>{}</code></pre>").format(alone[1])
        else:
            for index, part in enumerate(re.split(r"`([^`]+)`", line)):
                html += Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
            html += "\n"
    return html
