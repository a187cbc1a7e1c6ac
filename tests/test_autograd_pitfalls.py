"""What people trip over in torch.autograd: each section of docs/autograd.md, as a test."""

from __future__ import annotations

import pytest
import torch

import activations
import gradref


def test_a_gradient_asked_of_a_tensor_that_does_not_require_it() -> None:
    x = torch.tensor(2.0)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(x * x, x)
    assert activations.sigmoid_derivative(x) > 0  # an analytic derivative needs no graph


def test_a_graph_built_before_requires_grad() -> None:
    x = torch.tensor(2.0)
    y = x * x
    x.requires_grad_()
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(y, x)
    assert torch.autograd.grad(x * x, x)[0] == 4


def test_integers_cannot_require_gradients() -> None:
    with pytest.raises(RuntimeError, match="[Oo]nly Tensors of floating point"):
        torch.tensor([1, 2], requires_grad=True)
    assert activations.sigmoid_derivative(torch.tensor([0])) == 0.25


def test_backward_twice_needs_the_graph_to_be_kept() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad == 12  # gradients accumulate: 4 + 4 + 4


def test_backward_from_a_vector_needs_a_vector() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="only for scalar outputs"):
        (x * x).backward()
    (x * x).backward(torch.tensor([1.0, 10.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 40.0]


def test_a_plain_function_refuses_a_tensor_that_requires_grad() -> None:
    """Its result would carry no graph, and training would go wrong without a word."""
    x = torch.tensor(2.0, requires_grad=True)
    with pytest.raises(ValueError, match="gradref.as_autograd"):
        activations.silu(x)
    with torch.no_grad():
        assert activations.silu(x) > 0
    gradref.as_autograd(activations.silu)(x).backward()
    assert x.grad == activations.silu_derivative(x.detach())
