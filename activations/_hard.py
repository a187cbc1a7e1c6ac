"""Functions of straight and parabolic pieces: cheap forms of smooth ones, and thresholds."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradref.declare import (
    derivative,
    elementwise,
    second_derivative,
    zero_second_derivative,
)
from gradref.declare.domains import FINITE, NON_NEGATIVE
from gradref.declare.facts import FROM_LEFT, FROM_RIGHT, Facts
from gradref.formula.errorfree import floor_to, near_0, parts

__all__ = [
    "hardshrink",
    "hardshrink_derivative",
    "hardshrink_second_derivative",
    "hardsigmoid",
    "hardsigmoid_derivative",
    "hardsigmoid_second_derivative",
    "hardswish",
    "hardswish_derivative",
    "hardswish_second_derivative",
    "relu6",
    "relu6_derivative",
    "relu6_second_derivative",
    "softshrink",
    "softshrink_derivative",
    "softshrink_second_derivative",
    "squared_relu",
    "squared_relu_derivative",
    "squared_relu_second_derivative",
    "threshold",
    "threshold_derivative",
    "threshold_second_derivative",
]


def _inside(x: Tensor, low: float, high: float) -> Tensor:
    """1 for low < x < high, 0 elsewhere, NaN for NaN."""
    return ((x > low) & (x < high)).to(x.dtype).masked_fill(x.isnan(), nan)


# --- bounded -------------------------------------------------------------------------------------


@elementwise(
    torch=F.relu6,
    truth=lambda x: x if 0 < x[0] < 6 else 0 * x + (6 if x[0] > 3 else 0),
    facts=Facts(
        limits={-inf: (0.0, 0.0, 0.0), inf: (6.0, 0.0, 0.0)},
        kinks={0.0: FROM_LEFT, 6.0: FROM_RIGHT},
    ),
)
def relu6(x: Tensor, /) -> Tensor:
    r"""Rectified linear unit that stops at 6, :math:`\min(\max(x, 0), 6)`.

    Domain ℝ, codomain [0, 6]. inf gives 6, −inf gives 0, NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16. Source: ``torch.nn.functional.relu6``.

    >>> relu6(torch.tensor([-1.0, 2.0, 7.0]))
    tensor([0., 2., 6.])
    """
    return x.clamp(0, 6)


@derivative(relu6)
def relu6_derivative(x: Tensor, /) -> Tensor:
    r""":math:`[0 < x < 6]`, with 0 at both kinks, where the subdifferential is [0, 1], as in torch.

    >>> relu6_derivative(torch.tensor([0.0, 2.0, 6.0]))
    tensor([0., 1., 0.])
    """
    return _inside(x, 0, 6)


relu6_second_derivative = zero_second_derivative(relu6)


@elementwise(
    torch=F.hardsigmoid,
    truth=lambda x: (x + 3) / 6 if abs(x[0]) < 3 else 0 * x + (x[0] > 0),
    facts=Facts(
        limits={-inf: (0.0, 0.0, 0.0), inf: (1.0, 0.0, 0.0)},
        kinks={-3.0: FROM_LEFT, 3.0: FROM_RIGHT},
    ),
)
def hardsigmoid(x: Tensor, /) -> Tensor:
    r"""Sigmoid of three straight pieces.

    .. math:: f(x) = \tfrac{1}{6} \min(\max(x + 3, 0), 6)

    Domain ℝ, codomain [0, 1]. inf gives 1, −inf gives 0, NaN gives NaN. Any shape; float64,
    float32, float16, bfloat16. Source: ``torch.nn.functional.hardsigmoid``; Howard et al. (2019).

    >>> hardsigmoid(torch.tensor([-3.0, 0.0, 1.5]))
    tensor([0.0000, 0.5000, 0.7500])
    """
    return (x.clamp(-3, 3) + 3) / 6


@derivative(hardsigmoid)
def hardsigmoid_derivative(x: Tensor, /) -> Tensor:
    r""":math:`\tfrac{1}{6}` for −3 < x < 3 and 0 elsewhere, as in torch, which has no f″.

    >>> hardsigmoid_derivative(torch.tensor([-3.0, 0.0, 4.0]))
    tensor([0.0000, 0.1667, 0.0000])
    """
    return _inside(x, -3, 3) / 6


hardsigmoid_second_derivative = zero_second_derivative(hardsigmoid)


def _hardswish_truth(x: Any) -> Any:
    if abs(x[0]) < 3:
        return x * (x + 3) / 6
    return x if x[0] > 0 else 0 * x


@elementwise(
    torch=F.hardswish,
    truth=_hardswish_truth,
    facts=Facts(
        limits={-inf: (0.0, 0.0, 0.0), inf: (inf, 1.0, 0.0)},
        kinks={-3.0: FROM_LEFT, 3.0: FROM_RIGHT},
        zeros={1: [(-2.0, -1.0)]},
    ),
)
def hardswish(x: Tensor, /) -> Tensor:
    r"""Swish with a sigmoid of three straight pieces.

    .. math:: f(x) = \tfrac{x}{6} \min(\max(x + 3, 0), 6)

    Domain ℝ, codomain [−⅜, ∞), least at −3/2. inf gives inf, −inf gives 0, NaN gives NaN. Any
    shape; float64, float32, float16, bfloat16.

    Source: ``torch.nn.functional.hardswish``; Howard et al. (2019).

    >>> hardswish(torch.tensor([-3.0, -1.5, 4.0]))
    tensor([-0.0000, -0.3750,  4.0000])
    """
    t = x.clamp(-3, 3)
    value = torch.where(x > 3, x, t * (t + 3) / 6)
    return near_0(x, 0.5 * x, x.square() / 6, value, 2.0**-20)


@derivative(hardswish)
def hardswish_derivative(x: Tensor, /) -> Tensor:
    r""":math:`\tfrac{1}{6}(2x + 3)` for −3 < x < 3, else 0 and 1, also at the kinks, as in torch.

    It jumps by ½ at both: from 0 to −½ at −3, from 3/2 to 1 at 3.

    >>> hardswish_derivative(torch.tensor([-3.0, 0.0, 3.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    outside = (x > 0).to(x.dtype)
    return torch.where(x.abs() >= 3, outside, (2 * x + 3) / 6)


@second_derivative(hardswish)
def hardswish_second_derivative(x: Tensor, /) -> Tensor:
    r""":math:`\tfrac{1}{3}` for −3 < x < 3, else 0, also at the kinks, as in torch.

    >>> hardswish_second_derivative(torch.tensor([-3.0, 0.0, 4.0]))
    tensor([0.0000, 0.3333, 0.0000])
    """
    return _inside(x, -3, 3) / 3


# --- thresholds ----------------------------------------------------------------------------------


@elementwise(
    torch=F.threshold,
    truth=lambda x, threshold, value: x if x[0] > threshold else 0 * x + value,
    facts=Facts(
        limits=lambda threshold, value: {-inf: (value, 0.0, 0.0), inf: (inf, 1.0, 0.0)},
        kinks=lambda threshold, value: {threshold: FROM_LEFT},
    ),
    domains={"threshold": FINITE, "value": FINITE},
    cases=({}, {"threshold": 0.1, "value": 20.0}),
    differs=dict.fromkeys(("threshold", "value"), "torch has no default; with 0 it is relu"),
)
def threshold(x: Tensor, /, threshold: float = 0.0, value: float = 0.0) -> Tensor:
    r"""Identity above a threshold θ, and a constant v up to it; relu for θ = v = 0.

    .. math:: f(x) = x \text{ for } x > \theta, \quad v \text{ otherwise}

    Domain ℝ; it jumps at θ unless v = θ. inf gives inf, −inf gives v, NaN gives NaN. Any shape;
    float64, float32, float16, bfloat16. Raises ValueError where a parameter is not finite.
    Source: ``torch.nn.functional.threshold``.

    >>> threshold(torch.tensor([0.5, 1.0, 2.0]), threshold=1.0, value=-1.0)
    tensor([-1., -1.,  2.])
    """
    return torch.where(x <= floor_to(threshold, x), value, x)


@derivative(threshold)
def threshold_derivative(x: Tensor, /, threshold: float = 0.0, value: float = 0.0) -> Tensor:
    r""":math:`[x > \theta]`, with 0 at the threshold, as in torch.

    >>> threshold_derivative(torch.tensor([0.5, 1.0, 2.0]), threshold=1.0)
    tensor([0., 0., 1.])
    """
    above = (x > floor_to(threshold, x)).to(x.dtype)
    return above.masked_fill(x.isnan(), nan)


threshold_second_derivative = zero_second_derivative(threshold)


def _at_both_ends(lambd: float) -> dict[float, Any]:
    return {-lambd: FROM_RIGHT, lambd: FROM_LEFT} if lambd else {0.0: (0.0, 0.0, 0.0)}


@elementwise(
    torch=F.hardshrink,
    truth=lambda x, lambd: x if abs(x[0]) > lambd else 0 * x,
    facts=Facts(limits={-inf: (-inf, 1.0, 0.0), inf: (inf, 1.0, 0.0)}, kinks=_at_both_ends),
    domains={"lambd": NON_NEGATIVE},
)
def hardshrink(x: Tensor, /, lambd: float = 0.5) -> Tensor:
    r"""Identity but for numbers up to λ in size, which become 0.

    .. math:: f(x) = x \text{ for } |x| > \lambda, \quad 0 \text{ otherwise}

    Domain ℝ, odd; it jumps at ±λ. ±inf gives ±inf, NaN gives NaN. Any shape; float64, float32,
    float16, bfloat16. Raises ValueError where ``lambd`` is negative or not finite.
    Source: ``torch.nn.functional.hardshrink``.

    >>> hardshrink(torch.tensor([-2.0, 0.5, 0.75]))
    tensor([-2.0000,  0.0000,  0.7500])
    """
    return torch.where(x.abs() <= floor_to(lambd, x), 0.0, x)


@derivative(hardshrink)
def hardshrink_derivative(x: Tensor, /, lambd: float = 0.5) -> Tensor:
    r""":math:`[|x| > \lambda]`, with 0 at both jumps, as in torch.

    >>> hardshrink_derivative(torch.tensor([-2.0, 0.5, 0.75]))
    tensor([1., 0., 1.])
    """
    beyond = (x.abs() > floor_to(lambd, x)).to(x.dtype)
    return beyond.masked_fill(x.isnan(), nan)


hardshrink_second_derivative = zero_second_derivative(hardshrink)


@elementwise(
    torch=F.softshrink,
    truth=lambda x, lambd: x - lambd * x[0].sgn() if abs(x[0]) > lambd else 0 * x,
    facts=Facts(limits={-inf: (-inf, 1.0, 0.0), inf: (inf, 1.0, 0.0)}, kinks=_at_both_ends),
    domains={"lambd": NON_NEGATIVE},
)
def softshrink(x: Tensor, /, lambd: float = 0.5) -> Tensor:
    r"""Soft threshold: every number moved towards 0 by λ, as far as 0.

    .. math:: f(x) = \operatorname{sign}(x) \max(|x| - \lambda, 0)

    Domain ℝ, odd, continuous; the proximal operator of λ|x|. ±inf gives ±inf, NaN gives NaN. Any
    shape; float64, float32, float16, bfloat16. Raises ValueError where ``lambd`` is negative or not
    finite. Source: ``torch.nn.functional.softshrink``.

    >>> softshrink(torch.tensor([-2.0, 0.5, 0.75]))
    tensor([-1.5000,  0.0000,  0.2500])
    """
    high, low = parts((lambd, 0.0), x)
    return x.sign() * (x.abs() - high - low).clamp(min=0)


@derivative(softshrink)
def softshrink_derivative(x: Tensor, /, lambd: float = 0.5) -> Tensor:
    r""":math:`[|x| > \lambda]`, with 0 at both kinks, as in torch.

    >>> softshrink_derivative(torch.tensor([-2.0, 0.5, 0.75]))
    tensor([1., 0., 1.])
    """
    return hardshrink_derivative(x, lambd)


softshrink_second_derivative = zero_second_derivative(softshrink)


# --- parabolic -----------------------------------------------------------------------------------


@elementwise(
    torch=lambda x: F.relu(x).square(),
    truth=lambda x: x * x if x[0] > 0 else 0 * x,
    facts=Facts(
        limits={-inf: (0.0, 0.0, 0.0), inf: (inf, inf, 2.0)},
        kinks={0.0: FROM_LEFT},
    ),
)
def squared_relu(x: Tensor, /) -> Tensor:
    r"""Square of the rectified linear unit, :math:`\max(x, 0)^2`.

    Domain ℝ, codomain [0, ∞); f″ jumps at 0. inf gives inf, −inf gives 0, NaN gives NaN. Any
    shape; float64, float32, float16, bfloat16. Source: So et al., Primer (2021).

    >>> squared_relu(torch.tensor([-1.0, 0.5, 3.0]))
    tensor([0.0000, 0.2500, 9.0000])
    """
    return x.clamp(min=0).square()


@derivative(squared_relu)
def squared_relu_derivative(x: Tensor, /) -> Tensor:
    r""":math:`2 \max(x, 0)`.

    >>> squared_relu_derivative(torch.tensor([-1.0, 0.5, 3.0]))
    tensor([0., 1., 6.])
    """
    return 2 * x.clamp(min=0)


@second_derivative(squared_relu)
def squared_relu_second_derivative(x: Tensor, /) -> Tensor:
    r""":math:`2` for x > 0, else 0, also at 0, where f″ jumps, as in torch.

    >>> squared_relu_second_derivative(torch.tensor([-1.0, 0.0, 3.0]))
    tensor([0., 0., 2.])
    """
    return 2 * (x > 0).to(x.dtype).masked_fill(x.isnan(), nan)
