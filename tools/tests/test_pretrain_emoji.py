"""Pretraining of the small emoji CLIP: its batches, its vocabulary, and the model that comes with the package."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gopro.data.embedded.emoji import emoji_dataset
from gopro.data.embedded.emoji_scenes import SIZE
from tools.emoji_batches import Batches, Vocabulary
from tools.emoji_model import TEMPLATE, WEIGHTS, encode_text, normalise, read


def test_a_batch_depends_only_on_its_number_and_has_distinct_emoji():
    images, tokens, places = Batches(1, 8, harden=1)[5]
    again = Batches(1, 8, harden=1)[5]
    assert all(torch.equal(a, b) for a, b in zip((images, tokens, places), again, strict=True))
    assert images.shape == (8, SIZE, SIZE, 3) and len(set(places.tolist())) == 8
    assert not torch.equal(images, Batches(1, 8, harden=1)[6][0])
    assert not torch.equal(images, Batches(2, 8, harden=1)[5][0])


def test_end_of_text_keeps_the_highest_id_even_in_cut_captions():
    vocabulary = Vocabulary()
    texts = ["fox.", "a photo of a " + "fox " * 40]
    rows = vocabulary.encode(texts, longest=16)
    assert rows.shape == (2, 16)
    assert rows.argmax(dim=1).tolist() == [3, 15]
    assert torch.equal(torch.from_numpy(vocabulary.ids)[rows[0, :4]], vocabulary.tokenize(texts)[0, :4].long())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="pretraining uses Muon, which came with torch 2.9")
def test_pretraining_stops_on_time_resumes_and_exports_the_learned_weights(tmp_path):
    root = Path(__file__).parents[2]

    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tools.pretrain_emoji", *words, "--folder", str(tmp_path)],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": "src"},
        )
        return done.stderr

    small = ("--ranks", "1", "--batch", "4", "--layers", "1", "--text-layers", "1", "--text-only", "0.5")
    command("train", "--minutes", "0.01", *small)
    first = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    command("train", "--minutes", str(first["seconds"] / 60 + 0.01), *small)
    second = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert second["step"] > first["step"] > 0
    assert second["seconds"] > first["seconds"] >= 0.6
    command("export", "--out", str(tmp_path / "clip.safetensors"))
    model, vocabulary = read(tmp_path / "clip.safetensors"), Vocabulary()
    rows = model.token_embedding.weight.detach()
    learned = second["model"]["token_embedding.weight"].half().float()
    assert torch.equal(rows[torch.from_numpy(vocabulary.ids)], learned)
    assert torch.count_nonzero(rows.abs().sum(dim=1)) == len(vocabulary)


@torch.no_grad()
def test_the_shipped_model_encodes_cut_token_rows_exactly_and_beats_chance():
    model, data = read(WEIGHTS), emoji_dataset("emoji-activities:noto")
    tokens = Vocabulary().tokenize([TEMPLATE.format(name) for name in data.classnames])
    text = encode_text(model, tokens[:, :20])
    torch.testing.assert_close(text, model.encode_text(tokens, normalize=True))
    chosen = data.test[::10]
    images = torch.from_numpy(np.stack([np.asarray(s.image.open()) for s in chosen]))
    guess = (F.normalize(model.visual(normalise(images)), dim=-1) @ text.T).argmax(dim=1)
    # chance is 1 in 85
    assert (guess == torch.tensor([s.label for s in chosen])).float().mean() > 0.15
