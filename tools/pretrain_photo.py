"""Make the small CLIP for photographs and write src/gopro/assets/photo-clip.safetensors.

    python -m tools.pretrain_photo prepare --folder runs/photo --sample IMAGENET_SAMPLE
    python -m tools.pretrain_photo train --folder runs/photo
    python -m tools.pretrain_photo export --folder runs/photo
    python -m tools.photo_table --root DATA

IMAGENET_SAMPLE is a folder with one image of each class of ImageNet, named WNID_name.jpg. The mean image features and
the logit scale come from it. Wheels of the sources go to FOLDER/sources (tools.photo_sources says which), WordNet comes
with Debian's package wordnet-base. A stopped training resumes from its checkpoint.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from cyclopts import App, Parameter
from open_clip import get_tokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import save_file
from torch import Tensor

from tools.photo_model import (
    CLIP_TOKEN_STD,
    WEIGHTS,
    encode_by_length,
    model_cfg,
    preprocess_cfg,
    scale_residual_stream,
    text_tower,
)
from tools.photo_sources import SentenceEncoder, encode_images, image_classifier
from tools.photo_targets import ImageSpace, NounTargets
from tools.photo_texts import TEMPLATE, Batches, Nouns, all_nouns, describe
from tools.wordnet import WordNet

log = logging.getLogger("pretrain_photo")
LOG_EVERY = 50  # steps
app = App(name="pretrain_photo", help=__doc__)


@Parameter(name="*")
@dataclass(frozen=True)
class Config:
    """Settings of a training of the text tower.

    Attributes:
        steps: number of updates, over which the learning rates fall along a cosine.
        batch: texts per step.
        rank: of the token embedding.
        scale: logit scale of the loss that compares the texts of a batch.
        lr, muon_lr: highest rates of AdamW and of Muon, which trains the matrices of the layers.
        warmup: share of the steps in which the rates rise.
        save_every: seconds between two checkpoints.
    """

    steps: int = 5000
    batch: int = 384
    width: int = 256
    layers: int = 4
    rank: int = 64
    scale: float = 20.0
    lr: float = 2e-3
    muon_lr: float = 0.01
    weight_decay: float = 0.01
    warmup: float = 0.02
    save_every: float = 120.0
    seed: int = 1


@app.command
def prepare(*, folder: Path = Path("runs/photo"), sample: Path, lite: int = 2) -> None:
    """Make FOLDER/space.npz, the joint space, and FOLDER/nouns.npz, the names and their targets."""
    wordnet = WordNet()
    files = sorted(sample.glob("n*.jpg"))
    classes = [file.name.partition("_")[0] for file in files]
    if len(classes) != 1000 or not set(classes) <= set(wordnet.synsets):
        raise SystemExit(f"{sample} has {len(files)} images n*.jpg, not one of each of ImageNet's 1000 classes")
    classifier = image_classifier(folder / "sources", lite)
    weight = classifier.get_classifier().weight.detach().numpy()
    transform = image_transform_v2(PreprocessCfg(**preprocess_cfg(lite)), is_train=False)
    features = encode_images(classifier, files, transform).numpy()
    space = ImageSpace.of_classifier(weight, features.mean(axis=0))
    np.savez(
        folder / "space.npz", lite=lite, features=features, weight=space.weight, bias=space.bias, classes=space.classes
    )
    right = (space.images(features) @ space.classes.T).argmax(axis=1) == np.arange(1000)
    log.info("the sample's images among the vectors of their classes: %.1f %%", 100 * right.mean())

    log.info("encoding the definitions of %d nouns", len(wordnet.synsets))
    sentences = [describe(wordnet, synset) for synset in wordnet.synsets.values()]
    vectors = dict(zip(wordnet.synsets, SentenceEncoder(folder / "sources").encode(sentences), strict=True))
    nouns = all_nouns(wordnet, NounTargets(wordnet, vectors, classes, space.classes), classes, space.nothing)
    np.savez_compressed(folder / "nouns.npz", **asdict(nouns))
    names = [" ".join(file.stem.split("_")[1:]) for file in files]
    (folder / "classes.json").write_text(json.dumps(names, indent=1))
    log.info("%d names, %d of visible things", len(nouns.names), nouns.is_visible.sum())


def read_space(folder: Path) -> tuple[ImageSpace, np.lib.npyio.NpzFile]:
    """Return the joint space, and the file it is from."""
    file = np.load(folder / "space.npz")
    return ImageSpace(file["weight"], file["bias"], file["classes"]), file


class Training:
    """The state of a run: model, optimisers, tokens seen, step and seconds."""

    def __init__(self, config: Config, folder: Path) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        space, file = read_space(folder)
        self.cfg = model_cfg(int(file["lite"]), len(space.nothing), config.width, config.layers)
        self.model = text_tower(self.cfg, config.rank)
        self.batches = Batches(Nouns(**np.load(folder / "nouns.npz")), space.nothing, config.seed, config.batch)
        self.tokenize = get_tokenizer("ViT-B-32")
        named = {name: weight for name, weight in self.model.named_parameters() if name != "logit_scale"}
        hidden = [weight for name, weight in named.items() if name.startswith("transformer") and weight.ndim == 2]
        chosen = {id(weight) for weight in hidden}
        rest = [weight for weight in named.values() if id(weight) not in chosen]
        self.optimizers = {
            "lr": torch.optim.AdamW(rest, lr=config.lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
            "muon_lr": torch.optim.Muon(hidden, lr=config.muon_lr, weight_decay=config.weight_decay),
        }
        self.seen = torch.zeros(self.cfg["text_cfg"]["vocab_size"], dtype=torch.bool)
        self.step, self.seconds = 0, 0.0

    def loss(self, texts: list[str], targets: Tensor) -> Tensor:
        """Return the distance to the targets, plus the divergence of similarities within the batch from theirs."""
        tokens = self.tokenize(texts)
        self.seen[tokens.flatten()] = True
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = encode_by_length(self.model, tokens)
        features = F.normalize(features.float(), dim=-1)
        scale = self.config.scale
        logits, wanted = scale * features @ targets.T, scale * targets @ targets.T
        among = F.kl_div(logits.log_softmax(dim=1), wanted.log_softmax(dim=1), log_target=True, reduction="batchmean")
        return (1 - (features * targets).sum(dim=1)).mean() + among

    def update(self) -> float:
        """Take a step and return its loss."""
        began = time.monotonic()
        c, at = self.config, self.step / self.config.steps
        factor = min(1.0, (self.step + 1) / (c.warmup * c.steps)) * max(0.5 * (1 + math.cos(math.pi * at)), 1e-3)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = factor * getattr(c, name)
        texts, targets = self.batches[self.step]
        loss = self.loss(texts, torch.from_numpy(targets))
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.step += 1
        self.seconds += time.monotonic() - began
        return loss.item()

    def save(self, path: Path) -> None:
        state = {
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "seen": self.seen,
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        if state["config"] != asdict(self.config):
            raise SystemExit(f"{path} was made with other settings ({state['config']}): use another --folder")
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.seen, self.step, self.seconds = state["seen"], state["step"], state["seconds"]


@app.command
def train(
    config: Config = Config(), *, folder: Path = Path("runs/photo"), threads: int = 1, stop_after: int | None = None
) -> None:
    """Train the text tower; resume from FOLDER/checkpoint.pt if it exists.

    Args:
        folder: of `prepare`, and of the checkpoint.
        threads: of PyTorch.
        stop_after: steps after which to stop; another call goes on.
    """
    torch.set_num_threads(threads)
    training, path = Training(config, folder), folder / "checkpoint.pt"
    if path.exists():
        training.load(path)
    log.info("%.2f M parameters", sum(weight.numel() for weight in training.model.parameters()) / 1e6)
    saved, losses = time.monotonic(), []
    while training.step < min(config.steps, stop_after or config.steps):
        losses.append(training.update())
        if training.step % LOG_EVERY == 0:
            left = (config.steps - training.step) * training.seconds / training.step / 60
            log.info("step %d loss %.4f, %.0f minutes left", training.step, np.mean(losses), left)
            losses.clear()
        if time.monotonic() - saved > config.save_every:
            training.save(path)
            saved = time.monotonic()
    training.save(path)


def calibrate(images: Tensor, texts: Tensor) -> float:
    """Return the logit scale at which images of as many classes, one each, are classified with the lowest loss."""
    cosines = images @ texts.T
    own = torch.arange(len(images))
    scales = torch.exp(torch.linspace(math.log(5), math.log(100), 200))
    return float(min(scales, key=lambda scale: F.cross_entropy(scale * cosines, own)))


@app.command
def export(*, folder: Path = Path("runs/photo"), out: Path = WEIGHTS) -> None:
    """Export the image tower and the checkpoint's text tower as half-precision safetensors."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    training = Training(Config(**state["config"]), folder)
    training.load(folder / "checkpoint.pt")
    space, file = read_space(folder)
    lite = int(file["lite"])
    names = json.loads((folder / "classes.json").read_text())
    with torch.no_grad():
        texts = encode_by_length(training.model.eval(), training.tokenize([TEMPLATE.format(name) for name in names]))
    scale = calibrate(torch.from_numpy(space.images(file["features"])).float(), texts)
    weights = dict(training.model.state_dict())
    # A token that no text had is at its random start, which means nothing.
    weights["token_embedding.left"] = weights["token_embedding.left"] * training.seen[:, None]
    weights = scale_residual_stream(weights, CLIP_TOKEN_STD)
    weights["logit_scale"] = torch.tensor(math.log(scale))
    trunk = image_classifier(folder / "sources", lite)
    trunk.reset_classifier(0)
    weights |= {f"visual.trunk.{name}": value for name, value in trunk.state_dict().items()}
    weights["visual.head.proj.weight"] = torch.from_numpy(space.weight)
    weights["visual.head.proj.bias"] = torch.from_numpy(space.bias)
    metadata = {
        "model_cfg": json.dumps(training.cfg),
        "preprocess_cfg": json.dumps(preprocess_cfg(lite)),
        "training": json.dumps({**state["config"], "step": state["step"], "minutes": round(state["seconds"] / 60, 1)}),
    }
    save_file({name: pack(name, value) for name, value in weights.items()}, out.with_suffix(".part"), metadata)
    os.replace(out.with_suffix(".part"), out)
    log.info("%s: %.1f MB, step %d, logit scale %.1f", out, out.stat().st_size / 1e6, state["step"], scale)


def pack(name: str, value: Tensor) -> Tensor:
    """Return a weight in half precision, save for the few that have a wide range, and counters."""
    if value.is_floating_point():
        wide = name.endswith(("running_mean", "running_var", "proj.bias", "logit_scale"))
        value = value.float() if wide else value.half()
    return value.contiguous()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    app()
