"""The triplet loss with a chosen distance, against the declared one and against autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import losses
from activations import silu

NAMES = ("anchor", "positive", "negative")


def points(rows: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(rows, 5, generator=generator, dtype=torch.float64) for name in NAMES}


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_with_its_default_it_is_the_declared_loss(swap: bool, reduction: Any) -> None:
    given, options = points(), {"swap": swap, "reduction": reduction}
    ours = losses.triplet_margin_with_distance_loss(**given, **options)
    assert torch.equal(ours, losses.triplet_margin_loss(**given, **options))


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(
    ("distance", "in_torch"),
    [
        (losses.pairwise_distance, F.pairwise_distance),
        (losses.cosine_similarity, lambda a, b: F.cosine_similarity(a, b, -1)),
    ],
)
def test_derivatives_are_those_of_torch(
    distance: Callable[..., Tensor], in_torch: Callable[..., Tensor], swap: bool
) -> None:
    given, tangent = points(), points(7)["anchor"][:6]

    def loss(*x: Tensor) -> Tensor:
        return F.triplet_margin_with_distance_loss(
            *x, distance_function=in_torch, margin=1.3, swap=swap
        )

    options: dict[str, Any] = {"distance_function": distance, "margin": 1.3, "swap": swap}
    inputs = tuple(given.values())
    gradients = torch.autograd.functional.jacobian(loss, inputs)
    hessian = torch.autograd.functional.hessian(loss, inputs)
    for i, wrt in enumerate(NAMES):
        ours = losses.triplet_margin_with_distance_loss_gradient(**given, **options, wrt=wrt)
        torch.testing.assert_close(ours, gradients[i], rtol=1e-12, atol=1e-14)
        diagonal = hessian[i][i].reshape(30, 30).diagonal().reshape(6, 5)
        ours = losses.triplet_margin_with_distance_loss_hessian_diagonal(
            **given, **options, wrt=wrt
        )
        torch.testing.assert_close(ours, diagonal, rtol=1e-12, atol=1e-14)
        for j, along in enumerate(NAMES):
            product = torch.einsum("abcd,cd->ab", hessian[i][j], tangent)
            ours = losses.triplet_margin_with_distance_loss_hvp(
                **given, tangent=tangent, **options, wrt=wrt, along=along
            )
            torch.testing.assert_close(ours, product, rtol=1e-12, atol=1e-14)


def test_kinds_of_arrays_and_dtypes() -> None:
    narrow = {name: x.to(torch.bfloat16) for name, x in points().items()}
    assert losses.triplet_margin_with_distance_loss(**narrow).dtype is torch.bfloat16
    arrays: dict[str, Any] = {name: x.numpy() for name, x in points().items()}
    ours: Any = losses.triplet_margin_with_distance_loss(**arrays)
    assert float(ours) == losses.triplet_margin_with_distance_loss(**points()).item()


def test_errors() -> None:
    given: dict[str, Any] = points()
    with pytest.raises(TypeError, match="distance_function: got .* wants a declared function"):
        losses.triplet_margin_with_distance_loss(**given, distance_function=torch.dist)
    with pytest.raises(ValueError, match="negative: got shape"):
        losses.triplet_margin_with_distance_loss(**{**given, "negative": torch.zeros(2)})
    with pytest.raises(ValueError, match="reduction: got 'all'"):
        losses.triplet_margin_with_distance_loss(**given, reduction="all")  # type: ignore[arg-type]  # a wrong one
    with pytest.raises(ValueError, match="tangent: got shape"):
        losses.triplet_margin_with_distance_loss_hvp(**given, tangent=torch.zeros(2))
    with pytest.raises(TypeError):
        losses.triplet_margin_with_distance_loss(**given, distance_function=silu)
