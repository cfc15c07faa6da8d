"""CoOp, CoCoOp and KgCoOp."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from gopro import benchmark
from gopro.clip.backbone import Backbone, from_openai
from gopro.errors import InputError
from gopro.methods.registry import METHODS, build_method
from gopro.runs.config import BenchmarkConfig
from tests.support.golden import random_clip
from tests.support.methods import NAMES, TEMPLATE, encode_noise, perturb

LABELS = torch.tensor([0, 1, 2, 3])


@pytest.fixture(scope="module")
def openai_tiny() -> Backbone:
    """The CLIP that the authors' code was run on."""
    return from_openai(random_clip())


@pytest.mark.parametrize("settings", ["position=middle", "position=front", "tokens=3", "tokens=3,position=middle"])
def test_shared_context_works_for_any_class_names_at_any_position(settings: str, tiny: Backbone) -> None:
    method = perturb(build_method(f"coop[{settings}]", tiny, NAMES, TEMPLATE))
    logits, order = method.logits(encode_noise(tiny, 3)), [3, 0, 4, 2, 1]
    permuted = method.for_classes([NAMES[i] for i in order]).logits(encode_noise(tiny, 3))
    torch.testing.assert_close(permuted, logits[:, order], atol=1e-4, rtol=1e-5)
    many = build_method(f"coop[{settings}]", tiny, [f"thing number {i}" for i in range(40)], TEMPLATE)
    many.load_state_dict(method.state_dict())
    torch.testing.assert_close(many.for_classes(NAMES).logits(encode_noise(tiny, 3)), logits)


