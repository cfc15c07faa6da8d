"""The report on a results folder: its content, missing parts, and the page in a real browser."""

from __future__ import annotations

import csv
import html.parser
import json
import random
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from playwright.sync_api import Browser, Page

from gopro.benchmark.predictions import Predictions
from gopro.benchmark.report import per_class
from gopro.benchmark.report.accuracy import shot_curves
from gopro.benchmark.report.experiment import Experiment
from gopro.benchmark.report.mean_std import MeanStd
from gopro.benchmark.report.page import write_report
from gopro.benchmark.report.palette import LIGHT, marks
from gopro.benchmark.report.plots import Panel, inline, tooltip
from gopro.benchmark.report.summary import Headline
from gopro.benchmark.report.training_curves import POINTS, training_plots
from gopro.benchmark.runner import benchmark
from gopro.data.dataset import ClassHalf, Dataset
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.files import slug, write_json
from gopro.runs.config import BenchmarkConfig, TrainConfig
from tests.support.browser import LOW_CONTRAST

HOSTILE = """<img src=x onerror="alert('1')">&"""
ACCURACY = {"zeroshot": 0.45, "coop": 0.55, "gopro": 0.6}
NEXT = ["Put them into one folder a class.", "Train:\n`gopro train --data folder --root " + "x" * 99 + "`"]


