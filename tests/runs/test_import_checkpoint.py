"""Imported checkpoints of CoOp, CoCoOp and the released GOPro predict what the authors' code predicted."""

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
from gopro.runs.load_run import load_run
from tests.support.golden import CLASSNAMES, deviation, random_clip, read_golden

CLIP = random_clip()


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """The CLIP that the authors' code ran on."""
    return from_openai(CLIP, "small-clip")


def golden(name: str) -> dict[str, Tensor]:
    """Return the tensors of a recorded step of the authors' code."""
    return read_golden(name)[0]


def buffers(tokens: int, names: list[str] = CLASSNAMES, clip: dict[str, Tensor] = CLIP) -> dict[str, Tensor]:
    """Return the buffers of class names of the authors' prompt learners."""
    words = [f"{' '.join('X' * tokens)} {name.replace('_', ' ')}." for name in names]
    embedded = F.embedding(open_clip.SimpleTokenizer()(words), clip["token_embedding.weight"])
    return {"token_prefix": embedded[:, :1], "token_suffix": embedded[:, 1 + tokens :]}


class Warmup(torch.optim.lr_scheduler.LRScheduler):
    """Like Dassl's ConstantWarmupScheduler: its state, and so a checkpoint, contains the scheduler that follows it."""

    def __init__(self, optimizer: torch.optim.Optimizer, successor: Any, warmup_epoch: int):
        self.successor, self.warmup_epoch = successor, warmup_epoch
        super().__init__(optimizer)

    def get_lr(self) -> Any:
        return [1e-5 for _ in self.base_lrs]


def save_checkpoint(path: Path, state: dict[str, Tensor], epoch: int = 50, optimizer: str = "SGD") -> Path:
    """Save a checkpoint as Dassl does, after a step."""
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
    """Return the state dict of a prompt learner of CoOp or CoCoOp, before the recorded step."""
    init = {key.removeprefix("init."): t for key, t in golden(case).items() if key.startswith("init.")}
    return init | buffers(init["ctx"].shape[-2])


def gopro(half: bool = False, tokens: int = 4) -> dict[str, Tensor]:
    """Return the state dict of the released GOPro's model: all of CLIP and the learned weights."""
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
    """Encode full prompts, [classes, 77], with the context vectors in place of the X's."""
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
    """Compute the released GOPro's logits from its state dict, one image after the other."""
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
def test_imported_runs_reproduce_the_authors_logits(
    case: str, position: Any, method: str, backbone: Backbone, tmp_path: Path
) -> None:
    """The reference logits were recorded from the authors' code with the state in the checkpoint."""
    path = save_checkpoint(tmp_path / "model.pth.tar-50", coop(case))
    imported, checkpoint = import_checkpoint(path, tmp_path / "run", backbone=backbone, position=position)
    run, recorded = load_run(tmp_path / "run", backbone=backbone), golden(case)
    assert run.config.method == method and checkpoint.epoch == run.config.epochs == 50
    assert checkpoint.class_specific == ("csc" in case) and checkpoint.classes == len(CLASSNAMES)
    with torch.no_grad():
        logits = run.method.logits(run.method.encode(recorded["images"]))
        assert torch.equal(logits, imported.method.logits(imported.method.encode(recorded["images"])))
    assert deviation(logits, recorded["logits"]) < 1e-4
    learned = load_file(tmp_path / "run" / "learned.safetensors")
    expected = {k.replace("ctx", "context") for k in coop(case) if not k.startswith("token_")}
    assert set(learned) == expected, "without the buffers of class names"


@pytest.mark.parametrize("tokens", [4, 7])
@pytest.mark.parametrize("half", [False, True])
def test_the_released_gopro_is_reproduced(half: bool, tokens: int, backbone: Backbone, tmp_path: Path) -> None:
    state, images = gopro(tokens=tokens), golden("cocoop")["images"]
    path = save_checkpoint(tmp_path / "model-best.pth.tar", gopro(half, tokens), epoch=3)
    _, checkpoint = import_checkpoint(path, tmp_path / "run", backbone=backbone)
    run = load_run(tmp_path / "run", backbone=backbone)
    assert checkpoint.method == "gopro-release" and run.config.method.startswith("gopro-release")
    assert checkpoint.tokens == tokens
    if half:
        state = {k: t.float() for k, t in gopro(half, tokens).items()} | {"logit_scale": CLIP["logit_scale"]}
    with torch.no_grad():
        logits = run.method.logits(run.method.encode(images))
    expected = released_logits(state, images, backbone)
    assert deviation(logits, expected) < 1e-4
    assert deviation(expected[:1], expected[1:2]) > 1e-3, "the images have the same logits, so the test proves nothing"
    assert not any("meta_net" in key or "token_" in key for key in load_file(tmp_path / "run" / "learned.safetensors"))


