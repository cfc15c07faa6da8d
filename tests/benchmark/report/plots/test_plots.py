"""Curves by shots and by training step, inline plots, and the marks of methods."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch

from gopro.benchmark.report.experiment import Experiment
from gopro.benchmark.report.page import write_report
from gopro.benchmark.report.palette import DARK, LIGHT, marks, ours
from gopro.benchmark.report.plots.accuracy import shot_curves
from gopro.benchmark.report.plots.render import Panel, inline, tooltip
from gopro.benchmark.report.plots.training_curves import TERM_TITLES, term_title, training_plots
from gopro.clip.backbone import Backbone
from gopro.errors import InputError
from gopro.methods.recipe import Training
from gopro.methods.registry import METHODS, build_method
from gopro.methods.tip_adapter import TipAdapterF
from tests.support.fake_sweep import result_row, write_results
from tests.support.methods import NAMES, TEMPLATE, encode_noise
from tests.support.report_page import drawn_lines

HOSTILE = """<img src=x onerror="alert('1')">&"""


def test_curves_over_shots_are_means_over_seeds_and_data_sets() -> None:
    rows = [
        result_row(data, "coop", "all", accuracy, protocol="few-shot", shots=shots, seed=seed)
        for data, shots, seed, accuracy in [
            *(("pets", 1, 1, 40), ("pets", 1, 2, 50), ("pets", 4, 1, 60), ("pets", 4, 2, 60)),
            *(("cars", 1, 1, 20), ("cars", 1, 2, 30), ("cars", 4, 1, 30)),  # seed 2 with 4 shots is missing
        ]
    ]
    rows += [
        result_row(data, "zeroshot", "all", value, protocol="few-shot") for data, value in (("pets", 30), ("cars", 10))
    ]
    [plots] = shot_curves(rows, marks(["zeroshot", "coop"]))
    assert [panel.title for panel in plots.panels] == ["Average", "pets", "cars"]
    drawn = drawn_lines(plots.panels[0])
    assert ([1.0, 4.0], [35.0, 45.0]) in drawn
    assert [ys for _, ys in drawn if ys == [20.0, 20.0]]  # zero-shot CLIP, a level line
    assert ([1.0, 4.0], [45.0, 60.0]) in drawn_lines(plots.panels[1])


def test_training_curves_are_means_over_seeds(tmp_path: Path) -> None:
    rows = [
        result_row("pets", "coop", "all", 50, protocol="few-shot", seed=seed, run=f"run{seed}") for seed in (1, 2, 3)
    ]
    for seed in (1, 2, 3):
        folder = tmp_path / "runs" / f"run{seed}"
        folder.mkdir(parents=True)
        steps = 4 if seed < 3 else 2  # the third has other settings and so fewer steps
        log = [f"0,{step},0.1,{step * seed},{step * seed},{50 if step == 4 else ''},1" for step in range(1, steps + 1)]
        (folder / "log.csv").write_text("\n".join(["epoch,step,lr,total,ce,val,seconds", *log]), encoding="utf-8")
    experiment = Experiment(write_results(tmp_path, rows))
    [plots], unshown = training_plots(experiment, marks(["coop"]))
    assert unshown == 0
    assert experiment.notes == ["run3 has another number of steps than run1, so it is left out of the training curves."]
    # A single loss term is the total, which is not drawn twice.
    assert [panel.title for panel in plots.panels] == ["Cross-entropy", "Validation accuracy, %"]
    assert drawn_lines(plots.panels[0]) == [([1, 2, 3, 4], [1.5, 3, 4.5, 6])]
    assert drawn_lines(plots.panels[1]) == [([4], [50])]
    (tmp_path / "runs" / "run1" / "log.csv").write_text("epoch,step\n0,one\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"log\.csv is not the log of a run"):
        write_report(tmp_path)


def test_an_inline_plot_has_the_colours_of_the_page_and_tooltips() -> None:
    def draw(axes: Any) -> None:
        [line] = axes.plot([0, 1], [0.00125, 0.0025], color=LIGHT["m2"])
        line.set_gid(tooltip(HOSTILE))
        axes.set_yticks([0.00125, 0.0025], ["0.00125", "#3446c4"])

    svg = str(inline(Panel(HOSTILE, draw), "a"))
    root = ElementTree.fromstring(svg)
    assert [element.text for element in root.iter("title")] == [HOSTILE]
    assert root.attrib["aria-label"] == HOSTILE
    # Colours in styles are the page's; text is left as it is.
    assert "var(--m2)" in svg
    assert not [style for style in re.findall(r'style="([^"]*)"', svg) if "#" in style]
    assert {"0.00125", "#3446c4"} <= {element.text for element in root.iter("text")}
    assert not {"width", "height"} & set(root.attrib)
    ids = re.findall(r' id="([^"]+)"', svg)
    assert not set(ids) & set(re.findall(r' id="([^"]+)"', str(inline(Panel("", draw), "b"))))


def test_methods_differ_in_colour_and_shape() -> None:
    methods = ["coop", "zeroshot", *METHODS, *(f"gopro[con={index}]" for index in range(49))]
    methods += [f"own{index}" for index in range(34)]
    mark_of = marks(iter(methods))
    assert len(set(mark_of.values())) == len(mark_of) == len(set(methods))
    assert mark_of["zeroshot"].colour == 0
    assert all(mark_of[method].colour for method in methods if method != "zeroshot")
    assert len(set(LIGHT.values())) == len(LIGHT)
    assert LIGHT.keys() == DARK.keys()


def test_a_method_has_the_same_mark_in_every_report() -> None:
    everything = marks(METHODS)
    for methods in (["gopro", "coop"], ["coop", "my-own", "gopro", "zeroshot"], ["zeroshot[ensemble=80]", "gopro"]):
        mark_of = marks(methods)
        assert all(mark_of[method] == everything[method] for method in methods if method in METHODS)
    alone = {method: marks([method])[method] for method in ("gopro[con=0]", "my-own")}
    assert marks(["zeroshot", "my-own", "slip", "gopro[con=0]", "gopro"]).items() >= alone.items()
    assert alone["gopro[con=0]"].colour == everything["gopro"].colour  # of one family, but hollow
    assert alone["gopro[con=0]"].hollow and not everything["gopro"].hollow


def test_gopro_is_set_off() -> None:
    assert ours(["zeroshot", "gopro", "gopro[con=0]", "gopro-paper"]) == {"gopro"}
    assert ours(["zeroshot", "gopro[con=0]"]) == {"gopro[con=0]"}
    assert ours(["zeroshot", "coop"]) == set()


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if Training.STEPS in kind.trained_by])
def test_every_loss_has_a_title_in_words(name: str, tiny: Backbone) -> None:
    method = build_method(name, tiny, NAMES, TEMPLATE).train()
    if isinstance(method, TipAdapterF):
        method.solve(lambda draws: [encode_noise(tiny, len(NAMES))], torch.arange(len(NAMES)))
    losses = method.losses(encode_noise(method, len(method.views), 4), torch.arange(4))
    titles = [TERM_TITLES[term] for term in losses]
    assert len(set(titles)) == len(titles)  # two terms of one method never share a panel


def test_a_loss_of_somebodys_own_method_is_shown_in_words() -> None:
    assert term_title("my_own_term") == "My own term"
