"""Answers of the server: equal to the classifier's, for many clients at once, from batches and caches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from gopro.clip.backbone import Backbone
from gopro.data.load_dataset import load_dataset
from gopro.inference.classifier import Classifier
from gopro.inference.serve import batched_inference
from gopro.inference.serve.lru_cache import SharedLRUCache
from gopro.methods.registry import build_method
from gopro.runs.run import Run
from tests.support.methods import perturb
from tests.support.serve import (
    RunningServer,
    check_error,
    connect,
    open_image,
    png,
    probabilities,
    raw_request,
    serve_in_thread,
    untrained_run,
    wait_until,
)

NAMES = ["red fox", "owl", "grand piano", "a very slow old train", "dog"]


def expected(run: Run, images: list[bytes], names: list[str] | None = None) -> np.ndarray:
    classifier = Classifier(run.method, run)
    classifier = classifier if names is None else classifier.for_classes(names)
    return classifier.predict_proba([open_image(content) for content in images])


def test_probabilities_equal_the_classifiers(server: RunningServer, trained_run: Run) -> None:
    images = [png(seed) for seed in range(1000, 1007)]
    response = server.predict(*images, classes=NAMES)
    np.testing.assert_allclose(probabilities(response, NAMES), expected(trained_run, images, NAMES), atol=2e-6)
    body = response.json()
    assert body["classes"] == 5 and [r["image"] for r in body["results"]] == [f"{i}.png" for i in range(7)]
    assert set(body["milliseconds"]) == {"decode", "queue", "encode", "total"}
    assert body["milliseconds"]["total"] >= body["milliseconds"]["encode"] > 0
    assert all(list(r["heads"]) == ["exact"] and r["heads"]["exact"]["milliseconds"] > 0 for r in body["results"])
    training_names = list(trained_run.method.classnames)
    response = server.predict(*images, top_k=1000)
    np.testing.assert_allclose(probabilities(response, training_names), expected(trained_run, images), atol=2e-6)
    [result] = server.predict(images[0]).json()["results"]
    assert len(result["heads"]["exact"]["predictions"]) == 5


def test_names_are_cleaned_like_those_of_folders(server: RunningServer) -> None:
    bodies = [
        server.predict(png(0), classes=names).json()["results"][0]["heads"]["exact"]["predictions"]
        for names in (["red_fox", " snowy__owl"], ["red fox", "snowy owl"])
    ]
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("spec", ["zeroshot", "coop", "cocoop", "maple", "linear-probe", "tip-adapter"])
def test_every_kind_of_method_is_served(spec: str, tiny: Backbone, tmp_path: Path) -> None:
    run = untrained_run(spec, tiny, NAMES, tmp_path)
    images = [png(seed) for seed in range(4)]
    with serve_in_thread(run) as server:
        available = server.get("/classes").json()["heads"]
        assert ("zeroshot" in available) == (spec != "zeroshot")
        assert ("first-order" in available) == (spec == "cocoop")
        heads = [head for head in available if head != "first-order"]
        for _ in range(2):  # the second time from cached encodings
            response = server.predict(*images, classes=NAMES[:3], heads=heads)
            result = probabilities(response, NAMES[:3])
            np.testing.assert_allclose(result, expected(run, images, NAMES[:3]), atol=2e-6)
        if spec == "linear-probe":
            assert "a linear probe reads no names" in check_error(
                server.predict(images[0], classes=["x", "y"]), 422, "bad_class_names"
            )
            [result] = server.predict(images[0], classes=["x", "y"], heads=["exact", "zeroshot"]).json()["results"]
            assert "a linear probe reads no names" in result["heads"]["exact"]["error"]
            assert len(result["heads"]["zeroshot"]["predictions"]) == 2


def test_a_context_behind_the_name_is_served(tiny: Backbone, tmp_path: Path) -> None:
    run = untrained_run("gopro", tiny, NAMES, tmp_path, template="{} texture.")
    images = [png(seed) for seed in range(4)]
    zeroshot = Classifier(build_method("zeroshot", tiny, NAMES[:3], "{} texture."))
    clip = zeroshot.predict_proba([open_image(content) for content in images])
    with serve_in_thread(run) as server:
        response = server.predict(*images, classes=NAMES[:3], heads=["exact", "zeroshot"])
        np.testing.assert_allclose(probabilities(response, NAMES[:3], "zeroshot"), clip, atol=2e-6)
        np.testing.assert_allclose(probabilities(response, NAMES[:3]), clip, atol=2e-6)  # as it is untrained
        perturb(run.method)
        response = server.predict(*images, classes=NAMES, heads=["exact"])
        np.testing.assert_allclose(probabilities(response, NAMES), expected(run, images, NAMES), atol=2e-6)


def test_two_classes_of_one_name_are_served_apart(tiny: Backbone, tmp_path: Path) -> None:
    names = ["owl", "crane", "dog", "crane"]
    run, image = untrained_run("tip-adapter", tiny, names, tmp_path), png(1)
    classifier = Classifier(run.method, run)
    encoded = run.method.encode(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3)))
    run.method.solve(lambda count: [encoded] * max(1, count), torch.arange(4))
    with serve_in_thread(run) as server:
        for classes in ((), names):
            [result] = server.predict(image, classes=classes, top_k=4).json()["results"]
            predictions = [(p["name"], p["probability"]) for p in result["heads"]["exact"]["predictions"]]
            likeliest = classifier.predict(open_image(image), top_k=4)
            assert [name for name, _ in predictions] == [p.name for p in likeliest]
            np.testing.assert_allclose([p for _, p in predictions], [p.probability for p in likeliest], atol=2e-6)
        assert len(set(predictions)) == 4
        refusal = check_error(server.predict(image, classes=[*names, "crane"]), 422, "bad_class_names")
        assert "'crane' is given 3 times: give it at most 2 times" in refusal


def test_zeroshot_head_equals_zero_shot_clip(server: RunningServer, trained_run: Run, tiny: Backbone) -> None:
    images = [png(seed) for seed in range(3)]
    response = server.predict(*images, classes=NAMES, heads=["zeroshot", "exact"])
    clip = Classifier(build_method("zeroshot", tiny, NAMES, trained_run.template))
    assert trained_run.calibration is not None
    clip.method.temperature = trained_run.calibration.zeroshot_temperature
    zero_shot = clip.predict_proba([open_image(content) for content in images])
    np.testing.assert_allclose(probabilities(response, NAMES, "zeroshot"), zero_shot, atol=2e-6)
    np.testing.assert_allclose(probabilities(response, NAMES), expected(trained_run, images, NAMES), atol=2e-6)


def test_clients_share_batches_but_not_class_names(trained_run: Run) -> None:
    """12 clients, each with an image and names of its own, wait while the image of a thirteenth is processed."""
    queries = [(png(i), [f"{name} {i % 4}" for name in NAMES[: 2 + i % 3]]) for i in range(12)]
    with serve_in_thread(trained_run, batch=8) as server:
        with server.pause() as pause:
            first = pause.clients.submit(server.predict, png(3000))
            assert pause.reached.wait(30)
            responses = [pause.clients.submit(server.predict, image, classes=names) for image, names in queries]
            wait_until(lambda: server.service.images.in_progress == 13)
            wait_until(lambda: server.service.batcher._queue.qsize() == 12)
            pause.resume()
        assert first.result().status_code == 200
        for (image, names), response in zip(queries, responses, strict=True):
            result = probabilities(response.result(), names)
            np.testing.assert_allclose(result, expected(trained_run, [image], names), atol=2e-6)
        assert server.tower_batches[:3] == [1, 8, 4]


def test_an_image_is_encoded_once(server: RunningServer) -> None:
    image, before = png(2000), len(server.tower_batches)
    first = server.predict(image, image, classes=NAMES).json()
    assert server.tower_batches[before:] == [1] and first["milliseconds"]["encode"] > 0
    assert first["results"][0]["heads"]["exact"]["predictions"] == first["results"][1]["heads"]["exact"]["predictions"]
    again = server.predict(image, classes=NAMES[:2], heads=["exact", "zeroshot"]).json()
    assert server.tower_batches[before:] == [1] and again["milliseconds"]["encode"] == 0


def test_caches_stay_within_their_size(trained_run: Run) -> None:
    with serve_in_thread(trained_run, encodings_mib=1, heads_mib=1) as server:
        for i in range(12):
            names = [f"{i} {j}" for j in range(60)]  # about 120 KiB of prompts
            assert server.predict(*[png(32 * i + j) for j in range(32)], classes=names).status_code == 200
        encodings, heads = server.service.encodings, server.service.heads._cache
        assert 0 < encodings.currsize <= encodings.maxsize == 1 << 20
        assert 0 < heads.currsize <= heads.maxsize and 0 < len(heads) < 12


def test_cache_drops_what_was_used_longest_ago_and_refuses_what_is_too_large() -> None:
    cache: SharedLRUCache[str, int] = SharedLRUCache(20, lambda value: value)
    cache.put("a", 8)
    cache.put("b", 8)
    assert cache.get("a") == 8
    cache.put("c", 8)
    assert [cache.get(key) for key in "abc"] == [8, None, 8]
    cache.put("d", 21)
    assert cache.get("d") is None and cache.currsize == 16


def test_cache_is_shared_by_threads() -> None:
    """Without the lock, a `get` whose entry is dropped meanwhile raises KeyError or breaks the order of use."""
    cache: SharedLRUCache[int, int] = SharedLRUCache(20, lambda value: value)

    def use(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for key in draw.integers(1, 8, 3000).tolist():
            assert cache.get(key) in (None, key)
            cache.put(key, key)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(4)))
    assert 0 < cache.currsize <= 20 and cache.currsize == sum(cache)


def test_logits_of_many_names_are_computed_in_parts(
    server: RunningServer, trained_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched_inference, "MAX_LOGITS", 128)
    shapes, original = [], type(trained_run.method).logits

    def logits(method, encoded) -> torch.Tensor:
        result = original(method, encoded)
        shapes.append(tuple(result.shape))
        return result

    monkeypatch.setattr(type(trained_run.method), "logits", logits)
    names, images = [f"{name} {i}" for i in range(8) for name in NAMES], [png(seed) for seed in range(8)]
    result = probabilities(server.predict(*images, classes=names, top_k=40), names)
    assert shapes == [(3, 40), (3, 40), (2, 40)]
    np.testing.assert_allclose(result, expected(trained_run, images, names), atol=2e-6)


def test_unreadable_images_get_errors_and_the_others_answers(server: RunningServer) -> None:
    broken = png(0)[:60]
    results = server.predict(png(0), broken, b"", png(1), classes=NAMES).json()["results"]
    assert ["error" in result for result in results] == [False, True, True, False]
    assert results[1]["error"].startswith("1.png: ") and "heads" not in results[1]
    assert len(results[3]["heads"]["exact"]["predictions"]) == 5
    response = server.predict(broken, b"no image")
    assert check_error(response, 422, "unreadable").startswith("0.png: ")
    assert [entry["image"] for entry in response.json()["error"]["images"]] == ["0.png", "1.png"]


def test_images_of_a_client_that_disconnects_are_dropped(trained_run: Run) -> None:
    with serve_in_thread(trained_run) as server:
        with server.pause() as pause:
            first = pause.clients.submit(server.predict, png(0))
            assert pause.reached.wait(30)
            with connect(server.url) as client:
                client.sendall(raw_request(png(1)))
                wait_until(lambda: server.service.batcher._queue.qsize() == 1)
            wait_until(lambda: server.service.images.in_progress == 1)
        assert first.result().status_code == 200
        assert server.predict(png(2)).status_code == 200
        assert server.tower_batches == [1, 1] and server.service.requests.in_progress == 0


def test_the_server_survives_a_batch_that_fails(
    server: RunningServer, trained_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(type(trained_run.method), "logits", lambda method, encoded: 1 // 0)
        check_error(server.predict(png(0)), 500, "internal")
    assert server.predict(png(0)).status_code == 200


def test_the_server_describes_itself(server: RunningServer, trained_run: Run) -> None:
    assert server.get("/health").json() == {"status": "ok"}
    info = server.get("/classes").json()
    assert info["classes"] == list(trained_run.method.classnames)
    assert info["heads"] == ["exact", "first-order", "zeroshot"]
    assert (info["method"], info["data"], info["backbone"]) == ("gopro", trained_run.data, "tiny")
    assert info["limits"]["images"] == 32 and info["key_needed"] is False
    schema = server.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/health", "/classes", "/predict", "/samples", "/samples/{name}", "/metrics"}
    form = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"images", "classes", "top_k", "heads"}
    assert form["properties"]["heads"]["items"]["enum"] == info["heads"]
    assert "PredictResponse" in schema["components"]["schemas"]
    assert server.get("/docs").status_code == server.get("/redoc").status_code == 404


def test_samples_are_test_images_of_the_embedded_data_set(
    server: RunningServer, trained_run: Run, tiny: Backbone, tmp_path: Path
) -> None:
    samples = server.get("/samples").json()
    assert len(samples) == 12 == len({sample["label"] for sample in samples})
    assert all(sample["label"] in trained_run.method.classnames for sample in samples)
    dataset = load_dataset("emoji-activities").half("base")
    for sample in samples[:2]:
        response = server.get(f"/samples/{sample['name']}")
        assert response.headers["content-type"] == "image/png"
        original = next(s for s in dataset.test if dataset.classnames[s.label] == sample["label"])
        np.testing.assert_array_equal(np.asarray(open_image(response.content)), np.asarray(original.image.open()))
    for name in ("12", "-1", "x", "9" * 5000):
        check_error(server.get(f"/samples/{name}"), 404, "not_found")
    with serve_in_thread(untrained_run("zeroshot", tiny, NAMES, tmp_path, data=str(tmp_path / "gone"))) as other:
        assert [sample["label"] for sample in other.get("/samples").json()] == ["grand piano"]


def test_metrics_count_requests_images_and_stages(trained_run: Run) -> None:
    with serve_in_thread(trained_run) as server:
        server.predict(png(0), png(1), b"x")
        server.predict(png(0))
        server.get("/nowhere/at/all")
        values = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(server.get("/metrics").text)
            for sample in family.samples
        }
    assert values["gopro_requests_total", ("path", "/predict"), ("status", "200")] == 2
    assert values["gopro_requests_total", ("path", "other"), ("status", "404")] == 1
    assert values["gopro_request_seconds_count", ("path", "/predict")] == 2
    assert values["gopro_tower_images_count",] == 1 and values["gopro_tower_images_sum",] == 2
    outcomes = [values["gopro_images_total", ("outcome", o)] for o in ("encoded", "cached", "unreadable")]
    assert outcomes == [2, 1, 1]
    assert values["gopro_requests_in_progress",] == values["gopro_images_in_progress",] == 0
    assert values["gopro_stage_seconds_count", ("stage", "exact")] == 2
    assert values["gopro_encodings_bytes",] > 0 and values["process_resident_memory_bytes",] > 1e7


def test_eight_clients_with_different_names_and_images_get_their_own_answers(trained_run: Run) -> None:
    queries = [([png(10 * i + j) for j in range(3)], [f"{name} {i}" for name in NAMES]) for i in range(8)]
    answers = [expected(trained_run, images, names) for images, names in queries]
    with serve_in_thread(trained_run, encodings_mib=1) as server, ThreadPoolExecutor(8) as clients:
        for _ in range(4):
            responses = [clients.submit(server.predict, *images, classes=names) for images, names in queries]
            for (_, names), response, answer in zip(queries, responses, answers, strict=True):
                np.testing.assert_allclose(probabilities(response.result(), names), answer, atol=2e-6)
        assert server.service.images.in_progress == 0
