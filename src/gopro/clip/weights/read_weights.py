"""Read a CLIP's weights from a file, in whichever of the usual layouts it is."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gopro.clip.weights.safe_load import safe_load, state_dict
from gopro.clip.weights.shards import INDEX_SUFFIX, check_no_shard, read_shards
from gopro.clip.weights.transformers_layout import from_transformers
from gopro.errors import InputError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict, unpickling nothing but tensors, and name its tensors as open_clip does.

    The file is safetensors or from torch.save; in the latter the state dict may lie under `state_dict`,
    `model_state_dict` or `model`, as training loops save it. The layouts are open_clip's, OpenAI's and that of
    `transformers`. The prefixes that `torch.compile` (`_orig_mod.`) and parallel training (`module.`) put before names
    are removed. For weights in several files, give the index that `transformers` writes beside them, such as
    `model.safetensors.index.json`.

    Raises:
        InputError: there is no such file, it is damaged, or it holds something else; see also `read_shards`.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    if path.name.endswith(INDEX_SUFFIX):
        state = read_shards(path, _read_file)
    else:
        check_no_shard(path)
        state = _read_file(path)
    return from_transformers({_without_prefixes(key): tensor for key, tensor in state.items()})


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            content = load_file(path)
        except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                f"{path} cannot be read as plain tensors: it is damaged or not a safetensors file"
            ) from error
    else:
        content = safe_load(path)
    return state_dict(path, content)


def recorded_quick_gelu(path: Path) -> bool | None:
    """Return whether the model in a file has QuickGELU, by the `config.json` that `transformers` writes beside it.

    The weights do not tell, and with another activation a model runs, but is much less accurate. None if there is no
    such file, or it names neither of the two activations.
    """
    try:
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        activation = config["vision_config"]["hidden_act"]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    return {"quick_gelu": True, "gelu": False}.get(activation) if isinstance(activation, str) else None


def _without_prefixes(key: str) -> str:
    key = key.replace("_orig_mod.", "")  # also inside a name, if only one tower was compiled
    while key.startswith("module."):
        key = key.removeprefix("module.")
    return key
