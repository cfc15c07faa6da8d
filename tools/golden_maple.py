"""Record training steps of the authors' own code of MaPLe, PromptSRC and MMRL, for tests/methods/test_golden.py.

    git clone https://github.com/muzairkhattak/multimodal-prompt-learning      # as of 69bce21 for the recorded files
    git clone https://github.com/muzairkhattak/PromptSRC                       # as of bb95c77
    git clone https://github.com/yunncheng/MMRL                                # as of 27d8821
    python -m tools.golden_maple --repository multimodal-prompt-learning maple
    python -m tools.golden_maple --repository PromptSRC promptsrc
    python -m tools.golden_maple --repository MMRL mmrl

Each method becomes tests/golden/METHOD.safetensors. The repository's own model and `forward_backward` run in fp32 on
the CPU, on a small CLIP with random weights (`deeper_clip`) and random images. Stubs replace the few names
that they import from Dassl. Calls that move to a GPU or to fp16 do nothing. This CLIP's numbers replace the widths 512
and 768 in MaPLe's source and the scale of 100 in MMRL's. A file holds `images` [4, 3, 16, 16], `labels` [4],
the parameters before the first step by our names (`init.*`), the logits at that point, the first gradients (`grad.*`)
and the loss before each of three SGD steps (`losses`). For PromptSRC each step is an epoch, `after.*` are the averaged
tokens at the end, and `terms` are the first step's text loss, its image loss, and the sum of the other two. For MMRL
`logits` are those of base classes and `logits_new` those of new classes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.golden import CLASSNAMES, deeper_clip
from tools.authors import Authors, named, recording_arguments, use_repository
from tools.golden_rivals import LR, STEPS

SPECS = {
    "maple": "maple[depth=3]",
    "promptsrc": "promptsrc[depth=3,gpa_mean=2,gpa_std=0.8]",
    "mmrl": "mmrl[tokens=3,dim=32,reg=2,alpha=0.6]",
}
DEPTH, GPA_MEAN, GPA_STD = 3, 2.0, 0.8


def import_with_numbers(name: str, numbers: dict[str, float]) -> ModuleType:
    """Import a module of the repository after replacing ViT-B/16's numbers in its source by this CLIP's."""
    sys.modules.pop(name, None)  # a module that this function imported before has no spec to find
    spec = util.find_spec(name)
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text()
    for theirs, here in numbers.items():
        assert theirs in source
        source = source.replace(theirs, str(here))
    module = sys.modules[name] = ModuleType(name)
    module.__package__ = name.rpartition(".")[0]
    exec(compile(source, spec.origin, "exec"), vars(module))
    return module


def build_maple() -> Authors:
    """Build MaPLe with the authors' code, importable as `trainers` and `clip`."""
    module = import_with_numbers("trainers.maple", {"768": 64, "512": 128})
    build = import_module("clip.model").build_model
    own = SimpleNamespace(N_CTX=2, CTX_INIT="a photo of a", PREC="fp32", PROMPT_DEPTH=DEPTH)
    cfg = SimpleNamespace(TRAINER=SimpleNamespace(MAPLE=own), INPUT=SimpleNamespace(SIZE=(16, 16)))
    details = {"vision_depth": 0, "language_depth": 0, "vision_ctx": 0, "language_ctx": 0}
    model = module.CustomCLIP(cfg, CLASSNAMES, build(deeper_clip(), {"trainer": "MaPLe", "maple_length": 2, **details}))
    learner = model.prompt_learner
    layers = [learner.proj, *learner.compound_prompt_projections]
    learned = {"context": [learner.ctx], "deep": list(learner.compound_prompts_text)}
    for i, layer in enumerate(layers):
        learned |= {f"couplings.{i}.{name}": [parameter] for name, parameter in layer.named_parameters()}
    return _ready(Authors(module.MaPLe(), model, cfg, learned))


