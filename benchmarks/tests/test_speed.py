"""The speed benchmarks: operations against torch's own count, the plain form against ours, lines, and the record."""

import os
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import flops, record, roof
from benchmarks.apart import apart
from benchmarks.naive import Naive
from benchmarks.released import Released
from benchmarks.setting import class_names, make_views, openai_state, start
from benchmarks.train_step import Measured, line, training_step
from gopro.clip.backbone import Backbone, from_openai
from gopro.clip.packed_prompts import PackedPrompts

NAMES = ["cat", "grand piano", "Cavalier King Charles spaniel", "red fox", "dog"]


def counted(function) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def packed(tiny: Backbone, names: list[str]) -> PackedPrompts:
    prompts = start(tiny, names).prompts
    assert isinstance(prompts, PackedPrompts)
    return prompts


@pytest.mark.parametrize("contexts", [1, 4])
@pytest.mark.parametrize("names", [["cat", "dog"], NAMES * 3])
def test_operations_are_those_that_torch_counts(names: list[str], contexts: int, tiny: Backbone) -> None:
    prompts = packed(tiny, names)
    context = torch.randn(contexts, prompts.before, prompts.tower.width, requires_grad=True)
    with torch.no_grad():
        assert flops.text_forward(prompts, contexts) == counted(lambda: prompts(context.detach()))
    loss = prompts(context).sum()
    assert flops.text_backward(prompts, contexts) == counted(loss.backward)


def test_operations_of_the_image_tower(tiny: Backbone) -> None:
    tokens, width, layers = 17, tiny.layer_widths[0], len(tiny.layer_widths)
    attention = 3 * layers * 4 * tokens**2 * width  # torch leaves its fused one out
    found = counted(lambda: tiny.encode(torch.zeros(3, 3, 32, 32)))
    assert flops.image_tower(tiny, 3) in (found, found + attention)


def test_what_is_computed_again(tiny: Backbone) -> None:
    prompts = packed(tiny, class_names(200))
    context = torch.randn(2, prompts.before, prompts.tower.width, requires_grad=True)
    kept = flops.text_backward(prompts, 2)
    assert flops.again(prompts, 2) == 0
    needed = sum(map(len, prompts.body_ids)) * 2 * prompts.tower.width * 4 * len(prompts.tower.blocks)
    whole = flops.text_forward(prompts, 2)
    for memory, least, most in ((8 * needed, 0.2, 0.4), (4 * needed, 0.4, 0.8), (needed, 0.8, 1.0)):
        prompts.memory = memory
        redone = flops.again(prompts, 2)
        assert least < redone / whole < most
        loss = prompts(context).sum()
        assert counted(loss.backward) == pytest.approx(kept + redone, rel=0.02)


def test_the_plain_form_is_ours(tiny: Backbone) -> None:
    views, labels = make_views(3, 4, 32), torch.arange(4)
    losses = []
    for method in (start(tiny, NAMES), start(tiny, NAMES, Naive)):
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        losses.append([training_step(method, optimizer, views, labels) for _ in range(2)])
        encoded = method.encode(views)
        losses[-1].append({"logit": method.logits(encoded if isinstance(method, Naive) else encoded[0])[1, 2].item()})
    for ours, plain in zip(*losses, strict=True):
        assert plain == pytest.approx(ours, rel=1e-4)
    assert losses[0][0]["total"] != losses[0][1]["total"]


def test_the_released_code_gives_our_losses() -> None:
    path = os.environ.get("GOPRO_REFERENCE")
    if path is None:
        pytest.skip("GOPRO_REFERENCE names no checkout of the released code")
    state, names = openai_state(), NAMES[:2]
    method = start(from_openai(state), names)
    views, labels = make_views(3, 2, 224), torch.arange(2)
    released = Released(Path(path), state, method.state_dict(), names, "cpu")
    logits = released.logits(views, labels)
    total = released.step(views, labels)
    with torch.no_grad():
        encoded = method.encode(views)
        torch.testing.assert_close(method.logits(encoded[0]), logits, rtol=1e-4, atol=1e-4)
        ours = {name: term.item() for name, term in method.losses(encoded, labels).items()}
    assert released.terms() == pytest.approx(ours, rel=1e-4, abs=1e-6)
    assert total == pytest.approx(sum(ours.values()), rel=1e-5)


def test_a_foreign_folder_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no trainers/gopro\.py"):
        Released(tmp_path, {}, {}, [], "cpu")


def test_as_many_different_names_as_wanted() -> None:
    names = class_names(2000)
    assert len(set(names)) == 2000 and names == class_names(2000)


def test_a_line_through_the_parts() -> None:
    parts = [Measured("naive", c, 3.0 + 2 * c, 1.0 * c, 1.0 + c / 2, 1, {}) for c in (6, 12, 18)]
    assert line(parts).at(500) == pytest.approx((1003, 500, 251)) and line(parts).off < 1e-9
    parts[1] = Measured("naive", 12, 30.0, 12.0, 7.0, 1, {})
    assert line(parts).off == pytest.approx(1 / 15, rel=0.1)


def test_a_process_of_its_own_has_its_limit() -> None:
    assert apart(2, max, 1, 2) == 2
    assert apart(0.5, bytearray, 1 << 30) is None
    assert apart(2, os._exit, 1) is None


def test_a_section_of_the_results_is_replaced() -> None:
    text = "# Measured\n\n## One\n\nold\n\n## Two\n\nstays\n"
    assert record.replaced(text, "One", "## One\n\nnew\n") == "# Measured\n\n## One\n\nnew\n\n## Two\n\nstays\n"
    assert record.replaced(text, "Three", "## Three\n\nx\n") == text + "\n## Three\n\nx\n"
    output = '{"machine": "M", "threads": 2, "torch": "T", "gflops": {"large": 99.7}, "gigabytes": 12.3}'
    body = record.section("roof", "Roof", ["--x"], output)
    assert body.startswith("## Roof\n\n    python -m benchmarks.roof --x\n\nWhat the machine can do")
    assert "M, 2 threads, torch T." in body and "100 GFLOP/s" in body and "12.3 GB/s" in body
    assert roof.measure(0.01)["gflops"].keys() == roof.SHAPES.keys()