def test_the_recorded_step_of_the_released_gopro_is_reproduced(shared: Path, tmp_path: Path) -> None:
    """The reference is a recorded step of the released code on a small CLIP."""
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
    import_checkpoint(save_checkpoint(tmp_path / "model.pth.tar-1", state), tmp_path / "run", backbone=small)
    method = load_run(tmp_path / "run", backbone=small).method
    with torch.no_grad():
        logits = method.logits(method.encode(tensors["views.image"]))
    assert deviation(logits, tensors["out.logits"]) < 1e-4


def test_class_names_are_decoded_from_the_checkpoint(backbone: Backbone, tmp_path: Path) -> None:
    half = {k: t.half() for k, t in coop("coop-end").items()}
    run, _ = import_checkpoint(save_checkpoint(tmp_path / "c", half), tmp_path / "run", backbone=backbone)
    tower = backbone.text
    assert run.method.classnames[:2] == ("red fox", "owl") and run.method.classnames[2] == "grand piano"
    assert [tower.tokens(n) for n in run.method.classnames] == [tower.tokens(n.replace("_", " ")) for n in CLASSNAMES]


def test_given_class_names_are_compared_with_the_checkpoint(backbone: Backbone, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", coop("coop-csc"))
    run, _ = import_checkpoint(path, tmp_path / "run", backbone=backbone, classnames=CLASSNAMES)
    assert run.method.classnames == tuple(name.replace("_", " ") for name in CLASSNAMES)
    swapped = [CLASSNAMES[1], CLASSNAMES[0], *CLASSNAMES[2:]]
    message = refusal(import_checkpoint, path, tmp_path / "a", backbone=backbone, classnames=swapped)
    assert "its class 1 is 'red fox', but the given name is 'owl'" in message
    message = refusal(import_checkpoint, path, tmp_path / "a", backbone=backbone, classnames=CLASSNAMES[:-1])
    assert "7 classes, but 6 names" in message and not (tmp_path / "a").exists()


def test_a_checkpoint_without_class_names_needs_them(backbone: Backbone, tmp_path: Path) -> None:
    state = {key: t for key, t in coop("coop-csc").items() if not key.startswith("token_")}
    path = save_checkpoint(tmp_path / "c", state)
    assert "--classes-file" in refusal(import_checkpoint, path, tmp_path / "run", backbone=backbone)
    assert "7 classes, but 2 names" in refusal(
        import_checkpoint, path, tmp_path / "run", backbone=backbone, classnames=["a fox", "an owl"]
    )
    import_checkpoint(path, tmp_path / "run", backbone=backbone, classnames=CLASSNAMES)
    recorded, method = golden("coop-csc"), load_run(tmp_path / "run", backbone=backbone).method
    with torch.no_grad():
        assert deviation(method.logits(method.encode(recorded["images"])), recorded["logits"]) < 1e-4


def test_a_data_set_provides_names_and_template(backbone: Backbone, tmp_path: Path) -> None:
    names = ["ant", "bee", "cat", "dog"]
    for part in ("train", "test"):
        for name in names:
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(tmp_path / "pets" / part / name / "a.png")
    ctx = coop("coop-end")["ctx"]
    path = save_checkpoint(tmp_path / "c", {"ctx": ctx} | buffers(4, names[:2]))
    message = refusal(import_checkpoint, path, tmp_path / "run", backbone=backbone, data=str(tmp_path / "pets"))
    assert "2 classes, but 4 names" in message and "--classes base" in message
    run, _ = import_checkpoint(
        path, tmp_path / "run", backbone=backbone, data=str(tmp_path / "pets"), classes="base", shots=1, seed=3
    )
    assert run.method.classnames == ("ant", "bee") and run.data == "pets" and run.template == "a photo of a {}."
    assert (run.config.shots, run.config.seed, run.config.classes) == (1, 3, "base")


class Malicious:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("where", ["state_dict", "scheduler", "beside"])
def test_code_is_refused_and_not_run(where: str, backbone: Backbone, tmp_path: Path) -> None:
    content: dict[str, Any] = {"state_dict": coop("coop-end"), "epoch": 1, "scheduler": {}}
    (content if where == "beside" else content[where])["evil"] = Malicious(tmp_path / "mark")
    torch.save(content, tmp_path / "c")
    message = refusal(import_checkpoint, tmp_path / "c", tmp_path / "run", backbone=backbone)
    assert "is not opened" in message and "system" in message
    assert not (tmp_path / "mark").exists() and not (tmp_path / "run").exists()
    torch.load(tmp_path / "c", weights_only=False)
    assert (tmp_path / "mark").exists(), "the code is not malicious after all"


def test_optimizers_in_a_checkpoint_are_never_instantiated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if another class has replaced the one of that name."""
    module = sys.modules["torch.optim.sgd"]

    class Marking(torch.optim.SGD):
        def __setstate__(self, state: Any) -> None:
            (tmp_path / "mark").touch()

    Marking.__module__, Marking.__qualname__, Marking.__name__ = "torch.optim.sgd", "SGD", "SGD"
    monkeypatch.setattr(module, "SGD", Marking)
    torch.save({"state_dict": coop("coop-end"), "scheduler": Marking([nn.Parameter(torch.ones(1))])}, tmp_path / "c")
    checkpoint = read_checkpoint(tmp_path / "c")
    assert checkpoint.method == "coop" and checkpoint.epoch is None and not (tmp_path / "mark").exists()
    torch.load(tmp_path / "c", weights_only=False)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_objects_of_dassl_in_a_checkpoint_are_ignored(optimizer: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", coop("coop-end"), optimizer=optimizer)
    with pytest.raises(Exception, match="CosineAnnealingLR"):  # torch alone cannot open it
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
        ({"state_dict": {"ctx": torch.ones(2, 2), "proj.weight": torch.ones(2)}}, "an unknown weight 'proj.weight'"),
        ({"state_dict": {"token_prefix": torch.ones(2)}}, "is missing"),
        ({"state_dict": {"ctx": torch.ones(2)}}, "ctx has the shape [2]"),
    ],
)
def test_other_files_are_refused(content: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    assert words in refusal(read_checkpoint, path) and str(path) in refusal(read_checkpoint, path)
    assert "is a folder" in refusal(read_checkpoint, tmp_path)
    assert "does not exist" in refusal(read_checkpoint, tmp_path / "nothing")


def test_another_backbone_is_refused(tiny: Backbone, backbone: Backbone, tmp_path: Path) -> None:
    def refusal_for(state: dict[str, Tensor], other: Backbone) -> str:
        path = save_checkpoint(tmp_path / "c", state)
        message = refusal(import_checkpoint, path, tmp_path / "run", backbone=other)
        assert "--backbone" in message and not (tmp_path / "run").exists()
        return message

    assert "have 128 numbers, those of the backbone 64" in refusal_for(coop("coop-end"), tiny)
    embeddings = {**CLIP, "token_embedding.weight": CLIP["token_embedding.weight"].flip(1)}
    assert "not in the backbone's vocabulary" in refusal_for(coop("cocoop"), from_openai(embeddings))
    for key in ("visual.proj", "text_projection", "visual.transformer.resblocks.1.mlp.c_fc.weight", "logit_scale"):
        assert f"its weight {key} differs" in refusal_for(gopro(), from_openai({**CLIP, key: CLIP[key] * 1.1}))
    narrow = {**coop("cocoop"), "meta_net.linear1.weight": torch.ones(6, 64)}
    assert "meta_net.linear1.weight is [6, 64] in the checkpoint and [6, 96]" in refusal_for(narrow, backbone)
    short = {k: t[:, :-1] if k == "token_suffix" else t for k, t in coop("coop-end").items()}
    path = save_checkpoint(tmp_path / "c", short)
    assert "76 tokens" in refusal(import_checkpoint, path, tmp_path / "run", backbone=backbone)


def test_conflicting_settings_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", coop("cocoop"))
    assert "always has the class name at the end" in refusal(
        import_checkpoint, path, tmp_path / "run", backbone=backbone, position="front"
    )
    assert "give only one" in refusal(
        import_checkpoint, path, tmp_path / "run", backbone=backbone, data="emoji-food", classnames=["a"]
    )
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    assert "is not empty" in refusal(import_checkpoint, path, tmp_path / "taken", backbone=backbone)


def test_the_command_writes_a_run_that_predict_accepts(tmp_path: Path, capsys) -> None:
    save_file(CLIP, tmp_path / "clip.safetensors")
    save_checkpoint(tmp_path / "model.pth.tar-50", coop("coop-csc-middle"))
    (tmp_path / "names.txt").write_text("\n".join(CLASSNAMES))
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    options = ["--backbone", f"openai:{tmp_path / 'clip.safetensors'}", "--output", str(tmp_path / "run")]
    cli.main(["import", str(tmp_path / "model.pth.tar-50"), *options, "--position", "middle", "--classes-file",
              str(tmp_path / "names.txt")])  # fmt: skip
    output = capsys.readouterr().out
    assert "model.pth.tar-50 is from CoOp, epoch 50: 5 vectors of 128, one context per class." in output
    assert "7 classes: red fox, owl, grand piano, jack-o'-lantern, very slow old train, ..." in output
    assert "without its buffers of class names" in output and f"Next: gopro predict {tmp_path / 'run'} IMAGES" in output
    cli.main(["predict", str(tmp_path / "run"), str(tmp_path / "a.png"), "--top-k", "7", "--csv"])
    answers = capsys.readouterr().out.splitlines()[1:]
    assert {line.split(",")[2] for line in answers} == {name.replace("_", " ") for name in CLASSNAMES}
    with pytest.raises(SystemExit) as stop:
        cli.main(["import", str(tmp_path / "model.pth.tar-50"), *options])
    assert stop.value.code == 2 and "is not empty" in capsys.readouterr().err
