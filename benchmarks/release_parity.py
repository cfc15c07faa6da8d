"""Compare the `gopro-release` method with one recorded training step of the released code.

    python -m benchmarks.release_parity FILE

FILE is a safetensors file with a CLIP in OpenAI's layout (`clip.*`), fixed views, the released code's learnable
parameters before the step (`init.*`), its outputs (`out.*`, `loss.*`, `grad.*`) and the losses of five SGD steps
(`sgd.loss.*`). The command prints one JSON object with the largest deviation of each, relative to the largest magnitude
of the tensor, and exits with status 1 if one exceeds 1e-4.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from gopro.clip.backbone import from_openai
from gopro.methods.gopro_release import GOProRelease, GOProReleaseConfig
from gopro.runs.coop_checkpoint import rename_key

LIMIT = 1e-4

# Zero but for rounding: layer norm removes a shift of all dimensions, which is all that rho's bias does, and batch norm
# removes the bias before it. Their deviation is relative to the largest gradient of the step, not to their own noise.
ZERO_GRADIENTS = ("prompt_learner.rho.bias", "simproj.linear.bias")


def ours(name: str) -> str | None:
    """Return our name of one of the released code's parameters, None for those that it never uses."""
    return None if ".meta_net." in name else rename_key(name.removeprefix("prompt_learner."))


def deviation(here: Tensor, theirs: Tensor, floor: float = 0.0) -> float:
    """Return the largest difference, relative to the largest magnitude or to `floor`, whichever is larger."""
    here, theirs = here.detach().double().reshape(-1), theirs.double().reshape(-1)
    scale = max(theirs.abs().max().item(), floor) or 1.0
    return (here - theirs).abs().max().item() / scale


def compare(path: Path) -> dict[str, float]:
    """Return the largest relative deviation of each tensor by its name."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)

    def part(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    backbone = from_openai(part("clip."), str(path))
    config = GOProReleaseConfig(template=metadata["ctx_init"].replace("_", " ") + " {}.")
    method = GOProRelease(backbone, [name.replace("_", " ") for name in json.loads(metadata["classnames"])], config)
    state = method.state_dict()
    for name, value in part("init.").items():
        key = ours(name)
        if key is not None:
            state[key] = value.reshape(state[key].shape)
    method.load_state_dict(state)

    encoded = method.encode(torch.stack([tensors[f"views.{view}"] for view in ("image", "moco", "augmix")]))
    labels = tensors["label"]
    result: dict[str, float] = {}

    text = method.text_features(method.view_contexts(encoded))
    result["logits"] = deviation(method.logits(encoded[0]), tensors["out.logits"])
    for i, view in enumerate(("image", "moco", "augmix")):
        result[f"text_features.{view}"] = deviation(text[i], tensors[f"out.text_features.{view}"])
    for i, view in enumerate(("image", "moco")):
        projected = method.project_beside(encoded.embedding[i])
        result[f"projected.{view}"] = deviation(projected, tensors[f"out.projected.{view}"])
    terms = method.losses(encoded, labels)
    # the released code reports its contrastive loss before weighting
    reported = {"ce": terms["ce"], "sem": terms["sem"], "con": terms["con"] / config.con, "total": sum(terms.values())}
    for name, value in reported.items():
        result[f"loss.{name}"] = deviation(value, tensors[f"loss.{name}"])
    reported["total"].backward()
    parameters = dict(method.named_parameters())
    largest = max(gradient.abs().max().item() for gradient in part("grad.").values())
    for name, theirs in part("grad.").items():
        key = ours(name)
        gradient = torch.zeros_like(theirs) if key is None else parameters[key].grad
        result[f"grad.{name}"] = deviation(gradient, theirs, largest if name in ZERO_GRADIENTS else 0.0)

    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for step in range(len(part("sgd.loss."))):
        optimizer.zero_grad()
        loss = sum(method.losses(encoded, labels).values())
        result[f"sgd.loss.{step}"] = deviation(loss, tensors[f"sgd.loss.{step}"])
        loss.backward()
        optimizer.step()
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    result = compare(parser.parse_args().file)
    largest = max(result.values())
    print(json.dumps({"ok": largest <= LIMIT, "limit": LIMIT, "largest": largest, "deviations": result}, indent=2))
    return 0 if largest <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
