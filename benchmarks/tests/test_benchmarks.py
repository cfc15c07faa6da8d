"""The speed benchmarks: operation counts, the unpacked baseline, fitted lines, isolation and RESULTS.md."""

import os
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import flops, roofline, write_results
from benchmarks.baseline import UnpackedGOPro
from benchmarks.common import class_names, make_method, make_views, openai_state
from benchmarks.isolated import run_isolated
from benchmarks.released import Released
from benchmarks.train_step import Measured, fit_line, training_step
from gopro.clip.backbone import Backbone, from_openai
from gopro.clip.faster_layers import onednn_products
from gopro.clip.text.packed_prompts import PackedPrompts

NAMES = ["cat", "grand piano", "Cavalier King Charles spaniel", "red fox", "dog"]


@pytest.fixture(autouse=True)
def products_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave all products to torch, whose counter of operations does not know oneDNN's."""
    monkeypatch.setattr(onednn_products, "is_onednn_faster", lambda: False)


def count_flops(function) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def packed(tiny: Backbone, names: list[str]) -> PackedPrompts:
    prompts = make_method(tiny, names).prompts
    assert isinstance(prompts, PackedPrompts)
    return prompts


@pytest.mark.parametrize("contexts", [1, 4])
@pytest.mark.parametrize("names", [["cat", "dog"], NAMES * 3])
def test_operations_equal_those_that_torch_counts(names: list[str], contexts: int, tiny: Backbone) -> None:
    prompts = packed(tiny, names)
    context = torch.randn(contexts, prompts.before, prompts.tower.width, requires_grad=True)
    with torch.no_grad():
        assert flops.text_forward(prompts, contexts) == count_flops(lambda: prompts(context.detach()))
    loss = prompts(context).sum()
    assert flops.text_backward(prompts, contexts) == count_flops(loss.backward)


def test_operations_of_the_image_tower_equal_those_that_torch_counts(tiny: Backbone) -> None:
    tokens, width, layers = 17, tiny.layer_widths[0], len(tiny.layer_widths)
    attention = 3 * layers * 4 * tokens**2 * width  # torch does not count its fused attention
    counted = count_flops(lambda: tiny.encode(torch.zeros(3, 3, 32, 32)))
    assert flops.image_tower(tiny, 3) in (counted, counted + attention)


def test_recomputed_operations_equal_those_that_torch_counts(tiny: Backbone) -> None:
    prompts = packed(tiny, class_names(200))
    context = torch.randn(2, prompts.before, prompts.tower.width, requires_grad=True)
    kept = flops.text_backward(prompts, 2)
    assert flops.recomputed(prompts, 2) == 0
    needed = prompts.tokens * 2 * prompts.tower.width * 4 * len(prompts.tower.blocks)
    whole = flops.text_forward(prompts, 2)
    for memory, least, most in ((8 * needed, 0.2, 0.4), (4 * needed, 0.4, 0.8), (needed, 0.8, 1.0)):
        prompts.memory = memory
        again = flops.recomputed(prompts, 2)
        assert least < again / whole < most
        loss = prompts(context).sum()
        assert count_flops(loss.backward) == pytest.approx(kept + again, rel=0.02)


def test_the_unpacked_baseline_computes_the_same_losses_and_logits(tiny: Backbone) -> None:
    views, labels = make_views(3, 4, 32), torch.arange(4)
    losses = []
    for method in (make_method(tiny, NAMES), make_method(tiny, NAMES, UnpackedGOPro)):
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        losses.append([training_step(method, optimizer, views, labels) for _ in range(2)])
        encoded = method.encode(views)
        losses[-1].append(
            {"logit": method.logits(encoded if isinstance(method, UnpackedGOPro) else encoded[0])[1, 2].item()}
        )
    for ours, plain in zip(*losses, strict=True):
        assert plain == pytest.approx(ours, rel=1e-4)
    assert losses[0][0]["total"] != losses[0][1]["total"]


def test_the_released_code_gives_our_losses() -> None:
    path = os.environ.get("GOPRO_REFERENCE")
    if path is None:
        pytest.skip("set GOPRO_REFERENCE to a checkout of the released code")
    state, names = openai_state(), NAMES[:2]
    method = make_method(from_openai(state), names)
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


def test_a_folder_without_the_released_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no trainers/gopro\.py"):
        Released(tmp_path, {}, {}, [], "cpu")


def test_class_names_are_distinct_and_the_same_every_time() -> None:
    names = class_names(2000)
    assert len(set(names)) == 2000 and names == class_names(2000)


def test_a_line_is_fitted_to_the_parts() -> None:
    parts = [Measured("unpacked", c, 3.0 + 2 * c, 1.0 * c, 1.0 + c / 2, 1, {}) for c in (6, 12, 18)]
    assert fit_line(parts).at(500) == pytest.approx((1003, 500, 251)) and fit_line(parts).error < 1e-9
    parts[1] = Measured("unpacked", 12, 30.0, 12.0, 7.0, 1, {})
    assert fit_line(parts).error == pytest.approx(1 / 15, rel=0.1)


def test_an_isolated_process_is_held_to_its_memory_limit() -> None:
    assert run_isolated(2, max, 1, 2) == 2
    assert run_isolated(0.5, bytearray, 1 << 30) is None
    assert run_isolated(2, os._exit, 1) is None


def test_a_section_of_the_results_is_replaced_or_appended() -> None:
    text = "# Measured\n\n## One\n\nold\n\n## Two\n\nstays\n"
    assert (
        write_results.replace_section(text, "One", "## One\n\nnew\n")
        == "# Measured\n\n## One\n\nnew\n\n## Two\n\nstays\n"
    )
    assert write_results.replace_section(text, "Three", "## Three\n\nx\n") == text + "\n## Three\n\nx\n"
    output = '{"machine": "M", "threads": 2, "torch": "T", "gflops": {"large": 99.7}, "gigabytes": 12.3}'
    body = write_results.section("roofline", "Roof", ["--x"], output)
    assert body.startswith("## Roof\n\n    python -m benchmarks.roofline --x\n\nMeasure the machine's limits")
    assert "M, 2 threads, torch T." in body and "100 GFLOP/s" in body and "12.3 GB/s" in body
    assert roofline.measure(0.01)["gflops"].keys() == roofline.SHAPES.keys()
