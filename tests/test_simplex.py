"""What the declarations of maps onto the simplex do not say."""

from __future__ import annotations

import pytest
import torch

import activations
import gradref


def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x, noise = torch.randn(2, 7, 5, generator=generator)
    return x, noise


@pytest.mark.parametrize("dim", [0, 1])
def test_a_hard_sample_is_one_hot_and_has_the_derivatives_of_the_soft_one(dim: int) -> None:
    """The straight-through estimator, as torch's."""
    x, noise = logits()
    soft = activations.gumbel_softmax(x, noise, tau=0.5, dim=dim)
    hard = activations.gumbel_softmax(x, noise, tau=0.5, hard=True, dim=dim)
    assert torch.equal(hard.sum(dim), torch.ones_like(hard.sum(dim)))
    assert torch.equal(hard.argmax(dim), soft.argmax(dim))
    gradients = []
    for is_hard in (False, True):
        leaf = x.clone().requires_grad_()
        sample = gradref.as_autograd(activations.gumbel_softmax)(
            leaf, noise, tau=0.5, hard=is_hard, dim=dim
        )
        gradients.append(torch.autograd.grad(sample, leaf, noise)[0])
    assert torch.equal(*gradients)


def test_the_first_of_equal_numbers_is_the_sample() -> None:
    hard = activations.gumbel_softmax(torch.zeros(3), torch.zeros(3), hard=True)
    assert hard.tolist() == [1.0, 0.0, 0.0]


def test_a_row_of_nan_stays_one() -> None:
    row = torch.tensor([0.0, torch.nan])
    assert activations.gumbel_softmax(row, torch.zeros(2), hard=True).isnan().all()
    assert activations.sparsemax(row).isnan().all()
    assert activations.sparsemax_vjp(row, torch.ones(2)).isnan().all()


def test_sparsemax_is_the_nearest_point_of_the_simplex() -> None:
    """Nearer than all of ten thousand others."""
    generator = torch.Generator().manual_seed(7)
    x = 2 * torch.randn(6, generator=generator, dtype=torch.float64)
    p = activations.sparsemax(x)
    others = torch.distributions.Dirichlet(torch.ones(6, dtype=torch.float64)).sample((10_000,))
    assert p.sum().item() == pytest.approx(1.0)
    assert ((others - x).norm(dim=-1) >= (p - x).norm()).all()
