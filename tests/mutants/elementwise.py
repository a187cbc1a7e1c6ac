"""Elementwise kernels with a wrong formula, a wrong branch, a lost tail or too few digits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf, log, nan, pi, sqrt

import numpy as np
import torch
from numpy.polynomial import Chebyshev
from numpy.typing import NDArray
from torch import Tensor

from ._mutant import Kernel, Mutant, narrow, wide

Array = NDArray[np.floating]

FAR = 100.0
"""Beyond it φ and the tails of gelu are 0 in float32, and x·0 must not meet an infinite x."""

# --- right kernels -------------------------------------------------------------------------------


def _logistic(x: Tensor) -> Tensor:
    e = torch.exp(-x.abs())
    return torch.where(x < 0, e, 1.0) / (1 + e)


def sigmoid(x: Tensor) -> Tensor:
    """Right: 1/(1 + e⁻ˣ), from the exponential that cannot overflow."""
    return narrow(_logistic(wide(x)), x)


def sigmoid_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """Right: g σ(x) σ(−x)."""
    t = wide(x)
    return narrow(wide(grad_output) * _logistic(t) * _logistic(-t), x)


def silu(x: Tensor) -> Tensor:
    """Right: x σ(x), 0 at −∞."""
    t = wide(x)
    return narrow(t.clamp(min=-1000) * _logistic(t), x)


def silu_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """Right: g (σ(x) + x σ(x) σ(−x))."""
    t = wide(x).clamp(-1000, 1000)
    return narrow(wide(grad_output) * _logistic(t) * (1 + t * _logistic(-t)), x)


def logsigmoid(x: Tensor) -> Tensor:
    """Right: −log(e⁻ˣ + e⁰), as a logarithm of a sum of exponentials."""
    t = wide(x)
    return narrow(-torch.logaddexp(-t, torch.zeros_like(t)), x)


def softplus(x: Tensor, beta: float = 1.0, threshold: float = inf) -> Tensor:
    """Right: log(e^βx + e⁰)/β, and x beyond the threshold."""
    t = wide(x)
    smooth = torch.logaddexp(beta * t, torch.zeros_like(t)) / beta
    return narrow(torch.where(beta * t > threshold, t, smooth), x)


def softplus_default(x: Tensor) -> Tensor:
    """Right: log(eˣ + e⁰)."""
    return softplus(x)


def softplus_default_derivative(x: Tensor) -> Tensor:
    """Right: σ(x)."""
    return sigmoid(x)


def relu(x: Tensor) -> Tensor:
    """Right: x unless it is negative."""
    return torch.where(x < 0, 0.0, x)


def _times_step(x: Tensor, at_0: float) -> Tensor:
    """x times a step that is NaN for NaN, and a constant to autograd: its derivative."""
    step = (x > 0).to(x.dtype).masked_fill(x == 0, at_0).masked_fill(x.isnan(), nan)
    return torch.where(x.isneginf(), 0.0, x) * step


def relu_function(x: Tensor) -> Tensor:
    """Right: the slope at 0 is 0."""
    return _times_step(x, 0.0)


def _phi(t: Tensor) -> Tensor:
    return torch.exp(-t.square() / 2) / sqrt(2 * pi)


def _cdf(t: Tensor) -> Tensor:
    return torch.erfc(-t / sqrt(2)) / 2


def gelu(x: Tensor) -> Tensor:
    """Right: x Φ(x) with erfc."""
    t = wide(x).clamp(min=-FAR)
    return narrow(t * _cdf(t), x)


def gelu_derivative(x: Tensor) -> Tensor:
    """Right: Φ(x) + x φ(x) with erfc."""
    t = wide(x).clamp(-FAR, FAR)
    return narrow(_cdf(t) + t * _phi(t), x)


def gelu_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """Right: g (Φ(x) + x φ(x))."""
    t = wide(x).clamp(-FAR, FAR)
    return narrow(wide(grad_output) * (_cdf(t) + t * _phi(t)), x)


def _twice_u(t: Tensor) -> Tensor:
    return 2 * sqrt(2 / pi) * (t + 0.044715 * t**3)


def gelu_tanh(x: Tensor) -> Tensor:
    """Right: x σ(2u)."""
    t = wide(x).clamp(min=-FAR)
    return narrow(t * _logistic(_twice_u(t)), x)


def gelu_tanh_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """Right: g σ(v) (1 + x v′ σ(−v)), v = 2u."""
    t = wide(x).clamp(-FAR, FAR)
    v, slope = _twice_u(t), 2 * sqrt(2 / pi) * (1 + 3 * 0.044715 * t**2)
    return narrow(wide(grad_output) * _logistic(v) * (1 + t * slope * _logistic(-v)), x)


SIGMOID: Kernel = {"operation": "sigmoid", "forward": sigmoid, "backward": sigmoid_backward}
SILU: Kernel = {"operation": "silu", "forward": silu, "backward": silu_backward}
LOGSIGMOID: Kernel = {"operation": "logsigmoid", "forward": logsigmoid}
SOFTPLUS: Kernel = {"operation": "softplus", "forward": softplus}
RELU: Kernel = {"operation": "relu", "forward": relu}
GELU: Kernel = {
    "operation": "gelu",
    "approximate": "none",
    "forward": gelu,
    "backward": gelu_backward,
}
GELU_TANH: Kernel = {
    "operation": "gelu",
    "approximate": "tanh",
    "forward": gelu_tanh,
    "backward": gelu_tanh_backward,
}

# --- another function ----------------------------------------------------------------------------


def silu_cut_off(x: Tensor) -> Tensor:
    """0 for all x < 0."""
    return torch.where(x < 0, 0.0, silu(x))


def silu_cut_off_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """0 for all x < 0."""
    return torch.where(x < 0, 0.0, silu_backward(grad_output, x))


# --- tails ---------------------------------------------------------------------------------------


def gelu_one_plus_erf(x: Tensor) -> Tensor:
    """1 + erf cancels for x < 0."""
    t = x.clamp(min=-FAR)
    return t / 2 * (1 + torch.erf(t / sqrt(2)))


def gelu_one_plus_erf_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """1 + erf cancels for x < 0."""
    t = x.clamp(-FAR, FAR)
    return grad_output * ((1 + torch.erf(t / sqrt(2))) / 2 + t * _phi(t))


def gelu_one_plus_tanh(x: Tensor) -> Tensor:
    """1 + tanh cancels for x < 0."""
    t = x.clamp(min=-FAR)
    return t / 2 * (1 + torch.tanh(_twice_u(t) / 2))


def gelu_one_plus_tanh_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """1 + tanh and 1 − tanh² cancel."""
    t = x.clamp(-FAR, FAR)
    tanh = torch.tanh(_twice_u(t) / 2)
    slope = sqrt(2 / pi) * (1 + 3 * 0.044715 * t**2)
    return grad_output * ((1 + tanh) / 2 + t / 2 * (1 - tanh**2) * slope)


def logsigmoid_without_else(x: Tensor) -> Tensor:
    """The branch x ≤ −4 is missing: x itself."""
    return torch.where(x <= -4, x, logsigmoid(x))


def logsigmoid_wraps(x: Tensor) -> Tensor:
    """The exponent of e⁻ˣ wraps around above 172."""
    t = wide(x)
    e = torch.where(t > 172, inf, torch.exp(-t.abs()))
    return narrow(t.clamp(max=0) - torch.log1p(e), x)


def silu_flushed(x: Tensor) -> Tensor:
    """eˣ is flushed to 0 where it is subnormal, but x eˣ is not."""
    return torch.where(x < log(torch.finfo(torch.float32).tiny), 0.0, silu(x))


# --- digits --------------------------------------------------------------------------------------


def _fitted(f: Callable[[Array], Array], degree: int, end: float) -> list[float]:
    """A polynomial through f on [0, end], highest power first."""
    series = Chebyshev.interpolate(f, degree, domain=[0, end])
    return list(series.convert(kind=np.polynomial.Polynomial).coef[::-1])


def _horner(coefficients: Iterable[float], t: Tensor) -> Tensor:
    value = torch.zeros_like(t)
    for coefficient in coefficients:
        value = value * t + coefficient
    return value


EXCESS = _fitted(lambda a: np.log1p(np.exp(-a)), 12, 12.0)
"""softplus(x) − max(x, 0) as a polynomial in |x| up to 12: off by 560 ulp at 0."""


def softplus_polynomial(x: Tensor) -> Tensor:
    """A polynomial with a small absolute error, where a small relative one is wanted."""
    t = wide(x)
    excess = _horner(EXCESS, t.abs().clamp(max=12))
    tail = torch.exp(-t.abs())
    return narrow(t.clamp(min=0) + torch.where(t.abs() < 12, excess, tail), x)


def _erf_7_1_26(z: Tensor) -> Tensor:
    """Abramowitz and Stegun 7.1.26, absolute error 1.5e-7."""
    t = 1 / (1 + 0.3275911 * z.abs())
    series = t * _horner((1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592), t)
    return torch.copysign(1 - series * torch.exp(-z.square()), z)


def gelu_7_1_26(x: Tensor) -> Tensor:
    """Abramowitz and Stegun's erf: an absolute error of 1.5e-7, also where Φ is smaller."""
    t = wide(x).clamp(min=-FAR)
    return narrow(t / 2 * (1 + _erf_7_1_26(t / sqrt(2))), x)


