"""Tokenizers that open_clip does not contain: read beside the weights, or one line on what is missing."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory
from safetensors.torch import save_file

from gopro.clip.backbone import load_backbone
from gopro.clip.text import tokenizer
from gopro.errors import InputError

IMAGE = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 1, "head_width": 64}
TEXT = {"context_length": 16, "vocab_size": 50, "width": 64, "heads": 1, "layers": 1, "no_causal_mask": True}
TEXT |= {"pool_type": "last", "hf_tokenizer_name": "someone/words", "tokenizer_kwargs": {"clean": "canonicalize"}}
WORDS = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "cat", "dog"]


@pytest.fixture(autouse=True)
def _architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"embed_dim": 48, "vision_cfg": IMAGE, "text_cfg": TEXT, "custom_text": True}
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, "tiny-words": config})


class Words:
    """As much of a tokenizer of `transformers` as open_clip uses: an id per word, `</s>` after them, then padding."""

    def __init__(self, folder: Path) -> None:
        self.ids = {word: i for i, word in enumerate(json.loads((folder / "tokenizer.json").read_text()))}

    def __call__(self, text: str | list[str], max_length: int = 0, add_special_tokens: bool = True, **_: Any) -> Any:
        if isinstance(text, str):
            return SimpleNamespace(input_ids=[self.ids.get(word, 2) for word in text.split()])
        rows = [[*self(line).input_ids, 1] for line in text]
        return SimpleNamespace(input_ids=torch.tensor([row + [0] * (max_length - len(row)) for row in rows]))


@pytest.fixture
def loaded_from(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Put a package `transformers` in place, and list what its tokenizers are loaded from."""
    calls: list[dict[str, Any]] = []

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(folder: str, **options: Any) -> Words:
            calls.append({"folder": folder, **options})
            return Words(Path(folder))

    package = ModuleType("transformers")
    package.__spec__ = ModuleSpec("transformers", None)
    package.AutoTokenizer = AutoTokenizer  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "transformers", package)
    return calls


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    model = open_clip.create_model("tiny-words", pretrained_image=False)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture(autouse=True)
def _connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "hub_cache_alone_if_offline", lambda: nullcontext(None))


def fault(name: str) -> str:
    with pytest.raises(InputError, match=r"^[^\n]+$") as caught:
        load_backbone(name)
    return str(caught.value)


def no_download(*_: Any, **__: Any) -> str:
    raise OSError("no connection\nto the hub")


def test_a_tokenizer_beside_the_weights_is_used(
    weights: Path, loaded_from: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "snapshot_download", no_download)
    (weights.parent / "tokenizer.json").write_text(json.dumps(WORDS))
    text = load_backbone(f"tiny-words:{weights}").text
    assert text.tokens("a photo of a Cat.") == [3, 4, 5, 3, 6] and (text.sos, text.eot, text.pad) == (None, 1, 0)
    [call] = loaded_from
    assert call["folder"] == str(weights.parent)
    assert call["local_files_only"] is True and call["trust_remote_code"] is False
    monkeypatch.chdir(weights.parent)
    assert load_backbone("tiny-words:model.safetensors").text.tokens("dog") == [7]


def test_a_tokenizer_is_downloaded_where_none_lies_beside_the_weights(
    weights: Path, tmp_path: Path, loaded_from: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "tokenizer.json").write_text(json.dumps(WORDS))
    asked = []

    def download(repository: str, allow_patterns: list[str]) -> str:
        asked.append(repository)
        return str(tmp_path / "cache")

    monkeypatch.setattr(tokenizer, "snapshot_download", download)
    assert load_backbone(f"tiny-words:{weights}").text.tokens("dog") == [7]
    assert asked == ["someone/words"] and loaded_from[0]["folder"] == str(tmp_path / "cache")


def test_what_is_missing_is_said_in_one_line(
    weights: Path, loaded_from: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "snapshot_download", no_download)
    message = fault(f"tiny-words:{weights}")
    assert "tokenizer someone/words, which could not be downloaded from the Hugging Face Hub (no connection" in message
    assert f"put its tokenizer.json and tokenizer_config.json into {weights.parent}, beside the weights" in message
    assert "use tiny-words:FILE, with its tokenizer.json" in fault("tiny-words:random")
    monkeypatch.setattr(tokenizer, "hub_cache_alone_if_offline", lambda: nullcontext("hub.example: no route"))
    assert "could not be downloaded from the Hugging Face Hub (hub.example: no route)" in fault("tiny-words:random")
    monkeypatch.setattr(tokenizer, "hub_cache_alone_if_offline", lambda: nullcontext(None))
    monkeypatch.setattr(tokenizer, "snapshot_download", lambda *_, **__: str(weights.parent))  # only weights are there
    assert "(someone/words has none of tokenizer.json, spiece.model" in fault("tiny-words:random")
    (weights.parent / "tokenizer.json").write_text("no JSON")
    assert f"{weights.parent} holds no tokenizer that transformers can read" in fault(f"tiny-words:{weights}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = fault("tiny-words:random")
    assert "pip install transformers, or '.[siglip]'" in message and "use tiny-words:FILE" in message


def test_transformers_reads_a_local_tokenizer(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizers: Any = pytest.importorskip("tokenizers")
    monkeypatch.setattr(tokenizer, "snapshot_download", no_download)
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    words = tokenizers.Tokenizer(model)
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    words.save(str(weights.parent / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>"}
    (weights.parent / "tokenizer_config.json").write_text(json.dumps(settings))
    text = load_backbone(f"tiny-words:{weights}").text
    assert text.tokens("a photo of a cat.") == [3, 4, 5, 3, 6] and (text.sos, text.eot, text.pad) == (None, 1, 0)
