"""Known failures of torch at inputs that no declaration reaches: our value, the truth and torch's.

The numbers are rows of the list of the field's measured failures; others are in test_judge.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import activations
import losses


def f32(*values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def f64(*values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


LONG, UNIT = f32(1e20, 1e20), f32(1.0, 0.0)
SHORT = f64([1e-7, 0.0]), f64([1.0, 0.0]), f64(1.0)
LISTED = f32([0.1, 0.2, 0.4, 0.8])
TWICE, ONCE = torch.tensor([[3, 3, -1, 1]]), torch.tensor([[3, -1, 1, 1]])

VALUES: list[tuple[int, Callable[[], Any], float, Callable[[], Any], float]] = [
    (
        11,
        lambda: losses.cosine_similarity(LONG, UNIT),
        0.5**0.5,
        lambda: F.cosine_similarity(LONG, UNIT, -1),
        0.0,
    ),
    (
        13,
        lambda: losses.cosine_embedding_loss(*SHORT, eps=0.0),
        0.0,
        lambda: F.cosine_embedding_loss(*SHORT),
        0.9004962809790011,
    ),
    (
        40,
        lambda: losses.pairwise_distance(f64(0.0, 0.0), f64(0.0, 0.0), eps=0.0),
        0.0,
        lambda: F.pairwise_distance(f64(0.0, 0.0), f64(0.0, 0.0)),
        2.0**0.5 * 1e-6,
    ),
    (
        57,
        lambda: activations.logsumexp(f64(0.0, -40.0)),
        4.248354255291589e-18,
        lambda: torch.logsumexp(f64(0.0, -40.0), -1),
        0.0,
    ),
    (
        105,
        lambda: losses.multilabel_margin_loss(LISTED, TWICE),
        2 * losses.multilabel_margin_loss(LISTED, ONCE).item(),
        lambda: F.multilabel_margin_loss(LISTED, TWICE),
        2 * F.multilabel_margin_loss(LISTED, ONCE).item(),
    ),
]


@pytest.mark.parametrize(
    ("row", "ours", "truth", "in_torch", "measured"), VALUES, ids=[str(v[0]) for v in VALUES]
)
def test_values(
    row: int,
    ours: Callable[[], Any],
    truth: float,
    in_torch: Callable[[], Any],
    measured: float,
) -> None:
    """Ours is right to the last digit but one; torch's is what it was measured to be."""
    assert ours().item() == pytest.approx(truth, rel=3e-7, abs=1e-300), row
    assert in_torch().item() == pytest.approx(measured, rel=1e-5, abs=1e-300), row


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        (92, lambda: activations.celu(f32(-2.0), alpha=torch.inf)),
        (96, lambda: activations.gumbel_softmax(UNIT, UNIT, tau=0.0)),
        (98, lambda: losses.l1_loss(f32(1.0, 2.0), f32([1.0], [2.0]))),
        (99, lambda: losses.margin_ranking_loss(UNIT, UNIT, f32([1.0], [1.0]))),
        (101, lambda: losses.cosine_embedding_loss(UNIT, UNIT, f32(0.0)[0])),
        (101, lambda: losses.margin_ranking_loss(UNIT, UNIT, f32(0.0, 1.0))),
    ],
)
def test_what_torch_lets_pass_is_rejected(row: int, wrong: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="got .*, wants"):
        wrong()


def test_a_vector_of_zeros_has_the_gradient_of_the_branch_below_eps() -> None:
    """Row 85: x/eps below eps, as torch's."""
    ours = activations.normalize_vjp(f64(0.0, 0.0), f64(1.0, 0.0))
    assert torch.equal(ours, f64(1e12, 0.0))


@pytest.mark.parametrize(
    ("ours", "in_torch"),
    [
        (
            lambda: losses.multilabel_margin_loss_hvp(LISTED, ONCE, torch.ones_like(LISTED)),
            lambda x: F.multilabel_margin_loss(x, ONCE),
        ),
        (
            lambda: losses.multi_margin_loss_hvp(LISTED, torch.tensor([3]), LISTED),
            lambda x: F.multi_margin_loss(x, torch.tensor([3])),
        ),
        (lambda: activations.hardsigmoid_second_derivative(LISTED), F.hardsigmoid),
    ],
)
def test_second_derivatives_that_torch_has_not(
    ours: Callable[[], Any], in_torch: Callable[[torch.Tensor], Any]
) -> None:
    """Row 107."""
    assert torch.equal(ours(), torch.zeros_like(LISTED))
    x = LISTED.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(in_torch(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(gradient.sum(), x)
