"""Checkpoints of the authors' own code: what is in them, and that they predict as runs what they predicted there."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gopro import cli
from gopro.clip.backbone import Backbone, from_openai
from gopro.errors import InputError
from gopro.runs.coop_checkpoint import read_checkpoint
from gopro.runs.import_checkpoint import import_checkpoint
from gopro.runs.run import load_run
from tools.golden_rivals import CLASSNAMES, GOLDEN, random_clip

CLIP = random_clip()


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """The CLIP that the authors' code was run on."""
    return from_openai(CLIP, "small-clip")


def golden(name: str) -> dict[str, Tensor]:
    """A recorded step of the authors' code, see tools/golden_rivals.py."""
    with safe_open(GOLDEN / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)


def buffers(tokens: int, names: list[str] = CLASSNAMES, clip: dict[str, Tensor] = CLIP) -> dict[str, Tensor]:
    """What the authors' prompt learners register of their class names."""
    words = [f"{' '.join('X' * tokens)} {name.replace('_', ' ')}." for name in names]
    embedded = F.embedding(open_clip.SimpleTokenizer()(words), clip["token_embedding.weight"])
    return {"token_prefix": embedded[:, :1], "token_suffix": embedded[:, 1 + tokens :]}


class Warmup(torch.optim.lr_scheduler.LRScheduler):
    """As Dassl's ConstantWarmupScheduler: what comes after it is among its numbers, and so gets into a checkpoint."""

    def __init__(self, optimizer: torch.optim.Optimizer, successor: Any, warmup_epoch: int):
        self.successor, self.warmup_epoch = successor, warmup_epoch
        super().__init__(optimizer)

    def get_lr(self) -> Any:
        return [1e-5 for _ in self.base_lrs]


def written(path: Path, state: dict[str, Tensor], epoch: int = 50, optimizer: str = "SGD") -> Path:
    """A checkpoint as Dassl writes it, after a step."""
    weight = nn.Parameter(torch.ones(3))
    optim = getattr(torch.optim, optimizer)([weight], lr=0.1, weight_decay=5e-4)
    if optimizer == "SGD":
        optim.param_groups[0]["momentum"] = 0.9
    schedule = Warmup(optim, torch.optim.lr_scheduler.CosineAnnealingLR(optim, 50.0), 1)
    weight.square().sum().backward()
    optim.step()
    schedule.step()
    content = {"state_dict": state, "epoch": epoch, "optimizer": optim.state_dict(), "val_result": 81.5}
    torch.save({**content, "scheduler": schedule.state_dict()}, path)
    return path


def coop(case: str) -> dict[str, Tensor]:
    """The state dict of a prompt learner of CoOp or CoCoOp, as it was before the recorded step."""
    init = {key.removeprefix("init."): t for key, t in golden(case).items() if key.startswith("init.")}
    return init | buffers(init["ctx"].shape[-2])


def gopro(half: bool = False, tokens: int = 4) -> dict[str, Tensor]:
    """The state dict of the released GOPro's model: all of CLIP and what it learned."""
    draw = torch.Generator().manual_seed(2)
    state = {f"image_encoder.{k.removeprefix('visual.')}": t for k, t in CLIP.items() if k.startswith("visual.")}
    state |= {f"text_encoder.{k}": t for k, t in CLIP.items() if k.startswith(("transformer.", "ln_final."))}
    state |= {f"text_encoder.{k}": CLIP[k] for k in ("positional_embedding", "text_projection")}
    state["logit_scale"] = CLIP["logit_scale"]

    def linear(name: str, inputs: int, outputs: int) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, inputs, generator=draw) * inputs**-0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=draw)

    learner = "prompt_learner"
    state[f"{learner}.ctx"] = 0.1 * torch.randn(tokens, 128, generator=draw)
    linear(f"{learner}.meta_net.linear1", 96, 6)
    linear(f"{learner}.meta_net.linear2", 6, 128)
    for part in ("style", "content"):
        for layer in range(2):
            linear(f"{learner}.{part}.linear.{layer}", 64, 128)
    linear(f"{learner}.rho", 2, 1)
    state |= {f"{learner}.{name}": tensor for name, tensor in buffers(tokens).items()}
    linear("simproj.linear", 96, 96)
    state |= {f"simproj.batchnorm.{part}": torch.ones(96) for part in ("weight", "bias", "running_mean", "running_var")}
    state["simproj.batchnorm.num_batches_tracked"] = torch.tensor(7)
    return {key: t.half() if half and t.is_floating_point() else t for key, t in state.items()}


