"""Packed prompts against full-length prompts and open_clip's own text tower, and the prompts that are refused."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gopro.clip import open_clip_internals
from gopro.clip.text.encode import encode_texts, make_prompts
from gopro.clip.text.full_prompts import FullPrompts
from gopro.clip.text.packed_prompts import MAX_LAYOUTS, PackedPrompts
from gopro.clip.text.prompts import Prompts
from gopro.clip.text.recompute import recompute
from gopro.clip.text.tower import TextTower
from gopro.errors import InputError
from tests.support.live_bytes import LiveBytes

WIDTH, LAYERS, CONTEXT_LENGTH = 32, 3, 40
VISION = {"image_size": 16, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
# fmt: off
WORDS = [
    "dog", "cat", "Golden", "retriever", "accordion", "water_lilly", "Faces", "Jalapeño", "crème", "brûlée", "Zürich",
    "日本", "кошка", "😀", "c++", "t-shirt", "7-up", "St.", "Bernard", "rock'n'roll", "O'Hare", "(side)", "#1", "a.b.c",
    "supercalifragilistic", "Llanfairpwllgwyngyll", "e-mail", "50%", "naïve",
]
# fmt: on


@functools.cache
def clip(seed: int = 0, custom: bool = False, quick_gelu: bool = False, **text: Any) -> Any:
    """Return a tiny CLIP with every parameter random, biases and norms too."""
    text = {"context_length": CONTEXT_LENGTH, "width": WIDTH, "heads": 4, "layers": LAYERS, **text}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
        model = kind(embed_dim=24, vision_cfg=VISION, text_cfg=text, quick_gelu=quick_gelu)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


@functools.cache
def tower(**config: Any) -> TextTower:
    return TextTower(clip(**config), open_clip.SimpleTokenizer())


def deviation(a: Tensor, b: Tensor) -> float:
    """Return the largest deviation relative to the largest magnitude."""
    return ((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).item()


def features_and_gradients(prompts: Prompts, contexts: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
    """Return features, and the gradients of a random linear functional of them at every context."""
    before, after, upper = contexts.get("before"), contexts.get("after"), contexts.get("upper", ())
    given = (before, after, *upper, *contexts.get("deep", ()))
    leaves = [t.detach().requires_grad_() for t in given if t is not None]
    rest = iter(leaves)
    features = prompts(
        None if before is None else next(rest),
        None if after is None else next(rest),
        upper=[next(rest) for _ in upper],
        deep=tuple(rest),
    )
    if not leaves:
        return features, []
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(7))
    return features.detach(), list(torch.autograd.grad((features * weights).sum(), leaves))


def assert_same(packed: Prompts, full: Prompts, contexts: dict[str, Any]) -> None:
    features, gradients = features_and_gradients(packed, contexts)
    expected, expected_gradients = features_and_gradients(full, contexts)
    assert features.shape == expected.shape
    assert (features - expected).abs().max() <= 1e-5
    assert len(gradients) == len(expected_gradients)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert expected_gradient.abs().max() > 0
        assert deviation(gradient, expected_gradient) <= 1e-4


def _is_accepted(name: str) -> bool:
    tokens = tower().tokens(name)
    return bool(tokens) and len(tokens) <= 24 and not {tower().sos, tower().eot} & {*tokens}


names = st.one_of(
    st.sampled_from(WORDS),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join),
    st.integers(1, 22).map(lambda n: " ".join(["dog"] * n)),
    # without surrogates, and without the control characters and direction marks that are refused
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Cf"]), min_size=1, max_size=8),
).filter(_is_accepted)


@st.composite
def prompt_lists(draw: st.DrawFn, deepest: int = LAYERS - 1) -> tuple[list[str], int, int, dict[str, Any]]:
    """Draw class names (some twice), the lengths of both contexts, and contexts of any allowed shape."""
    classnames = draw(st.lists(names, min_size=1, max_size=7))
    classnames += draw(st.lists(st.sampled_from(classnames), max_size=2))
    before, after, batch = draw(st.integers(0, 4)), draw(st.integers(0, 3)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    leading = st.sampled_from([(), (batch,), (1, len(classnames)), (batch, len(classnames)), (batch, 1)])

    def context(length: int) -> Tensor:
        return torch.randn(*draw(leading), length, WIDTH, generator=generator)

    contexts: dict[str, Any] = {}
    if before:
        contexts["before"] = context(before)
        contexts["deep"] = [context(before) for _ in range(draw(st.integers(0, deepest)))]
    if after:
        contexts["after"] = context(after)
    tokens = draw(st.integers(1, 3))
    contexts["upper"] = [torch.randn(tokens, WIDTH, generator=generator) for _ in range(draw(st.integers(0, LAYERS)))]
    return classnames, before, after, contexts


@given(prompt_lists(), st.sampled_from([".", "", " , a type of pet."]))
@settings(max_examples=60, deadline=None)
def test_packed_equals_full(case: tuple[list[str], int, int, dict[str, Any]], tail: str) -> None:
    classnames, before, after, contexts = case
    kinds = [kind(tower(), classnames, before=before, after=after, tail=tail) for kind in (PackedPrompts, FullPrompts)]
    assert_same(*kinds, contexts)


@given(prompt_lists(), st.integers(1, 200_000))
@settings(max_examples=40, deadline=None)
def test_chunked_and_recomputed_equals_whole(case: tuple[list[str], int, int, dict[str, Any]], memory: int) -> None:
    classnames, before, after, contexts = case
    whole = PackedPrompts(tower(), classnames, before=before, after=after)
    assert_same(PackedPrompts(tower(), classnames, before=before, after=after, memory=memory), whole, contexts)


def transform_for(image: Tensor) -> Any:
    """Return a transform like those of methods, which make similarities more than dot products of encoded text."""
    weight = torch.randn(24, image.shape[1], generator=torch.Generator().manual_seed(4))
    return lambda text: torch.nn.functional.normalize((text @ weight).tanh(), dim=-1)


@given(prompt_lists(), st.sampled_from([PackedPrompts, FullPrompts]), st.integers(1, 200_000))
@settings(max_examples=40)
def test_similarities_chunk_by_chunk_equal_those_of_all_features(
    case: tuple[list[str], int, int, dict[str, Any]], kind: type[Prompts], memory: int
) -> None:
    classnames, before, after, contexts = case
    plain = FullPrompts(tower(), classnames, before=before, after=after)
    chunked = kind(tower(), classnames, before=before, after=after, memory=memory)
    with torch.no_grad():
        batch = len(plain(**contexts))
        image = torch.randn(3 if batch == 1 else batch, 12)
        expected = (image[:, None] * transform_for(image)(plain(**contexts))).sum(-1)
        assert (chunked(**contexts) - plain(**contexts)).abs().max() <= 1e-5
        assert deviation(chunked.similarities(image, **contexts, transform=transform_for(image)), expected) <= 1e-5


@pytest.mark.parametrize("kind", [PackedPrompts, FullPrompts])
def test_similarities_have_gradients(kind: type[Prompts]) -> None:
    prompts = kind(tower(), WORDS, before=2, memory=100_000)
    context = torch.randn(3, 2, WIDTH, requires_grad=True)
    image = torch.randn(3, 24, requires_grad=True)
    weights = torch.randn(3, len(WORDS))
    ours = torch.autograd.grad((prompts.similarities(image, context) * weights).sum(), (context, image))
    plain = torch.einsum("bd,bcd->bc", image, FullPrompts(tower(), WORDS, before=2)(context))
    expected = torch.autograd.grad((plain * weights).sum(), (context, image))
    assert max(map(deviation, ours, expected)) <= 1e-4


@given(prompt_lists(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_permuting_classes_permutes_the_result(
    case: tuple[list[str], int, int, dict[str, Any]], shuffler: random.Random
) -> None:
    classnames, before, after, contexts = case
    order = list(range(len(classnames)))
    shuffler.shuffle(order)

    def permuted(context: Tensor) -> Tensor:
        return context[:, order] if context.ndim == 4 and context.shape[1] > 1 else context

    shuffled = {
        key: [permuted(c) for c in value] if isinstance(value, list) else permuted(value)
        for key, value in contexts.items()
    }
    with torch.no_grad():
        features = PackedPrompts(tower(), classnames, before=before, after=after)(**contexts)
        again = PackedPrompts(tower(), [classnames[i] for i in order], before=before, after=after)(**shuffled)
    assert (again - features[:, order]).abs().max() <= 1e-5


@given(prompt_lists())
@settings(max_examples=20, deadline=None)
def test_an_image_and_a_class_get_the_same_features_by_themselves(
    case: tuple[list[str], int, int, dict[str, Any]],
) -> None:
    classnames, before = case[0], case[1] + 1
    contexts = torch.randn(3, len(classnames), before, WIDTH)
    with torch.no_grad():
        joint = PackedPrompts(tower(), classnames, before=before)(contexts)
        for c, name in enumerate(classnames):
            single = PackedPrompts(tower(), [name], before=before)(contexts[1, c])
            assert (single[0, 0] - joint[1, c]).abs().max() <= 1e-5


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"quick_gelu": True},
        {"ls_init_value": 0.5},
        {"custom": True, "proj_bias": True},
        {"custom": True, "proj_type": "none"},
        {"heads": 1, "layers": 1},
        {"mlp_ratio": 1.5, "norm_kwargs": {"eps": 1e-3}},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [PackedPrompts, FullPrompts])
def test_equals_open_clip(config: dict[str, Any], kind: type[Prompts]) -> None:
    """With the embeddings of words as context, prompts have the features that open_clip computes."""
    config = {key: tuple(value.items()) if isinstance(value, dict) else value for key, value in config.items()}
    model, text = _open_clip(config)
    classnames = [*WORDS, " ".join(["dog"] * 25), "dog", "dog"]
    words = text.embed("a photo of a")
    features = kind(text, classnames, before=len(words))(words)
    tokens = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)([f"a photo of a {name}." for name in classnames])
    assert features.shape == (1, len(classnames), features.shape[-1])
    assert (features[0] - model.encode_text(tokens, normalize=True)).abs().max() <= 1e-5


def _open_clip(config: dict[str, Any]) -> tuple[Any, TextTower]:
    model = clip.__wrapped__(**{k: dict(v) if isinstance(v, tuple) else v for k, v in config.items()})
    return model, TextTower(model, open_clip.SimpleTokenizer())


def test_texts_equal_open_clip() -> None:
    tokens = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)(WORDS)
    assert (encode_texts(tower(), WORDS) - clip().encode_text(tokens, normalize=True)).abs().max() <= 1e-5


def test_thousands_of_classes_in_chunks() -> None:
    draw = random.Random(3)
    classnames = [" ".join(draw.choices(WORDS, k=draw.choice((1, 1, 2, 3)))) for _ in range(3000)]
    context = torch.randn(2, 4, WIDTH, requires_grad=True)
    prompts = PackedPrompts(tower(), classnames, before=4, memory=8 << 20)
    features = prompts(context)
    assert len(prompts._chunks(*next(iter(prompts._layouts)))) > 5
    some = draw.sample(range(3000), 40)
    weights = torch.randn(2, 40, features.shape[-1])
    (gradient,) = torch.autograd.grad((features[:, some] * weights).sum(), context)
    full = FullPrompts(tower(), [classnames[c] for c in some], before=4)(context)
    (expected,) = torch.autograd.grad((full * weights).sum(), context)
    assert (features[:, some] - full).abs().max() <= 1e-5
    assert deviation(gradient, expected) <= 1e-4


def test_caches_of_words_and_layouts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server is asked about any number of names, in batches of any size."""
    monkeypatch.setattr(open_clip_internals, "MAX_CACHED_WORDS", 40)
    text = TextTower(clip(), open_clip.SimpleTokenizer())
    words = ["".join(random.Random(seed).choices("abcdefghij", k=9)) for seed in range(100)]
    tokens = [text.tokens(word) for word in words]
    assert len(text.tokenizer.cache) == 40
    assert tokens == [text.tokens(word) for word in words] == [open_clip.SimpleTokenizer().encode(w) for w in words]
    prompts = PackedPrompts(tower(), WORDS, before=4, memory=1 << 20)
    for batch in range(1, 41):
        context = torch.randn(batch, 4, WIDTH)
        assert (prompts(context)[-1:] - prompts(context[-1:])).abs().max() <= 1e-5
    assert len(prompts._layouts) == MAX_LAYOUTS