def gelu_7_1_26_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """Abramowitz and Stegun's erf: an absolute error of 1.5e-7, also where Φ is smaller."""
    t = wide(x).clamp(-FAR, FAR)
    return narrow(wide(grad_output) * ((1 + _erf_7_1_26(t / sqrt(2))) / 2 + t * _phi(t)), x)


def silu_rounds_between(x: Tensor) -> Tensor:
    """Every step is rounded to the input's dtype."""
    return x.clamp(min=-1000) * _logistic(x)


def silu_rounds_between_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """Every step is rounded to the input's dtype."""
    t = x.clamp(-1000, 1000)
    return grad_output * (_logistic(t) * (1 + t * _logistic(-t)))


EXP2 = _fitted(np.exp2, 4, 1.0)
"""2ᶠ for 0 ≤ f ≤ 1 to about 18 bits."""


def _fast_exp(x: Tensor) -> Tensor:
    z = (x / log(2)).clamp(min=-200)
    return _horner(EXP2, z - z.floor()) * torch.exp2(z.floor())


def sigmoid_fast_exp(x: Tensor) -> Tensor:
    """e⁻|ˣ| with too few correct bits, as fast-math gives it."""
    e = _fast_exp(-x.abs())
    return torch.where(x < 0, e, 1.0) / (1 + e)


