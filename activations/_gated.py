"""Gated functions: the input times a smooth step."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from math import inf, pi, sqrt
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradref.declare import (
    derivative,
    elementwise,
    hvp,
    jacobian,
    jvp,
    rowwise,
    second_derivative,
    vjp,
)
from gradref.declare.facts import Facts
from gradref.formula import float32
from gradref.formula.errorfree import (
    Exponential,
    exp,
    may_hold,
    near_0,
    near_root,
    parts,
    tanh,
    times_exp,
    two_product,
    two_sum,
)
from gradref.truth import series

__all__ = [
    "gelu",
    "gelu_derivative",
    "gelu_second_derivative",
    "glu",
    "glu_hvp",
    "glu_jacobian",
    "glu_jvp",
    "glu_vjp",
    "mish",
    "mish_derivative",
    "mish_second_derivative",
    "quick_gelu",
    "quick_gelu_derivative",
    "quick_gelu_second_derivative",
    "silu",
    "silu_derivative",
    "silu_second_derivative",
]

TINY = 2.0**-20
"""Below it two terms of the power series of a gated function are exact in float64."""

# --- silu ----------------------------------------------------------------------------------------


@elementwise(
    torch=F.silu,
    truth=lambda x: x * series.logistic(x),
    facts=Facts(
        limits={-inf: (0.0, 0.0, 0.0), inf: (inf, 1.0, 0.0)},
        zeros={1: [(-2.0, -1.0)], 2: [(-3.0, -2.0), (2.0, 3.0)]},
    ),
)
def silu(x: Tensor, /) -> Tensor:
    r"""Sigmoid linear unit, also called swish.

    .. math:: \operatorname{silu}(x) = x\,\sigma(x)

    Domain ℝ, codomain [−0.2785, ∞), smooth, least at −1.2785. inf gives inf, −inf gives 0, NaN
    gives NaN. Any shape; float64, float32, float16, bfloat16.

    Source: ``torch.nn.functional.silu``; Elfwing, Uchibe and Doya (2018).

    >>> silu(torch.tensor([-89.0, 0.0, 2.0]))
    tensor([-1.9824e-37,  0.0000e+00,  1.7616e+00])
    """
    t, e, upper = _logistic(x)
    value = torch.where(x < 0, e.times(t * upper), x * upper)
    return near_0(x, 0.5 * x, 0.25 * x.square(), value, TINY)


@derivative(silu)
def silu_derivative(x: Tensor, /) -> Tensor:
    r""":math:`\sigma(x)\,(1 + x\,\sigma(-x))`; σ(−x) rather than 1 − σ(x), which cancels.

    >>> silu_derivative(torch.tensor([-89.0, 0.0, 2.0]))
    tensor([-1.9601e-37,  5.0000e-01,  1.0908e+00])
    """
    t, e, upper = _logistic(x)
    factor = upper * (1 + t.clamp(max=0) + t.abs() * (e.value * upper))  # with 1 + x σ(−x)
    return near_root(t, SILU_SLOPE, torch.where(x < 0, e.times(factor), factor))


@second_derivative(silu)
def silu_second_derivative(x: Tensor, /) -> Tensor:
    r""":math:`\sigma'(x)\,(2 + x\,(\sigma(-x) - \sigma(x))) = \sigma'(x)\,(2 - x\tanh(x/2))`.

    >>> silu_second_derivative(torch.tensor([-17.0, 0.0, 17.0]))
    tensor([-6.2099e-07,  5.0000e-01, -6.2099e-07])
    """
    t, e, upper = _logistic(x)
    lower, a = e.value * upper, t.abs()
    factor = 2 - a + 2 * a * lower  # 2 − x tanh(x/2)
    return e.times(factor / (1 + e.value * (2 + e.value)))  # over (1 + e)²


SILU_SLOPE = float32.Root(
    -1.2784645557403564,
    1.2979282537628478e-08,
    (
        -4.0056627767626196e-05,
        0.00016278873954433948,
        0.0007969711441546679,
        0.00013267609756439924,
        -0.006606174632906914,
        -0.015223248861730099,
        0.01887478306889534,
        0.1466488093137741,
        0.2178117036819458,
    ),
)
"""silu′ about its root, in float32."""


def _logistic(x: Tensor) -> tuple[Tensor, Exponential, Tensor]:
    """x within ±1000, where all has long reached its limits, exp(−|x|), and σ(|x|)."""
    t = x.clamp(-1000, 1000)
    e = Exponential.of(-t.abs())
    return t, e, 1 / (1 + e.value)


# --- gelu ----------------------------------------------------------------------------------------


def _gelu_truth(x: Any, approximate: str) -> Any:
    if approximate == "tanh":
        u = (x + x * x * x * 44715 / 1000000) * 2 * (2 / x[0].pi()).sqrt()
        return x * series.logistic(u)
    return x / 2 * (-x / type(x[0])(2).sqrt()).erfc()


@elementwise(
    torch=F.gelu,
    truth=_gelu_truth,
    facts=Facts(
        limits={-inf: (0.0, 0.0, 0.0), inf: (inf, 1.0, 0.0)},
        zeros={1: [(-1.0, -0.5)], 2: [(-2.0, -1.0), (1.0, 2.0)]},
    ),
    cases=({}, {"approximate": "tanh"}),
)
def gelu(x: Tensor, /, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    r"""Gaussian error linear unit.

    .. math:: \operatorname{gelu}(x) = x\,\Phi(x)
              = \max(x, 0) - |x|\,\Phi(-|x|), \quad
              \Phi(x) = \tfrac{1}{2} \operatorname{erfc}\!\left(-\tfrac{x}{\sqrt 2}\right)

    and with ``approximate="tanh"``, u(x) = √(2/π) (x + 0.044715 x³),

    .. math:: \tfrac{x}{2}\,(1 + \tanh u) = x\,\sigma(2u)

    Domain ℝ, codomain [−0.17, ∞), smooth. inf gives inf, −inf gives 0, NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16.

    Raises ValueError where ``approximate`` is neither.
    Source: ``torch.nn.functional.gelu``; Hendrycks and Gimpel (2016).

    >>> gelu(torch.tensor([-6.0, 0.0, 2.0]))
    tensor([-5.9195e-09,  0.0000e+00,  1.9545e+00])
    """
    if approximate == "tanh":
        t = x.clamp(-REACH, REACH)
        v, error = _argument(t)
        gate = 1 / (1 + exp(-v.abs()))
        value = torch.where(x > 0, x * gate, times_exp(t * gate, v.clamp(max=0), error))
    else:
        z = x.abs().clamp(max=REACH)
        below = _gaussian(z, lambda: z * _upper_tail(z), lambda: z * _ratio(z))
        value = x.clamp(min=-0.0) - below
    return near_0(x, 0.5 * x, x.square() * DENSITY_AT_0[0], value, TINY)


@derivative(gelu)
def gelu_derivative(x: Tensor, /, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    r""":math:`\Phi(x) + x\,\varphi(x)`; with tanh, v = 2u, :math:`\sigma(v)\,(1 + xv'\sigma(-v))`.

    The former is :math:`1 + c` for x > 0, else :math:`-c`, where
    :math:`c = |x|\,\varphi(x) - \Phi(-|x|)`.

    >>> gelu_derivative(torch.tensor([-6.0, 0.0, 2.0]))
    tensor([-3.5469e-08,  5.0000e-01,  1.0852e+00])
    """
    if approximate == "tanh":
        t = x.clamp(-REACH, REACH)
        v, error = _argument(t)
        e = exp(-v.abs())
        rate, low = _even(t, 3)
        rise, rest = two_product(t, rate)  # x v'
        rest = torch.where(v > 0, 0.0, rest + t * low)
        factor = 1 + rise.clamp(max=0) + (rise.abs() * e / (1 + e) + rest)  # 1 + x v' σ(−v)
        scale, lost = two_sum(e, 1.0)
        below = torch.where(v > 0, 0.0, error) - lost / scale
        slope = times_exp(factor / scale, v.clamp(max=0), below)
        return near_root(t, GELU_TANH_SLOPE, slope)
    z = x.abs().clamp(max=REACH)
    above = _gaussian(
        z,
        lambda: _times_density(z, z) - _upper_tail(z),
        lambda: z * DENSITY_AT_0[0] - _ratio(z),
    )
    return near_root(x, GELU_SLOPE, torch.where(x > 0, 1 + above, -above))


@second_derivative(gelu)
def gelu_second_derivative(x: Tensor, /, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    r""":math:`(2 - x^2)\,\varphi(x)`; with tanh, v = 2u,
    :math:`\sigma'(v)\,(2v' + xv'' - xv'^2\tanh(v/2))`.

    >>> gelu_second_derivative(torch.tensor([-6.0, 0.0, 2.0]))
    tensor([-2.0658e-07,  7.9788e-01, -1.0798e-01])
    """
    t = x.clamp(-REACH, REACH)
    if approximate == "tanh":
        v, error = _argument(t)
        e = exp(-v.abs())
        slope, low = _even(t, 3)
        square, rest = two_product(slope, slope)
        bend, error_of_bend = two_product(t.abs(), square)  # |x| v'²
        rest = error_of_bend + t.abs() * (rest + 2 * slope * low) - 2 * low
        factor, part = two_sum(2 * slope + t.square() * (6 * CUBIC[0]), -bend)
        factor = factor + (2 * bend * e / (1 + e) + part - rest)
        scale, lost = two_sum(e * (2 + e), 1.0)  # (1 + e)²
        return times_exp(factor / scale, -v.abs(), -error * v.sign() - lost / scale)
    square, error = two_product(t, t)
    return _times_density((2 - square) - error, t)


FAR = 37.0
"""Beyond it Φ(−z) is evaluated as a multiple of φ(z), which underflows later."""

REACH = 50.0
"""Beyond it φ and σ(2u) underflow in float64, and x·φ would be inf·0."""


def _constant(expression: Decimal) -> tuple[float, float]:
    """A constant to about 106 bits, as an unevaluated sum of two floats."""
    return float(expression), float(expression - Decimal(float(expression)))


with localcontext(prec=50):
    PI = Decimal("3.14159265358979323846264338327950288419716939937511")
    DENSITY_AT_0 = _constant(1 / (2 * PI).sqrt())  # φ(0)
    HALF_ROOT = _constant(1 / Decimal(2).sqrt())
    LINEAR = _constant(2 * (2 / PI).sqrt())  # v = 2u = LINEAR·x + CUBIC·x³
    QUICK = _constant(Decimal("1.702"))
    CUBIC = _constant(2 * (2 / PI).sqrt() * Decimal("0.044715"))


GELU_SLOPE = float32.Root(
    -0.7517915368080139,
    1.211444988769017e-08,
    (
        -0.0006912760436534882,
        -0.002093703718855977,
        0.004530938342213631,
        0.019382813945412636,
        -0.014771899208426476,
        -0.11400438100099564,
        -0.01819956861436367,
        0.3882848918437958,
        0.43149399757385254,
    ),
)
GELU_TANH_SLOPE = float32.Root(
    -0.7524614334106445,
    1.1339627903339533e-08,
    (
        -0.0008494281792081892,
        -0.0022237193770706654,
        0.005247847177088261,
        0.01962995156645775,
        -0.01661950908601284,
        -0.1139393299818039,
        -0.015782726928591728,
        0.3875183165073395,
        0.4304001033306122,
    ),
)
"""gelu′ about its root, in float32: the exact form and the one by tanh."""

UPPER_TAIL = float32.Quotient(
    1.25,
    -2.75,
    (
        0.0009740626555867493,
        -0.0030043302103877068,
        -0.0016489592380821705,
        0.006428837776184082,
        0.01203963253647089,
        -0.010364139452576637,
        -0.061516039073467255,
        0.025852838531136513,
        0.3519560992717743,
        -0.8448288440704346,
        0.9230412840843201,
    ),
)
"""Φ(−z)·exp(z²/2), Mills' ratio times φ(0), in float32 for 0 ≤ z ≤ 15."""


