"""Sigmoidal functions, and the step that they soften."""

from __future__ import annotations

from dataclasses import replace
from math import factorial, inf, nan

import torch
import torch.nn.functional as F
from torch import Tensor

from gradref.declare import derivative, derivative_from_output, elementwise, second_derivative
from gradref.declare.domains import FINITE, POSITIVE
from gradref.declare.facts import Facts
from gradref.formula import errorfree
from gradref.formula.errorfree import (
    Exponential,
    exp,
    log1p,
    near_0,
    scaled_exponent,
    sticky_sum,
    two_product,
)
from gradref.truth import series

__all__ = [
    "heaviside",
    "heaviside_derivative",
    "heaviside_second_derivative",
    "logsigmoid",
    "logsigmoid_derivative",
    "logsigmoid_second_derivative",
    "sigmoid",
    "sigmoid_derivative",
    "sigmoid_derivative_from_output",
    "sigmoid_second_derivative",
    "softcap",
    "softcap_derivative",
    "softcap_second_derivative",
    "softsign",
    "softsign_derivative",
    "softsign_second_derivative",
    "tanh",
    "tanh_derivative",
    "tanh_derivative_from_output",
    "tanh_second_derivative",
    "tanhshrink",
    "tanhshrink_derivative",
    "tanhshrink_second_derivative",
]