def peak_bytes(classes: int, memory: int, train: bool) -> int:
    prompts = PackedPrompts(tower(), [WORDS[c % len(WORDS)] for c in range(classes)], before=4, memory=memory)
    context = torch.randn(4, 4, WIDTH, requires_grad=train)
    with torch.set_grad_enabled(train):
        prompts(context)  # lays out the chunks
        with LiveBytes() as measured:
            features = prompts(context)
            if train:
                features.square().sum().backward()
    return measured.peak


@pytest.mark.parametrize("train", [False, True])
def test_memory_does_not_grow_with_classes(train: bool) -> None:
    memory = 8 << 20 if train else 3 << 20
    few, many = (peak_bytes(classes, memory, train) for classes in (300, 1200))
    output = (1200 - 300) * 4 * 24 * 4  # bytes of the features themselves: 4 images, 24 wide
    assert few > memory / 4  # the budget is used
    assert many - few <= 6 * output  # the features, their chunks, their order and their gradients
    assert many < peak_bytes(1200, 1 << 40, train) / 4


def test_a_recomputed_chunk_leaves_no_graph_behind() -> None:
    """A graph's small nodes would fragment the memory between the chunks; see recompute.py."""

    def nodes(classes: int) -> tuple[int, int]:
        prompts = PackedPrompts(tower(), [WORDS[c % len(WORDS)] for c in range(classes)], before=4, memory=2 << 20)
        features = prompts(torch.randn(4, 4, WIDTH, requires_grad=True))
        visited, pending = set(), [features.grad_fn]
        while pending:
            node = pending.pop()
            if node is not None and node not in visited:
                visited.add(node)
                pending += [n for n, _ in node.next_functions]
        return len(visited), len(prompts._chunks(*next(iter(prompts._layouts))))

    (few, few_chunks), (many, many_chunks) = nodes(300), nodes(1200)
    assert many_chunks >= few_chunks + 10
    assert many - few <= many_chunks - few_chunks