def _gaussian(z: Tensor, near: Callable[[], Tensor], ratio: Callable[[], Tensor]) -> Tensor:
    """``near``, but ``ratio``·exp(−z²/2) for z > FAR; in float32, where it is faster, anywhere."""
    if z.dtype is not torch.float64:
        return _times_gaussian(ratio(), z)
    far, value = z > FAR, near()
    return torch.where(far, _times_gaussian(ratio(), z), value) if may_hold(far) else value


def _upper_tail(z: Tensor) -> Tensor:
    """Φ(−z) = ½ erfc(z/√2) for z ≤ FAR, with the rounding error of z/√2 put back to first order."""
    w, error = two_product(z, HALF_ROOT[0])
    error = error + z * HALF_ROOT[1]
    tail: Tensor = torch.special.erfc(w) / 2 - torch.exp(-w * w) * error / sqrt(pi)
    return tail


def _ratio(z: Tensor) -> Tensor:
    """Φ(−z)/exp(−z²/2); in float64 for z > FAR, by its asymptotic series in 1/z²."""
    if z.dtype is not torch.float64:
        return UPPER_TAIL(z)
    u = z.clamp(min=FAR).pow(-2)
    series = torch.ones_like(u)
    for odd in (13, 11, 9, 7, 5, 3, 1):
        series = 1 - odd * u * series
    return series / z * DENSITY_AT_0[0]