def sigmoid_fast_exp_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """e⁻|ˣ| with too few correct bits, as fast-math gives it."""
    e = _fast_exp(-x.abs())
    return grad_output * (e / (1 + e) / (1 + e))


def sigmoid_clamped(x: Tensor) -> Tensor:
    """Made for standard normal inputs: clamped to [−4, 4]."""
    return sigmoid(x.clamp(-4, 4))


# --- parameters, specials, derivatives -----------------------------------------------------------


def softplus_threshold_20(x: Tensor) -> Tensor:
    """A threshold of 20, made for float32: the excess at 20 is 2e-9."""
    return softplus(x, threshold=20.0)


def softplus_threshold_20_derivative(x: Tensor) -> Tensor:
    """A threshold of 20, made for float32: 1 − f′ at 20 is 2e-9."""
    return torch.where(x > 20, 1.0, sigmoid(x))


def softplus_ignores_beta(x: Tensor, beta: float = 1.0, threshold: float = inf) -> Tensor:
    """beta is only compared with the threshold."""
    return torch.where(beta * x > threshold, x, softplus(x))


def softplus_ignores_threshold(x: Tensor, beta: float = 1.0, threshold: float = inf) -> Tensor:
    """The threshold is ignored."""
    return softplus(x, beta)


def relu_swallows_nan(x: Tensor) -> Tensor:
    """NaN > 0 is false: NaN gives 0."""
    return torch.where(x > 0, x, 0.0)


def gelu_derivative_is_cdf(x: Tensor) -> Tensor:
    """Φ(x) without the term x φ(x)."""
    return narrow(_cdf(wide(x).clamp(-FAR, FAR)), x)


def relu_half(x: Tensor) -> Tensor:
    """The slope at 0 is ½, as autograd has it for the tie in maximum(x, 0)."""
    return _times_step(x, 0.5)