class FakeSweep:
    """A results folder with made-up predictions on real data sets, in the files that a sweep writes."""

    def __init__(self, folder: Path, methods: dict[str, float] = ACCURACY, seeds: Sequence[int] = (1, 2, 3)):
        self.folder, self.methods, self.seeds = folder, methods, seeds
        self.rows: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def runs(
        self, protocol: str, source: str, tests: Sequence[tuple[Dataset, str, ClassHalf]], shots: int, backbone="emoji"
    ) -> None:
        """Add each method's runs on `source`; `tests` are a data set, the name that loads it, and classes."""
        for place, (method, skill) in enumerate(self.methods.items()):
            learns = method.split("[")[0] != "zeroshot"
            known = {(row["protocol"], row["source"], row["method"], row["backbone"]) for row in self.rows}
            if not learns and (protocol, source, method, backbone) in known:
                continue
            for seed in self.seeds if learns else [0]:
                name = slug(f"{backbone}-{source}-{method}-{shots * learns}shots-seed{seed}-{protocol}")
                run = self.folder / "runs" / name
                run.mkdir(parents=True, exist_ok=True)
                config = TrainConfig(data=tests[0][1], output=run, method=method, shots=shots * learns, seed=seed)
                content = {"config": config.to_json(), "data": source, "template": "{}", "classnames": []}
                write_json(run / "config.json", {**content, "backbone": {"name": backbone, "fingerprint": ""}})
                if learns:
                    log(run / "log.csv", seed, 1 + place % 3)
                cost = {"train_seconds": 40.0 * place * learns, "peak_memory_mib": 700.0 + 90 * place}
                cost |= {"parameters": 512 * 4**place * learns, "seconds": 1.0, "run": name}
                for dataset, asked, classes in tests:
                    part = dataset.half(classes)
                    gain = (skill - 0.45) * (1 + shots / 16) / 2 * (0.2 if classes == "new" else 1)
                    predictions = made_up(part, asked, classes, 0.45 + gain, f"{method}{seed}{shots}", method)
                    predictions.save(run / f"test-{slug(dataset.name)}-{classes}.safetensors")
                    right = (predictions.top[:, 0] == predictions.labels).float().mean().item()
                    key = {"protocol": protocol, "source": source, "data": dataset.name, "method": method}
                    key |= {"backbone": backbone, "shots": shots * learns, "seed": seed, "classes": classes}
                    row = {**key, "accuracy": 100 * right, "macro_accuracy": 100 * right, "n": len(predictions.labels)}
                    self.rows.append({**row, **cost})

    def write(self, **files: list[dict[str, Any]]) -> Path:
        """Write the rows, and other files of JSON lines."""
        for name, lines in {"results": self.rows, **files}.items():
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (self.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        return self.folder


def log(path: Path, seed: int, terms: int) -> None:
    """Write a log of 4 epochs of 25 steps with the first `terms` loss terms."""
    rng = random.Random(seed)
    names = ["ce", "con", "sem"][:terms]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "lr", "total", *names, "val", "seconds"])
        for step in range(100):
            losses = [(3 - index) * 0.97**step + 0.2 * rng.random() for index in range(len(names))]
            val = f"{50 + step / 5 + 5 * rng.random():.2f}" if step % 25 == 24 else ""
            writer.writerow([step // 25, step + 1, 0.002, sum(losses), *losses, val, step / 10])


def made_up(part: Dataset, asked: str, classes: str, accuracy: float, seed: str, method: str) -> Predictions:
    """Predict with about this accuracy, higher on some classes than on others; wrong labels are nearby classes."""
    rng = random.Random(seed)
    count = len(part.classnames)
    ease = [min(1.0, max(0.0, accuracy + random.Random(f"{name}{method}").gauss(0, 0.2))) for name in part.classnames]
    top, probability = [], []
    for sample in part.test:
        near = [(sample.label + step) % count for step in range(1, min(5, count))]
        guesses = [sample.label, *near] if rng.random() < ease[sample.label] else [near[0], sample.label, *near[1:]]
        shares = sorted((rng.random() ** 3 for _ in guesses), reverse=True)
        top.append(guesses)
        probability.append([share / sum(shares) for share in shares])
    labels = torch.tensor([sample.label for sample in part.test])
    return Predictions(asked, classes, part.classnames, labels, torch.tensor(top), torch.tensor(probability))


def own_images(folder: Path, names: Sequence[str] = ("apple", "bicycle", "cat", "dog", "elephant", "fig tree")) -> str:
    """Write a folder of classes with two training and four test images each, 640 by 400 pixels; return its path."""
    for number, name in enumerate(names):
        for split, count in {"train": 2, "test": 4}.items():
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                image = Image.new("RGB", (640, 400), (40 * number, 200 - 30 * number, 60 * index))
                image.save(folder / split / name / f"{index}.png")
    return str(folder)


def all_protocols(folder: Path, methods: dict[str, float] = ACCURACY) -> Path:
    """Write a results folder of all four protocols, on embedded data sets and on a folder of images."""
    sweep = FakeSweep(folder / "results", methods)
    own = own_images(folder / "own")
    sets = {name: load_dataset(name) for name in ("emoji-activities", "emoji-food:noto", own)}
    for name, dataset in sets.items():
        sweep.runs("base-to-new", dataset.name, [(dataset, name, "base"), (dataset, name, "new")], 16)
        for shots in (1, 4, 16):
            sweep.runs("few-shot", dataset.name, [(dataset, name, "all")], shots)
    tests: list[tuple[Dataset, str, ClassHalf]] = [(dataset, name, "all") for name, dataset in sets.items()]
    sweep.runs("cross-dataset", tests[0][0].name, tests, 16)
    styles = [f"emoji-activities:{style}" for style in ("noto", "openmoji", "high-contrast")]
    sweep.runs("domain-generalization", styles[0], [(load_dataset(style), style, "all") for style in styles], 16)
    like = {"protocol": "base-to-new", "source": "own", "backbone": "emoji", "shots": 16, "seed": 4, "method": "maple"}
    failures = [
        {**like, "run": "emoji-own-base-maple", "error": "the loss is not finite: use a lower --lr"},
        {**sweep.rows[-1], "error": "it has succeeded since"},
    ]
    call = {"machine": "a processor, 2 cores", "versions": "gopro 0.1.0, torch 2.6.0"}
    calls = [
        {**call, "when": f"2026-01-0{day}T10:00:00+00:00", "command": f"gopro benchmark few-shot --seeds {day}"}
        for day in (1, 2)
    ]
    return sweep.write(failures=failures, history=calls)


class ParsedPage(html.parser.HTMLParser):
    """The elements of a page with their attributes, the text of each section by its id, and all text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self.sections[dict(attrs)["id"] or ""] = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.sections:
            self.sections[list(self.sections)[-1]] += data


def collapsed(text: str) -> str:
    """Return the text with each run of white space as one space."""
    return re.sub(r"\s+", " ", text)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a report on all protocols."""
    methods = {**ACCURACY, "gopro[con=0.1;sem=2;projectors=none]": 0.5}
    return write_report(all_protocols(tmp_path_factory.mktemp("all"), methods), next_steps=NEXT)


SECTIONS = ["summary", "results", "shots", "training", "gains", "confusions", "images", "cost", "failures"]
SECTIONS += ["next", "made"]


def test_a_complete_report_has_every_section_and_no_notes(everything: Path) -> None:
    page = ParsedPage(everything)
    assert list(page.sections) == SECTIONS
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == [f"#{section}" for section in SECTIONS]
    for title in ("Base to new", "Cross-dataset", "Domain generalization", "Few-shot"):
        for section in ("summary", "results", "gains", "confusions", "images", "cost"):
            assert title in page.sections[section], (title, section)


def test_page_loads_nothing_from_elsewhere(everything: Path) -> None:
    page = ParsedPage(everything)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "iframe", "object", "embed", "base"})
    for tag, attributes in page.elements:
        for name in ("src", "srcset", "poster", "data", *(["href"] if tag != "a" else [])):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
        assert (attributes.get("xlink:href") or "#").startswith("#")
    text = everything.read_text(encoding="utf-8")
    assert re.findall(r"url\((?!#)", text) == []
    assert "@import" not in text
    assert len(text) < 1_000_000


