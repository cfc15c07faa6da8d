"""The benchmark of predicting."""

import argparse

from benchmarks import predict


def test_both_ways_are_measured_on_the_same_images() -> None:
    options = argparse.Namespace(data="photos", images=6, backbone="emoji", classes=3, batch=1)
    report = predict.measure(options)
    assert report["images"] == 6
    assert all(clock["seconds"] > 0 and clock["cpu_seconds"] > 0 for clock in report["ways"].values())


def test_rates_are_shares_of_the_time_of_predicting() -> None:
    ways = {
        "image tower": {"seconds": 0.009, "cpu_seconds": 0.02},
        "gopro predict": {"seconds": 0.01, "cpu_seconds": 0.025},
    }
    text = predict.table({"images": 1000, "data": "photos", "backbone": "photo", "ways": ways})
    assert text.splitlines()[-1] == "| gopro predict | 10.0 | 25.0 | 90.0% | 80.0% |"
