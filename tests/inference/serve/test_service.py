"""What `gopro serve` answers: that of the classifier, whoever else asks meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import serve as load
from gopro.clip.backbone import Backbone
from gopro.data.load_dataset import load_dataset
from gopro.inference.classifier import Classifier
from gopro.inference.serve import inference as engine
from gopro.inference.serve.lru import LRU
from gopro.methods.registry import build_method
from gopro.runs.config import TrainConfig
from gopro.runs.run import Run
from gopro.training.train import train
from tests.support.serve import (
    Served,
    connected,
    image,
    png,
    probabilities,
    refused,
    serving,
    until,
    untrained,
    written,
)

NAMES = ["red fox", "owl", "grand piano", "a very slow old train", "dog"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Run:
    config = TrainConfig(
        data="emoji-activities",
        classes="base",
        shots=1,
        epochs=1,
        batch=16,
        workers=0,
        output=tmp_path_factory.mktemp("serve") / "run",
        device="cpu",
    )
    return train(config, backbone=tiny)


@pytest.fixture(scope="module")
def served(run: Run):
    with serving(run) as served:
        yield served


def expected(run: Run, images: list[bytes], names: list[str] | None = None) -> np.ndarray:
    classifier = Classifier(run.method, run)
    classifier = classifier if names is None else classifier.for_classes(names)
    return classifier.predict_proba([image(source) for source in images])


def test_answers_are_the_classifiers(served: Served, run: Run) -> None:
    images = [png(seed) for seed in range(1000, 1007)]
    answer = served.predict(*images, classes=NAMES)
    np.testing.assert_allclose(probabilities(answer, NAMES), expected(run, images, NAMES), atol=2e-6)
    said = answer.json()
    assert said["classes"] == 5 and [r["image"] for r in said["results"]] == [f"{i}.png" for i in range(7)]
    assert set(said["milliseconds"]) == {"decode", "queue", "encode", "total"}
    assert said["milliseconds"]["total"] >= said["milliseconds"]["encode"] > 0
    assert all(list(r["heads"]) == ["exact"] and r["heads"]["exact"]["milliseconds"] > 0 for r in said["results"])
    own = list(run.method.classnames)
    answer = served.predict(*images, top_k=1000)
    np.testing.assert_allclose(probabilities(answer, own), expected(run, images), atol=2e-6)
    [result] = served.predict(images[0]).json()["results"]
    assert len(result["heads"]["exact"]["predictions"]) == 5


@pytest.mark.parametrize("spec", ["zeroshot", "coop", "cocoop", "maple", "linear-probe", "tip-adapter"])
def test_every_kind_of_method_is_served(spec: str, tiny: Backbone, tmp_path: Path) -> None:
    run = untrained(spec, tiny, NAMES, tmp_path)
    images = [png(seed) for seed in range(4)]
    with serving(run) as served:
        offered = served.get("/classes").json()["heads"]
        assert ("zeroshot" in offered) == (spec != "zeroshot") and ("first-order" in offered) == (spec == "cocoop")
        heads = [head for head in offered if head != "first-order"]
        for _ in range(2):  # the second time the encodings are known
            answer = served.predict(*images, classes=NAMES[:3], heads=heads)
            found = probabilities(answer, NAMES[:3])
            np.testing.assert_allclose(found, expected(run, images, NAMES[:3]), atol=2e-6)
        if spec == "linear-probe":
            assert "knows no class names" in refused(served.predict(images[0], classes=["x"]), 422, "bad_class_names")
            [result] = served.predict(images[0], classes=["x", "y"], heads=["exact", "zeroshot"]).json()["results"]
            assert "knows no class names" in result["heads"]["exact"]["error"]
            assert len(result["heads"]["zeroshot"]["predictions"]) == 2


def test_zero_shot_stands_beside(served: Served, run: Run, tiny: Backbone) -> None:
    images = [png(seed) for seed in range(3)]
    answer = served.predict(*images, classes=NAMES, heads=["zeroshot", "exact"])
    clip = Classifier(build_method("zeroshot", tiny, NAMES, run.template))
    wanted = clip.predict_proba([image(source) for source in images])
    np.testing.assert_allclose(probabilities(answer, NAMES, "zeroshot"), wanted, atol=2e-6)
    np.testing.assert_allclose(probabilities(answer, NAMES), expected(run, images, NAMES), atol=2e-6)


def test_clients_share_batches_and_their_class_names_do_not_mix(run: Run) -> None:
    """12 clients, each with an image and names of its own, while a thirteenth is worked on."""
    asked = [(png(i), [f"{name} {i % 4}" for name in NAMES[: 2 + i % 3]]) for i in range(12)]
    with serving(run, batch=8) as served:
        with served.held_up() as held:
            first = held.clients.submit(served.predict, png(3000))
            assert held.there.wait(30)
            answers = [held.clients.submit(served.predict, p, classes=names) for p, names in asked]
            until(lambda: served.service.images.held == 13)
            until(lambda: served.service.batcher._waiting.qsize() == 12)
            held.go()
        assert first.result().status_code == 200
        for (source, names), answer in zip(asked, answers, strict=True):
            found = probabilities(answer.result(), names)
            np.testing.assert_allclose(found, expected(run, [source], names), atol=2e-6)
        assert served.tower[:3] == [1, 8, 4]


def test_a_image_is_encoded_once(served: Served) -> None:
    source, before = png(2000), len(served.tower)
    first = served.predict(source, source, classes=NAMES).json()
    assert served.tower[before:] == [1] and first["milliseconds"]["encode"] > 0
    assert first["results"][0]["heads"]["exact"]["predictions"] == first["results"][1]["heads"]["exact"]["predictions"]
    again = served.predict(source, classes=NAMES[:2], heads=["exact", "zeroshot"]).json()
    assert served.tower[before:] == [1] and again["milliseconds"]["encode"] == 0


def test_what_is_kept_stays_bounded(run: Run) -> None:
    with serving(run, encodings_mib=1, heads_mib=1) as served:
        for i in range(12):
            names = [f"{i} {j}" for j in range(60)]  # about 120 KiB
            assert served.predict(*[png(32 * i + j) for j in range(32)], classes=names).status_code == 200
        kept, heads = served.service.encodings, served.service.heads._kept
        assert 0 < kept.held <= kept.most and 0 < heads.held <= heads.most and 0 < len(heads) < 12


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(1, 12))))
def test_lru_against_a_plain_list(moves: list[tuple[bool, int, int]]) -> None:
    lru: LRU[int, int] = LRU(20, lambda value: value)
    plain: list[tuple[int, int]] = []  # used last at the end
    for put, key, value in moves:
        if put:
            lru.put(key, value)
            plain = [(k, v) for k, v in plain if k != key] + [(key, value)]
            while sum(v for _, v in plain) > 20:
                plain.pop(0)
        else:
            found = dict(plain).get(key)
            assert lru.get(key) == found
            if found is not None:
                plain = [(k, v) for k, v in plain if k != key] + [(key, found)]
        assert (len(lru), lru.held) == (len(plain), sum(v for _, v in plain))


def test_a_value_larger_than_all_is_not_kept() -> None:
    lru: LRU[str, int] = LRU(20, lambda value: value)
    lru.put("a", 5)
    lru.put("b", 21)
    lru.put("a", 22)
    assert (len(lru), lru.held) == (0, 0)


def test_many_names_are_compared_in_parts(served: Served, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PAIRS", 128)
    sizes, logits = [], type(run.method).logits

    def counted(method, encoded) -> torch.Tensor:
        found = logits(method, encoded)
        sizes.append(tuple(found.shape))
        return found

    monkeypatch.setattr(type(run.method), "logits", counted)
    names, images = [f"{name} {i}" for i in range(8) for name in NAMES], [png(seed) for seed in range(8)]
    found = probabilities(served.predict(*images, classes=names, top_k=40), names)
    assert sizes == [(3, 40), (3, 40), (2, 40)]
    np.testing.assert_allclose(found, expected(run, images, names), atol=2e-6)


def test_broken_images_are_said_and_the_others_answered(served: Served, run: Run) -> None:
    broken = png(0)[:60]
    answer = served.predict(png(0), broken, b"", png(1), classes=NAMES).json()
    assert ["error" in result for result in answer["results"]] == [False, True, True, False]
    assert answer["results"][1]["error"].startswith("1.png: ") and "heads" not in answer["results"][1]
    assert len(answer["results"][3]["heads"]["exact"]["predictions"]) == 5
    answer = served.predict(broken, b"no image")
    assert refused(answer, 422, "unreadable").startswith("0.png: ")
    assert [entry["image"] for entry in answer.json()["error"]["images"]] == ["0.png", "1.png"]


def test_a_client_that_goes_away_is_not_waited_for(run: Run) -> None:
    with serving(run) as served:
        with served.held_up() as held:
            first = held.clients.submit(served.predict, png(0))
            assert held.there.wait(30)
            with connected(served.url) as client:
                client.sendall(written(png(1)))
                until(lambda: served.service.batcher._waiting.qsize() == 1)
            until(lambda: served.service.images.held == 1)
        assert first.result().status_code == 200
        assert served.predict(png(2)).status_code == 200
        assert served.tower == [1, 1] and served.service.requests.held == 0


def test_what_breaks_a_batch_breaks_no_other(served: Served, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(type(run.method), "logits", lambda method, encoded: 1 // 0)
        refused(served.predict(png(0)), 500, "internal")
    assert served.predict(png(0)).status_code == 200


def test_what_it_says_of_itself(served: Served, run: Run) -> None:
    assert served.get("/health").json() == {"status": "ok"}
    about = served.get("/classes").json()
    assert about["classes"] == list(run.method.classnames) and about["heads"] == ["exact", "first-order", "zeroshot"]
    assert (about["method"], about["data"], about["backbone"]) == ("gopro", run.data, "tiny")
    assert about["limits"]["images"] == 32 and about["key_needed"] is False
    described = served.get("/openapi.json").json()
    assert set(described["paths"]) == {"/health", "/classes", "/predict", "/samples", "/samples/{name}", "/metrics"}
    form = described["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"images", "classes", "top_k", "heads"}
    assert form["properties"]["heads"]["items"]["enum"] == about["heads"]
    assert "Answer" in described["components"]["schemas"]
    assert served.get("/docs").status_code == served.get("/redoc").status_code == 404  # they would load from elsewhere


def test_samples_are_the_runs_own_test_images(served: Served, run: Run, tiny: Backbone, tmp_path: Path) -> None:
    samples = served.get("/samples").json()
    assert len(samples) == 12 == len({sample["label"] for sample in samples})
    assert all(sample["label"] in run.method.classnames for sample in samples)
    data = load_dataset("emoji-activities").half("base")
    for sample in samples[:2]:
        sent = served.get(f"/samples/{sample['name']}")
        assert sent.headers["content-type"] == "image/png"
        own = next(s for s in data.test if data.classnames[s.label] == sample["label"])
        np.testing.assert_array_equal(np.asarray(image(sent.content)), np.asarray(own.image.open()))
    for name in ("12", "-1", "x", "9" * 5000):
        refused(served.get(f"/samples/{name}"), 404, "not_found")
    with serving(untrained("zeroshot", tiny, NAMES, tmp_path, data=str(tmp_path / "gone"))) as other:
        assert len(other.get("/samples").json()) == 12


def test_metrics_are_prometheus_and_count(run: Run) -> None:
    with serving(run) as served:
        served.predict(png(0), png(1), b"x")
        served.predict(png(0))
        served.get("/nowhere/at/all")
        found = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(served.get("/metrics").text)
            for sample in family.samples
        }
    assert found["gopro_requests_total", ("path", "/predict"), ("status", "200")] == 2
    assert found["gopro_requests_total", ("path", "other"), ("status", "404")] == 1
    assert found["gopro_tower_images_count",] == 1 and found["gopro_tower_images_sum",] == 2
    assert [found["gopro_images_total", ("how", how)] for how in ("encoded", "cached", "unreadable")] == [2, 1, 1]
    assert found["gopro_requests_in_house",] == found["gopro_images_in_house",] == 0
    assert found["gopro_stage_seconds_count", ("stage", "exact")] == 2
    assert found["gopro_encodings_bytes",] > 0 and found["process_resident_memory_bytes",] > 1e7


def test_many_clients_at_once_over_and_over(run: Run) -> None:
    """Eight, each with other names and images."""
    asked = [([png(10 * i + j) for j in range(3)], [f"{name} {i}" for name in NAMES]) for i in range(8)]
    wanted = [expected(run, images, names) for images, names in asked]
    with serving(run, encodings_mib=1) as served, ThreadPoolExecutor(8) as clients:
        for _ in range(4):
            answers = [clients.submit(served.predict, *images, classes=names) for images, names in asked]
            for (_, names), answer, right in zip(asked, answers, wanted, strict=True):
                np.testing.assert_allclose(probabilities(answer.result(), names), right, atol=2e-6)
        assert served.service.images.held == 0


def test_the_load_benchmark_counts_what_the_server_saw(run: Run) -> None:
    """Every question is another image; what is refused is an error and no answer."""
    images = [png(i) for i in range(3)]
    with serving(run) as served:
        port = int(served.url.rpartition(":")[2])
        found = load.loaded(port, "zeroshot", "4 clients", 4, 0.5, images, warm_up=0)
        assert found.errors == 0 and 0 < found.p50 <= found.p95 <= found.slowest < 1000
        assert 0 <= sum(served.tower) - found.requests <= 4  # those that came in too late to count
        assert found.images_a_batch == pytest.approx(sum(served.tower) / len(served.tower), rel=0.5)
        [line] = load.table({"results": [asdict(found)]}).splitlines()[2:]
        assert line.startswith(f"| zeroshot | 4 clients | {found.requests / 0.5:.1f} | 1.00 |")
        with pytest.raises(SystemExit, match=r"no answer.*no_such_head"):
            load.loaded(port, "none", "1 client", 1, 0.1, images, warm_up=0)
