"""The losses against their definitions, written out."""

import math

import pytest
import torch
import torch.nn.functional as F

from gopro.methods.parts.losses import nt_xent, prompt_consistency


def test_nt_xent_against_a_plain_sum() -> None:
    a, b = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)).unbind()
    vectors = [F.normalize(v, dim=0).double() for v in (*a, *b)]
    expected = 0.0
    for i in range(10):
        other = (i + 5) % 10
        scores = [math.exp(float(vectors[i] @ vectors[j]) / 0.2) for j in range(10) if j != i]
        expected -= math.log(math.exp(float(vectors[i] @ vectors[other]) / 0.2) / sum(scores)) / 10
    assert nt_xent(a, b, 0.2).item() == pytest.approx(expected, rel=1e-5)


def test_nt_xent_ignores_length_and_order_of_views_and_images() -> None:
    a, b = torch.randn(2, 6, 4).unbind()
    loss = nt_xent(a, b)
    shuffled = torch.randperm(6)
    torch.testing.assert_close(nt_xent(3 * a, 0.1 * b), loss)
    torch.testing.assert_close(nt_xent(b, a), loss)
    torch.testing.assert_close(nt_xent(a[shuffled], b[shuffled]), loss)
    assert nt_xent(a, b) > nt_xent(a, a)


def test_supervised_nt_xent_against_a_plain_sum() -> None:
    a, b = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)).unbind()
    labels = [0, 1, 0, 2, 0]
    vectors, of = [F.normalize(v, dim=0).double() for v in (*a, *b)], labels * 2
    expected = 0.0
    for i in range(10):
        score = {j: math.exp(float(vectors[i] @ vectors[j]) / 0.2) for j in range(10) if j != i}
        positives = [j for j in score if of[j] == of[i]]
        expected -= sum(math.log(score[j] / sum(score.values())) for j in positives) / len(positives) / 10
    assert nt_xent(a, b, 0.2, torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(nt_xent(a, b, 0.2, torch.arange(5)), nt_xent(a, b, 0.2))


def test_nt_xent_of_one_image_is_zero() -> None:
    assert nt_xent(torch.randn(1, 4), torch.randn(1, 4)).item() == 0


def test_prompt_consistency_is_the_mean_of_one_minus_cosine() -> None:
    text, view = F.normalize(torch.randn(2, 3, 4, 8), dim=-1).unbind()
    expected = (1 - F.cosine_similarity(text, view, dim=-1)).mean()
    torch.testing.assert_close(prompt_consistency(text, view), expected)
    # as its docstring says, D / 2 times the released form
    torch.testing.assert_close(prompt_consistency(text, view), F.mse_loss(text, view) * 8 / 2)
    assert prompt_consistency(text, text).item() == 0
