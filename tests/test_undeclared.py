"""Losses without a declaration, behind torch.autograd."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import gradref
import losses


def rows_of(kind: str) -> tuple[Any, dict[str, Tensor], dict[str, Any]]:
    """A loss without a declaration, what is differentiable of it, and the rest."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    if kind == "ctc":
        labels = {"targets": torch.tensor([[1, 2], [3, 3]]), "input_lengths": (5, 4)}
        return losses.ctc_loss, {"log_probs": normal(5, 2, 4)}, {**labels, "target_lengths": [2, 2]}
    if kind == "triplet":
        points = {name: normal(4, 3) for name in ("anchor", "positive", "negative")}
        return losses.triplet_margin_with_distance_loss, points, {"swap": True}
    arrays = {"input": normal(4, 3), "linear_weight": normal(5, 3), "linear_bias": normal(5)}
    if kind == "linear without a bias":
        del arrays["linear_bias"]
    return losses.linear_cross_entropy, arrays, {"target": torch.tensor([0, 4, -100, 2])}


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("kind", ["ctc", "triplet", "linear", "linear without a bias"])
def test_torch_differentiates_once_by_the_gradient(kind: str, reduction: str) -> None:
    loss, arrays, more = rows_of(kind)
    differentiable = pickle.loads(pickle.dumps(gradref.as_autograd(loss)))

    def value(*given: Tensor) -> Tensor:
        named = dict(zip(arrays, given, strict=True))
        result: Tensor = differentiable(**named, **more, reduction=reduction)
        return result

    assert torch.autograd.gradcheck(value, tuple(arrays.values()))
    found = value(*arrays.values())
    assert torch.equal(
        found, loss(**{n: a.detach() for n, a in arrays.items()}, **more, reduction=reduction)
    )
    with pytest.raises(RuntimeError, match=rf"{loss.__name__}_gradient and _hvp: torch"):
        torch.autograd.grad(found.sum(), tuple(arrays.values()), create_graph=True)


def test_what_is_a_constant_of_the_linear_loss() -> None:
    loss, arrays, more = rows_of("linear")
    weight = torch.ones(5, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match=r"weight\.detach\(\): it is a constant"):
        gradref.as_autograd(loss)(**arrays, **more, weight=weight)
