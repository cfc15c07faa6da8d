"""The package uses private parts of open_clip; a release that changes them must not break `import gopro`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import model as open_clip_model

import gopro
from gopro.clip import open_clip_internals
from gopro.clip.open_clip_internals import BoundedCache, build_openai_clip

TEXT = {"context_length": 20, "width": 64, "heads": 1, "layers": 2}
IMAGE_TOWERS: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 64},
    "resnet": {"image_size": 32, "width": 16, "layers": [1, 2, 1, 1]},
}

SCRIPT = """
import open_clip, open_clip.model
del open_clip.model.build_model_from_openai_state_dict
from gopro.clip.backbone import from_openai, load_backbone
print(from_openai(open_clip.CLIP(32, {"layers": 1, "width": 64, "patch_size": 8, "image_size": 16},
    {"layers": 1, "width": 64, "heads": 1}, quick_gelu=True).state_dict()).embed_dim)
"""


def test_the_package_works_without_open_clips_openai_builder() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "32\n"), done.stderr


@pytest.mark.parametrize("tower", IMAGE_TOWERS)
@pytest.mark.parametrize("extra", [{}, {"input_resolution": torch.tensor(32), "vocab_size": torch.tensor(49408)}])
def test_an_openai_clip_is_the_one_that_open_clip_builds(tower: str, extra: dict[str, torch.Tensor]) -> None:
    build = getattr(open_clip_model, "build_model_from_openai_state_dict", None)
    if build is None:
        pytest.skip("this open_clip has no builder of its own")
    state = open_clip.CLIP(32, IMAGE_TOWERS[tower], TEXT, quick_gelu=True).state_dict()  # pyright: ignore
    state = {key: tensor.half().to(tensor.dtype) for key, tensor in state.items()}  # open_clip rounds to fp16
    ours, theirs = build_openai_clip({**state, **extra}), build(dict(state), cast_dtype=torch.float32).float()
    assert str(ours) == str(theirs) and ours.visual.image_size == theirs.visual.image_size
    assert all(torch.equal(tensor, theirs.state_dict()[key]) for key, tensor in ours.state_dict().items())
    ours.eval()
    images, tokens = torch.randn(2, 3, 32, 32), open_clip.SimpleTokenizer(context_length=20)(["a dog", "two cats"])
    with torch.no_grad():
        for encode, argument in (("encode_image", images), ("encode_text", tokens)):
            assert torch.equal(getattr(ours, encode)(argument), getattr(theirs, encode)(argument))


def test_a_full_cache_keeps_its_entries_and_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip_internals, "MAX_CACHED_WORDS", 2)
    cache = BoundedCache({"<start_of_text>": "<start_of_text>"})
    cache["dog"] = "dog</w>"
    cache["cat"] = "cat</w>"
    assert cache == {"<start_of_text>": "<start_of_text>", "dog": "dog</w>"}


def test_only_one_file_imports_from_inside_open_clip() -> None:
    source = Path(gopro.__file__).parent
    inside = re.compile(r"(from|import) open_clip\.|\bopen_clip\.(model|transformer|factory|tokenizer|openai)\b")
    files = [path.relative_to(source).as_posix() for path in source.rglob("*.py") if inside.search(path.read_text())]
    assert files == ["clip/open_clip_internals.py"]