def test_recomputation_runs_under_the_autocast_of_forward() -> None:
    calls = []

    def double(x: Tensor) -> Tensor:
        calls.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_grad_enabled()))
        return 2 * x

    x = torch.randn(3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.float16):
        y = recompute(double, x)
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 2, 2]
    assert calls == [(True, torch.float16, False), (True, torch.float16, True)]
    with torch.autocast("cpu"):
        y = recompute(double, x).sum()
        y.backward()
    with torch.autocast("cpu", enabled=False):
        y = recompute(double, x).sum()
    with torch.autocast("cpu"):
        y.backward()
    assert [on for on, _, _ in calls[2:]] == [True, True, False, False]


@pytest.mark.parametrize(("kind", "memory"), [(PackedPrompts, 1 << 20), (FullPrompts, 4 << 20)])
def test_memory_of_similarities_grows_by_the_result_alone(kind: type[Prompts], memory: int) -> None:
    def peak(classes: int) -> int:
        prompts = kind(tower(), [WORDS[c % len(WORDS)] for c in range(classes)], before=4, memory=memory)
        context, image = torch.randn(4, 4, WIDTH), torch.randn(4, 24)
        with torch.no_grad():
            prompts.similarities(image, context)  # lays out the chunks
            with LiveBytes() as measured:
                prompts.similarities(image, context, transform=torch.tanh)
        return measured.peak

    similarity = 4 * 4 + 8  # bytes per class: for 4 images, and its index
    assert peak(1200) - peak(300) <= 3 * 900 * similarity  # the chunks, their order and the result
    assert peak(300) > memory / 4  # the budget is used