def test_tables_and_plots_are_saved_as_files(everything: Path) -> None:
    assert (everything.parent / "tables.md").is_file()
    assert (everything.parent / "tables.tex").is_file()
    stems = {path.stem for path in (everything.parent / "plots").iterdir()}
    assert {stem.partition("-emoji")[0] for stem in stems} >= {
        *("base-to-new", "cross-dataset", "domain-generalization", "few-shot", "training"),
        *("gains-base-to-new", "cost-few-shot"),
    }
    for stem in stems:
        with Image.open(everything.parent / "plots" / f"{stem}.png") as image:
            assert image.width > 400
        assert ElementTree.parse(everything.parent / "plots" / f"{stem}.svg").getroot().tag.endswith("svg")
    named = set(re.findall(r"plots/([^<]+)\.png", everything.read_text(encoding="utf-8")))
    assert named
    assert named <= stems


def test_the_same_folder_gives_the_same_page(everything: Path) -> None:
    before = everything.read_bytes()
    assert write_report(everything.parent, next_steps=NEXT).read_bytes() == before


def test_all_text_from_files_is_escaped(tmp_path: Path) -> None:
    own = load_dataset(own_images(tmp_path / "own", [HOSTILE, "bee", f"c{HOSTILE}", "$d$"]))
    asked, own = str(tmp_path / "own"), replace(own, name=HOSTILE)
    sweep = FakeSweep(tmp_path / "results", {"zeroshot": 0.4, f"gopro[{HOSTILE}]": 0.6, "$x^": 0.5})
    sweep.runs("few-shot", HOSTILE, [(own, asked, "all")], 2, HOSTILE)
    sweep.runs("base-to-new", HOSTILE, [(own, asked, "base"), (own, asked, "new")], 2, HOSTILE)
    sweep.runs("cross-dataset", HOSTILE, [(own, asked, "all"), (replace(own, name="b"), asked, "all")], 2, HOSTILE)
    failure = {"run": HOSTILE, "protocol": HOSTILE, "source": HOSTILE, "method": HOSTILE, "backbone": HOSTILE}
    failure |= {"shots": 1, "seed": 1, "error": HOSTILE, "traceback": HOSTILE, "when": HOSTILE}
    call = dict.fromkeys(("when", "command", "machine", "versions"), HOSTILE)
    folder = sweep.write(failures=[failure], history=[call])
    steps = [HOSTILE, f"{HOSTILE}\n`{HOSTILE}`"]
    page = ParsedPage(write_report(folder, against=f"gopro[{HOSTILE}]", title=HOSTILE, next_steps=steps))
    assert page.sections["results"].count(f"Difference to gopro[{HOSTILE}]") == 3
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    sources = [str(attributes["src"]) for tag, attributes in page.elements if tag == "img"]
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    for section in set(SECTIONS) - {"notes"}:
        assert HOSTILE in page.sections[section], section