def text_features(context: Tensor, backbone: Backbone) -> Tensor:
    """Of prompts written out in full, [classes, 77], with the context's vectors in the places of the X's."""
    model = backbone.model
    words = [f"{' '.join('X' * len(context))} {name.replace('_', ' ')}." for name in CLASSNAMES]
    ids = open_clip.SimpleTokenizer()(words)
    x = model.token_embedding(ids)
    x[:, 1 : 1 + len(context)] = context
    x = x + model.positional_embedding
    for block in model.transformer.resblocks:
        x = block(x, attn_mask=model.attn_mask)
    x = model.ln_final(x)[torch.arange(len(x)), ids.argmax(dim=1)] @ model.text_projection
    return F.normalize(x, dim=-1)


@torch.no_grad()
def released_logits(state: dict[str, Tensor], images: Tensor, backbone: Backbone) -> Tensor:
    """What the released GOPro computes of images, one after the other, from its state dict."""
    visual, learner, rows = backbone.model.visual, "prompt_learner", []

    def mapped(part: str, layer: int, x: Tensor) -> Tensor:
        name = f"{learner}.{part}.linear.{layer}"
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])[0]

    for image in images[:, None]:
        layers: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda module, given, out, to=layers: to.append(out))
            for block in visual.transformer.resblocks
        ]
        feature = F.normalize(visual(image), dim=-1)
        for hook in hooks:
            hook.remove()
        shift = state[f"{learner}.rho.bias"]
        for i, tokens in enumerate(layers):
            mean = tokens.mean(dim=1)
            std = (((tokens - mean[:, None]).square().sum(dim=1) + 2.3e-8) / tokens.shape[1]).sqrt()
            features = (mapped("style", i, (mean + std) / 2) + mapped("content", i, mean)) / 2
            shift = shift + state[f"{learner}.rho.weight"][0, i] * features
        text = text_features(state[f"{learner}.ctx"] + shift, backbone)
        rows.append(state["logit_scale"].exp() * feature @ text.T)
    return torch.cat(rows)