@pytest.mark.parametrize("train", [False, True])
def test_activations_keep_to_the_memory_asked_for(train: bool) -> None:
    for memory in (4 << 20, 12 << 20):
        assert peak_bytes(400, memory, train) <= 1.5 * memory


def test_prompts_first_used_in_inference_mode_can_be_trained() -> None:
    classnames = [f"{word} dog" for word in WORDS] + WORDS
    tower()  # created here, as tests that train share it and could not use inference tensors
    with torch.inference_mode():
        prompts = PackedPrompts(tower(), classnames, before=2, after=1)
        prompts(torch.randn(2, WIDTH), torch.randn(1, WIDTH))
    contexts = {"before": torch.randn(2, 2, WIDTH), "after": torch.randn(1, WIDTH)}
    assert_same(prompts, FullPrompts(tower(), classnames, before=2, after=1), contexts)


def test_bf16_autocast_stays_near_fp32() -> None:
    classnames = WORDS[:12]
    contexts = {"before": torch.randn(2, 4, WIDTH)}
    exact, exact_gradients = features_and_gradients(PackedPrompts(tower(), classnames, before=4), contexts)
    for kind, memory in ((PackedPrompts, {}), (PackedPrompts, {"memory": 100_000}), (FullPrompts, {})):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features, gradients = features_and_gradients(kind(tower(), classnames, before=4, **memory), contexts)
        assert features.dtype == torch.float32
        assert (features - exact).abs().max() < 0.03
        assert 1e-6 < deviation(gradients[0], exact_gradients[0]) < 0.1