@elementwise(
    torch=lambda x, values: torch.heaviside(x, torch.full_like(x, values)),
    truth=lambda x, values: x * 0 + (x[0] > 0),
    facts=Facts(
        limits={-inf: (0.0, 0.0, 0.0), inf: (1.0, 0.0, 0.0)},
        kinks=lambda values: {0.0: (values, nan, nan)},
    ),
    domains={"values": FINITE},
    cases=({}, {"values": 0.0}, {"values": 1.0}),
    differs={"values": "torch takes a tensor and has no default; ½ is the mean of both sides"},
)
def heaviside(x: Tensor, /, values: float = 0.5) -> Tensor:
    r"""Heaviside step, the threshold unit: 0 below zero, 1 above it.

    .. math:: H(x) = [x > 0], \qquad H(0) = \text{values}

    Domain ℝ, codomain {0, values, 1}. H jumps at 0, where it takes ``values``; ±inf gives 1 and 0,
    NaN gives NaN. Any shape; float64, float32, float16, bfloat16.

    Raises ValueError where ``values`` is not finite.
    Source: ``torch.heaviside``; McCulloch and Pitts (1943) for the threshold unit.

    >>> heaviside(torch.tensor([-2.0, 0.0, 3.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    step = torch.where(x == 0, values, (x > 0).to(x.dtype))
    return torch.where(x.isnan(), x, step)


@derivative(heaviside)
def heaviside_derivative(x: Tensor, /, values: float = 0.5) -> Tensor:
    r""":math:`H'(x) = 0` away from the jump, and NaN at 0, where H has no derivative.

    >>> heaviside_derivative(torch.tensor([-2.0, 0.0, 3.0]))
    tensor([0., nan, 0.])
    """
    return torch.zeros_like(x).masked_fill((x == 0) | x.isnan(), nan)


@second_derivative(heaviside)
def heaviside_second_derivative(x: Tensor, /, values: float = 0.5) -> Tensor:
    r""":math:`H''(x) = 0` away from the jump, and NaN at 0.

    >>> heaviside_second_derivative(torch.tensor([-2.0, 0.0, 3.0]))
    tensor([0., nan, 0.])
    """
    return heaviside_derivative(x, values)


@elementwise(
    torch=torch.sigmoid,
    truth=series.logistic,
    facts=Facts(
        limits={-inf: (0.0, 0.0, 0.0), inf: (1.0, 0.0, 0.0)},
    ),
)
def sigmoid(x: Tensor, /) -> Tensor:
    r"""Logistic sigmoid, evaluated so that neither tail overflows.

    .. math:: \sigma(x) = \frac{1}{1 + e^{-x}} = \frac{e^{\min(x, 0)}}{1 + e^{-|x|}}

    Domain ℝ, codomain (0, 1), smooth. σ(−x) = 1 − σ(x). ±inf gives 1 and 0, NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16.

    Source: ``torch.sigmoid``.

    >>> sigmoid(torch.tensor([-100.0, 0.0, 2.0]))
    tensor([3.7835e-44, 5.0000e-01, 8.8080e-01])
    """
    e = exp(-x.abs())
    return torch.where(x < 0, e, 1.0) / (1 + e)


@derivative(sigmoid)
def sigmoid_derivative(x: Tensor, /) -> Tensor:
    r""":math:`\sigma'(x) = \sigma(x)\,\sigma(-x) = e / (1 + e)^2`, where e = exp(−abs(x)).

    σ(−x) rather than 1 − σ(x), which cancels for large x: in float32 it is 0 from x = 16.64 on.
    The square is 1 + e (2 + e): near 1 it is rounded once.

    >>> sigmoid_derivative(torch.tensor([0.0, 17.0]))
    tensor([2.5000e-01, 4.1399e-08])
    """
    e = exp(-x.abs())
    return e / (1 + e * (2 + e))


@second_derivative(sigmoid)
def sigmoid_second_derivative(x: Tensor, /) -> Tensor:
    r""":math:`\sigma''(x) = \sigma'(x)\,(\sigma(-x) - \sigma(x)) = -\sigma'(x) \tanh(x/2)`.

    Near 0 it is −x/8 + x³/24, where −x/8 can lie between two bfloat16 numbers.

    >>> sigmoid_second_derivative(torch.tensor([-1.0, 0.0, 17.0]))
    tensor([ 9.0858e-02, -0.0000e+00, -4.1399e-08])
    """
    value = -sigmoid_derivative(x) * errorfree.tanh(0.5 * x)
    return near_0(x, -x / 8, x.pow(3) / 24, value, 2.0**-20)


@derivative_from_output(sigmoid)
def sigmoid_derivative_from_output(y: Tensor, /) -> Tensor:
    r""":math:`\sigma' = y\,(1 - y)` from the output y = σ(x), the form backpropagation keeps.

    y is rounded, and 1 − y has lost what was rounded away: 0 where y rounds to 1.

    >>> sigmoid_derivative_from_output(sigmoid(torch.tensor([0.0, 18.0])))
    tensor([0.2500, 0.0000])
    """
    return y * (1 - y)


@elementwise(
    torch=F.logsigmoid,
    truth=lambda x: -series.softplus(-x),
    facts=Facts(
        limits={-inf: (-inf, 1.0, 0.0), inf: (0.0, 0.0, 0.0)},
    ),
)
def logsigmoid(x: Tensor, /) -> Tensor:
    r"""Logarithm of the logistic sigmoid.

    .. math:: \log \sigma(x) = \min(x, 0) - \log(1 + e^{-|x|})

    Domain ℝ, codomain (−∞, 0), smooth. inf gives 0, −inf gives −inf, NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16.

    Source: ``torch.nn.functional.logsigmoid``.

    >>> logsigmoid(torch.tensor([-200.0, 0.0, 20.0]))
    tensor([-2.0000e+02, -6.9315e-01, -2.0612e-09])
    """
    return x.clamp(max=0) - log1p(exp(-x.abs()))


@derivative(logsigmoid)
def logsigmoid_derivative(x: Tensor, /) -> Tensor:
    r""":math:`(\log\sigma)'(x) = \sigma(-x)`.

    >>> logsigmoid_derivative(torch.tensor([0.0, 17.0]))
    tensor([5.0000e-01, 4.1399e-08])
    """
    return sigmoid(-x)


@second_derivative(logsigmoid)
def logsigmoid_second_derivative(x: Tensor, /) -> Tensor:
    r""":math:`(\log\sigma)''(x) = -\sigma'(x)`, an even function.

    >>> logsigmoid_second_derivative(torch.tensor([-17.0, 0.0, 17.0]))
    tensor([-4.1399e-08, -2.5000e-01, -4.1399e-08])
    """
    return -sigmoid_derivative(x)


@elementwise(
    torch=torch.tanh,
    truth=series.tanh,
    facts=Facts(
        limits={-inf: (-1.0, 0.0, 0.0), inf: (1.0, 0.0, 0.0)},
    ),
)
def tanh(x: Tensor, /) -> Tensor:
    r"""Hyperbolic tangent.

    .. math:: \tanh x = \frac{e^x - e^{-x}}{e^x + e^{-x}} = 2\sigma(2x) - 1

    Domain ℝ, codomain (−1, 1), smooth, odd. ±inf gives ±1, NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16.

    Source: ``torch.tanh``.

    >>> tanh(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.7616,  0.0000,  0.7616])
    """
    return errorfree.tanh(x)


@derivative(tanh)
def tanh_derivative(x: Tensor, /) -> Tensor:
    r""":math:`\tanh'(x) = \operatorname{sech}^2 x = 4\,s\,(1 - s)` for s = σ(−2\|x\|).

    1 − tanh² cancels for large x: in float32 it is 0 from x = 9.01 on.

    >>> tanh_derivative(torch.tensor([0.0, 10.0]))
    tensor([1.0000e+00, 8.2446e-09])
    """
    e = Exponential.of(-2 * x.abs())
    upper = 1 / (1 + e.value)  # σ(2|x|), and s = e·upper
    return e.times(4 * upper * (1 - e.value * upper))


@second_derivative(tanh)
def tanh_second_derivative(x: Tensor, /) -> Tensor:
    r""":math:`\tanh''(x) = -2 \tanh x \operatorname{sech}^2 x`.

    >>> tanh_second_derivative(torch.tensor([0.0, 1.0]))
    tensor([-0.0000, -0.6397])
    """
    return -2 * tanh(x) * tanh_derivative(x)


@derivative_from_output(tanh)
def tanh_derivative_from_output(y: Tensor, /) -> Tensor:
    r""":math:`\tanh' = 1 - y^2` from the output y = tanh x, the form backpropagation keeps.

    y is rounded, and 1 − y² has lost what was rounded away: 0 where y rounds to 1.

    >>> tanh_derivative_from_output(tanh(torch.tensor([0.0, 10.0])))
    tensor([1., 0.])
    """
    return (1 - y) * (1 + y)


@elementwise(
    torch=F.tanhshrink,
    truth=lambda x: x - series.tanh(x),
    facts=Facts(
        limits={-inf: (-inf, 1.0, 0.0), inf: (inf, 1.0, 0.0)},
    ),
)
def tanhshrink(x: Tensor, /) -> Tensor:
    r"""What tanh takes away.

    .. math:: f(x) = x - \tanh x = \frac{x^3}{3} \left(1 - \frac{x^2 D(x)}{\cosh x}\right), \qquad
              x^2 D(x) = \cosh x - \frac{3}{x^3} (x \cosh x - \sinh x)

    The difference cancels near 0, where f is about x³/3; in the power series of D all terms have
    one sign. Far from 0 it is x ∓ 1 and a little more. Domain ℝ, codomain ℝ, smooth, odd. ±inf
    gives ±inf, NaN gives NaN. Any shape; float64, float32, float16, bfloat16.

    Source: ``torch.nn.functional.tanhshrink``.

    >>> tanhshrink(torch.tensor([-2.0, 0.001, 1.0]))
    tensor([-1.0360e+00,  3.3333e-10,  2.3841e-01])
    """
    t = x.double().clamp(-1.25, 1.25)  # also in float32, where a power series is cheap
    square = t.square()
    lacks = cosh_minus_1 = torch.zeros_like(t)
    for k in range(11, 0, -1):
        lacks = (lacks + 1 / factorial(2 * k) - 6 * (k + 1) / factorial(2 * k + 3)) * square
        cosh_minus_1 = (cosh_minus_1 + 1 / factorial(2 * k)) * square
    cubic = t * square / 3
    near = (cubic * (1 - lacks / (1 + cosh_minus_1))).to(x.dtype)
    e, sign = exp(-2 * x.abs()), x.sign()
    beyond_1 = (2 * e / (1 + e)).clamp(min=2.0**-60)  # 1 − |tanh x|
    far = sticky_sum(x.clamp(-(2.0**60), 2.0**60) - sign, sign * beyond_1)
    return torch.where(x.abs() < 1.25, near, torch.where(x.abs() < 2.0**60, far, x))


@derivative(tanhshrink)
def tanhshrink_derivative(x: Tensor, /) -> Tensor:
    r""":math:`\tanh^2 x = 1 - \operatorname{sech}^2 x`, near 0 about x² − ⅔x⁴.

    Up to 1.25 it is m/(m + 2) for the power series m = cosh 2x − 1, whose terms have one sign.

    >>> tanhshrink_derivative(torch.tensor([0.0, 0.001, 1.0]))
    tensor([0.0000e+00, 1.0000e-06, 5.8003e-01])
    """
    square, wide = x.square(), (2 * x.double().clamp(-1.25, 1.25)).square()
    m = torch.zeros_like(wide)
    for k in range(15, 0, -1):
        m = (m + 1 / factorial(2 * k)) * wide
    e = exp(-2 * x.abs())
    far = 1 - 4 * e / (1 + e).square()
    elsewhere = torch.where(x.abs() < 1.25, (m / (m + 2)).to(x.dtype), far)
    return near_0(x, square, -2 / 3 * square.square(), elsewhere, 2.0**-20)


@second_derivative(tanhshrink)
def tanhshrink_second_derivative(x: Tensor, /) -> Tensor:
    r""":math:`2 \tanh x \operatorname{sech}^2 x = -\tanh''(x)`.

    >>> tanhshrink_second_derivative(torch.tensor([0.0, 1.0]))
    tensor([0.0000, 0.6397])
    """
    return -tanh_second_derivative(x)


@elementwise(
    torch=lambda x, cap: cap * torch.tanh(x / cap),
    truth=lambda x, cap: cap * series.tanh(x / cap),
    facts=Facts(
        limits=lambda cap: {-inf: (-cap, 0.0, 0.0), inf: (cap, 0.0, 0.0)},
    ),
    domains={"cap": POSITIVE},
    cases=({}, {"cap": 50.0}),
)
def softcap(x: Tensor, /, cap: float = 30.0) -> Tensor:
    r"""Hyperbolic tangent scaled to a cap c, which bounds the logits of language models.

    .. math:: f(x) = c \tanh\frac{x}{c}

    About x for small x. Domain ℝ, codomain (−c, c), smooth, odd. ±inf gives ±c, NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16.

    Raises ValueError where ``cap`` is not positive and finite.
    Source: Gemma Team, Gemma 2 (2024).

    >>> softcap(torch.tensor([-100.0, 1.0, 10.0]))
    tensor([-29.9237,   0.9996,   9.6454])
    """
    t, error = scaled_exponent(-x.abs(), cap)
    e = Exponential.of(2 * t, None if error is None else 2 * error).value
    y = torch.where(t > -0.5, cap * errorfree.tanh(-t), cap * (1 - e) / (1 + e))
    far = torch.where(t > -(2.0**-27), x, torch.copysign(y, x))
    return near_0(t, x, -x * (t.square() / 3), far, 2.0**-20)


@derivative(softcap)
def softcap_derivative(x: Tensor, /, cap: float = 30.0) -> Tensor:
    r""":math:`\operatorname{sech}^2 u = 4 e / (1 + e)^2` for u = x/c and e = exp(−2\|u\|).

    1 − y²/c² of the value y cancels for large x.

    >>> softcap_derivative(torch.tensor([-100.0, 1.0, 10.0]))
    tensor([0.0051, 0.9989, 0.8966])
    """
    return _times_sech_squared(4.0, *scaled_exponent(-x.abs(), cap))


@second_derivative(softcap)
def softcap_second_derivative(x: Tensor, /, cap: float = 30.0) -> Tensor:
    r""":math:`-\tfrac{2}{c} \tanh u \operatorname{sech}^2 u` for u = x/c.

    >>> softcap_second_derivative(torch.tensor([-100.0, 1.0, 10.0]))
    tensor([ 0.0003, -0.0022, -0.0192])
    """
    t, error = scaled_exponent(-x.abs(), cap)
    c = torch.where(t > -1000, torch.copysign(8 * errorfree.tanh(-t) / cap, -x), 0.0)
    return _times_sech_squared(c, t, error)


def _times_sech_squared(c: Tensor | float, t: Tensor, error: Tensor | None) -> Tensor:
    """c sech² t / 4 = c e/(1 + e)² for e = exp(2t), t ≤ 0, with what rounding (1 + e)² has lost."""
    e = Exponential.of(2 * t, None if error is None else 2 * error)
    whole = 1 + e.value
    square, rest = two_product(whole, whole)
    lost = (2 * whole * ((whole - 1) - e.value) - rest) / square
    return replace(e, rest=lost if e.rest is None else e.rest + lost).times(c / square)


@elementwise(
    torch=F.softsign,
    truth=lambda x: x / (1 + x) if x[0] > 0 else x / (1 - x),
    facts=Facts(
        limits={-inf: (-1.0, 0.0, 0.0), inf: (1.0, 0.0, 0.0)},
        kinks={0.0: ("left", "left", 0.0)},
    ),
)
def softsign(x: Tensor, /) -> Tensor:
    r"""Softsign: a sigmoid with algebraic tails.

    .. math:: \operatorname{softsign}(x) = \frac{x}{1 + |x|}

    Domain ℝ, codomain (−1, 1), odd; f″ jumps at 0. ±inf gives ±1, NaN gives NaN.
    Any shape; float64, float32, float16, bfloat16.

    Source: ``torch.nn.functional.softsign``; Turian, Bergstra and Bengio (2009).

    >>> softsign(torch.tensor([-inf, -1.0, 0.0, 3.0]))
    tensor([-1.0000, -0.5000,  0.0000,  0.7500])
    """
    t = x.clamp(-(2.0**60), 2.0**60)  # where f has long been ±1: inf/inf would be NaN
    return t / (1 + t.abs())


@derivative(softsign)
def softsign_derivative(x: Tensor, /) -> Tensor:
    r""":math:`1 / (1 + |x|)^2`, divided twice: the square would overflow before f′ underflows.

    >>> softsign_derivative(torch.tensor([-1.0, 0.0, 3.0]))
    tensor([0.2500, 1.0000, 0.0625])
    """
    d = 1 + x.abs()
    return 1 / d / d


@second_derivative(softsign)
def softsign_second_derivative(x: Tensor, /) -> Tensor:
    r""":math:`-2 \operatorname{sign}(x) / (1 + |x|)^3`.

    At 0, where f″ jumps from 2 to −2, it is 0 as in torch.

    >>> softsign_second_derivative(torch.tensor([-1.0, 0.0, 3.0]))
    tensor([ 0.2500, -0.0000, -0.0312])
    """
    d, lost = errorfree.two_sum(x.abs(), 1.0)  # what d has lost counts three times in its cube
    rest = torch.where(x.isinf(), 0.0, 3 * lost / d)
    return -2 * x.sign() * (1 - rest) / d / d / d