def build_promptsrc(epochs: int = STEPS, gpa_mean: float = GPA_MEAN, gpa_std: float = GPA_STD) -> Authors:
    """Build PromptSRC."""
    module = import_module("trainers.promptsrc")
    build = import_module("clip.model").build_model
    own = SimpleNamespace(
        N_CTX_TEXT=4,
        N_CTX_VISION=4,
        PROMPT_DEPTH_TEXT=DEPTH,
        PROMPT_DEPTH_VISION=DEPTH,
        CTX_INIT="a photo of a",
        PREC="fp32",
        TEXT_LOSS_WEIGHT=25,
        IMAGE_LOSS_WEIGHT=10,
    )
    cfg = SimpleNamespace(
        TRAINER=SimpleNamespace(PROMPTSRC=own),
        INPUT=SimpleNamespace(SIZE=(16, 16)),
        OPTIM=SimpleNamespace(MAX_EPOCH=epochs),
    )

    def loaded(cfg: Any = None, frozen: bool = False) -> Any:
        depth, tokens = (0, 0) if frozen else (DEPTH, 4)
        details = {"vision_depth": depth, "language_depth": depth, "vision_ctx": tokens, "language_ctx": tokens}
        return build(deeper_clip(), {"trainer": "IVLP", **details})

    module.load_clip_to_cpu = loaded  # for the frozen model
    model = module.CustomCLIP(cfg, CLASSNAMES, loaded())
    image, text = model.image_encoder.transformer.resblocks, model.text_encoder.transformer.resblocks
    learned = {
        "context": [model.prompt_learner.ctx],
        "deep": [text[i].VPT_shallow for i in range(1, DEPTH)],
        "image": [model.image_encoder.VPT, *(image[i].VPT_shallow for i in range(1, DEPTH))],
    }
    trainer = module.PromptSRC()
    trainer.step_counter, trainer.previous_model_gpa = 1, None
    gauss = trainer.get_gauss(gpa_mean, gpa_std)
    weights = np.array([gauss(epoch) for epoch in range(1, epochs + 1)])
    trainer.gauss = weights / weights.sum()
    return _ready(Authors(trainer, model, cfg, learned))


@dataclass(frozen=True)
class MMRLSizes:
    """The layers with tokens, counted from 1, the number of tokens and their dimension."""

    layers: tuple[int, ...] = (3, 4, 5)
    tokens: int = 3
    dim: int = 32


def build_mmrl(
    state: dict[str, Tensor] | None = None,
    sizes: MMRLSizes = MMRLSizes(),
    classnames: Sequence[str] = CLASSNAMES,
    data: str = "ImageNet",
) -> Authors:
    """Build MMRL, by default with tokens in layers 3 to 5; the text tower has only layers 3 and 4.

    Args:
        state: CLIP's weights, by default those of `deeper_clip`.
        data: the authors' name of a data set, whose prompt is used.
    """
    clip = deeper_clip() if state is None else state
    module = import_with_numbers("trainers.mmrl", {"100.": float(clip["logit_scale"].exp())})
    build = import_module("clip.model_mmrl").build_model_MMRL
    layers = list(sizes.layers)
    own = SimpleNamespace(N_REP_TOKENS=sizes.tokens, REP_DIM=sizes.dim, REP_LAYERS=layers, REG_WEIGHT=2.0, ALPHA=0.6)
    own.PREC = "fp32"

    def loaded(model: str) -> Any:
        details = {"model": model, "rep_tokens_layers": layers, "n_rep_tokens": sizes.tokens}
        built = build(dict(clip), details).float()
        built.load_state_dict(clip, strict=False)  # again, because `build_model` rounds to fp16
        return built

    torch.manual_seed(1)
    prompted = loaded("MMRL")
    cfg = SimpleNamespace(
        TRAINER=SimpleNamespace(MMRL=own),
        INPUT=SimpleNamespace(SIZE=(prompted.visual.input_resolution,) * 2),
        DATASET=SimpleNamespace(NAME=data),
    )
    model, frozen = module.CustomCLIP(cfg, classnames, prompted), loaded("CLIP").requires_grad_(False)
    learner = model.representation_learner
    learned = {"representation": [learner.compound_rep_tokens], "project": [model.image_encoder.proj_rep]}
    depth = sum(layer <= len(prompted.transformer.resblocks) for layer in layers)
    maps = {"to_image": learner.compound_rep_tokens_r2vproj, "to_text": learner.compound_rep_tokens_r2tproj[:depth]}
    for group, copies in maps.items():
        learned |= {f"{group}.{name}": [parameter] for name, parameter in copies.named_parameters()}
    trainer = module.MMRL()
    trainer.dtype, trainer.num_classes, trainer.image_encoder_clip = torch.float32, len(classnames), frozen.visual
    texts = module._get_text_base_features_zero_shot(cfg, classnames, frozen, module.TextEncoder_CLIP(frozen))
    trainer.text_features_clip = texts / texts.norm(dim=-1, keepdim=True)
    trainer.criterion = module.MMRL_Loss(reg_weight=own.REG_WEIGHT, alpha=own.ALPHA)
    return _ready(Authors(trainer, model, cfg, learned))


