"""Compare the first-order head with the exact one, by its number of terms, on all test images of a data set.

    python -m benchmarks.taylor_head RUN [--data emoji-animals] [--terms 0 4 8 16 32 64] [--json]

The head is expanded over the run's training images. Its terms are the most important slopes and curvatures; beside
them, the same number of slopes alone, along the first principal directions. The benchmark measures agreement, not time,
so other work on the machine does not matter.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.common import make_parser
from gopro.data.load_dataset import load_dataset
from gopro.inference.evaluate import encode_samples, evaluate
from gopro.inference.taylor_head import Agreement, Expansion, TaylorHead, expand_classes
from gopro.runs.load_run import load_run


@torch.no_grad()
def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", help="data set; the run's own if not given")
    parser.add_argument("--terms", type=int, nargs="+", default=[0, 4, 8, 16, 32, 64], metavar="R")
    options = parser.parse_args()

    run = load_run(options.run)
    config, dataset = run.config, load_dataset(options.data or run.config.data, run.config.root)
    few = load_dataset(config.data, config.root).half(config.classes).few_shot(config.shots, config.seed)
    contexts = run.method.image_contexts(encode_samples(run.method, few.train).encoded[:])
    if contexts is None:
        parser.error(f"the text of {config.method} does not depend on the image: its head is exact")
    expansion = expand_classes(run.method, dataset.classnames, contexts)
    order = expansion.terms.argsort()[: expansion.directions.shape[1]]
    slopes = Expansion(
        expansion.weights[:, torch.cat([order.new_zeros(1), 1 + order])],
        expansion.centre,
        expansion.directions,
        expansion.terms[order],
    )
    images = encode_samples(run.method, dataset.test)
    exact = evaluate(run.method.for_classes(dataset.classnames, dataset.template), images)

    def row(kind: str, expansion: Expansion) -> dict[str, object]:
        head = evaluate(TaylorHead(run.method, dataset.classnames, expansion, None), images)
        agreement = Agreement.between(exact.probabilities, head.probabilities)
        return {"kind": kind, "terms": len(expansion), "accuracy": head.accuracy, **asdict(agreement)}

    rows = [row("most important", expansion.truncate(r)) for r in options.terms if r <= len(expansion)]
    rows += [row("slopes alone", slopes.truncate(r)) for r in options.terms if 0 < r <= len(slopes)]
    if options.json:
        print(json.dumps({"data": dataset.name, "exact": exact.accuracy, "rows": rows}))
        return
    print(f"{dataset.name}: {exact.n} images, {len(dataset.classnames)} classes, exact {exact.accuracy:.2f} %")
    print("| terms | kind | same class | max | mean | accuracy |\n|---|---|---|---|---|---|")
    for r in rows:
        print(
            f"| {r['terms']} | {r['kind']} | {r['top1']:.2f} % | {r['max']:.4f} | {r['mean']:.5f} "
            f"| {r['accuracy']:.2f} % |"
        )


if __name__ == "__main__":
    main()
