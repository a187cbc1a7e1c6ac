"""Fused kernels under autograd: right derivatives, the same training, copies of modules."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import activations
import gradref
import losses

pytestmark = pytest.mark.xdist_group("training")

silu = gradref.as_autograd(gradref.fuse(activations.silu))
softmax = gradref.as_autograd(gradref.fuse(activations.softmax))
cross_entropy = gradref.as_autograd(gradref.fuse(losses.cross_entropy))
mse_loss = gradref.as_autograd(gradref.fuse(losses.mse_loss))


def leaf(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_gradients_of_losses(reduction: str) -> None:
    target = torch.tensor([0, 4, 2, -100])
    assert torch.autograd.gradcheck(
        lambda x: cross_entropy(x, target, reduction=reduction), leaf(4, 5)
    )
    pair = leaf(3, 4), leaf(4, 3).detach().T.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: mse_loss(x, y, reduction=reduction), pair)


def test_gradients_of_activations() -> None:
    assert torch.autograd.gradcheck(silu, leaf(40))
    assert torch.autograd.gradcheck(lambda x: softmax(x, dim=0), leaf(5, 4))


def test_a_second_derivative_is_refused_and_none_is_kept_without_need() -> None:
    x = leaf(8)
    with pytest.raises(RuntimeError, match=r"wants gradref.as_autograd\(activations.silu\)"):
        torch.autograd.grad(silu(x).sum(), x, create_graph=True)
    assert not silu(x.detach()).requires_grad
    with pytest.raises(TypeError, match="x: got .* wants a tensor"):
        silu(1.0)
    with pytest.raises(ValueError, match=r"weight.detach\(\): it is a constant"):
        cross_entropy(leaf(2, 3), leaf(2).long(), weight=leaf(3))


def test_torch_compiles_it_whole() -> None:
    compiled = torch.compile(lambda x: silu(x).sum(), fullgraph=True)
    x = leaf(100)
    compiled(x).backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, activations.silu_derivative(x.detach()))


def trained(activation: Callable[..., Any], criterion: Callable[..., Any]) -> list[float]:
    """The losses of a small model over 30 steps."""
    torch.manual_seed(0)
    first, last = nn.Linear(8, 32), nn.Linear(32, 4)
    x, y = torch.randn(64, 8), torch.randint(4, (64,))
    optimizer = torch.optim.SGD([*first.parameters(), *last.parameters()], lr=0.3)
    found = []
    for _ in range(30):
        optimizer.zero_grad()
        value = criterion(last(activation(first(x))), y)
        value.backward()
        optimizer.step()
        found.append(value.item())
    return found


def test_a_model_learns_the_same_as_with_torch() -> None:
    ours, theirs = trained(silu, cross_entropy), trained(F.silu, F.cross_entropy)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours[-1] < 0.9 * ours[0]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fused, self.kernel = silu, gradref.fuse(losses.mse_loss)
        self.plain, self.graph = activations.gelu, gradref.as_autograd(activations.tanh)


def test_modules_that_hold_ours_are_saved_and_copied() -> None:
    file = io.BytesIO()
    torch.save(Model(), file)
    file.seek(0)
    x = leaf(5)
    for model in (torch.load(file, weights_only=False), copy.deepcopy(Model())):
        assert torch.equal(model.graph(x), gradref.as_autograd(activations.tanh)(x))
        assert model.plain is activations.gelu
        assert model.kernel.results == ("value", "gradient")
        assert model.fused.__name__ == "silu"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: activations.elu(-1.0, alpha=np.float32(1.5)), activations.elu(-1.0, alpha=1.5)),
        (lambda: activations.elu(-1.0, np.float64(2)), activations.elu(-1.0, 2.0)),
        (
            lambda: losses.huber_loss(np.ones(2), np.zeros(2), delta=np.float16(0.5)),
            losses.huber_loss(np.ones(2), np.zeros(2), delta=0.5),
        ),
        (
            lambda: activations.softmax(np.eye(2), dim=np.int64(0))[0, 0],
            activations.softmax(np.eye(2), dim=0)[0, 0],
        ),
    ],
)
def test_scalars_of_numpy_are_parameters(call: Callable[[], Any], expected: float) -> None:
    assert call() == expected
