"""CoOp, CoCoOp and KgCoOp: their authors' code step by step, and what each must be."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from gopro import benchmark
from gopro.clip.backbone import Backbone, Encoded, from_openai
from gopro.errors import InputError
from gopro.methods.base import Method
from gopro.methods.registry import METHODS, build_method
from gopro.runs.config import BenchmarkConfig
from tools.golden_rivals import CASES, CLASSNAMES, GOLDEN, STEPS, random_clip

NAMES = ["red fox", "owl", "grand piano", "dog", "very slow old train"]
TEMPLATE = "a photo of a {}."
LABELS = torch.tensor([0, 1, 2, 3])


def encoded(backbone: Backbone, *batch: int) -> Encoded:
    return backbone.encode(torch.randn(*batch, 3, 32, 32, generator=torch.Generator().manual_seed(3)))


def disturbed(method: Method, size: float = 0.1) -> Method:
    """The method with every learned number moved, as training would."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return method.eval()


@pytest.fixture(scope="module")
def openai_tiny() -> Backbone:
    """The CLIP that the authors' code was run on."""
    return from_openai(random_clip())


def read(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(GOLDEN / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118 (not a dict)


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The learnables under a prefix, by our names."""
    named = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    return {"context" if key == "ctx" else key: value for key, value in named.items()}


def deviation(here: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest magnitude."""
    assert here.shape == theirs.shape
    return ((here.detach() - theirs).abs().max() / theirs.abs().max()).item()


def deviations(golden: dict[str, Tensor], metadata: dict[str, str], backbone: Backbone) -> dict[str, float]:
    """How far we are from the authors' step, by what was compared."""
    method = build_method(metadata["spec"], backbone, json.loads(metadata["classnames"]), TEMPLATE)
    start = part(golden, "init.")
    assert {key: tensor.shape for key, tensor in method.state_dict().items()} == {k: t.shape for k, t in start.items()}
    if "tokens" not in metadata["spec"]:
        torch.testing.assert_close(method.state_dict()["context"], start["context"])  # both start from the same words
    method.load_state_dict(start)
    optimizer = torch.optim.SGD(method.parameters(), lr=float(metadata["lr"]), momentum=0.9, weight_decay=5e-4)
    images = method.encode(golden["images"])
    found = {"logits": deviation(method.logits(images), golden["logits"])}
    losses = []
    for step in range(STEPS):
        loss = sum(method.losses(images[None], golden["labels"]).values())
        losses.append(loss)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            named = dict(method.named_parameters())
            found |= {f"grad.{k}": deviation(named[k].grad, g) for k, g in part(golden, "grad.").items()}
        optimizer.step()
    found["losses"] = deviation(torch.stack(losses), golden["losses"])
    return found | {f"after.{k}": deviation(method.state_dict()[k], a) for k, a in part(golden, "after.").items()}


@pytest.mark.parametrize("name", CASES)
def test_the_authors_steps_are_reproduced(name: str, openai_tiny: Backbone) -> None:
    golden, metadata = read(name)
    found = deviations(golden, metadata, openai_tiny)
    assert max(found.values()) < 1e-4, found
    # and the comparison is worth something: the steps led somewhere
    assert deviation(golden["losses"][-1:], golden["losses"][:1]) > 1e-2
    assert all(deviation(a, part(golden, "init.")[key]) > 1e-3 for key, a in part(golden, "after.").items())


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("coop-middle", "coop[tokens=5]"),
        ("coop-front", "coop[tokens=4,position=middle]"),
        ("coop-csc-middle", "coop[tokens=5,csc=true]"),
        ("kgcoop", "kgcoop"),
        ("kgcoop", 'kgcoop[weight=7.9,template="a centered satellite photo of {}."]'),
    ],
)
def test_other_settings_are_told_apart(name: str, spec: str, openai_tiny: Backbone) -> None:
    golden, metadata = read(name)
    assert max(deviations(golden, {**metadata, "spec": spec}, openai_tiny).values()) > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_golden_files_are_small_and_say_what_the_tool_records_now(name: str) -> None:
    _, metadata = read(name)
    assert (GOLDEN / f"{name}.safetensors").stat().st_size < 1e5
    assert metadata["spec"] == CASES[name].spec
    assert json.loads(metadata["classnames"]) == [classname.replace("_", " ") for classname in CLASSNAMES]


@pytest.mark.parametrize("settings", ["position=middle", "position=front", "tokens=3", "tokens=3,position=middle"])
def test_coop_holds_for_any_names_at_any_position(settings: str, tiny: Backbone) -> None:
    method = disturbed(build_method(f"coop[{settings}]", tiny, NAMES, TEMPLATE))
    logits, order = method.logits(encoded(tiny, 3)), [3, 0, 4, 2, 1]
    permuted = method.for_classes([NAMES[i] for i in order]).logits(encoded(tiny, 3))
    torch.testing.assert_close(permuted, logits[:, order], atol=1e-4, rtol=1e-5)
    many = build_method(f"coop[{settings}]", tiny, [f"thing number {i}" for i in range(40)], TEMPLATE)
    many.load_state_dict(method.state_dict())
    torch.testing.assert_close(many.for_classes(NAMES).logits(encoded(tiny, 3)), logits)


