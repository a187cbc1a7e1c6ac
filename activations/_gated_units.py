"""Gated linear units of language models: an activation of one half of a row times the other half.

The half that is gated is the second one, where glu's is the first: so they are split in the models
that use them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from activations._gated import (
    GELU_TAIL,
    gelu,
    gelu_derivative,
    gelu_second_derivative,
    gelu_tail,
    silu,
    silu_derivative,
    silu_second_derivative,
)
from activations._piecewise import relu, relu_derivative, relu_second_derivative
from gradref.declare import hvp, jacobian, jvp, rowwise, vjp
from gradref.formula.errorfree import times_exp
from gradref.truth import series

__all__ = [
    "geglu",
    "geglu_hvp",
    "geglu_jacobian",
    "geglu_jvp",
    "geglu_vjp",
    "reglu",
    "reglu_hvp",
    "reglu_jacobian",
    "reglu_jvp",
    "reglu_vjp",
    "swiglu",
    "swiglu_hvp",
    "swiglu_jacobian",
    "swiglu_jvp",
    "swiglu_vjp",
]

Approximate = Literal["none", "tanh"]

SILU_TAIL = -600.0
"""Below it the logistic function is its exponential."""


def _unit_truth(activation: Callable[[Any], Any]) -> Callable[..., Any]:
    def truth(x: Any, **parameters: Any) -> Any:
        a, b = np.split(x, 2, axis=-1)
        return series.each(lambda z: activation(z, **parameters), a) * b

    return truth


def _unit_in_torch(activation: Callable[..., Tensor], gated: int = 0) -> Callable[..., Tensor]:
    def unit(x: Tensor, dim: int, **parameters: Any) -> Tensor:
        halves = x.chunk(2, dim)
        return activation(halves[gated], **parameters) * halves[1 - gated]

    return unit


Times = Callable[[int, Tensor, Tensor], Tensor]
"""c f(a), c f′(a) or c f″(a), by the order of the derivative, a and c."""


def _unit(times: Times, x: Tensor, dim: int) -> Tensor:
    a, b = x.chunk(2, dim)
    return times(0, a, b)


def _unit_jacobian(times: Times, x: Tensor, dim: int) -> Tensor:
    a, b = x.chunk(2, dim)
    halves = times(1, a, b), times(0, a, torch.ones_like(b))
    return torch.cat([torch.diag_embed(half) for half in halves], -1)


def _unit_vjp(times: Times, x: Tensor, grad_output: Tensor, dim: int) -> Tensor:
    a, b = x.chunk(2, dim)
    return torch.cat([times(1, a, b * grad_output), times(0, a, grad_output)], dim)


def _unit_jvp(times: Times, x: Tensor, tangent: Tensor, dim: int) -> Tensor:
    (a, b), (of_a, of_b) = x.chunk(2, dim), tangent.chunk(2, dim)
    return times(1, a, of_a * b) + times(0, a, of_b)


def _unit_hvp(times: Times, x: Tensor, grad_output: Tensor, tangent: Tensor, dim: int) -> Tensor:
    (a, b), (of_a, of_b), g = x.chunk(2, dim), tangent.chunk(2, dim), grad_output
    by_a = times(2, a, g * of_a * b) + times(1, a, g * of_b)
    return torch.cat([by_a, times(1, a, g * of_a)], dim)


# --- swiglu ---------------------------------------------------------------------------------------


@rowwise(
    torch=_unit_in_torch(F.silu),
    truth=_unit_truth(silu.operation.truth),
    parts=2,
    mistakes={"the other half is gated": _unit_in_torch(F.silu, gated=1)},
)
def swiglu(x: Tensor, dim: int = -1) -> Tensor:
    r"""Gated unit of SiLU: the feed-forward layers of Llama and its relatives.

    .. math:: \operatorname{swiglu}(a, b) = \operatorname{silu}(a)\,b = a\,\sigma(a)\,b

    Domain ℝ²ⁿ, codomain ℝⁿ, smooth. A row of 2n numbers has n outputs: shape
    (..., 2n, ...) gives (..., n, ...). NaN gives NaN. float64, float32, float16, bfloat16.

    Raises ValueError for rows of an odd length, IndexError where ``dim`` is out of range.
    Source: Shazeer (2020); Touvron et al. (2023).

    >>> swiglu(torch.tensor([1.0, -2.0, 3.0, 4.0]))
    tensor([ 2.1932, -0.9536])
    """
    return _unit(_times_silu, x, dim)


@jacobian(swiglu)
def swiglu_jacobian(x: Tensor, dim: int = -1) -> Tensor:
    r""":math:`(\operatorname{diag} b\,f'(a),\ \operatorname{diag} f(a))` for f = silu, n × 2n.

    >>> swiglu_jacobian(torch.tensor([1.0, 3.0]))
    tensor([[2.7830, 0.7311]])
    """
    return _unit_jacobian(_times_silu, x, dim)


@vjp(swiglu)
def swiglu_vjp(x: Tensor, grad_output: Tensor, dim: int = -1) -> Tensor:
    r""":math:`(g\,b\,f'(a),\ g\,f(a))`.

    >>> swiglu_vjp(torch.tensor([1.0, 3.0]), torch.tensor([2.0]))
    tensor([5.5660, 1.4621])
    """
    return _unit_vjp(_times_silu, x, grad_output, dim)


@jvp(swiglu)
def swiglu_jvp(x: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`t_a\,b\,f'(a) + t_b\,f(a)` for the halves of t.

    >>> swiglu_jvp(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]))
    tensor([4.2451])
    """
    return _unit_jvp(_times_silu, x, tangent, dim)