def _times_gaussian(c: Tensor, x: Tensor, error: Tensor | float = 0.0) -> Tensor:
    """c·exp(−x²/2 + error), with the rounding error of x² put back."""
    if x.dtype is not torch.float64:
        square, rest = float32.square(x)
        return times_exp(c, -0.5 * square, -0.5 * rest)
    square, rest = two_product(x, x)
    return times_exp(c, -0.5 * square, error - 0.5 * rest)


def _times_density(c: Tensor, x: Tensor) -> Tensor:
    """c·φ(x), with the rounding errors of φ(0) and of c·φ(0) put back."""
    if x.dtype is not torch.float64:
        return _times_gaussian(c * DENSITY_AT_0[0], x)
    scale, rest = two_product(c, DENSITY_AT_0[0])
    lost = torch.where(scale == 0, 0.0, rest / scale) + DENSITY_AT_0[1] / DENSITY_AT_0[0]
    return _times_gaussian(scale, x, lost)


def _even(x: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """LINEAR + factor·CUBIC·x² in twice float64's precision: v/x for 1, v′ for 3."""
    linear, cubic = parts(LINEAR, x), parts((factor * CUBIC[0], factor * CUBIC[1]), x)
    square, square_error = two_product(x, x)
    product, product_error = two_product(square, cubic[0])
    total, total_error = two_sum(product, linear[0])
    rest = product_error + square_error * cubic[0] + square * cubic[1] + linear[1]
    return total, total_error + rest


def _argument(x: Tensor) -> tuple[Tensor, Tensor]:
    """v = 2u in twice float64's precision: an error in v is a relative error of exp(v)."""
    high, low = _even(x, 1)
    v, error = two_product(x, high)
    return v, error + x * low


GELU_TAIL = {"none": -FAR, "tanh": -20.0}
"""Below it gelu is the first term of what it tends to."""


def gelu_tail(order: int, a: Tensor, c: Tensor, approximate: str) -> Tensor:
    """c f(a), c f′(a) or c f″(a) of gelu in its tail, where without c it underflows."""
    if approximate == "tanh":
        (v, error), rate = _argument(a), _even(a, 3)[0]
        factors = a, 1 + a * rate, 2 * rate + a * (6 * CUBIC[0] * a + rate.square())
        return times_exp(factors[order] * c, v, error)
    ratio = _ratio(-a)
    factors = a * ratio, ratio + a * DENSITY_AT_0[0], (2 - a.square()) * DENSITY_AT_0[0]
    return _times_gaussian(factors[order] * c, a)


# --- quick_gelu ----------------------------------------------------------------------------------


@elementwise(
    torch=lambda x: x * torch.sigmoid(1.702 * x),
    truth=lambda x: x * series.logistic(x * 1702 / 1000),
    facts=Facts(
        limits={-inf: (0.0, 0.0, 0.0), inf: (inf, 1.0, 0.0)},
        zeros={1: [(-1.0, -0.5)], 2: [(-2.0, -1.0), (1.0, 2.0)]},
    ),
)
def quick_gelu(x: Tensor, /) -> Tensor:
    r"""Gaussian error linear unit, about, with a logistic function for Φ.

    .. math:: f(x) = x\,\sigma(cx), \quad c = 1.702

    Domain ℝ, codomain [−0.1637, ∞), smooth. inf gives inf, −inf gives 0, NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16.

    Source: Hendrycks and Gimpel (2016), section 2.

    >>> quick_gelu(torch.tensor([-6.0, 0.0, 2.0]))
    tensor([-2.2035e-04,  0.0000e+00,  1.9357e+00])
    """
    t, v, error = _quick(x)
    gate = 1 / (1 + exp(-v.abs()))
    value = torch.where(x > 0, x * gate, times_exp(t * gate, v.clamp(max=0), error))
    return near_0(x, 0.5 * x, x.square() * (QUICK[0] / 4), value, TINY)


@derivative(quick_gelu)
def quick_gelu_derivative(x: Tensor, /) -> Tensor:
    r""":math:`\sigma(v)\,(1 + v\,\sigma(-v))` for v = cx.

    >>> quick_gelu_derivative(torch.tensor([-6.0, 0.0, 2.0]))
    tensor([-3.3830e-04,  5.0000e-01,  1.0738e+00])
    """
    t, v, error = _quick(x)
    e, below = exp(-v.abs()), torch.where(v > 0, 0.0, error)
    factor = 1 + v.clamp(max=0) + (v.abs() * e / (1 + e) + below)  # 1 + v σ(−v)
    return near_root(t, QUICK_GELU_SLOPE, times_exp(factor / (1 + e), v.clamp(max=0), below))


@second_derivative(quick_gelu)
def quick_gelu_second_derivative(x: Tensor, /) -> Tensor:
    r""":math:`c\,\sigma'(v)\,(2 - v\tanh(v/2))` for v = cx.

    >>> quick_gelu_second_derivative(torch.tensor([-6.0, 0.0, 2.0]))
    tensor([-5.1324e-04,  8.5100e-01, -6.2796e-02])
    """
    _, v, error = _quick(x)
    a, rest = v.abs(), error * v.sign()
    e = exp(-a)
    factor = (2 - a) + (2 * a * e / (1 + e) - rest)  # 2 − v tanh(v/2)
    scale, lost = two_sum(e * (2 + e), 1.0)  # (1 + e)²
    return times_exp(QUICK[0] * factor / scale, -a, -rest - lost / scale)


QUICK_GELU_SLOPE = float32.Root(
    -0.7511542439460754,
    -1.1495213669832083e-08,
    (
        -0.00045689305989071727,
        -0.004759348928928375,
        -0.005014871247112751,
        0.012618965469300747,
        0.03303433582186699,
        0.003148741787299514,
        -0.09435448795557022,
        -0.12774494290351868,
        0.09305945038795471,
        0.424812912940979,
        0.37071552872657776,
    ),
)
"""quick_gelu′ about its root, in float32."""


def _quick(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x within ±600, where all has long reached its limits, and v = cx with its rounding error."""
    t = x.clamp(-600, 600)
    high, low = parts(QUICK, x)
    v, error = two_product(t, high)
    return t, v, error + t * low


# --- mish ----------------------------------------------------------------------------------------


@elementwise(
    torch=F.mish,
    truth=lambda x: x * series.tanh(series.softplus(x)),
    facts=Facts(
        limits={-inf: (0.0, 0.0, 0.0), inf: (inf, 1.0, 0.0)},
        zeros={1: [(-2.0, -1.0)], 2: [(-3.0, -2.0), (1.0, 2.0)]},
    ),
)
def mish(x: Tensor, /) -> Tensor:
    r"""The input times the hyperbolic tangent of its softplus.

    .. math:: \operatorname{mish}(x) = x \tanh(\log(1 + e^x))
              = x\,\frac{e^x\,(e^x + 2)}{e^x\,(e^x + 2) + 2}

    Domain ℝ, codomain [−0.3088, ∞), smooth, least at −1.1925. inf gives inf, −inf gives 0, NaN
    gives NaN. Any shape; float64, float32, float16, bfloat16.

    Source: ``torch.nn.functional.mish``; Misra (2019).

    >>> mish(torch.tensor([-89.0, 0.0, 2.0]))
    tensor([-1.9824e-37,  0.0000e+00,  1.9440e+00])
    """
    t, e, w, q = _mish_parts(x)
    r = 1 / q
    below = e.times(t - t * (w * (1 + w) * r))
    return torch.where(x < 0, below, x * (1 - 2 * w.square() * r))


@derivative(mish)
def mish_derivative(x: Tensor, /) -> Tensor:
    r""":math:`T + x\,(1 - T^2)\,\sigma(x)` for T = tanh(softplus x).

    Below 0 that is :math:`e^x\,(1 + x - \ldots)`, above it :math:`1 - \ldots`: what is left out is
    small in the tails, and so are its errors.

    >>> mish_derivative(torch.tensor([-89.0, 0.0, 2.0]))
    tensor([-1.9601e-37,  6.0000e-01,  1.0693e+00])
    """
    t, e, w, q = _mish_parts(x)
    r = 1 / q
    rest = w * ((1 + w) * q + t * (4 + w * (8 + w * (4 + w)))) * r
    below = e.times(1 + (t - rest * r))
    above = 1 - 2 * w.square() * (r - 2 * t * ((1 + w) * r) * r)
    return near_root(t, MISH_SLOPE, torch.where(x < 0, below, above))


@second_derivative(mish)
def mish_second_derivative(x: Tensor, /) -> Tensor:
    r""":math:`2T' + x\,T''` for T = tanh(softplus x), over a common denominator.

    >>> mish_second_derivative(torch.tensor([-89.0, 0.0, 2.0]))
    tensor([-1.9378e-37,  6.4000e-01, -5.7725e-02])
    """
    t = x.clamp(-1000, 1000)
    w = exp(torch.where(x < 1, t, -t))
    root, lost = two_sum(w, 1.0)  # the cube of q would count every rounding three times
    square, rest = two_product(root, root)
    q, error = two_sum(square, torch.where(x < 1, 1.0, w.square()))
    error = (error + rest + 2 * root * lost) / q
    below = 4 + 2 * t + w * (8 + 2 * t + w * (6 - 3 * t + w * (2 - 2 * t)))
    above = 2 - 2 * t + w * (6 - 3 * t + w * (8 + 2 * t + w * (4 + 2 * t)))
    square, lost = two_product(q, q)
    factor = 4 * torch.where(x < 1, below, above) / (square * q)
    return times_exp(factor, torch.where(x < 1, t, -2 * t), -3 * error - lost / square)


MISH_SLOPE = float32.Root(
    -1.1924312114715576,
    -3.0439377685098634e-09,
    (
        0.00020731221593450755,
        0.0009487614152021706,
        0.0011059772223234177,
        -0.0033489996567368507,
        -0.015822678804397583,
        -0.02027301862835884,
        0.04190788045525551,
        0.2047313004732132,
        0.2669479250907898,
    ),
)
"""mish′ about its root, in float32."""


def _mish_parts(x: Tensor) -> tuple[Tensor, Exponential, Tensor, Tensor]:
    """x within ±1000, w = exp(−abs(x)) as an exponential and as a number, the denominator q of T.

    It is (1 + w)² + 1 for x < 0, else (1 + w)² + w².
    """
    t = x.clamp(-1000, 1000)
    e = Exponential.of(-t.abs())
    w = e.value
    return t, e, w, torch.where(x < 0, 2 + w * (2 + w), 1 + 2 * w * (1 + w))


# --- glu -----------------------------------------------------------------------------------------


def _glu_truth(x: Any) -> Any:
    a, b = np.split(x, 2, axis=-1)
    return a * series.each(series.logistic, b)


@rowwise(torch=F.glu, truth=_glu_truth, parts=2)
def glu(x: Tensor, dim: int = -1) -> Tensor:
    r"""Gated linear unit: the first half of a row times the logistic function of the second.

    .. math:: \operatorname{glu}(a, b) = a\,\sigma(b)

    Domain ℝ²ⁿ, codomain ℝⁿ, smooth. A row of 2n numbers has n outputs: shape (..., 2n, ...) gives
    (..., n, ...). NaN gives NaN. float64, float32, float16, bfloat16.

    Raises ValueError for rows of an odd length, IndexError where ``dim`` is out of range.
    Source: ``torch.nn.functional.glu``; Dauphin, Fan, Auli and Grangier (2017).

    >>> glu(torch.tensor([1.0, 2.0, 0.0, -80.0]))
    tensor([5.0000e-01, 3.6097e-35])
    """
    a, b = x.chunk(2, dim)
    return _gated(a, b)


@jacobian(glu)
def glu_jacobian(x: Tensor, dim: int = -1) -> Tensor:
    r""":math:`(\operatorname{diag} \sigma(b),\ \operatorname{diag} a\,\sigma'(b))`, n × 2n.

    >>> glu_jacobian(torch.tensor([3.0, 0.0]))
    tensor([[0.5000, 0.7500]])
    """
    a, b = x.chunk(2, dim)
    one = torch.ones_like(a)
    halves = _gated(one, b), _times_gate_slope(one, a, b)
    return torch.cat([torch.diag_embed(half) for half in halves], -1)


@vjp(glu)
def glu_vjp(x: Tensor, grad_output: Tensor, dim: int = -1) -> Tensor:
    r""":math:`(g\,\sigma(b),\ g\,a\,\sigma'(b))`.

    >>> glu_vjp(torch.tensor([3.0, 0.0]), torch.tensor([1.0]))
    tensor([0.5000, 0.7500])
    """
    a, b = x.chunk(2, dim)
    return torch.cat([_gated(grad_output, b), _times_gate_slope(grad_output, a, b)], dim)


@jvp(glu)
def glu_jvp(x: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`t_a\,\sigma(b) + t_b\,a\,\sigma'(b)` for the halves of t.

    >>> glu_jvp(torch.tensor([3.0, 0.0]), torch.tensor([1.0, 2.0]))
    tensor([2.])
    """
    (a, b), (of_a, of_b) = x.chunk(2, dim), tangent.chunk(2, dim)
    return _gated(of_a, b) + _times_gate_slope(of_b, a, b)


@hvp(glu)
def glu_hvp(x: Tensor, grad_output: Tensor, tangent: Tensor, dim: int = -1) -> Tensor:
    r""":math:`(g\,t_b\,\sigma'(b),\ g\,\sigma'(b)\,(t_a - t_b\,a \tanh \tfrac{b}{2}))`.

    >>> glu_hvp(torch.tensor([3.0, 0.0]), torch.tensor([1.0]), torch.tensor([1.0, 2.0]))
    tensor([0.5000, 0.2500])
    """
    (a, b), (of_a, of_b) = x.chunk(2, dim), tangent.chunk(2, dim)
    bend = of_a - of_b * a * tanh(0.5 * b)
    halves = [_times_gate_slope(grad_output, factor, b) for factor in (of_b, bend)]
    return torch.cat(halves, dim)


def _gate(b: Tensor) -> tuple[Exponential, Tensor]:
    """exp(−|b|/2), of which two factors do not underflow before their product, and σ(|b|)."""
    half = Exponential.of(-0.5 * b.abs().clamp(max=3000))
    return half, 1 / (1 + half.value.square())


def _gated(a: Tensor, b: Tensor) -> Tensor:
    """a σ(b)."""
    half, upper = _gate(b)
    return torch.where(b < 0, half.times(half.times(a * upper)), a * upper)


def _times_gate_slope(c: Tensor, d: Tensor, b: Tensor) -> Tensor:
    """c d σ′(b), of factors that do not overflow before their product."""
    half, upper = _gate(b)
    return half.times(c * upper) * half.times(d * upper)