def test_a_real_sweep_is_reported(tmp_path: Path) -> None:
    own = own_images(tmp_path / "own", ["apple", "bicycle", "cat", "dog"])
    config = BenchmarkConfig(
        data=(own,),
        output=tmp_path / "out",
        methods=("zeroshot", "coop"),
        shots=(1,),
        seeds=(1, 2),
        epochs=2,
        workers=0,
    )
    outcome = benchmark("base-to-new", config, command="gopro benchmark base-to-new")
    page = ParsedPage(write_report(config.output))
    assert set(SECTIONS) - set(page.sections) == {"shots", "failures", "next"}
    assert "notes" not in page.sections
    assert "gopro benchmark base-to-new" in page.sections["made"]
    for row in outcome.rows:
        if row["method"] == "zeroshot":
            assert f"{row['accuracy']:.2f}" in page.sections["results"]


def sentence(*methods: tuple[str, MeanStd]) -> str:
    return Headline("harmonic mean", "my-photos", methods).sentence()


def test_summary_names_the_best_method_and_its_lead() -> None:
    zeroshot = ("zeroshot", MeanStd(50, None, 1))
    clear = sentence(("gopro", MeanStd(70, 1, 3)), ("coop", MeanStd(65.5, 1, 3)), zeroshot)
    assert clear == (
        "`gopro` is best on my-photos: 70.0 % harmonic mean, 4.5 points above `coop`. Zero-shot CLIP has 50.0 %, 20.0 "
        "points less."
    )
    # The difference of two means with standard deviations of 1 has one of √2.
    assert "no clear winner" in sentence(("gopro", MeanStd(70, 1, 3)), ("coop", MeanStd(68.6, 1, 3)))
    assert "no clear winner" not in sentence(("gopro", MeanStd(70, 1, 3)), ("coop", MeanStd(68.5, 1, 3)))
    assert "This is one seed each" in sentence(("gopro", MeanStd(70, None, 1)), ("coop", MeanStd(60, None, 1)))
    assert "level" in sentence(("gopro", MeanStd(70.001, 1, 3)), ("coop", MeanStd(70.0, 1, 3)))
    assert "No trained method is better than zero-shot CLIP" in sentence(zeroshot, ("coop", MeanStd(40, 1, 3)))
    # Zero-shot CLIP is the one with the plain prompt, and it is named once.
    ensemble = ("zeroshot[ensemble=80]", MeanStd(55, None, 1))
    assert "Zero-shot CLIP has 50.0 %" in sentence(
        ("gopro", MeanStd(70, 1, 3)), ("coop", MeanStd(60, 1, 3)), ensemble, zeroshot
    )
    assert "Zero-shot CLIP has" not in sentence(ensemble, zeroshot, ("coop", MeanStd(40, 1, 3)))
    assert "Zero-shot CLIP has" not in sentence(ensemble, ("coop", MeanStd(52, 1, 3)), zeroshot)
    assert "the only method that was run" in sentence(zeroshot)


def test_summary_ranks_by_the_measure_of_each_protocol(everything: Path) -> None:
    text = collapsed(ParsedPage(everything).sections["summary"])
    measures = re.findall(
        r"is best on (average over [^:]*): [\d.]+ % (harmonic mean \(base|accuracy(?: with 16 shots)?)", text
    )
    assert measures == [
        ("average over 3 data sets", "harmonic mean (base"),
        ("average over the targets", "accuracy"),
        ("average over the targets", "accuracy"),
        ("average over 3 data sets", "accuracy with 16 shots"),
    ]