# --- numpy-ml ------------------------------------------------------------------------------------


def _numpy_gate(x: Array) -> Array:
    v = 2 * sqrt(2 / pi) * (x + 0.044715 * x**3)
    e = np.exp(-np.abs(v))
    return np.asarray(np.where(v < 0, e, 1.0) / (1 + e))


def _numpy_phi(x: Array) -> Array:
    return np.exp(-(x**2) / 2) / sqrt(2 * pi)


def numpy_gelu_tanh(x: Array) -> Array:
    """Right: x σ(2u)."""
    t = np.maximum(x, -FAR, dtype=np.float64)
    return np.asarray(t * _numpy_gate(t), x.dtype)


def numpy_gelu_tanh_derivative(x: Array) -> Array:
    """Right: σ(v) (1 + x v′ σ(−v)), v = 2u."""
    t = np.clip(x, -FAR, FAR, dtype=np.float64)
    slope = 2 * sqrt(2 / pi) * (1 + 3 * 0.044715 * t**2)
    return np.asarray(_numpy_gate(t) * (1 + t * slope * _numpy_gate(-t)), x.dtype)


def numpy_gelu_tanh_wrong_derivative(x: Array) -> Array:
    """The derivative of another function: the tanh form of Φ, but the exact φ."""
    t = np.clip(x, -FAR, FAR, dtype=np.float64)
    return np.asarray(_numpy_gate(t) + t * _numpy_phi(t), x.dtype)


def numpy_gelu_second_derivative(x: Array) -> Array:
    """Right: (2 − x²) φ(x)."""
    t = np.clip(x, -FAR, FAR, dtype=np.float64)
    return np.asarray((2 - t**2) * _numpy_phi(t), x.dtype)


def numpy_gelu_wrong_second_derivative(x: Array) -> Array:
    """√2/2 for 1/(2√2), a 1 too much, and half of erf″."""
    t = np.clip(x, -FAR, FAR, dtype=np.float64)
    rise = 2 / sqrt(pi) * np.exp(-(t**2) / 2)
    return np.asarray(sqrt(2) / 2 * (1 + rise - rise * t), x.dtype)


# --- the list ------------------------------------------------------------------------------------