def _ready(authors: Authors) -> Authors:
    """Prepare a trainer for `forward_backward` in fp32, with the learned parameters alone trained."""
    authors.model.float().requires_grad_(False)
    for group in authors.learned.values():
        for parameter in group:
            parameter.requires_grad_()
    trainer = authors.trainer
    trainer.cfg, trainer.device, trainer.scaler, trainer.model = authors.cfg, "cpu", None, authors.model
    return authors


BUILD = {"maple": build_maple, "promptsrc": build_promptsrc, "mmrl": build_mmrl}


def record(authors: Authors) -> dict[str, Tensor]:
    """Take three steps on random images, each an epoch."""
    trainer, cfg, model = authors.trainer, authors.cfg, authors.model
    draw = np.random.RandomState(1)
    images = torch.from_numpy(draw.standard_normal((4, 3, 16, 16)).astype(np.float32))
    labels = torch.tensor([0, 3, 6, 2])
    parameters = [parameter for group in authors.learned.values() for parameter in group]
    with torch.no_grad():
        for parameter in parameters:  # far from zero, so that each of them affects the logits
            parameter += torch.from_numpy((0.1 * draw.standard_normal(parameter.shape)).astype(np.float32))

    tensors = {"images": images, "labels": labels, **named("init", authors.tensors())}
    with torch.no_grad():
        logits = model.eval()(images)
        tensors |= {"logits": logits[2], "logits_new": logits[0]} if isinstance(logits, tuple) else {"logits": logits}
    model.train()
    trainer.batch_idx, trainer.num_batches, trainer.update_lr = 0, 1, lambda: None
    batch = {"img": images, "label": labels}
    own = getattr(cfg.TRAINER, "PROMPTSRC", None)
    if own is not None:  # find each loss term as the effect of its weight, with steps of length 0
        trainer.optim, trainer.num_batches = torch.optim.SGD(parameters, lr=0.0), 0
        sums = []
        for own.TEXT_LOSS_WEIGHT, own.IMAGE_LOSS_WEIGHT in ((0, 0), (25, 0), (0, 10)):
            sums.append(trainer.forward_backward(batch)["loss"])
        own.TEXT_LOSS_WEIGHT, own.IMAGE_LOSS_WEIGHT = 25, 10
        tensors["terms"] = torch.tensor([sums[1] - sums[0], sums[2] - sums[0], sums[0]])
        trainer.num_batches = 1
    trainer.optim = torch.optim.SGD(parameters, lr=LR, momentum=0.9, weight_decay=5e-4)
    losses = []
    for step in range(STEPS):
        losses.append(trainer.forward_backward(batch)["loss"])
        if step == 0:
            tensors |= named("grad", authors.tensors("grad"))
    tensors["losses"] = torch.tensor(losses)
    return tensors if own is None else tensors | named("after", authors.tensors())


def main() -> None:
    parser = recording_arguments(__doc__)
    parser.add_argument("method", choices=SPECS)
    arguments = parser.parse_args()
    use_repository(arguments.repository)
    tensors = record(BUILD[arguments.method]())
    metadata = {
        "classnames": json.dumps([name.replace("_", " ") for name in CLASSNAMES]),
        "spec": SPECS[arguments.method],
        "lr": str(LR),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    save_file(
        {n: t.contiguous() for n, t in tensors.items()}, arguments.output / f"{arguments.method}.safetensors", metadata
    )


if __name__ == "__main__":
    main()