def test_middle_puts_the_smaller_half_before_the_name(tiny: Backbone) -> None:
    """Words as context: around a name they make the prompt that they make when written out."""
    method = build_method('coop[position=middle,template="one two red blue green {}."]', tiny, ["dog"], TEMPLATE)
    written = build_method('zeroshot[template="one two {} red blue green."]', tiny, ["dog"], TEMPLATE)
    torch.testing.assert_close(method.logits(encoded(tiny, 3)), written.logits(encoded(tiny, 3)), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("spec", ["coop[csc=true]", "kgcoop", 'kgcoop[template="an icon of {}."]'])
def test_learning_starts_at_zero_shot(spec: str, tiny: Backbone) -> None:
    images = encoded(tiny, 8)
    expected = build_method("zeroshot", tiny, NAMES, TEMPLATE).logits(images)
    torch.testing.assert_close(build_method(spec, tiny, NAMES, TEMPLATE).logits(images), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("settings", ["csc=true", "csc=true,position=middle", "csc=true,position=front,tokens=2"])
def test_class_specific_context_belongs_to_its_class(settings: str, tiny: Backbone) -> None:
    method = disturbed(build_method(f"coop[{settings}]", tiny, NAMES, TEMPLATE))
    logits, some = method.logits(encoded(tiny, 3)), [4, 1, 2]
    fewer = method.for_classes([NAMES[i] for i in some])
    torch.testing.assert_close(fewer.logits(encoded(tiny, 3)), logits[:, some], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(fewer.for_classes(NAMES).logits(encoded(tiny, 3)), logits)
    with torch.no_grad():
        dict(method.named_parameters())["context"][1] += torch.linspace(-1, 1, tiny.text.width)
    moved = (method.logits(encoded(tiny, 3)) - logits).abs().amax(dim=0)
    assert moved[1] > 1e-2 and moved[[0, 2, 3, 4]].max() < 1e-4
    with pytest.raises(InputError, match=r"^class 'cat' was not trained on: class-specific context cannot[^\n]*$"):
        method.for_classes(["owl", "cat"])


def test_a_sweep_records_that_class_specific_context_has_none_for_new_classes(tmp_path: Path) -> None:
    for c, name in enumerate("abcd"):
        for part_ in ("train", "test"):
            (tmp_path / "mine" / part_ / name).mkdir(parents=True)
            Image.new("RGB", (32, 32), (60 * c, 40, 90)).save(tmp_path / "mine" / part_ / name / "0.png")
    config = BenchmarkConfig(
        output=tmp_path / "out",
        data=(str(tmp_path / "mine"),),
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
def test_settings_that_make_no_prompt_are_refused(spec: str, words: str, tiny: Backbone) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        build_method(spec, tiny, NAMES, TEMPLATE)
    assert words in str(caught.value)


def test_random_context_needs_no_words_and_follows_the_seed(tiny: Backbone) -> None:
    def drawn(seed: int) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return build_method('coop[tokens=16,template="{}."]', tiny, NAMES, TEMPLATE).state_dict()["context"]

    assert drawn(1).shape == (16, 64) and drawn(1).std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("spec", ["coop", "coop[csc=true,position=middle]", "cocoop", "kgcoop"])
def test_every_parameter_learns(spec: str, openai_tiny: Backbone) -> None:
    method = disturbed(build_method(spec, openai_tiny, NAMES, TEMPLATE)).train()
    images = openai_tiny.encode(torch.randn(1, 4, 3, 16, 16, generator=torch.Generator().manual_seed(3)))
    sum(method.losses(images, LABELS).values()).backward()
    assert [n for n, p in method.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-7] == []


def test_a_silent_meta_net_makes_cocoop_coop(tiny: Backbone) -> None:
    method, coop = (disturbed(build_method(spec, tiny, NAMES, TEMPLATE)) for spec in ("cocoop", "coop"))
    images = encoded(tiny, 4)
    assert not torch.allclose(method.logits(images), coop.logits(images), atol=1e-3)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if name.startswith("meta_net.linear2"):
                parameter.zero_()
    torch.testing.assert_close(method.logits(images), coop.logits(images), atol=1e-4, rtol=1e-5)


def test_kgcoop_is_held_by_the_hand_written_prompt(tiny: Backbone) -> None:
    images = encoded(tiny, 1, 4)

    def terms(spec: str, size: float) -> dict[str, float]:
        losses = disturbed(build_method(spec, tiny, NAMES, TEMPLATE), size).losses(images, LABELS)
        return {name: loss.item() for name, loss in losses.items()}

    assert terms("kgcoop", 0)["kg"] == pytest.approx(0, abs=1e-5)  # it starts where it is held
    assert terms("kgcoop", 0.1)["kg"] > 1e-3
    assert terms('kgcoop[template="an icon of {}."]', 0)["kg"] > 1e-3
    assert terms("kgcoop[weight=2]", 0.1)["kg"] == pytest.approx(terms("kgcoop", 0.1)["kg"] / 4, rel=1e-5)
    assert terms("kgcoop[weight=0]", 0.1) == {"ce": terms("coop", 0.1)["ce"], "kg": 0}


def test_kgcoop_is_held_at_the_data_sets_prompt_and_predicts_by_its_own(tiny: Backbone) -> None:
    ours, other = (disturbed(build_method("kgcoop", tiny, NAMES, t)) for t in (TEMPLATE, "a drawing of {}"))
    named = disturbed(build_method('kgcoop[template="a drawing of {}"]', tiny, NAMES, TEMPLATE))
    batch, held = (
        encoded(tiny, 1, 4),
        [m.losses(encoded(tiny, 1, 4), LABELS)["kg"].item() for m in (ours, other, named)],
    )
    assert held[1] == held[2] != held[0]
    torch.testing.assert_close(ours.logits(batch[0]), other.logits(batch[0]))


def test_recipes_are_the_authors() -> None:
    recipes = {name: METHODS[name].recipe for name in ("cocoop", "kgcoop")}
    assert {name: (r.optimizer, r.lr, r.epochs, r.batch, r.warmup) for name, r in recipes.items() if r} == {
        "cocoop": ("sgd", 2e-3, 10, 1, 1.0),
        "kgcoop": ("sgd", 2e-3, 100, 128, 1.0),
    }