@pytest.mark.parametrize("pool", ["last", "first", "argmax"])
def test_a_tower_that_is_not_causal_gets_full_prompts(pool: str) -> None:
    config = {"custom": True, "no_causal_mask": True, "pool_type": pool, "proj_bias": True}
    text = tower(**config)
    prompts = make_prompts(text, WORDS, before=4)
    assert isinstance(prompts, FullPrompts)
    tokens = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)([f"a photo of a {name}." for name in WORDS])
    features = prompts(text.embed("a photo of a"))[0]
    assert (features - clip(**config).encode_text(tokens, normalize=True)).abs().max() <= 1e-5


def test_blocks_of_another_kind_get_full_prompts() -> None:
    text = tower(qk_norm=True)
    assert isinstance(make_prompts(text, WORDS), FullPrompts)
    tokens = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)(WORDS)
    assert (encode_texts(text, WORDS) - clip(qk_norm=True).encode_text(tokens, normalize=True)).abs().max() <= 1e-5


def test_an_ordinary_tower_gets_packed_prompts() -> None:
    assert isinstance(make_prompts(tower(), WORDS, before=2, after=1), PackedPrompts)


class WordTokenizer:
    """Whole words through open_clip's HFTokenizer interface, surrounded by the special tokens of other families."""

    def __init__(self, sos: Sequence[int], eot: int, pad: int):
        self.sos, self.eot, self.pad = [*sos], eot, pad
        self.clean_fn = str.lower
        self.tokenizer = self._tokenize

    def _tokenize(self, text: str, add_special_tokens: bool) -> SimpleNamespace:
        ids = [200 + sum(word.encode()) % 300 for word in text.split()]
        return SimpleNamespace(input_ids=[*self.sos, *ids, self.eot] if add_special_tokens else ids)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        rows = [self.tokenizer(self.clean_fn(text), add_special_tokens=True).input_ids for text in texts]
        return torch.tensor([row + [self.pad] * (CONTEXT_LENGTH - len(row)) for row in rows])


@pytest.mark.parametrize(
    ("tokenizer", "config", "kind"),
    [
        (WordTokenizer([], 1, 0), {"no_causal_mask": True, "pool_type": "last"}, FullPrompts),  # SigLIP
        (WordTokenizer([101], 0, 0), {"no_causal_mask": True, "pool_type": "last"}, FullPrompts),  # CLIPA
        (WordTokenizer([0], 2, 1), {"pool_type": "eos", "eos_id": 2}, PackedPrompts),  # MetaCLIP worldwide
        (WordTokenizer([], 1, 0), {"pool_type": "eos", "eos_id": 1}, FullPrompts),
    ],
    ids=["siglip", "clipa", "worldwide", "worldwide-mt5"],
)
def test_tokenizers_of_other_families(tokenizer: WordTokenizer, config: dict[str, Any], kind: type[Prompts]) -> None:
    model = clip(custom=True, **config)
    text = TextTower(model, tokenizer)
    prompts = make_prompts(text, WORDS, before=4, tail=" .")
    assert isinstance(prompts, kind)
    expected = model.encode_text(tokenizer([f"A photo of a {name} ." for name in WORDS]), normalize=True)
    assert (prompts(text.embed("a photo of a"))[0] - expected).abs().max() <= 1e-5


def test_a_tokenizer_with_another_layout_is_refused() -> None:
    tokenizer = WordTokenizer([5, 6], 1, 0)
    with pytest.raises(InputError, match="WordTokenizer lays a text out as"):
        TextTower(clip(), tokenizer)