def test_differences_to_one_method_are_below_each_table(everything: Path) -> None:
    page = ParsedPage(everything)
    text = collapsed(page.sections["results"])
    assert text.count("Difference to gopro Each method's average minus that of gopro") == 4
    figure = r"[+−]\d+\.\d\d \[[+−]\d+\.\d\d, [+−]\d+\.\d\d\] "
    for method in ("zeroshot", "coop", r"gopro\[con=0\.1;sem=2;projectors=none\]"):
        assert len(re.findall(rf"{method} ({figure}){{3}}", text)) == 2  # base, new, HM; 1, 4 and 16 shots
        assert len(re.findall(rf"{method} {figure}", text)) == 4
    text = everything.read_text(encoding="utf-8")
    significant = re.findall(r"<strong>([+−])\d+\.\d\d</strong> <small>\[([+−])[^,]+, ([+−])", text)
    assert significant and all(len(set(signs)) == 1 for signs in significant)


def test_the_method_to_compare_with_can_be_chosen(tmp_path: Path) -> None:
    sweep, _ = few_shot_sweep(tmp_path)
    text = collapsed(ParsedPage(write_report(sweep.write(), against="zeroshot")).sections["results"])
    assert "Difference to zeroshot" in text
    assert "Difference to zeroshot" in (sweep.folder / "tables.tex").read_text(encoding="utf-8")
    before = (sweep.folder / "report.html").read_bytes()
    with pytest.raises(InputError, match=r"against maple: it is not among the methods, zeroshot, coop, gopro;"):
        write_report(sweep.folder, against="maple")
    assert (sweep.folder / "report.html").read_bytes() == before


def row(data: str, method: str, classes: str, accuracy: float, **other: Any) -> dict[str, Any]:
    learns = method != "zeroshot"
    found = {"protocol": "base-to-new", "source": data, "data": data, "method": method, "backbone": "ViT-B-16:openai"}
    found |= {"shots": 16 * learns, "seed": int(learns), "classes": classes, "accuracy": accuracy}
    return {**found, **other}


def written(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows), encoding="utf-8")
    return folder


def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    rows = [row("eurosat", "coop", "base", 93.19), row("eurosat", "coop", "new", 50.0)]
    page = ParsedPage(write_report(written(tmp_path, rows)))
    text = collapsed(page.sections["results"])
    assert re.search(r"93\.19 ?paper 92\.19 \+1\.00", text)  # CoOp's Base on EuroSAT, as published
    assert re.search(r"50\.00 ?paper 54\.74 −4\.74", text)
    assert re.search(r"GOPro published", text)
    assert ("tr", {"class": "published"}) in page.elements
    assert ("span", {"class": "up"}) in page.elements
    assert ("span", {"class": "down"}) in page.elements


def test_rows_without_runs_give_summary_and_results_alone(tmp_path: Path) -> None:
    rows = [row("pets", method, half, 50) for method in ("zeroshot", "coop") for half in ("base", "new")]
    assert list(ParsedPage(write_report(written(tmp_path, rows))).sections) == ["summary", "results"]
    assert list(ParsedPage(write_report(written(tmp_path, rows[:2]))).sections) == ["summary", "results"]
    assert list(ParsedPage(write_report(written(tmp_path, []))).sections) == []


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no results\.jsonl"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["failures", "history"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    written(tmp_path, [row("pets", "coop", "base", 50)])
    (tmp_path / f"{name}.jsonl").write_text('{"run": 1}\n', encoding="utf-8")
    with pytest.raises(InputError, match=f"{name}.jsonl, line 1") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)


def few_shot_sweep(folder: Path) -> tuple[FakeSweep, Dataset]:
    """Return a few-shot sweep on a folder of images, and the data set."""
    asked = own_images(folder / "own")
    sweep, own = FakeSweep(folder / "results"), load_dataset(asked)
    sweep.runs("few-shot", own.name, [(own, asked, "all")], 2)
    return sweep, own


def test_page_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    sweep, _ = few_shot_sweep(tmp_path)
    path = write_report(sweep.write())
    before = path.read_bytes()
    broken = next((sweep.folder / "runs").glob("*gopro*/test-*"))
    broken.write_bytes(b"no predictions")
    with pytest.raises(InputError, match=re.escape(str(broken))):
        write_report(sweep.folder)
    assert path.read_bytes() == before
    assert not [entry.name for entry in sweep.folder.iterdir() if entry.name.startswith(".")]


