"""Pretrain the small CLIP of the embedded benchmark and write src/gopro/assets/emoji-clip.safetensors.

    python -m tools.pretrain_emoji train --folder runs/emoji
    python -m tools.pretrain_emoji export --folder runs/emoji
    python -m tools.pretrain_emoji table

The length of training is a time: the learning rate falls along a cosine over `--minutes` of training. A stopped run
resumes from its checkpoint. The styles twemoji and high-contrast are never used.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from cyclopts import App, Parameter
from open_clip import get_tokenizer
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor

from gopro.data.embedded.emoji import SEEN_STYLES, SETS, STYLES, all_emoji, emoji_dataset
from tools.emoji_batches import Batches, Vocabulary
from tools.emoji_model import PREPROCESS, TEMPLATE, WEIGHTS, build, encode_text, normalise, read

log = logging.getLogger("pretrain_emoji")
LOG_EVERY = 20  # steps
app = App(name="pretrain_emoji", help=__doc__)


@Parameter(name="*")
@dataclass(frozen=True)
class Config:
    """Settings of a pretraining run.

    Attributes:
        minutes: training time, over which the learning rate falls.
        ranks: processes, each on one thread, that average their gradients.
        batch: distinct emoji per step and rank.
        text_only: share of the time in which only the text tower learns, from pairs of captions.
        text_every: steps between two updates of the text tower after that.
        uses: times that a scene is used, each time with other patches dropped.
        harden: batches until restyling has risen from none to its full share.
        lr, muon_lr: highest rates of AdamW and of Muon, which trains the matrices of the image tower's blocks.
        warmup: share of the time in which the rate rises.
        keep: share of the image patches used in training, except in the last `whole_tail` of the time.
        bank_every: steps between two encodings of all emoji's prompts.
        save_every: seconds between two checkpoints.
    """

    minutes: float = 47.0
    ranks: int = 2
    batch: int = 96
    text_only: float = 0.025
    text_every: int = 4
    uses: int = 2
    harden: int = 1000
    width: int = 128
    layers: int = 6
    text_layers: int = 4
    lr: float = 2e-3
    muon_lr: float = 0.015
    weight_decay: float = 0.1
    warmup: float = 0.02
    keep: float = 0.4
    whole_tail: float = 0.08
    bank_every: int = 40
    save_every: float = 180.0
    seed: int = 1


def model_cfg(config: Config, vocabulary: int = 49408) -> dict:
    """Return the arguments of `open_clip.model.CLIP`, without patch dropout."""
    return {
        "embed_dim": config.width,
        "vision_cfg": {
            "image_size": 64,
            "patch_size": 8,
            "width": config.width,
            "layers": config.layers,
            "head_width": 64,
            "patch_dropout": 0.0,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": vocabulary,
            "width": 128,
            "heads": 2,
            "layers": config.text_layers,
        },
    }


class Training:
    """The state of a run: model, optimisers, encoded prompts, step and seconds."""

    def __init__(self, config: Config) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.vocabulary = Vocabulary()
        self.model = build(model_cfg(config, len(self.vocabulary)), 1 - config.keep)
        self.weights = list(self.model.parameters())
        # Muon trains the matrices of the image tower's blocks, AdamW the rest.
        named = dict(self.model.named_parameters())
        hidden = [n for n, w in named.items() if n.startswith("visual.transformer") and w.ndim == 2]
        plain = [n for n, w in named.items() if w.ndim < 2 or "embedding" in n]
        decayed = [n for n in named if n not in {*hidden, *plain}]
        adamw = torch.optim.AdamW(
            [
                {"params": [named[n] for n in decayed], "weight_decay": config.weight_decay},
                {"params": [named[n] for n in plain], "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=(0.9, 0.98),
            fused=True,
        )
        muon = torch.optim.Muon([named[n] for n in hidden], lr=config.muon_lr, weight_decay=config.weight_decay)
        self.optimizers = {"lr": adamw, "muon_lr": muon}
        self.step, self.seconds = 0, 0.0
        self.prompts = self.vocabulary.encode([TEMPLATE.format(emoji.name) for emoji in all_emoji()])
        self.bank = torch.empty(0)

    @property
    def position(self) -> float:
        """Return the share of the time that has passed, 0 to 1."""
        return min(1.0, self.seconds / (60 * self.config.minutes))

    def refresh_bank(self) -> None:
        with torch.no_grad():
            self.bank = torch.cat([encode_text(self.model, part) for part in self.prompts.split(256)])

    def text_loss(self, tokens: Tensor, prompts: Tensor) -> Tensor:
        """Return the contrastive loss of two captions per emoji. Names and tags already show which emoji are alike."""
        scale = self.model.logit_scale.exp().clamp(max=100)
        logits = scale * encode_text(self.model, prompts) @ encode_text(self.model, tokens).T
        own = torch.arange(len(tokens))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    def image_loss(self, images: Tensor, tokens: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the contrastive loss of images with all emoji's prompts, in some steps also with the batch's captions.

        Only the latter have gradients to the text. Also returns which images are classified correctly among all emoji.
        """
        if self.step % self.config.bank_every == 0 or not len(self.bank):
            self.refresh_bank()
        scale = self.model.logit_scale.exp().clamp(max=100)
        image = F.normalize(self.model.visual(normalise(images)), dim=-1)
        # The correct prompt comes from the bank like the wrong ones. If it were encoded again, the model could
        # recognise it by its age, and the text tower would learn to drift.
        to_bank = scale * image @ self.bank.T
        loss = F.cross_entropy(to_bank, places)
        if self.step % self.config.text_every == 0:
            logits = scale * image @ encode_text(self.model, tokens).T
            own = torch.arange(len(places))
            loss = loss + (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        return loss, to_bank.detach().argmax(dim=1) == places

    def update(self, batch: tuple[Tensor, Tensor, Tensor], seconds: float) -> tuple[float, float]:
        """Take a step, `seconds` after the last one; return the loss and the accuracy over all emoji."""
        c, at = self.config, self.position
        text_only = at < c.text_only
        phase = at / c.text_only if text_only else (at - c.text_only) / (1 - c.text_only)
        cosine = 1.0 if text_only else 0.5 * (1 + math.cos(math.pi * phase))
        factor = max(cosine * min(1.0, phase / (0.2 if text_only else c.warmup)), 1e-3)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = factor * getattr(c, name)
        if at > 1 - c.whole_tail:
            self.model.visual.patch_dropout = torch.nn.Identity()
        images, tokens, places = batch
        if text_only:
            loss, correct = self.text_loss(tokens, self.prompts[places]), torch.zeros(1)
        else:
            loss, correct = self.image_loss(images, tokens, places)
        right = correct.float().mean()
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        means = self.average([loss.detach(), right, torch.tensor(seconds)])
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.step += 1
        self.seconds += means[2]
        return means[0], means[1]

    def average(self, values: list[Tensor]) -> list[float]:
        """Average the gradients (in place) and some numbers over the ranks, in one exchange per step."""
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        flat = torch.cat([part.reshape(-1) for part in (*gradients, *values)])
        dist.all_reduce(flat)
        parts = (flat / dist.get_world_size()).split([part.numel() for part in (*gradients, *values)])
        for gradient, part in zip(gradients, parts, strict=False):
            gradient.copy_(part.view_as(gradient))
        return [part.item() for part in parts[len(gradients) :]]

    def save(self, path: Path) -> None:
        state = {
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "bank": self.bank,
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        if model_cfg(Config(**state["config"])) != model_cfg(self.config):
            raise SystemExit(f"{path} holds a model of another shape ({state['config']}): use another --folder")
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.bank, self.step, self.seconds = state["bank"], state["step"], state["seconds"]


@app.command
def train(config: Config = Config(), *, folder: Path = Path("runs/emoji")) -> None:
    """Train until the minutes have passed; resume from FOLDER/checkpoint.pt if it exists."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as meeting:
        mp.start_processes(run_rank, (config, folder, f"file://{meeting}/store"), config.ranks, start_method="fork")


def run_rank(rank: int, config: Config, folder: Path, meeting: str) -> None:
    """Run one process of the training on one thread.

    On a shared machine, threads wait for each other at every operation, processes only once per step.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=config.ranks)
    training, path = Training(config), folder / "checkpoint.pt"
    if path.exists():
        training.load(path)
    torch.manual_seed((config.seed * 10**6 + training.step) * config.ranks + rank)
    if rank == 0:
        log.info("%.2f M image and %.2f M text parameters", *(count / 1e6 for count in sizes(training.model)))
    batches = Batches(config.seed, config.batch, config.harden)
    scenes = batches.stream(training.step * config.ranks + rank, config.ranks, config.uses)
    saved = last = time.monotonic()
    sums = np.zeros(2)  # of loss and accuracy since the last log line
    while training.position < 1:
        number = training.step * config.ranks + rank
        batch = batches.captions(number, 2) if training.position < config.text_only else next(scenes)
        now = time.monotonic()
        sums += training.update(batch, now - last)
        last = now
        if training.step % LOG_EVERY == 0:
            loss, right = sums / LOG_EVERY
            speed, left = training.step / training.seconds, (1 - training.position) * config.minutes
            line = "step %d loss %.3f right %.1f%%, %.2f steps/s, %.1f minutes left"
            log.log(logging.INFO if rank == 0 else logging.DEBUG, line, training.step, loss, 100 * right, speed, left)
            sums[:] = 0
        if rank == 0 and now - saved > config.save_every:
            training.save(path)
            saved = now
    if rank == 0:
        training.save(path)


def sizes(model: CLIP) -> tuple[int, int]:
    """Count the parameters of the image tower and of the rest."""
    visual = sum(weight.numel() for weight in model.visual.parameters())
    return visual, sum(weight.numel() for weight in model.parameters()) - visual


@app.command
def export(*, folder: Path = Path("runs/emoji"), out: Path = WEIGHTS) -> None:
    """Export the checkpoint's model as half-precision safetensors, with zero embeddings for unused tokens."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    config = Config(**state["config"])
    weights = {name: weight.half().contiguous() for name, weight in state["model"].items()}
    known = weights["token_embedding.weight"]
    weights["token_embedding.weight"] = known.new_zeros(49408, known.shape[1])
    weights["token_embedding.weight"][torch.from_numpy(Vocabulary().ids)] = known
    metadata = {
        "model_cfg": json.dumps(model_cfg(config)),
        "preprocess_cfg": json.dumps(PREPROCESS),
        "training": json.dumps({**state["config"], "steps": state["step"], "styles": SEEN_STYLES}),
    }
    save_file(weights, out.with_suffix(".part"), metadata)
    os.replace(out.with_suffix(".part"), out)
    log.info("%s: %.1f MB, step %d", out, out.stat().st_size / 1e6, state["step"])


@app.command
def table(*, weights: Path = WEIGHTS, scenes: int = 10, template: str = TEMPLATE) -> None:
    """Print the zero-shot top-1 accuracy (%) of every set in every style over `scenes` test scenes per class."""
    model, tokenize = read(weights), get_tokenizer("ViT-B-32")
    print("| style | " + " | ".join(SETS) + " | mean |\n|" + "---|" * (len(SETS) + 2))
    with torch.no_grad():
        for style in STYLES:
            row = []
            for name in SETS:
                data = emoji_dataset(f"{name}:{style}")
                text = encode_text(model, tokenize([template.format(c) for c in data.classnames])[:, :32])
                samples = [sample for number, sample in enumerate(data.test) if number % 10 < scenes]
                right = 0
                for start in range(0, len(samples), 256):
                    part = samples[start : start + 256]
                    images = torch.from_numpy(np.stack([np.asarray(s.image.open()) for s in part]))
                    guess = (model.visual(normalise(images)) @ text.T).argmax(dim=1)
                    right += int((guess == torch.tensor([s.label for s in part])).sum())
                row.append(100 * right / len(samples))
            row.append(sum(row) / len(row))
            print(f"| {style} | " + " | ".join(f"{value:.1f}" for value in row) + " |", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    app()