@hvp(swiglu)
def swiglu_hvp(x: Tensor, grad_output: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`g\,(t_a\,b\,f''(a) + t_b\,f'(a),\ t_a\,f'(a))`.

    >>> swiglu_hvp(torch.tensor([1.0, 3.0]), torch.tensor([2.0]), torch.tensor([1.0, 2.0]))
    tensor([5.5249, 1.8553])
    """
    return _unit_hvp(_times_silu, x, grad_output, tangent, dim)


# --- geglu ----------------------------------------------------------------------------------------


@rowwise(
    torch=_unit_in_torch(F.gelu),
    truth=_unit_truth(gelu.operation.truth),
    parts=2,
    mistakes={"the other half is gated": _unit_in_torch(F.gelu, gated=1)},
    cases=({}, {"approximate": "tanh"}),
)
def geglu(x: Tensor, dim: int = -1, approximate: Approximate = "none") -> Tensor:
    r"""Gated unit of GELU, or of its tanh form.

    .. math:: \operatorname{geglu}(a, b) = \operatorname{gelu}(a)\,b

    Domain ℝ²ⁿ, codomain ℝⁿ, smooth. A row of 2n numbers has n outputs: shape
    (..., 2n, ...) gives (..., n, ...). NaN gives NaN. float64, float32, float16, bfloat16.

    Raises ValueError for rows of an odd length, IndexError where ``dim`` is out of range.
    Source: Shazeer (2020).

    >>> geglu(torch.tensor([1.0, -2.0, 3.0, 4.0]))
    tensor([ 2.5240, -0.1820])
    """
    return _unit(partial(_times_gelu, approximate=approximate), x, dim)


@jacobian(geglu)
def geglu_jacobian(x: Tensor, dim: int = -1, approximate: Approximate = "none") -> Tensor:
    r""":math:`(\operatorname{diag} b\,f'(a),\ \operatorname{diag} f(a))` for f = gelu, n × 2n.

    >>> geglu_jacobian(torch.tensor([1.0, 3.0]))
    tensor([[3.2499, 0.8413]])
    """
    return _unit_jacobian(partial(_times_gelu, approximate=approximate), x, dim)


@vjp(geglu)
def geglu_vjp(
    x: Tensor, grad_output: Tensor, dim: int = -1, approximate: Approximate = "none"
) -> Tensor:
    r""":math:`(g\,b\,f'(a),\ g\,f(a))`.

    >>> geglu_vjp(torch.tensor([1.0, 3.0]), torch.tensor([2.0]))
    tensor([6.4999, 1.6827])
    """
    return _unit_vjp(partial(_times_gelu, approximate=approximate), x, grad_output, dim)


@jvp(geglu)
def geglu_jvp(
    x: Tensor, tangent: Tensor, dim: int = -1, approximate: Approximate = "none"
) -> Tensor:
    r""":math:`t_a\,b\,f'(a) + t_b\,f(a)` for the halves of t.

    >>> geglu_jvp(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]))
    tensor([4.9326])
    """
    return _unit_jvp(partial(_times_gelu, approximate=approximate), x, tangent, dim)


@hvp(geglu)
def geglu_hvp(
    x: Tensor,
    grad_output: Tensor,
    tangent: Tensor,
    dim: int = -1,
    approximate: Approximate = "none",
) -> Tensor:
    r""":math:`g\,(t_a\,b\,f''(a) + t_b\,f'(a),\ t_a\,f'(a))`.

    >>> geglu_hvp(torch.tensor([1.0, 3.0]), torch.tensor([2.0]), torch.tensor([1.0, 2.0]))
    tensor([5.7851, 2.1666])
    """
    return _unit_hvp(partial(_times_gelu, approximate=approximate), x, grad_output, tangent, dim)


# --- reglu ----------------------------------------------------------------------------------------


@rowwise(
    torch=_unit_in_torch(F.relu),
    truth=_unit_truth(relu.operation.truth),
    parts=2,
    mistakes={"the other half is gated": _unit_in_torch(F.relu, gated=1)},
)
def reglu(x: Tensor, dim: int = -1) -> Tensor:
    r"""Gated unit of ReLU.

    .. math:: \operatorname{reglu}(a, b) = \max(a, 0)\,b

    Domain ℝ²ⁿ, codomain ℝⁿ, with a corner where a is 0. A row of 2n numbers has n outputs: shape
    (..., 2n, ...) gives (..., n, ...). NaN gives NaN. float64, float32, float16, bfloat16.

    Raises ValueError for rows of an odd length, IndexError where ``dim`` is out of range.
    Source: Shazeer (2020); Dauphin, Fan, Auli and Grangier (2017).

    >>> reglu(torch.tensor([1.0, -2.0, 3.0, 4.0]))
    tensor([3., 0.])
    """
    return _unit(_times_relu, x, dim)


@jacobian(reglu)
def reglu_jacobian(x: Tensor, dim: int = -1) -> Tensor:
    r""":math:`(\operatorname{diag} b\,f'(a),\ \operatorname{diag} f(a))` for f = relu, n × 2n.

    >>> reglu_jacobian(torch.tensor([1.0, 3.0]))
    tensor([[3., 1.]])
    """
    return _unit_jacobian(_times_relu, x, dim)


@vjp(reglu)
def reglu_vjp(x: Tensor, grad_output: Tensor, dim: int = -1) -> Tensor:
    r""":math:`(g\,b\,f'(a),\ g\,f(a))`.

    >>> reglu_vjp(torch.tensor([1.0, 3.0]), torch.tensor([2.0]))
    tensor([6., 2.])
    """
    return _unit_vjp(_times_relu, x, grad_output, dim)


@jvp(reglu)
def reglu_jvp(x: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`t_a\,b\,f'(a) + t_b\,f(a)` for the halves of t.

    >>> reglu_jvp(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]))
    tensor([5.])
    """
    return _unit_jvp(_times_relu, x, tangent, dim)