def test_missing_predictions_are_noted(tmp_path: Path) -> None:
    sweep, _ = few_shot_sweep(tmp_path)
    for path in (sweep.folder / "runs").glob("*coop*/test-*"):
        path.unlink()
    page = ParsedPage(write_report(sweep.write()))
    assert "3 of 7 prediction files are missing" in collapsed(page.sections["notes"])
    assert "coop" not in page.sections["gains"]
    assert "coop" in page.sections["results"]


def test_changed_and_missing_images_are_noted(tmp_path: Path) -> None:
    sweep, own = few_shot_sweep(tmp_path)
    assert "images" in ParsedPage(write_report(sweep.write())).sections
    (tmp_path / "own" / "test" / "apple" / "0.png").unlink()
    page = ParsedPage(write_report(sweep.folder))
    assert "images" not in page.sections
    assert f"{own.name} has changed since" in collapsed(page.sections["notes"])
    shutil.rmtree(tmp_path / "own")
    page = ParsedPage(write_report(sweep.folder))
    assert "images" not in page.sections
    assert f"No images of {own.name} are shown" in collapsed(page.sections["notes"])
    assert "gains" in page.sections


def test_example_images_fit_their_reason(everything: Path) -> None:
    text = collapsed(everything.read_text(encoding="utf-8"))
    found = re.findall(r'<p class="reason">(.*?)</p>(.*?)</article>', text)
    assert len({reason for reason, _ in found}) >= 6
    for reason, card in found:
        verdicts = dict(re.findall(r'</span>([^<]+)</h5> <div class="guess (right|wrong)">', card))
        for part in re.split(r", ", reason):
            method, verdict = part.rsplit(" ", 1)
            own = verdicts.values() if method == "all methods" else [verdicts[method]]
            assert set(own) == {verdict}, (reason, verdicts)


def test_failures_that_have_succeeded_since_are_left_out(tmp_path: Path) -> None:
    rows = [row("pets", "coop", half, 50, seed=seed, run=f"run{seed}") for seed in (1, 2) for half in ("base", "new")]
    names = ("protocol", "source", "method", "backbone", "shots", "seed", "run")
    failures = [{**{name: entry[name] for name in names}, "error": "out of memory"} for entry in rows]
    written(tmp_path, rows[:3])  # run2 lacks its new half
    text = "".join(json.dumps(failure) + "\n" for failure in failures)
    (tmp_path / "failures.jsonl").write_text(text, encoding="utf-8")
    assert [failure["run"] for failure in Experiment(tmp_path).failures] == ["run2"]
    assert "run2" in ParsedPage(write_report(tmp_path)).sections["failures"]
    assert "run1" not in ParsedPage(write_report(tmp_path)).sections["failures"]
    assert Experiment(written(tmp_path, rows)).failures == []
    assert "failures" not in ParsedPage(write_report(tmp_path)).sections


def predicted(labels: Sequence[int], classes: Sequence[int]) -> Predictions:
    top = torch.tensor(classes)[:, None]
    return Predictions("pets", "all", ("ant", "bee", "cat", "dog"), torch.tensor(labels), top, torch.ones(len(top), 1))


