"""GOPro: its losses, its context, and what `gopro-release` does differently."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from gopro.clip.backbone import Backbone, load_backbone
from gopro.clip.text.encode import encode_texts
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.methods.base import Method
from gopro.methods.gopro import GOPro
from gopro.methods.registry import build_method
from gopro.runs.config import TrainConfig
from gopro.runs.load_run import load_run
from gopro.runs.run import LEARNED
from gopro.training.resume_state import LOG
from gopro.training.train import resume, train
from tests.support.interrupt import Cut, cut_in
from tests.support.live_bytes import LiveBytes
from tests.support.methods import NAMES, TEMPLATE, encode_noise, perturb


def step(method: Method, term: str, tiny: Backbone) -> dict[str, torch.Tensor]:
    """Return the gradients of one loss alone."""
    views = encode_noise(tiny, len(method.views), 4)
    method.train()
    method.losses(views, torch.tensor([0, 1, 2, 3]))[term].backward()
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-12}


@pytest.mark.parametrize("term", ["ce", "sem", "con", "anchor"])
def test_each_loss_of_gopro_changes_predictions(term: str, tiny: Backbone) -> None:
    """One step along the gradient of this loss alone makes that loss smaller and moves the logits."""
    method = perturb(build_method("gopro", tiny, NAMES, TEMPLATE))
    before = method.logits(encode_noise(tiny, 4)).detach()
    labels, views = torch.tensor([0, 1, 2, 3]), encode_noise(tiny, 3, 4)
    loss = method.losses(views, labels)[term].item()
    gradients = step(method, term, tiny)
    size = sum(g.square().sum() for g in gradients.values())
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if name in gradients:
                parameter -= 1e-2 * loss / size * gradients[name]
    assert method.losses(views, labels)[term].item() < loss
    assert (method.logits(encode_noise(tiny, 4)) - before).abs().max() > 1e-5


def test_the_released_contrastive_loss_reaches_no_prediction(tiny: Backbone) -> None:
    """Why the default preset departs from the released code: its L_con reaches only a projector beside the logits."""
    method = perturb(build_method("gopro-release", tiny, NAMES, TEMPLATE))
    assert {name.split(".")[0] for name in step(method, "con", tiny)} == {"project_beside"}


@pytest.mark.parametrize("off", ["sem", "con", "anchor"])
def test_a_weight_of_zero_turns_a_loss_off(off: str, tiny: Backbone) -> None:
    on, method = (perturb(build_method(spec, tiny, NAMES, TEMPLATE)) for spec in ("gopro", f"gopro[{off}=0]"))
    views, labels = encode_noise(tiny, 3, 4), torch.tensor([0, 1, 2, 3])
    assert set(on.losses(views, labels)) - set(method.losses(views, labels)) == {off}


def test_the_anchor_is_the_distance_to_frozen_clip(tiny: Backbone) -> None:
    labels, views = torch.tensor([0, 1, 2, 3]), encode_noise(tiny, 3, 4)
    method = build_method("gopro[anchor=2]", tiny, NAMES, TEMPLATE)
    assert method.losses(views, labels)["anchor"].item() == pytest.approx(0, abs=1e-5)  # it starts at zero-shot CLIP
    method = perturb(method)
    assert isinstance(method, GOPro)
    frozen = encode_texts(tiny.text, [TEMPLATE.format(name) for name in NAMES])
    text = 1 - torch.cosine_similarity(method.text_features(method.view_contexts(views)[0]), frozen, dim=-1)
    image = 1 - torch.cosine_similarity(method.image_features(views), views.embedding, dim=-1)
    torch.testing.assert_close(method.losses(views, labels)["anchor"], 2 * (image.mean() + text.mean()))


def test_views_are_compared_on_classes_in_rotation(tiny: Backbone) -> None:
    """In the mean over a round of all classes, comparing a few classes a step is comparing all of them."""
    names = [f"{name} {i}" for i in range(2) for name in NAMES[:4]]
    every, some = (build_method(f"gopro[sem_classes={n}]", tiny, names, TEMPLATE) for n in ("null", "2"))
    every.load_state_dict(perturb(some).state_dict())
    views, labels = encode_noise(tiny, 3, 4), torch.tensor([0, 1, 2, 3])
    steps = [some.losses(views, labels)["sem"] for _ in range(5)]
    torch.testing.assert_close(torch.stack(steps[:4]).mean(), every.losses(views, labels)["sem"])
    assert len({step.item() for step in steps[:4]}) == 4
    torch.testing.assert_close(steps[4], steps[0])
    some.end_epoch(0, 2)  # a resumed run begins an epoch with the first classes too
    torch.testing.assert_close(some.losses(views, labels)["sem"], steps[0])


@pytest.mark.parametrize(
    "setting",
    [
        "projectors=inside",
        "projectors=text",
        "statistics=style",
        "layers=1",
        "compare=moco",
    ],
)
def test_variants_of_gopro_start_at_zero_shot_clip_and_learn(setting: str, tiny: Backbone) -> None:
    method = build_method(f"gopro[{setting}]", tiny, NAMES, TEMPLATE).train()
    zeroshot = build_method("zeroshot", tiny, NAMES, TEMPLATE)
    torch.testing.assert_close(
        method.logits(encode_noise(tiny, 3)), zeroshot.logits(encode_noise(tiny, 3)), atol=1e-4, rtol=1e-4
    )
    method = perturb(method)
    losses = method.losses(encode_noise(tiny, len(method.views), 4), torch.tensor([0, 1, 2, 3]))
    sum(losses.values()).backward()
    learned = [(n, p) for n, p in method.named_parameters() if p.requires_grad and n != "rho_bias"]
    assert [n for n, p in learned if p.grad is None or not p.grad.any()] == []


def test_contexts_depend_on_the_chosen_layers_only(tiny: Backbone) -> None:
    method = perturb(build_method("gopro[layers=1,statistics=style]", tiny, NAMES, TEMPLATE))
    assert isinstance(method, GOPro)
    views = encode_noise(tiny, 1, 2)
    contexts = method.view_contexts(views)
    views.std[..., :64] += 1
    views.mean[:] += 1
    torch.testing.assert_close(method.view_contexts(views), contexts)
    views.std[..., 64:] += 1
    assert (method.view_contexts(views) - contexts).abs().max() > 1e-4


def test_every_parameter_of_gopro_learns(tiny: Backbone) -> None:
    method = perturb(build_method("gopro", tiny, NAMES, TEMPLATE)).train()
    sum(method.losses(encode_noise(tiny, 3, 4), torch.tensor([0, 1, 2, 3])).values()).backward()
    # a shift of all dimensions alike is taken out by layer norm, up to its epsilon
    idle = {n for n, p in method.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
    assert idle - {"rho_bias"} == {"probe_weight", "probe_bias"}  # the probe is fitted, not trained in steps


def test_each_view_has_its_own_rho_unless_shared(tiny: Backbone) -> None:
    own, shared = (build_method(f"gopro[rho={rho}]", tiny, NAMES, TEMPLATE) for rho in ("view", "shared"))
    assert own.rho.shape == (3, 4, 2) and shared.rho.shape == (1, 4, 2)


def test_contexts_against_a_plain_sum(tiny: Backbone) -> None:
    method = perturb(build_method("gopro", tiny, NAMES, TEMPLATE))
    assert isinstance(method, GOPro)
    views = encode_noise(tiny, 3, 2)
    contexts = method.view_contexts(views)
    for v in range(3):
        for b in range(2):
            for m in range(4):
                expected = method.context[m] + method.rho_bias[v, m]
                for layer in range(2):
                    mean = views.mean[v, b, 64 * layer : 64 * (layer + 1)]
                    std = views.std[v, b, 64 * layer : 64 * (layer + 1)]
                    feature = method.maps["style"][layer](std) + method.maps["content"][layer](mean)
                    expected = expected + method.rho[v, m, layer] * feature
                torch.testing.assert_close(contexts[v, b, m], expected, atol=1e-5, rtol=1e-4)


def test_memory_does_not_grow_with_21000_classes() -> None:
    backbone = load_backbone("emoji")
    names = [f"{a} {b}" for a in range(150) for b in range(140)]
    method = perturb(build_method("gopro[anchor=0]", backbone, names[:50], TEMPLATE)).for_classes(names)
    assert isinstance(method, GOPro)
    method.frozen_text()  # encoded once, in chunks of their own
    method.prompts.memory = 64 << 20
    images = backbone.encode(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)))
    with torch.no_grad(), LiveBytes() as measured:
        logits = method.logits(images)
    assert measured.peak < 96 << 20  # at once it would be 1.1 GiB
    some = list(range(5, 21000, 700))
    few = method.for_classes([names[i] for i in some])
    torch.testing.assert_close(few.logits(images), logits[:, some], atol=1e-3, rtol=1e-4)


def test_the_released_layer_weights_start_as_a_linear_layers(tiny: Backbone) -> None:
    """The released code's rho is `nn.Linear(layers, 1)`: uniform within 1 / sqrt(layers)."""
    starts = [build_method("gopro-release", tiny, NAMES, TEMPLATE).state_dict() for _ in range(50)]
    bound = len(tiny.layer_widths) ** -0.5
    for name in ("rho", "rho_bias"):
        values = torch.stack([start[name] for start in starts])
        assert values.abs().max() <= bound and values.min() < -bound / 2 and values.max() > bound / 2


