"""The examples of the textbooks, number for number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import activations
import gradref
import losses


def test_sigmoid_on_a_wide_range() -> None:
    """The first of these is 3.7835e-44, a float32 subnormal, and not 0.

    e^-100 is 3.72e-44, below the smallest normal float32 (1.18e-38) but above the smallest
    subnormal (1.40e-45): the nearest float32 is 27 times that. A table that shows 0 was made with
    subnormals flushed to zero, or printed with too few digits beside its neighbours.
    """
    x = torch.linspace(-100, 100, 10)
    y = activations.sigmoid(x)
    table = [0, 1.6655e-34, 7.4564e-25, 3.3382e-15, 1.4945e-05, 0.99999, 1, 1, 1, 1]
    assert y.tolist() == pytest.approx(table, rel=1e-4, abs=1e-43)
    assert y[0] == 27 * 2.0**-149
    assert float(y[0]) == pytest.approx(3.7835e-44, rel=1e-4)
    assert 0 < y[0] < torch.finfo(torch.float32).smallest_normal


def test_tanh_and_relu_on_the_unit_interval() -> None:
    x = torch.linspace(-1, 1, 10)
    y = activations.tanh(x)
    assert [round(float(y[0]), 4), round(float(y[-1]), 4)] == [-0.7616, 0.7616]
    assert torch.equal(y, -y.flip(0))
    r = activations.relu(x)
    assert r.tolist() == [0.0] * 5 + x[5:].tolist()
    assert r[-1] == 1


def test_tanh_is_a_rescaled_sigmoid() -> None:
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    torch.testing.assert_close(activations.tanh(x), 2 * activations.sigmoid(2 * x) - 1)


@pytest.mark.parametrize(("w", "loss", "gradient"), [(2.0, 1.0, 2.0), (3.0, 4.0, 4.0)])
@pytest.mark.parametrize("bias", [None, 0.0])
def test_squared_error_of_a_line(
    w: float, loss: float, gradient: float, bias: float | None
) -> None:
    """x·w (+ b) against 1 with x = 1: by autograd.grad, by backward, and by the chain rule."""
    x, target = torch.ones(1), torch.ones(1)
    weight = torch.tensor([w], requires_grad=True)
    offset = torch.zeros(1, requires_grad=bias is not None)
    error = F.mse_loss(x * weight + offset, target)
    assert error == loss
    assert torch.autograd.grad(error, weight, retain_graph=True)[0] == gradient
    error.backward()
    assert weight.grad == gradient

    prediction = (x * weight + offset).detach()
    assert losses.mse_loss(prediction, target) == loss
    slope = losses.mse_loss_gradient(prediction, target)
    assert slope * x == gradient
    if bias is not None:
        assert offset.grad == slope


def test_jacobian_of_softmax_by_rows() -> None:
    a = torch.tensor([1.0, 2.0, 0.5], requires_grad=True)
    p = F.softmax(a, dim=0)
    rows = [torch.autograd.grad(p[i], a, retain_graph=True)[0] for i in range(3)]
    jacobian = activations.softmax_jacobian(a.detach())
    torch.testing.assert_close(jacobian, torch.stack(rows))
    assert (jacobian.diagonal() > 0).all()
    assert (jacobian[~torch.eye(3, dtype=torch.bool)] < 0).all()
    torch.testing.assert_close(jacobian.sum(dim=1), torch.zeros(3), atol=1e-7, rtol=0)
    torch.testing.assert_close(
        activations.softmax_jacobian_from_output(p.detach()), jacobian, atol=1e-6, rtol=0
    )


def test_cross_entropy_is_softmax_log_and_nll() -> None:
    logits = torch.tensor([[2.0, 3.0, 1.0], [3.0, 7.0, 9.0]])
    labels = torch.tensor([1, 2])
    loss = losses.cross_entropy(logits, labels)
    assert round(float(loss), 4) == 0.2684
    assert torch.nn.CrossEntropyLoss()(logits, labels) == pytest.approx(float(loss), rel=1e-6)
    by_steps = losses.nll_loss(torch.log(activations.softmax(logits)), labels)
    by_one = losses.nll_loss(activations.log_softmax(logits), labels)
    torch.testing.assert_close(by_steps, loss)
    torch.testing.assert_close(by_one, loss)


def test_entropies() -> None:
    p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    assert losses.entropy(p, base=2) == 1.5
    assert losses.entropy(torch.full((8,), 1 / 8), base=2) == 3
    cross = losses.distribution_cross_entropy(p, q)
    torch.testing.assert_close(cross, losses.entropy(p) + losses.kl_divergence(p, q))
    assert losses.kl_divergence(p, p) == 0
    r = torch.tensor([0.7, 0.2, 0.1])
    assert losses.kl_divergence(p, r) != losses.kl_divergence(r, p)
    batch = losses.kl_div(q.log()[None], p[None], reduction="batchmean")
    torch.testing.assert_close(batch, losses.kl_divergence(p, q))


def test_forms_from_the_output() -> None:
    x = np.linspace(-4, 4, 33)
    y = activations.sigmoid(x)
    assert np.allclose(activations.sigmoid_derivative_from_output(y), y * (1 - y), atol=1e-16)
    y = activations.tanh(x)
    assert np.allclose(activations.tanh_derivative_from_output(y), 1 - y * y, atol=1e-15)
    far = activations.sigmoid(torch.tensor(18.0))
    assert activations.sigmoid_derivative_from_output(far) == 0
    assert activations.sigmoid_derivative(torch.tensor(18.0)) > 0


def test_one_value_and_its_derivative() -> None:
    value, slope = gradref.value_and_derivative(activations.sigmoid)(0.0)
    assert (value, slope) == (0.5, 0.25)


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_the_jacobian_from_the_output_of_many_rows(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    from_output = activations.softmax_jacobian_from_output(activations.softmax(x))
    torch.testing.assert_close(from_output, activations.softmax_jacobian(x))