@hvp(reglu)
def reglu_hvp(x: Tensor, grad_output: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`g\,(t_a\,b\,f''(a) + t_b\,f'(a),\ t_a\,f'(a))`.

    >>> reglu_hvp(torch.tensor([1.0, 3.0]), torch.tensor([2.0]), torch.tensor([1.0, 2.0]))
    tensor([4., 2.])
    """
    return _unit_hvp(_times_relu, x, grad_output, tangent, dim)


# --- products with a derivative of an activation -------------------------------------------------


def _times_silu(order: int, a: Tensor, c: Tensor) -> Tensor:
    """c f(a), c f′(a) or c f″(a) of silu; deep in the tail (a + order) c exp(a), rounded last."""
    derivative = (silu, silu_derivative, silu_second_derivative)[order]
    deep = a.clamp(-3000, SILU_TAIL)
    return torch.where(a < SILU_TAIL, times_exp((deep + order) * c, deep), derivative(a) * c)


def _times_gelu(order: int, a: Tensor, c: Tensor, approximate: Approximate) -> Tensor:
    """c f(a), c f′(a) or c f″(a) of gelu; deep in the tail with c times a rest before exp."""
    derivative = (gelu, gelu_derivative, gelu_second_derivative)[order]
    below = GELU_TAIL[approximate]
    tail = gelu_tail(order, a.clamp(-60, below), c, approximate)
    return torch.where(a < below, tail, derivative(a, approximate=approximate) * c)


def _times_relu(order: int, a: Tensor, c: Tensor) -> Tensor:
    """c f(a), c f′(a) or c f″(a) of relu."""
    return (relu, relu_derivative, relu_second_derivative)[order](a) * c