def fitted(spec: str, tiny: Backbone) -> GOPro:
    """Return a method whose steps did something, with class means and probe of four images per class."""
    torch.manual_seed(0)  # of the maps
    method = perturb(build_method(spec, tiny, NAMES, TEMPLATE), 0.03)
    assert isinstance(method, GOPro)
    method.solve(lambda count: [encode_noise(tiny, 20)], torch.arange(20) % 5)
    method.end_epoch(0, 2)
    assert method._training_images is not None, "only the last epoch is followed by the fit"
    method.end_epoch(1, 2)
    return method


def test_the_probe_learns_what_the_prompts_get_wrong(tiny: Backbone) -> None:
    method, images, labels = fitted("gopro", tiny), encode_noise(tiny, 20), torch.arange(20) % 5
    without = build_method("gopro[probe=false]", tiny, NAMES, TEMPLATE)
    without.load_state_dict({**method.state_dict(), "probe_weight": torch.zeros(5, 32), "probe_bias": torch.zeros(5)})
    assert (without.logits(images).argmax(dim=-1) == labels).float().mean() < 0.6
    assert (method.logits(images).argmax(dim=-1) == labels).all()
    new = ["harp", "owl", "sheep"]
    logits, plain = (m.for_classes(new).logits(images) for m in (method, without))
    torch.testing.assert_close(logits[:, [0, 2]], plain[:, [0, 2]])  # a new class has no weights
    torch.testing.assert_close(logits[:, 1], method.logits(images)[:, 1])