def test_middle_puts_the_smaller_half_before_the_name(tiny: Backbone) -> None:
    """Words as context: around a name they make the prompt that they make when written out."""
    method = build_method('coop[position=middle,template="one two red blue green {}."]', tiny, ["dog"], TEMPLATE)
    written = build_method('zeroshot[template="one two {} red blue green."]', tiny, ["dog"], TEMPLATE)
    torch.testing.assert_close(
        method.logits(encode_noise(tiny, 3)), written.logits(encode_noise(tiny, 3)), atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize("spec", ["coop[csc=true]", "kgcoop", 'kgcoop[template="an icon of {}."]'])
def test_learning_starts_at_zero_shot(spec: str, tiny: Backbone) -> None:
    images = encode_noise(tiny, 8)
    expected = build_method("zeroshot", tiny, NAMES, TEMPLATE).logits(images)
    torch.testing.assert_close(build_method(spec, tiny, NAMES, TEMPLATE).logits(images), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("settings", ["csc=true", "csc=true,position=middle", "csc=true,position=front,tokens=2"])
def test_class_specific_context_belongs_to_its_class(settings: str, tiny: Backbone) -> None:
    method = perturb(build_method(f"coop[{settings}]", tiny, NAMES, TEMPLATE))
    logits, some = method.logits(encode_noise(tiny, 3)), [4, 1, 2]
    fewer = method.for_classes([NAMES[i] for i in some])
    torch.testing.assert_close(fewer.logits(encode_noise(tiny, 3)), logits[:, some], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(fewer.for_classes(NAMES).logits(encode_noise(tiny, 3)), logits)
    with torch.no_grad():
        dict(method.named_parameters())["context"][1] += torch.linspace(-1, 1, tiny.text.width)
    moved = (method.logits(encode_noise(tiny, 3)) - logits).abs().amax(dim=0)
    assert moved[1] > 1e-2 and moved[[0, 2, 3, 4]].max() < 1e-4
    with pytest.raises(InputError, match=r"^class 'cat' was not trained on: class-specific context cannot[^\n]*$"):
        method.for_classes(["owl", "cat"])


def test_a_benchmark_records_that_class_specific_context_has_no_new_classes(tmp_path: Path) -> None:
    for c, name in enumerate("abcd"):
        for part in ("train", "test"):
            (tmp_path / "mine" / part / name).mkdir(parents=True)
            Image.new("RGB", (32, 32), (60 * c, 40, 90)).save(tmp_path / "mine" / part / name / "0.png")
    config = BenchmarkConfig(
        output=tmp_path / "out",
        data=(str(tmp_path / "mine"),),
        backbones=("emoji",),
        methods=("coop[csc=true]",),
        seeds=(1,),
        shots=(1,),
        epochs=1,
        workers=0,
    )
    outcome = benchmark("base-to-new", config)
    assert [row["classes"] for row in outcome.rows] == ["base"]
    [failure] = outcome.failures
    assert "other class names" in failure["error"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("coop[tokens=0]", "tokens is 0"),
        ("coop[tokens=-2,csc=true]", "tokens is -2"),
        ("coop[tokens=60]", "shorten the name or the context"),
        ('coop[template="{}."]', "context starts from the words"),
        ('kgcoop[start="{}."]', "context starts from the words"),
        ('kgcoop[template="a photo."]', "write {} exactly once"),
        ('cocoop[template="{}."]', "context starts from the words"),
    ],
)
def test_settings_without_a_valid_prompt_are_refused(spec: str, words: str, tiny: Backbone) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        build_method(spec, tiny, NAMES, TEMPLATE)
    assert words in str(caught.value)


def test_random_context_needs_no_words_and_depends_on_the_seed(tiny: Backbone) -> None:
    def drawn(seed: int) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return build_method('coop[tokens=16,template="{}."]', tiny, NAMES, TEMPLATE).state_dict()["context"]

    assert drawn(1).shape == (16, 64) and drawn(1).std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("spec", ["coop", "coop[csc=true,position=middle]", "cocoop", "kgcoop"])
def test_every_parameter_learns(spec: str, openai_tiny: Backbone) -> None:
    method = perturb(build_method(spec, openai_tiny, NAMES, TEMPLATE)).train()
    images = openai_tiny.encode(torch.randn(1, 4, 3, 16, 16, generator=torch.Generator().manual_seed(3)))
    sum(method.losses(images, LABELS).values()).backward()
    assert [n for n, p in method.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-7] == []


def test_cocoop_with_a_zero_meta_net_equals_coop(tiny: Backbone) -> None:
    method, coop = (perturb(build_method(spec, tiny, NAMES, TEMPLATE)) for spec in ("cocoop", "coop"))
    images = encode_noise(tiny, 4)
    assert not torch.allclose(method.logits(images), coop.logits(images), atol=1e-3)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if name.startswith("meta_net.linear2"):
                parameter.zero_()
    torch.testing.assert_close(method.logits(images), coop.logits(images), atol=1e-4, rtol=1e-5)


def test_kgcoops_loss_is_the_distance_to_the_hand_written_prompt(tiny: Backbone) -> None:
    images = encode_noise(tiny, 1, 4)

    def terms(spec: str, size: float) -> dict[str, float]:
        losses = perturb(build_method(spec, tiny, NAMES, TEMPLATE), size).losses(images, LABELS)
        return {name: loss.item() for name, loss in losses.items()}

    assert terms("kgcoop", 0)["kg"] == pytest.approx(0, abs=1e-5)  # it starts at that prompt
    assert terms("kgcoop", 0.1)["kg"] > 1e-3
    assert terms('kgcoop[template="an icon of {}."]', 0)["kg"] > 1e-3
    assert terms("kgcoop[weight=2]", 0.1)["kg"] == pytest.approx(terms("kgcoop", 0.1)["kg"] / 4, rel=1e-5)
    assert terms("kgcoop[weight=0]", 0.1) == {"ce": terms("coop", 0.1)["ce"], "kg": 0}


def test_kgcoop_stays_near_the_data_sets_prompt_and_predicts_with_its_own(tiny: Backbone) -> None:
    ours, other = (perturb(build_method("kgcoop", tiny, NAMES, t)) for t in (TEMPLATE, "a drawing of {}"))
    named = perturb(build_method('kgcoop[template="a drawing of {}"]', tiny, NAMES, TEMPLATE))
    batch = encode_noise(tiny, 1, 4)
    distances = [method.losses(batch, LABELS)["kg"].item() for method in (ours, other, named)]
    assert distances[1] == distances[2] != distances[0]
    torch.testing.assert_close(ours.logits(batch[0]), other.logits(batch[0]))


def test_recipes_are_the_authors() -> None:
    for name, recipe in {"cocoop": ("sgd", 2e-3, 10, 1, 1.0), "kgcoop": ("sgd", 2e-3, 100, 128, 1.0)}.items():
        ours = METHODS[name].recipe
        assert (ours.optimizer, ours.lr, ours.epochs, ours.batch, ours.warmup) == recipe, name