def refusal(function: Callable[..., Any], *arguments: Any, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def deviation(here: Tensor, there: Tensor) -> float:
    assert here.shape == there.shape
    return ((here - there).abs().max() / there.abs().max()).item()


@pytest.mark.parametrize(
    ("case", "position", "method"),
    [
        ("coop-end", "end", "coop[tokens=4]"),
        ("coop-middle", "middle", "coop[tokens=5,position=middle]"),
        ("coop-front", "front", "coop[tokens=4,position=front]"),
        ("coop-csc", "end", "coop[tokens=4,csc=true]"),
        ("coop-csc-middle", "middle", "coop[tokens=5,csc=true,position=middle]"),
        ("cocoop", "end", "cocoop"),
    ],
)
def test_the_authors_logits_come_out(case: str, position: Any, method: str, backbone: Backbone, tmp_path: Path) -> None:
    """Those that their own code computed from this state, which nothing but the checkpoint tells us."""
    path = written(tmp_path / "model.pth.tar-50", coop(case))
    made, found = import_checkpoint(path, tmp_path / "run", backbone=backbone, position=position)
    run, recorded = load_run(tmp_path / "run", backbone=backbone), golden(case)
    assert run.config.method == method and found.epoch == run.config.epochs == 50
    assert found.class_specific == ("csc" in case) and found.classes == len(CLASSNAMES)
    with torch.no_grad():
        logits = run.method.logits(run.method.encode(recorded["images"]))
        assert torch.equal(logits, made.method.logits(made.method.encode(recorded["images"])))
    assert deviation(logits, recorded["logits"]) < 1e-4
    learned = load_file(tmp_path / "run" / "learned.safetensors")
    expected = {k.replace("ctx", "context") for k in coop(case) if not k.startswith("token_")}
    assert set(learned) == expected, "the buffers of class names stay out"


@pytest.mark.parametrize("tokens", [4, 7])
@pytest.mark.parametrize("half", [False, True])
def test_the_released_gopro_comes_out(half: bool, tokens: int, backbone: Backbone, tmp_path: Path) -> None:
    state, images = gopro(tokens=tokens), golden("cocoop")["images"]
    path = written(tmp_path / "model-best.pth.tar", gopro(half, tokens), epoch=3)
    _, found = import_checkpoint(path, tmp_path / "run", backbone=backbone)
    run = load_run(tmp_path / "run", backbone=backbone)
    assert found.method == "gopro-release" and run.config.method.startswith("gopro-release") and found.tokens == tokens
    if half:
        state = {k: t.float() for k, t in gopro(half, tokens).items()} | {"logit_scale": CLIP["logit_scale"]}
    with torch.no_grad():
        logits = run.method.logits(run.method.encode(images))
    expected = released_logits(state, images, backbone)
    assert deviation(logits, expected) < 1e-4
    assert deviation(expected[:1], expected[1:2]) > 1e-3, "the images are told apart"
    assert not any("meta_net" in key or "token_" in key for key in load_file(tmp_path / "run" / "learned.safetensors"))


def test_the_recorded_step_of_the_released_code(shared: Path, tmp_path: Path) -> None:
    """The released code itself, on its own small CLIP."""
    with safe_open(shared / "reference" / "reference_step.safetensors", framework="pt") as file:
        metadata, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    clip = {k.removeprefix("clip."): t for k, t in tensors.items() if k.startswith("clip.")}
    state = {k.removeprefix("init."): t for k, t in tensors.items() if k.startswith("init.")}
    width = clip["text_projection"].shape[1]
    state |= {f"simproj.batchnorm.running_{part}": torch.zeros(width) for part in ("mean", "var")}
    state["simproj.batchnorm.num_batches_tracked"] = torch.tensor(0)
    names = json.loads(metadata["classnames"])
    state |= {f"prompt_learner.{k}": t for k, t in buffers(4, names, clip).items()}
    small = from_openai(clip)
    import_checkpoint(written(tmp_path / "model.pth.tar-1", state), tmp_path / "run", backbone=small)
    method = load_run(tmp_path / "run", backbone=small).method
    with torch.no_grad():
        logits = method.logits(method.encode(tensors["views.image"]))
    assert deviation(logits, tensors["out.logits"]) < 1e-4


def test_class_names_are_read_off_the_checkpoint(backbone: Backbone, tmp_path: Path) -> None:
    half = {k: t.half() for k, t in coop("coop-end").items()}
    run, _ = import_checkpoint(written(tmp_path / "c", half), tmp_path / "run", backbone=backbone)
    tower = backbone.text
    assert run.method.classnames[:2] == ("red fox", "owl") and run.method.classnames[2] == "grand piano"
    assert [tower.tokens(n) for n in run.method.classnames] == [tower.tokens(n.replace("_", " ")) for n in CLASSNAMES]


def test_class_names_that_are_given_are_held_against_it(backbone: Backbone, tmp_path: Path) -> None:
    path = written(tmp_path / "c", coop("coop-csc"))
    run, _ = import_checkpoint(path, tmp_path / "run", backbone=backbone, classnames=CLASSNAMES)
    assert run.method.classnames == tuple(name.replace("_", " ") for name in CLASSNAMES)
    swapped = [CLASSNAMES[1], CLASSNAMES[0], *CLASSNAMES[2:]]
    said = refusal(import_checkpoint, path, tmp_path / "a", backbone=backbone, classnames=swapped)
    assert "its class 1 is 'red fox', and the name given is 'owl'" in said
    said = refusal(import_checkpoint, path, tmp_path / "a", backbone=backbone, classnames=CLASSNAMES[:-1])
    assert "7 classes, and 6 names" in said and not (tmp_path / "a").exists()


def test_without_their_buffers_names_are_asked_for(backbone: Backbone, tmp_path: Path) -> None:
    state = {key: t for key, t in coop("coop-csc").items() if not key.startswith("token_")}
    path = written(tmp_path / "c", state)
    assert "--classes-file" in refusal(import_checkpoint, path, tmp_path / "run", backbone=backbone)
    assert "7 classes, and 2 names" in refusal(
        import_checkpoint, path, tmp_path / "run", backbone=backbone, classnames=["a fox", "an owl"]
    )
    import_checkpoint(path, tmp_path / "run", backbone=backbone, classnames=CLASSNAMES)
    recorded, method = golden("coop-csc"), load_run(tmp_path / "run", backbone=backbone).method
    with torch.no_grad():
        assert deviation(method.logits(method.encode(recorded["images"])), recorded["logits"]) < 1e-4


def test_its_data_set_gives_names_template_and_half(backbone: Backbone, tmp_path: Path) -> None:
    names = ["ant", "bee", "cat", "dog"]
    for part in ("train", "test"):
        for name in names:
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(tmp_path / "pets" / part / name / "a.png")
    ctx = coop("coop-end")["ctx"]
    path = written(tmp_path / "c", {"ctx": ctx} | buffers(4, names[:2]))
    said = refusal(import_checkpoint, path, tmp_path / "run", backbone=backbone, data=str(tmp_path / "pets"))
    assert "2 classes, and 4 names" in said and "--classes base" in said
    run, _ = import_checkpoint(
        path, tmp_path / "run", backbone=backbone, data=str(tmp_path / "pets"), classes="base", shots=1, seed=3
    )
    assert run.method.classnames == ("ant", "bee") and run.data == "pets" and run.template == "a photo of a {}."
    assert (run.config.shots, run.config.seed, run.config.classes) == (1, 3, "base")


class Evil:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("where", ["state_dict", "scheduler", "beside"])
def test_code_is_refused_and_not_run(where: str, backbone: Backbone, tmp_path: Path) -> None:
    content: dict[str, Any] = {"state_dict": coop("coop-end"), "epoch": 1, "scheduler": {}}
    (content if where == "beside" else content[where])["evil"] = Evil(tmp_path / "mark")
    torch.save(content, tmp_path / "c")
    said = refusal(import_checkpoint, tmp_path / "c", tmp_path / "run", backbone=backbone)
    assert "is not opened" in said and "system" in said
    assert not (tmp_path / "mark").exists() and not (tmp_path / "run").exists()
    torch.load(tmp_path / "c", weights_only=False)
    assert (tmp_path / "mark").exists(), "and the file does what it would have done"


def test_what_is_let_through_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer in a checkpoint stays a name, whoever has put what under it."""
    module = sys.modules["torch.optim.sgd"]

    class Loud(torch.optim.SGD):
        def __setstate__(self, state: Any) -> None:
            (tmp_path / "mark").touch()

    Loud.__module__, Loud.__qualname__, Loud.__name__ = "torch.optim.sgd", "SGD", "SGD"
    monkeypatch.setattr(module, "SGD", Loud)
    torch.save({"state_dict": coop("coop-end"), "scheduler": Loud([nn.Parameter(torch.ones(1))])}, tmp_path / "c")
    found = read_checkpoint(tmp_path / "c")
    assert found.method == "coop" and found.epoch is None and not (tmp_path / "mark").exists()
    torch.load(tmp_path / "c", weights_only=False)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_what_dassl_leaves_in_a_checkpoint_is_passed_over(optimizer: str, tmp_path: Path) -> None:
    path = written(tmp_path / "c", coop("coop-end"), optimizer=optimizer)
    with pytest.raises(Exception, match="CosineAnnealingLR"):  # which is why torch alone does not open it
        torch.load(path, weights_only=True)
    before = set(torch.serialization.get_safe_globals())
    assert read_checkpoint(path).tokens == 4
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"nothing of the kind", "is damaged, or not from torch.save"),
        (["a", "list"], "no state dict"),
        ({"state_dict": {"ctx": "text"}}, "no state dict"),
        ({"state_dict": {"ctx": torch.ones(2, 2), "proj.weight": torch.ones(2)}}, "'proj.weight' is none of theirs"),
        ({"state_dict": {"token_prefix": torch.ones(2)}}, "is missing"),
        ({"state_dict": {"ctx": torch.ones(2)}}, "ctx has the shape [2]"),
    ],
)
def test_what_is_no_such_checkpoint(content: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    assert words in refusal(read_checkpoint, path) and str(path) in refusal(read_checkpoint, path)
    assert "a folder" in refusal(read_checkpoint, tmp_path)
    assert "no file" in refusal(read_checkpoint, tmp_path / "nothing")


def test_another_backbone_is_noticed(tiny: Backbone, backbone: Backbone, tmp_path: Path) -> None:
    def refused(state: dict[str, Tensor], other: Backbone) -> str:
        path = written(tmp_path / "c", state)
        said = refusal(import_checkpoint, path, tmp_path / "run", backbone=other)
        assert "--backbone" in said and not (tmp_path / "run").exists()
        return said

    assert "128 wide, the backbone takes 64" in refused(coop("coop-end"), tiny)
    embeddings = {**CLIP, "token_embedding.weight": CLIP["token_embedding.weight"].flip(1)}
    assert "none of the backbone's" in refused(coop("cocoop"), from_openai(embeddings))
    for key in ("visual.proj", "text_projection", "visual.transformer.resblocks.1.mlp.c_fc.weight", "logit_scale"):
        assert f"its {key} is another" in refused(gopro(), from_openai({**CLIP, key: CLIP[key] * 1.1}))
    narrow = {**coop("cocoop"), "meta_net.linear1.weight": torch.ones(6, 64)}
    assert "meta_net.linear1.weight is [6, 64] in it, and [6, 96]" in refused(narrow, backbone)
    short = {k: t[:, :-1] if k == "token_suffix" else t for k, t in coop("coop-end").items()}
    path = written(tmp_path / "c", short)
    assert "76 tokens" in refusal(import_checkpoint, path, tmp_path / "run", backbone=backbone)


def test_wishes_that_make_no_sense(backbone: Backbone, tmp_path: Path) -> None:
    path = written(tmp_path / "c", coop("cocoop"))
    assert "always has the class name at the end" in refusal(
        import_checkpoint, path, tmp_path / "run", backbone=backbone, position="front"
    )
    assert "give one of them" in refusal(
        import_checkpoint, path, tmp_path / "run", backbone=backbone, data="emoji-food", classnames=["a"]
    )
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    assert "is not empty" in refusal(import_checkpoint, path, tmp_path / "taken", backbone=backbone)


def test_the_command_makes_a_run_that_the_others_take(tmp_path: Path, capsys) -> None:
    save_file(CLIP, tmp_path / "clip.safetensors")
    written(tmp_path / "model.pth.tar-50", coop("coop-csc-middle"))
    (tmp_path / "names.txt").write_text("\n".join(CLASSNAMES))
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    given = ["--backbone", f"openai:{tmp_path / 'clip.safetensors'}", "--output", str(tmp_path / "run")]
    cli.main(["import", str(tmp_path / "model.pth.tar-50"), *given, "--position", "middle", "--classes-file",
              str(tmp_path / "names.txt")])  # fmt: skip
    said = capsys.readouterr().out
    assert "model.pth.tar-50 is of CoOp, epoch 50: one context per class, 5 vectors of 128." in said
    assert "7 classes: red fox, owl, grand piano, jack-o'-lantern, very slow old train, ..." in said
    assert "without its buffers of class names" in said and f"Next: gopro predict {tmp_path / 'run'} IMAGES" in said
    cli.main(["predict", str(tmp_path / "run"), str(tmp_path / "a.png"), "--top-k", "7", "--csv"])
    answers = capsys.readouterr().out.splitlines()[1:]
    assert {line.split(",")[2] for line in answers} == {name.replace("_", " ") for name in CLASSNAMES}
    with pytest.raises(SystemExit) as stop:
        cli.main(["import", str(tmp_path / "model.pth.tar-50"), *given])
    assert stop.value.code == 2 and "is not empty" in capsys.readouterr().err