MUTANTS = [
    Mutant(
        number=3,
        title="relu as silu",
        kernel={"operation": "silu", "forward": relu},
        correct={"operation": "silu", "forward": silu},
        words=r"relu|another function",
        scale=100.0,
    ),
    Mutant(
        number=3,
        title="silu 0 for all x < 0",
        kernel=SILU | {"forward": silu_cut_off, "backward": silu_cut_off_backward},
        correct=SILU,
        words=r"\b0 (for|below|where)|zero|negative|relu",
        scale=100.0,
    ),
    Mutant(
        number=4,
        title="tanh-gelu as erf-gelu",
        kernel=GELU | {"forward": gelu_tanh, "backward": gelu_tanh_backward},
        correct=GELU,
        words=r"tanh",
        dtypes=("float16", "bfloat16"),
    ),
    Mutant(
        number=5,
        title="1 + erf in the tail of gelu",
        kernel=GELU | {"forward": gelu_one_plus_erf, "backward": gelu_one_plus_erf_backward},
        correct=GELU,
        words=r"cancel|1 ?\+ ?erf|tail",
    ),
    Mutant(
        number=6,
        title="1 + tanh in the tail of gelu",
        kernel=GELU_TANH | {"forward": gelu_one_plus_tanh, "backward": gelu_one_plus_tanh_backward},
        correct=GELU_TANH,
        words=r"cancel|1 ?\+ ?tanh|tail",
    ),
    Mutant(
        number=7,
        title="logsigmoid without its else branch",
        kernel=LOGSIGMOID | {"forward": logsigmoid_without_else},
        correct=LOGSIGMOID,
        words=r"branch|identity|\bx itself|jump|below|-4\b",
        scale=0.25,
    ),
    Mutant(
        number=8,
        title="logsigmoid −inf above 172",
        kernel=LOGSIGMOID | {"forward": logsigmoid_wraps},
        correct=LOGSIGMOID,
        words=r"inf|overflow",
    ),
    Mutant(
        number=9,
        title="softplus by a polynomial of small absolute error",
        kernel=SOFTPLUS | {"forward": softplus_polynomial},
        correct=SOFTPLUS,
        words=r"absolute|accura|bits|digits|tail",
    ),
    Mutant(
        number=10,
        title="silu 0 below −87.3",
        kernel=SILU | {"forward": silu_flushed},
        correct=SILU,
        words=r"flush|underflow|overflow|\b0 (for|below|where)|zero|tail",
    ),
    Mutant(
        number=11,
        title="Abramowitz and Stegun's erf in gelu",
        kernel=GELU | {"forward": gelu_7_1_26, "backward": gelu_7_1_26_backward},
        correct=GELU,
        words=r"absolute|accura|bits|cancel|tail",
    ),
    Mutant(
        number=12,
        title="rounding to the input dtype between steps",
        kernel=SILU | {"forward": silu_rounds_between, "backward": silu_rounds_between_backward},
        correct=SILU,
        words=r"round|between|precision",
        dtypes=("bfloat16", "float16"),
    ),
    Mutant(
        number=13,
        title="softplus in float64 with a threshold of 20",
        kernel={
            "operation": "softplus",
            "forward": softplus_threshold_20,
            "derivative": softplus_threshold_20_derivative,
        },
        correct={
            "operation": "softplus",
            "forward": softplus_default,
            "derivative": softplus_default_derivative,
        },
        words=r"threshold|branch|jump|\b20",
        dtypes=("float64",),
    ),
    Mutant(
        number=14,
        title="softplus ignores beta",
        kernel=SOFTPLUS | {"forward": softplus_ignores_beta},
        correct=SOFTPLUS,
        words=r"beta",
    ),
    Mutant(
        number=14,
        title="softplus ignores threshold",
        kernel=SOFTPLUS | {"forward": softplus_ignores_threshold},
        correct=SOFTPLUS,
        words=r"threshold",
    ),
    Mutant(
        number=21,
        title="relu swallows NaN",
        kernel=RELU | {"forward": relu_swallows_nan},
        correct=RELU,
        words=r"NaN|nan",
    ),
    Mutant(
        number=33,
        title="gelu′ as Φ alone",
        kernel={
            "operation": "gelu",
            "approximate": "none",
            "derivative": gelu_derivative_is_cdf,
        },
        correct={"operation": "gelu", "approximate": "none", "derivative": gelu_derivative},
        words=r"derivative|term|another function",
    ),
    Mutant(
        number=33,
        title="relu with a subgradient of ½ at 0",
        kernel={"operation": "relu", "function": relu_half},
        correct={"operation": "relu", "function": relu_function},
        words=r"kink|subgradient|at 0",
    ),
    Mutant(
        number=35,
        title="fast-math exp",
        kernel=SIGMOID | {"forward": sigmoid_fast_exp, "backward": sigmoid_fast_exp_backward},
        correct=SIGMOID,
        words=r"accura|digits|bits|exp|precision",
    ),
    Mutant(
        number=40,
        title="sigmoid made for the scale of its test",
        kernel={"operation": "sigmoid", "forward": sigmoid_clamped},
        correct={"operation": "sigmoid", "forward": sigmoid},
        words=r"constant|clamp|saturat|scale|range|beyond",
    ),
    Mutant(
        number=44,
        title="numpy-ml's GELU.grad",
        kernel={
            "operation": "gelu",
            "library": "numpy",
            "approximate": "tanh",
            "forward": numpy_gelu_tanh,
            "derivative": numpy_gelu_tanh_wrong_derivative,
        },
        correct={
            "operation": "gelu",
            "library": "numpy",
            "approximate": "tanh",
            "forward": numpy_gelu_tanh,
            "derivative": numpy_gelu_tanh_derivative,
        },
        words=r"derivative|approximat|tanh|none",
    ),
    Mutant(
        number=44,
        title="numpy-ml's GELU.grad2",
        kernel={
            "operation": "gelu",
            "library": "numpy",
            "approximate": "none",
            "second_derivative": numpy_gelu_wrong_second_derivative,
        },
        correct={
            "operation": "gelu",
            "library": "numpy",
            "approximate": "none",
            "second_derivative": numpy_gelu_second_derivative,
        },
        words=r"derivative|another function|formula",
    ),
]
