"""The tokenizer of an architecture: CLIP's own, which comes with open_clip, or one of `transformers`, as SigLIP's."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import snapshot_download

from gopro.clip.open_clip_internals import DEFAULT_CONTEXT_LENGTH, HFTokenizer
from gopro.errors import InputError, one_line
from gopro.network import hub_cache_alone_if_offline

VOCABULARIES = ("tokenizer.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "vocab.txt")
"""Files of which a tokenizer has one or more."""
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json")
"""Files that a tokenizer may have besides; some are known only by the kind of model in `config.json`."""


def load_tokenizer(architecture: str, beside: Path | None = None) -> Any:
    """Load the tokenizer of an open_clip architecture.

    SigLIP, CLIPA and others have one that the package `transformers` reads. Its files are taken from the folder
    `beside`, the one that holds the weights, if they lie there, and otherwise from the Hugging Face Hub.

    Raises:
        InputError: it needs `transformers`, cannot be downloaded, or its files are damaged.
    """
    text: dict[str, Any] = (open_clip.get_model_config(architecture) or {}).get("text_cfg", {})
    repository = text.get("hf_tokenizer_name")
    if not repository:
        return open_clip.get_tokenizer(architecture)
    local = beside is not None and _has_vocabulary(beside)
    offline = (
        f"without internet, also put its tokenizer.json and tokenizer_config.json into {beside}, beside the weights"
        if beside is not None
        else f"without internet, use {architecture}:FILE, with its tokenizer.json and tokenizer_config.json beside FILE"
    )
    if find_spec("transformers") is None:
        more = "" if local else f"; {offline}"
        raise InputError(
            f"{architecture} has the tokenizer {repository}, which needs a package: pip install transformers, or "
            f"'.[siglip]'{more}"
        )
    folder = str(beside) if local else _download(architecture, repository, offline)
    try:
        return HFTokenizer(
            folder,
            context_length=text.get("context_length", DEFAULT_CONTEXT_LENGTH),
            tokenizer_mode=text.get("tokenizer_mode"),
            local_files_only=True,
            trust_remote_code=False,
            **text.get("tokenizer_kwargs", {}),
        )
    except Exception as error:  # of transformers or tokenizers, of any kind for a damaged file
        raise InputError(
            f"{folder} holds no tokenizer that transformers can read ({one_line(error)}): put the "
            f"files of {repository} on the Hugging Face Hub there"
        ) from error


def _download(architecture: str, repository: str, offline: str) -> str:
    """Return the folder of a tokenizer's files in the Hub's cache, where they are downloaded to if they are missing."""
    with hub_cache_alone_if_offline() as no_connection:
        try:
            folder = Path(snapshot_download(repository, allow_patterns=[*VOCABULARIES, *SETTINGS]))
            if not _has_vocabulary(folder):  # the cache may hold only the weights of the same repository
                raise FileNotFoundError(f"{repository} has none of {', '.join(VOCABULARIES)}")
        except Exception as error:  # of the Hub's client or the operating system
            raise InputError(
                f"{architecture} has the tokenizer {repository}, which could not be downloaded from the Hugging Face "
                f"Hub ({no_connection or one_line(error)}); {offline}"
            ) from error
    return str(folder)


def _has_vocabulary(folder: Path) -> bool:
    return any((folder / name).is_file() for name in VOCABULARIES)
