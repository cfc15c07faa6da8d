"""Record training steps of the authors' own code of CoOp, CoCoOp and KgCoOp, for tests/methods/test_golden.py.

    git clone https://github.com/KaiyangZhou/CoOp             # as of ff61507 for the recorded files
    git clone https://github.com/htyao89/KgCoOp               # as of c43ccc3
    python -m tools.golden_rivals --repository CoOp coop-end coop-middle coop-front coop-csc coop-csc-middle cocoop
    python -m tools.golden_rivals --repository KgCoOp/KgCoOp kgcoop

Each case becomes tests/golden/CASE.safetensors. The repository's own model and `forward_backward` run in fp32 on the
CPU, on a small CLIP with random weights (`random_clip`) and random images. Stubs replace the few names that they
import from Dassl. A file holds `images` [4, 3, 16, 16], `labels` [4], the parameters before the first step (`init.*`),
the logits at that point, the first gradients (`grad.*`), the loss before each of three SGD steps (`losses`) and the
parameters after them (`after.*`). Its metadata hold the class names, our spec of the same method, and the step size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.golden import CLASSNAMES, random_clip
from tools.authors import Authors, named, recording_arguments, use_repository

LR, STEPS = 0.05, 3


@dataclass(frozen=True)
class Case:
    """An authors' trainer (module and class), its settings, and our spec of the same method."""

    trainer: tuple[str, str]
    spec: str
    context: str = ""
    tokens: int = 4
    csc: bool = False
    position: str = "end"


CASES = {
    "coop-end": Case(("coop", "CoOp"), "coop", context="a photo of a"),
    "coop-middle": Case(("coop", "CoOp"), "coop[tokens=5,position=middle]", tokens=5, position="middle"),
    "coop-front": Case(("coop", "CoOp"), "coop[tokens=4,position=front]", position="front"),
    "coop-csc": Case(("coop", "CoOp"), "coop[tokens=4,csc=true]", csc=True),
    "coop-csc-middle": Case(
        ("coop", "CoOp"), "coop[tokens=5,csc=true,position=middle]", tokens=5, csc=True, position="middle"
    ),
    "cocoop": Case(("cocoop", "CoCoOp"), "cocoop", context="a photo of a"),
    "kgcoop": Case(
        ("kgcoop", "KgCoOp"), 'kgcoop[template="a centered satellite photo of {}."]', context="a photo of a"
    ),
}


def settings(case: Case) -> Any:
    """Return the settings that the trainers read."""
    trainer = SimpleNamespace(
        N_CTX=case.tokens, CTX_INIT=case.context, CSC=case.csc, CLASS_TOKEN_POSITION=case.position, PREC="fp32"
    )
    return SimpleNamespace(
        TRAINER=SimpleNamespace(COOP=trainer, COCOOP=trainer),
        INPUT=SimpleNamespace(SIZE=(16, 16)),
        DATASET=SimpleNamespace(NAME="EuroSAT"),  # its hand-written prompt differs most from the initial context
    )


def build(case: Case) -> Authors:
    """Build a case with the authors' code, importable as `trainers` and `clip`."""
    module = import_module(f"trainers.{case.trainer[0]}")
    clip = import_module("clip.model")
    state = random_clip()

    def loaded(cfg: Any = None) -> Any:
        model = clip.build_model(dict(state)).float()
        model.load_state_dict(state)  # again, because `build_model` rounds to fp16
        return model

    module.load_clip_to_cpu = loaded  # KgCoOp loads a second model for its prompts and moves it to a GPU
    cfg = settings(case)
    torch.manual_seed(1)
    trainer = getattr(module, case.trainer[1])()
    model = trainer.model = module.CustomCLIP(cfg, CLASSNAMES, loaded())
    learned_prefix = "ctx" if case.trainer[0] == "kgcoop" else "prompt_learner"
    learned = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learned_prefix in name)
        if learned_prefix in name:
            learned[name.removeprefix("prompt_learner.")] = [parameter]
    trainer.cfg, trainer.device, trainer.scaler, trainer.w = cfg, "cpu", None, 8.0
    return Authors(trainer, model, cfg, learned)


def record(case: Case) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Take three steps with the authors' code; return tensors and metadata."""
    authors = build(case)
    trainer, model = authors.trainer, authors.model
    parameters = [parameter for group in authors.learned.values() for parameter in group]
    trainer.batch_idx, trainer.num_batches = 0, STEPS + 1  # so that no epoch ends
    trainer.optim = torch.optim.SGD(parameters, lr=LR, momentum=0.9, weight_decay=5e-4)

    draw = np.random.RandomState(1)
    images = torch.from_numpy(draw.standard_normal((4, 3, 16, 16)).astype(np.float32))
    labels = torch.tensor([0, 3, 6, 2])
    tensors = {"images": images, "labels": labels, **named("init", authors.tensors())}
    with torch.no_grad():
        logits = model.eval()(images)
    tensors["logits"] = logits[0] if isinstance(logits, tuple) else logits
    model.train()
    losses = []
    for step in range(STEPS):
        losses.append(trainer.forward_backward({"img": images, "label": labels})["loss"])
        if step == 0:
            tensors |= named("grad", authors.tensors("grad"))
    tensors["losses"] = torch.tensor(losses)
    tensors |= named("after", authors.tensors())
    metadata = {
        "classnames": json.dumps([name.replace("_", " ") for name in CLASSNAMES]),
        "spec": case.spec,
        "lr": str(LR),
    }
    return {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata


def main() -> None:
    parser = recording_arguments(__doc__)
    parser.add_argument("cases", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES))
    arguments = parser.parse_args()
    use_repository(arguments.repository)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.cases:
        tensors, metadata = record(CASES[name])
        save_file(tensors, arguments.output / f"{name}.safetensors", metadata)


if __name__ == "__main__":
    main()