def test_gains_and_confusions_by_hand() -> None:
    labels = [0, 0, 0, 0, 1, 1, 2]  # no image of a dog
    methods = {
        "zeroshot": [predicted(labels, [0, 1, 1, 1, 1, 1, 0])],
        "coop": [predicted(labels, [0, 0, 0, 1, 0, 1, 0]), predicted(labels, [0, 0, 0, 0, 0, 1, 0])],
    }
    test = per_class.PairedPredictions("pets", ("ant", "bee", "cat", "dog"), torch.tensor(labels), methods)
    [gained] = per_class.gains([test], "zeroshot")
    # Ants: 25 % to the mean of 75 % and 100 %; bees: 100 % to 50 %; the cat is never right.
    assert [(entry.name, entry.gain, entry.images) for entry in gained.classes] == [
        ("ant", 62.5, 4),
        ("bee", -50, 2),
        ("cat", 0, 1),
    ]
    assert gained.mean == pytest.approx(12.5 / 3)
    assert [gained.share(sign) for sign in (1, 0, -1)] == pytest.approx([100 / 3] * 3)
    assert [entry.name for entry in gained.largest_gains] == ["ant"]
    assert [entry.name for entry in gained.largest_losses] == ["bee"]
    assert per_class.gains([test], None) == []
    found = [(entry.truth, entry.label, entry.images, entry.counts) for entry in per_class.confusions([test])]
    assert found == [
        ("cat", "ant", 1, {"zeroshot": 1, "coop": 1}),
        ("ant", "bee", 4, {"zeroshot": 3, "coop": 0.5}),
        ("bee", "ant", 2, {"zeroshot": 0, "coop": 1}),
    ]
    [matrix] = per_class.matrices([test])
    assert matrix.methods["coop"].tolist() == [[87.5, 12.5, 0, 0], [50, 50, 0, 0], [100, 0, 0, 0], [0, 0, 0, 0]]


def lines(panel: Panel) -> list[tuple[list[float], list[float]]]:
    """The x and y of each line that a panel draws."""
    axes = Figure().add_subplot()
    panel.draw(axes)
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in axes.get_lines()]


def test_curves_over_shots_are_means_over_seeds_and_data_sets() -> None:
    rows = [
        row(data, "coop", "all", accuracy, protocol="few-shot", shots=shots, seed=seed)
        for data, shots, seed, accuracy in [
            *(("pets", 1, 1, 40), ("pets", 1, 2, 50), ("pets", 4, 1, 60), ("pets", 4, 2, 60)),
            *(("cars", 1, 1, 20), ("cars", 1, 2, 30), ("cars", 4, 1, 30)),  # seed 2 with 4 shots is missing
        ]
    ]
    rows += [row(data, "zeroshot", "all", value, protocol="few-shot") for data, value in (("pets", 30), ("cars", 10))]
    [plots] = shot_curves(rows, marks(["zeroshot", "coop"]))
    assert [panel.title for panel in plots.panels] == ["Average", "pets", "cars"]
    drawn = lines(plots.panels[0])
    assert ([1.0, 4.0], [35.0, 45.0]) in drawn
    assert [ys for _, ys in drawn if ys == [20.0, 20.0]]  # zero-shot CLIP, a level line
    assert ([1.0, 4.0], [45.0, 60.0]) in lines(plots.panels[1])


