"""Identities that hold whatever the input, by Hypothesis."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import activations
import losses

FLOATS = st.floats(-700, 700)
ROWS = st.integers(1, 9).flatmap(lambda n: arrays(np.float64, (4, n), elements=st.floats(-50, 50)))
U = 2.0**-53


def close(a: object, b: object, scale: float = 1.0) -> bool:
    return bool(np.allclose(a, b, rtol=1e-13, atol=1e-14 * scale))  # type: ignore[arg-type]


@given(FLOATS)
def test_sigmoid_and_its_mirror_sum_to_one(x: float) -> None:
    assert close(activations.sigmoid(-x), 1 - activations.sigmoid(x))
    assert activations.sigmoid_derivative(x) == activations.sigmoid_derivative(-x)
    assert activations.sigmoid_second_derivative(x) == -activations.sigmoid_second_derivative(-x)


@given(FLOATS)
def test_tanh_is_a_rescaled_sigmoid(x: float) -> None:
    assert close(activations.tanh(x), 2 * activations.sigmoid(2 * x) - 1)


@given(FLOATS)
def test_chain_of_softplus(x: float) -> None:
    assert close(activations.softplus(x) - activations.softplus(-x), x, scale=abs(x) + 1)
    for a, b in (
        (activations.softplus_derivative(x), activations.sigmoid(x)),
        (activations.logsigmoid(x), -activations.softplus(-x)),
    ):
        assert math.isclose(a, b, rel_tol=4 * U)


@given(FLOATS, st.floats(0.01, 20))
def test_scaling_of_softplus(x: float, beta: float) -> None:
    scaled = activations.softplus(beta * x) / beta
    assert math.isclose(activations.softplus(x, beta=beta), scaled, rel_tol=1e-11 * (1 + abs(x)))


@given(FLOATS)
def test_gates(x: float) -> None:
    assert close(activations.silu(x) - activations.silu(-x), x, scale=abs(x) + 1)
    assert close(activations.gelu(x) - activations.gelu(-x), x, scale=abs(x) + 1)
    assert close(activations.silu_derivative(x) + activations.silu_derivative(-x), 1)
    assert close(activations.gelu_derivative(x) + activations.gelu_derivative(-x), 1)


@given(ROWS, st.floats(-100, 100))
def test_softmax(x: np.ndarray, shift: float) -> None:
    p = activations.softmax(x)
    assert close(p.sum(axis=1), 1)
    assert close(activations.softmax(x + shift), p, scale=1 + abs(shift))
    assert close(np.exp(activations.log_softmax(x)), p)
    jacobian = activations.softmax_jacobian(x)
    assert close(jacobian.sum(axis=2), 0)
    assert np.array_equal(jacobian, jacobian.swapaxes(1, 2))
    order = np.argsort(x, axis=1, kind="stable")
    permuted = activations.softmax(np.take_along_axis(x, order, axis=1))
    assert close(permuted, np.take_along_axis(p, order, axis=1))


@given(ROWS, st.data())
def test_products_are_those_of_the_jacobian(x: np.ndarray, data: st.DataObject) -> None:
    v = data.draw(arrays(np.float64, x.shape, elements=st.floats(-3, 3)))
    for name in ("softmax", "log_softmax"):
        jacobian = getattr(activations, f"{name}_jacobian")(x)
        vjp, jvp = (getattr(activations, f"{name}_{kind}") for kind in ("vjp", "jvp"))
        assert close(vjp(x, v), np.einsum("rij,ri->rj", jacobian, v), scale=100)
        assert close(jvp(x, v), np.einsum("rij,rj->ri", jacobian, v), scale=100)


@given(ROWS, st.data())
def test_gradient_of_cross_entropy_sums_to_zero(x: np.ndarray, data: st.DataObject) -> None:
    target = data.draw(arrays(np.int64, len(x), elements=st.integers(0, x.shape[1] - 1)))
    for smoothing in (0.0, 0.1):
        gradient = losses.cross_entropy_gradient(
            x, target, reduction="none", label_smoothing=smoothing
        )
        assert close(gradient.sum(axis=1), 0)
    assert (losses.cross_entropy(x, target, reduction="none") >= 0).all()


@given(ROWS, ROWS)
def test_information(x: np.ndarray, y: np.ndarray) -> None:
    p = activations.softmax(x)
    q = activations.softmax(y[:, : x.shape[1]]) if y.shape[1] >= x.shape[1] else p
    divergence = losses.kl_divergence(p, q)
    assert (divergence >= -1e-13).all()
    assert np.array_equal(losses.kl_divergence(p, p), np.zeros(4))
    cross, entropy = losses.distribution_cross_entropy(p, q), losses.entropy(p)
    assert close(cross, entropy + divergence, scale=100)
    assert (entropy <= math.log(x.shape[1]) + 1e-13).all()
    assert close(losses.entropy(p, base=2) * math.log(2), entropy)


@given(ROWS)
def test_one_precision_does_not_depend_on_another(x: np.ndarray) -> None:
    """Ours in float32 is ours in float64, rounded: for members of float32."""
    narrow = torch.from_numpy(x).float()
    wide = narrow.double()
    target = torch.zeros(len(x), dtype=torch.int64)
    assert torch.equal(activations.softmax(narrow), activations.softmax(wide).float())
    assert torch.equal(activations.gelu(narrow), activations.gelu(wide).float())
    assert torch.equal(
        losses.cross_entropy_gradient(narrow, target),
        losses.cross_entropy_gradient(wide, target).float(),
    )
