"""Compare processor time per image of an exported ONNX file in onnxruntime and of its run in torch.

    python -m benchmarks.export RUN FILE [--images 256] [--runs 3]

Both use one thread and decoded images, in batches of 32 and one by one. Times are the least of the runs; processor time
depends little on other work on the machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from gopro.data.images.transforms import make_view
from gopro.data.load_dataset import load_dataset
from gopro.inference.classifier import load
from gopro.inference.evaluate import logits_function
from gopro.inference.taylor_head_file import evenly_spaced


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "file", type=Path, help="exported from that run with its training classes, preprocessing not included"
    )
    parser.add_argument("--images", type=int, default=256, metavar="N")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="the least time of so many counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(options.file, settings)
    about = json.loads(session.get_modelmeta().custom_metadata_map["gopro"])
    classifier = load(options.run, "cpu", about["head"]["kind"])
    assert classifier.run is not None
    method, config = classifier.method, classifier.run.config
    compute_logits = logits_function(method)
    view = make_view("eval", method.backbone.preprocess)
    test = load_dataset(config.data, config.root).half(config.classes).test
    images = torch.stack([view(sample.image.open()) for sample in evenly_spaced(test, options.images)])
    runtimes: dict[str, Callable[[Tensor], object]] = {
        "onnxruntime": lambda batch: session.run(None, {"images": batch.numpy()}),
        "torch": lambda batch: compute_logits(method.encode(batch)).softmax(dim=-1),
    }
    for size in (32, 1):
        subset = images if size > 1 else images[:32]
        times = []
        for name, run in runtimes.items():
            fastest = min(_milliseconds(run, subset, size) for _ in range(options.runs))
            times.append(f"{name} {fastest:.2f} ms")
        print(f"{about['head']['kind']} head, batches of {size}: {', '.join(times)} per image")


@torch.no_grad()
def _milliseconds(run: Callable[[Tensor], object], images: Tensor, size: int) -> float:
    """Return the processor time per image of running all images in batches."""
    start = time.process_time()
    for batch in images.split(size):
        run(batch)
    return 1000 * (time.process_time() - start) / len(images)


if __name__ == "__main__":
    main()