def test_training_curves_are_means_over_seeds(tmp_path: Path) -> None:
    rows = [row("pets", "coop", "all", 50, protocol="few-shot", seed=seed, run=f"run{seed}") for seed in (1, 2, 3)]
    for seed in (1, 2, 3):
        folder = tmp_path / "runs" / f"run{seed}"
        folder.mkdir(parents=True)
        steps = 4 if seed < 3 else 2  # the third has other settings and so fewer steps
        log = [f"0,{step},0.1,{step * seed},{step * seed},{50 if step == 4 else ''},1" for step in range(1, steps + 1)]
        (folder / "log.csv").write_text("\n".join(["epoch,step,lr,total,ce,val,seconds", *log]), encoding="utf-8")
    experiment = Experiment(written(tmp_path, rows))
    [plots], unshown = training_plots(experiment, marks(["coop"]))
    assert unshown == 0
    assert experiment.notes == ["run3 has another number of steps than run1, so it is left out of the training curves."]
    # A single loss term is the total, which is not drawn twice.
    assert [panel.title for panel in plots.panels] == ["Cross-entropy", "Validation accuracy, %"]
    assert lines(plots.panels[0]) == [([1, 2, 3, 4], [1.5, 3, 4.5, 6])]
    assert lines(plots.panels[1]) == [([4], [50])]
    (tmp_path / "runs" / "run1" / "log.csv").write_text("epoch,step\n0,one\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"log\.csv is not the log of a run"):
        write_report(tmp_path)


def test_training_curves_are_few_and_short(everything: Path) -> None:
    experiment = Experiment(everything.parent)
    found, unshown = training_plots(experiment, marks(entry["method"] for entry in experiment.rows))
    assert (len(found), unshown) == (3, 10)  # of 3 base-to-new, 9 few-shot, and 1 more of domain generalization
    assert {"base", "all"} <= {word for plots in found for word in plots.title.replace(",", "").split()}
    assert all(len(xs) <= POINTS for plots in found for panel in plots.panels for xs, _ in lines(panel))


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
    methods = ["coop", "zeroshot", *(f"gopro[con={index}]" for index in range(40))]
    found = marks(iter(methods))
    assert len(set(found.values())) == len(methods)
    assert found["zeroshot"].colour == 0
    assert all(found[method].colour for method in methods if method != "zeroshot")
    assert len(set(LIGHT.values())) == len(LIGHT)


def opened(browser: Browser, path: Path, width: int, scheme: Any) -> tuple[Page, list[str]]:
    """Return the page with all details open, and its console messages, errors and requests."""
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: request.url.startswith("data:") or trouble.append(request.url))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    return page, trouble


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_in_a_browser(browser: Browser, everything: Path, width: int, scheme: str) -> None:
    page, trouble = opened(browser, everything, width, scheme)
    assert trouble == [everything.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.images.length") >= 15
    # Right and wrong are shown by a mark and by words, not by colour alone.
    assert page.locator(".guess.wrong .mark").first.inner_text() == "✗"
    assert page.locator(".guess.right .name").first.text_content().endswith(", right")  # type: ignore[union-attr]
    # A table that is too wide scrolls within its box and keeps its first column in view; nothing else is cut off.
    assert page.evaluate("[...document.querySelectorAll('td')].every(cell => cell.scrollWidth <= cell.clientWidth)")
    cut = page.evaluate(
        """[...document.querySelectorAll('h1, h2, h3, h4, h5, p, li, summary, dd, article, figure')]
            .filter(element => !element.closest('.scroll, nav') && element.scrollWidth > element.clientWidth + 1)
            .map(element => element.outerHTML.slice(0, 200))"""
    )
    assert cut == []
    page.evaluate("document.querySelectorAll('.scroll').forEach(box => box.scrollLeft = 1000)")
    assert page.evaluate(
        """[...document.querySelectorAll('.scroll')].every(box =>
            Math.abs(box.querySelector('tbody th[scope=row]').getBoundingClientRect().left
                - box.getBoundingClientRect().left) < 1 || box.scrollLeft === 0)"""
    )
    # No mark or label of a plot is outside its frame.
    outside = page.evaluate(
        """[...document.querySelectorAll('svg')].flatMap(plot => {
            const frame = plot.closest('figure, article').getBoundingClientRect();
            return [...plot.querySelectorAll('text, path:not(defs *), use')].filter(mark => {
                const box = mark.getBoundingClientRect();
                return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
            }).map(mark => mark.outerHTML.slice(0, 200));
        })"""
    )
    assert outside == []
    page.close()


def test_print_shows_everything_on_white(browser: Browser, everything: Path) -> None:
    page = browser.new_page(viewport={"width": 700, "height": 1000}, color_scheme="dark")
    page.goto(everything.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown = "[...document.querySelectorAll('table, img, svg')].every(e => e.checkVisibility())"
    assert page.evaluate(shown)
    page.emulate_media(media="screen")
    assert not page.evaluate(shown)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_and_size(browser: Browser, everything: Path, scheme: str) -> None:
    """Each text has WCAG's contrast of 4.5 : 1 with its background, and text in plots is at least 9 px high."""
    page, _ = opened(browser, everything, 360, scheme)
    assert page.evaluate(LOW_CONTRAST) == []
    sizes = page.evaluate(
        """[...document.querySelectorAll('svg text')].map(text => {
            const plot = text.ownerSVGElement;
            const scale = plot.getBoundingClientRect().width / plot.viewBox.baseVal.width;
            return parseFloat(getComputedStyle(text).fontSize) * scale;
        })"""
    )
    assert sizes
    assert min(sizes) >= 9
    page.close()