def test_a_tower_without_reachable_embeddings_is_refused() -> None:
    with pytest.raises(InputError, match="cannot take learned context"):
        TextTower(SimpleNamespace(text=torch.nn.Linear(2, 2)), open_clip.SimpleTokenizer())
    with pytest.raises(InputError, match="cannot take learned context"):
        TextTower(clip(custom=True, embed_cls=True), open_clip.SimpleTokenizer())


def fault(*arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        make_prompts(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_prompt_of_exactly_the_context_length_fits_and_one_more_names_the_class() -> None:
    name = " ".join(["dog"] * (CONTEXT_LENGTH - 7))  # SOS, 4 of context, the name, ".", EOT
    make_prompts(tower(), ["cat", name], before=4)
    message = fault(tower(), ["cat", name + " dog"], before=4)
    assert repr(name + " dog") in message
    assert f"{CONTEXT_LENGTH + 1} tokens" in message
    assert repr(name) in fault(tower(), ["cat", name], before=4, after=1)


@pytest.mark.parametrize("bad", ["", " ", "\n\t", "<end_of_text>", "a <start_of_text> b"])
def test_a_class_name_without_words_is_refused(bad: str) -> None:
    assert repr(bad) in fault(tower(), ["cat", bad])


def test_no_classes_are_refused() -> None:
    assert "at least one" in fault(tower(), [])


@pytest.mark.parametrize("count", [1, 2, LAYERS])
@pytest.mark.parametrize("config", [{}, {"custom": True, "no_causal_mask": True, "pool_type": "first"}], ids=str)
def test_upper_tokens_against_hooks(config: dict[str, Any], count: int) -> None:
    """open_clip's own blocks, with hooks that insert tokens after SOS before the last blocks and remove them after."""
    text, upper = tower(**config), [torch.randn(2, WIDTH) for _ in range(count)]
    model, start = clip(**config), 0 if config else 1
    mask = None if config else torch.full((CONTEXT_LENGTH + 2,) * 2, float("-inf")).triu(1)

    def insert(tokens: Tensor) -> Any:
        def hook(module: object, arguments: tuple[Tensor], options: dict[str, Any]) -> Any:
            x = arguments[0]
            return (torch.cat([x[:, :start], tokens.expand(len(x), -1, -1), x[:, start:]], dim=1),), {"attn_mask": mask}

        return hook

    def remove(module: object, arguments: object, output: Tensor) -> Tensor:
        return torch.cat([output[:, :start], output[:, start + 2 :]], dim=1)

    handles = []
    for block, tokens in zip(text.blocks[-count:], upper, strict=True):
        handles += [
            block.register_forward_pre_hook(insert(tokens), with_kwargs=True),
            block.register_forward_hook(remove),
        ]
    tokens = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)([f"a photo of a {name}." for name in WORDS])
    expected = model.encode_text(tokens, normalize=True)
    for handle in handles:
        handle.remove()
    prompts = make_prompts(text, WORDS, before=4)
    assert (prompts(text.embed("a photo of a"), upper=upper)[0] - expected).abs().max() <= 1e-5
    assert (prompts(text.embed("a photo of a"))[0] - expected).abs().max() > 1e-2


@pytest.mark.parametrize("shapes", [[(2, WIDTH), (3, WIDTH)], [(2, WIDTH)] * (LAYERS + 1)])
def test_upper_tokens_of_another_shape_are_refused(shapes: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=r"upper tokens are given for \d of 3 layers"):
        make_prompts(tower(), ["cat"])(upper=[torch.zeros(shape) for shape in shapes])


@pytest.mark.parametrize("shape", [(3, WIDTH), (4, WIDTH + 1), (2, 3, WIDTH), (2, 5, 4, WIDTH), (1, 1, 1, 4, WIDTH)])
def test_a_context_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="context before has shape"):
        make_prompts(tower(), ["cat", "dog"], before=4)(torch.zeros(shape))


def test_a_missing_context_is_refused() -> None:
    with pytest.raises(ValueError, match="context after has shape"):
        make_prompts(tower(), ["cat"], after=2)()


@pytest.mark.parametrize("name", ["red\x1b[31m fox", "red\nfox", "red\x85fox", "red \u202efox", "red\u2028fox"])
def test_class_names_with_control_characters_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="control characters"):
        make_prompts(tower(), [name])