def test_images_unlike_the_training_images_are_left_to_zero_shot_clip(tiny: Backbone) -> None:
    method, most, without = (build_method(f"gopro[gate={gate}]", tiny, NAMES, TEMPLATE) for gate in (1, 0.9, 0))
    state = fitted("gopro", tiny).state_dict()
    for one in (method, most, without):
        one.load_state_dict(state)
    far = encode_noise(tiny, 4, seed=9)
    far.embedding[:] = -method.training_means.means[:4]
    frozen, learned = build_method("zeroshot", tiny, NAMES, TEMPLATE).logits(far), without.logits(far)
    torch.testing.assert_close(method.logits(far), frozen, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(most.logits(far), 0.9 * frozen + 0.1 * learned, atol=1e-3, rtol=1e-3)
    assert (learned - frozen).abs().max() > 0.1


@pytest.mark.parametrize("gate", [-0.1, 1.1])
def test_no_more_than_all_of_what_was_learned_can_be_taken_away(gate: float, tiny: Backbone) -> None:
    with pytest.raises(InputError, match="gate"):
        build_method(f"gopro[gate={gate}]", tiny, NAMES, TEMPLATE)


def test_a_new_name_pays_for_its_closeness_to_the_training_images(tiny: Backbone) -> None:
    names, images = ["harp", "sheep", "lamp"], encode_noise(tiny, 4, seed=9)
    methods = [build_method(f"gopro[hubness={h}]", tiny, NAMES, TEMPLATE) for h in (0, 1, 2)]
    state = fitted("gopro", tiny).state_dict()
    for method in methods:
        method.load_state_dict(state)
    off, once, twice = (method.for_classes(names).logits(images) for method in methods)
    cost = (off - once)[0]
    assert cost.std() > 1e-3
    torch.testing.assert_close(off - once, cost.expand(4, -1), atol=1e-4, rtol=1e-4)  # the same for every image
    torch.testing.assert_close(off - twice, 2 * (off - once), atol=1e-4, rtol=1e-4)
    assert torch.equal(methods[0].logits(images), methods[2].logits(images)), "trained classes do not pay"
    other = methods[2].for_classes(names, other_data=True)
    assert torch.equal(other.logits(images), off), "nor do the names of other data"


ALL = [*NAMES, "crab", "lamp"]


def with_unlabeled(spec: str, tiny: Backbone) -> Method:
    """Return GOPro for images without labels of trained and of two new classes."""
    method = build_method(spec, tiny, NAMES, TEMPLATE)
    method.unlabeled_names = tuple(ALL)
    return perturb(method)


@pytest.mark.parametrize("term", ["consistency", "sem", "con"])
def test_each_loss_without_labels_changes_predictions_of_new_classes(term: str, tiny: Backbone) -> None:
    method, views = with_unlabeled("gopro", tiny), encode_noise(tiny, 3, 4)
    other = method.for_classes(["crab", "lamp", "very small boat"])
    before, loss = other.logits(encode_noise(tiny, 4)).detach(), method.unlabeled_losses(views)[term]
    loss.backward()
    moved = [p for p in method.parameters() if p.grad is not None]
    size = sum(p.grad.square().sum() for p in moved if p.grad is not None)
    with torch.no_grad():
        for p in moved:
            p -= 1e-2 * loss / size * p.grad
    method.end_epoch(0, 2)  # the rotation of sem_classes begins again
    assert method.unlabeled_losses(views)[term].item() < loss.item()
    assert (other.logits(encode_noise(tiny, 4)) - before).abs().max() > 1e-6


@pytest.mark.parametrize("off", ["consistency", "sem", "con"])
def test_a_weight_of_zero_turns_a_loss_without_labels_off(off: str, tiny: Backbone) -> None:
    on, method = (with_unlabeled(spec, tiny) for spec in ("gopro", f"gopro[{off}=0]"))
    views = encode_noise(tiny, 3, 4)
    assert set(on.unlabeled_losses(views)) - set(method.unlabeled_losses(views)) == {off}


def test_the_teacher_is_frozen_clip_over_all_names(tiny: Backbone) -> None:
    """Cross-entropy of the other views' predictions, with the plain view's prompts, against four times CLIP's logits.

    Both are predictions as in use: the closeness of new names is subtracted.
    """
    method, views = with_unlabeled("gopro[consistency=3]", tiny), encode_noise(tiny, 3, 4)
    assert isinstance(method, GOPro)
    method.solve(lambda count: [encode_noise(tiny, 10, seed=7)], torch.arange(10) % 5)
    frozen = encode_texts(tiny.text, [TEMPLATE.format(name) for name in ALL])
    bias = -2 * method.training_means.closeness(frozen, 0.3 * tiny.logit_scale)
    bias[: len(NAMES)] = 0
    assert bias[len(NAMES) :].abs().min() > 1e-3
    teacher = (4 * (tiny.logit_scale * views.embedding[0] @ frozen.T + bias)).softmax(dim=-1)
    text = method.for_classes(ALL).text_features(method.view_contexts(views)[0])
    image = method.image_features(views)
    logits = [tiny.logit_scale * torch.einsum("bd,bcd->bc", view, text) + bias for view in image[1:]]
    log_p = [row.log_softmax(dim=-1) for row in logits]
    expected = 3 * torch.stack([-(teacher * row).sum(dim=-1).mean() for row in log_p]).mean()
    torch.testing.assert_close(method.unlabeled_losses(views)["consistency"], expected, rtol=1e-4, atol=1e-5)


def taught(spec: str, tiny: Backbone) -> GOPro:
    """Return what `fitted` does, with sixty images without labels besides."""
    torch.manual_seed(0)
    method = perturb(build_method(spec, tiny, NAMES, TEMPLATE), 0.03)
    assert isinstance(method, GOPro)
    method.unlabeled_names = tuple(ALL)
    method.solve(lambda count: [encode_noise(tiny, 20)], torch.arange(20) % 5)
    method.solve_unlabeled(encode_noise(tiny, 60, seed=8))
    method.end_epoch(1, 2)
    return method


def test_images_without_labels_leave_trained_names_alone(tiny: Backbone) -> None:
    images = encode_noise(tiny, 4, seed=9)
    one, other = taught("gopro[gate=0]", tiny), fitted("gopro[gate=0]", tiny)
    assert torch.equal(one.logits(images), other.logits(images))
    unknown = ["harp", *NAMES]  # nor do they change a name that they were not said to show
    torch.testing.assert_close(one.for_classes(unknown).logits(images), other.for_classes(unknown).logits(images))


def test_the_probe_of_new_names_brings_predictions_closer_to_frozen_clip(tiny: Backbone) -> None:
    method, images = taught("gopro[gate=0]", tiny), encode_noise(tiny, 60, seed=8)
    over = method.for_classes(ALL)
    assert isinstance(over, GOPro)
    after = over.logits(images)
    before = after.clone()
    new = method.new_names
    before[:, len(NAMES) :] -= over.image_features(images) @ new.probe_weight.T + new.probe_bias
    gain = after.log_softmax(dim=-1) - before.log_softmax(dim=-1)
    assert (over._teacher(images) * gain).sum(dim=-1).mean() > 0.01


@pytest.mark.parametrize(("off", "learned"), [("probe=false", {"bias"}), ("hubness=0", {"probe_weight", "probe_bias"})])
def test_without_a_part_new_names_have_none_of_it(off: str, learned: set[str], tiny: Backbone) -> None:
    state = taught(f"gopro[{off}]", tiny).new_names.state_dict()
    assert {name for name, tensor in state.items() if tensor.abs().max() > 1e-3} == learned
    assert {name for name, tensor in state.items() if tensor.any()} == learned


def test_half_of_the_way_new_names_are_predicted_equally_often(tiny: Backbone) -> None:
    method, images = taught("gopro", tiny), encode_noise(tiny, 60, seed=8)
    frozen = encode_texts(tiny.text, [TEMPLATE.format(name) for name in ALL])
    closeness = -2 * method.training_means.closeness(frozen, 0.3 * tiny.logit_scale)
    closeness[: len(NAMES)] = 0
    full = closeness + 2 * (F.pad(method.new_names.bias, (len(NAMES), 0)) - closeness)
    mean = (4 * (tiny.logit_scale * images.embedding @ frozen.T + full)).softmax(dim=-1).mean(dim=0)
    torch.testing.assert_close(mean[-2], mean[-1], rtol=0.02, atol=0)


@pytest.mark.parametrize("in_steps", [False, True])
def test_gopro_learns_from_a_folder_and_resumes_with_the_same_bits(
    in_steps: bool, tmp_path: Path, tiny: Backbone
) -> None:
    """Its images of unknown classes are no longer left to frozen CLIP."""
    food = load_dataset("emoji-food")
    (tmp_path / "images").mkdir()
    for i, sample in enumerate(food.train[::64]):
        sample.image.open().save(tmp_path / "images" / f"{i}.png")
    names = food.classnames[::2]
    config = TrainConfig(
        data="emoji-activities", output=tmp_path / "run", shots=1, epochs=2, batch=16, classes="base", workers=0,
        bank=1, unlabeled=str(tmp_path / "images"), unlabeled_classes=names,
        method=f"gopro[unlabeled_steps={str(in_steps).lower()}]",
    )  # fmt: skip
    run = train(config, backbone=tiny)
    assert ("unlabeled_consistency" in (run.folder / LOG).read_text().splitlines()[0]) == in_steps
    assert run.method.unlabeled_names[-len(names) :] == names
    state = load_file(run.folder / LEARNED)
    assert len(state["training_means.others"]) > 0
    assert state["new_names.bias"].any() and state["new_names.probe_weight"].any()
    loaded = load_run(run.folder, backbone=tiny).method
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in state.items())
    images = encode_noise(tiny, 4)
    mixed = [*names[:2], *run.method.classnames[:2], "harp"]
    torch.testing.assert_close(*(m.for_classes(mixed).logits(images) for m in (loaded, run.method)))
    with pytest.raises(Cut):
        train(replace(config, output=tmp_path / "cut"), backbone=tiny, on_step=cut_in(1))
    resume(tmp_path / "cut", backbone=tiny)
    resumed = load_file(tmp_path / "cut" / LEARNED)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in state.items())
    with pytest.raises(InputError, match="there are no images without labels; add --unlabeled FOLDER"):
        train(replace(config, output=tmp_path / "none", unlabeled=None), backbone=tiny)
