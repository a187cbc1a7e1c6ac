"""Normalizations of a row: to length 1, to a mean square of 1, and to a variance of 1.

All three divide a row by a length of its own, so every output depends on the whole row: the
derivative has a term along the row, which kernels forget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradref.declare import hvp, jacobian, jvp, rowwise, vjp
from gradref.declare.domains import NORM_DEGREE, POSITIVE, Domain
from gradref.formula.norms import Norm, Unit, is_at
from gradref.truth import series

__all__ = [
    "layer_norm",
    "layer_norm_hvp",
    "layer_norm_jacobian",
    "layer_norm_jvp",
    "layer_norm_vjp",
    "normalize",
    "normalize_hvp",
    "normalize_jacobian",
    "normalize_jvp",
    "normalize_vjp",
    "rms_norm",
    "rms_norm_hvp",
    "rms_norm_jacobian",
    "rms_norm_jvp",
    "rms_norm_vjp",
]

_PLACES = Domain("real numbers, one for each place of a row", extent="class")
_WEIGHT = {"weight": "of the last dimension, torch's normalized_shape; torch's None is 1"}

# --- root mean square ----------------------------------------------------------------------------

Scaled = Literal["x", "weight"]


def _rms_norm_truth(x: Any, weight: Any, eps: Any) -> Any:
    return weight * x / np.sqrt((x * x).sum(-1, keepdims=True) / x.shape[-1] + eps)


def _uncoupled(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + eps).sqrt().detach()


@rowwise(
    torch=lambda x, weight, eps: F.rms_norm(x, x.shape[-1:], weight, eps),
    truth=_rms_norm_truth,
    domains={"weight": _PLACES, "eps": POSITIVE},
    coupled="last",
    precision="normwise",
    cases=({}, {"eps": 0.25}),
    differs={
        **_WEIGHT,
        "eps": "torch's None is the machine epsilon of the dtype; ours is a number for all dtypes",
    },
    mistakes={"the root mean square is taken for a constant": _uncoupled},
)
def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    r"""Rows divided by their root mean square, times a weight for each place.

    .. math:: y_i = w_i \hat x_i, \qquad \hat x = \frac{x}{r}, \qquad
              r = \sqrt{\tfrac{1}{n} \sum_j x_j^2 + \epsilon}

    Domain ℝⁿ × ℝⁿ, smooth. ``x`` has shape (..., n), ``weight`` (n). A NaN or an infinity makes its
    row NaN. float64, float32, float16, bfloat16.

    Raises ValueError for a ``weight`` of another shape, or ``eps`` that is not positive.
    Source: ``torch.nn.functional.rms_norm``; Zhang and Sennrich (2019).

    >>> rms_norm(torch.tensor([3.0, 4.0]), torch.ones(2))
    tensor([0.8485, 1.1314])
    """
    return weight * _by_rms(x, eps).x


@jacobian(rms_norm)
def rms_norm_jacobian(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    r""":math:`\partial y_i / \partial x_j = \tfrac{w_i}{r} (\delta_{ij} - \tfrac{1}{n} \hat x_i
    \hat x_j)`.

    >>> rms_norm_jacobian(torch.tensor([3.0, 4.0]), torch.ones(2))
    tensor([[ 0.1810, -0.1358],
            [-0.1358,  0.1018]])
    """
    return weight.unsqueeze(-1) * _by_rms(x.unsqueeze(-2), eps).moved(_identity(x))


@vjp(rms_norm)
def rms_norm_vjp(
    x: Tensor, weight: Tensor, grad_output: Tensor, eps: float = 1e-6, *, wrt: Scaled = "x"
) -> Tensor:
    r""":math:`\tfrac{1}{r} (h - \hat x\,\overline{h \hat x})` for h = g w and a bar for the mean.

    The second term is the coupling of the row. For the weight it is :math:`\sum g \hat x`, over
    rows.

    >>> rms_norm_vjp(torch.tensor([3.0, 4.0]), torch.ones(2), torch.tensor([1.0, 0.0]))
    tensor([ 0.1810, -0.1358])
    """
    row = _by_rms(x, eps)
    return grad_output * row.x if wrt == "weight" else row.moved(grad_output * weight)


@jvp(rms_norm)
def rms_norm_jvp(
    x: Tensor, weight: Tensor, tangent: Tensor, eps: float = 1e-6, *, along: Scaled = "x"
) -> Tensor:
    r""":math:`\tfrac{w}{r} (t - \hat x\,\overline{t \hat x})`; :math:`t \hat x` for the weight.

    >>> rms_norm_jvp(torch.tensor([3.0, 4.0]), torch.ones(2), torch.tensor([1.0, 0.0]))
    tensor([ 0.1810, -0.1358])
    """
    row = _by_rms(x, eps)
    return tangent * row.x if along == "weight" else weight * row.moved(tangent)


@hvp(rms_norm)
def rms_norm_hvp(
    x: Tensor,
    weight: Tensor,
    grad_output: Tensor,
    tangent: Tensor,
    eps: float = 1e-6,
    *,
    wrt: Scaled = "x",
    along: Scaled = "x",
) -> Tensor:
    r""":math:`-\tfrac{1}{r} (\dot x\,\overline{h \hat x} + \hat x\,\overline{h \dot x} +
    \dot h\,\overline{t \hat x})`, where ẋ and ḣ are the Jacobian of x̂ times t and h = g w.

    For x and the weight it is a product as in the vjp; in the weight alone 0.

    >>> x, g = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0])
    >>> rms_norm_hvp(x, torch.ones(2), g, g)
    tensor([-0.0652,  0.0036])
    """
    return _second(_by_rms(x, eps), x, weight, grad_output, tangent, wrt, along)


@dataclass(frozen=True)
class _Normalized:
    """x̂, √n times a row over its length, and its derivatives; for layer norm in coordinates."""

    unit: Unit
    root_n: float
    coordinates: Callable[[Tensor], Tensor] = lambda v: v
    back: Callable[[Tensor], Tensor] = lambda v: v

    @property
    def x(self) -> Tensor:
        """The row."""
        return self.root_n * self.back(self.unit.x)

    def moved(self, v: Tensor) -> Tensor:
        """Return the Jacobian of the row times v; it is symmetric."""
        return self.root_n * self.back(self.unit.moved(self.coordinates(v)))

    def bent(self, g: Tensor, v: Tensor) -> Tensor:
        """Return the derivative of ``moved(g)`` along v."""
        return self.root_n * self.back(self.unit.bent(self.coordinates(g), self.coordinates(v)))


def _by_rms(x: Tensor, eps: float) -> _Normalized:
    n = x.shape[-1]
    return _Normalized(Unit.of(x, n * eps), n**0.5)


def _second(
    row: _Normalized,
    x: Tensor,
    weight: Tensor,
    grad_output: Tensor,
    tangent: Tensor,
    wrt: str,
    along: str,
) -> Tensor:
    if wrt == along == "weight":
        return torch.where(x.isnan(), x, 0.0)
    if wrt == "weight":
        return grad_output * row.moved(tangent)
    if along == "weight":
        return row.moved(grad_output * tangent)
    return row.bent(grad_output * weight, tangent)


def _identity(x: Tensor) -> Tensor:
    n = x.shape[-1]
    return torch.eye(n, dtype=x.dtype, device=x.device).expand(*x.shape, n)


# --- variance ------------------------------------------------------------------------------------

Affine = Literal["x", "weight", "bias"]


def _layer_norm_truth(x: Any, weight: Any, bias: Any, eps: Any) -> Any:
    centred = x - x.sum(-1, keepdims=True) / x.shape[-1]
    return _rms_norm_truth(centred, weight, eps) + bias


def _unbiased(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    apart = x - x.mean(-1, keepdim=True)
    variance = apart.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)
    return weight * apart / (variance + eps).sqrt() + bias


def _with_eps_outside(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    deviation = x.std(-1, keepdim=True, unbiased=False)
    return weight * (x - x.mean(-1, keepdim=True)) / (deviation + eps) + bias


@rowwise(
    torch=lambda x, weight, bias, eps: F.layer_norm(x, x.shape[-1:], weight, bias, eps),
    truth=_layer_norm_truth,
    domains={"weight": _PLACES, "bias": _PLACES, "eps": POSITIVE},
    coupled="last",
    precision="normwise",
    cases=({}, {"eps": 0.25}),
    differs={**_WEIGHT, "bias": "torch's None is 0"},
    mistakes={
        "the variance divides by n - 1": _unbiased,
        "eps is added to the standard deviation": _with_eps_outside,
    },
)
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    r"""Rows of mean 0 and variance 1, times a weight and plus a bias for each place.

    .. math:: y_i = w_i \hat x_i + b_i, \qquad \hat x = \frac{x - \bar x}{s}, \qquad
              s = \sqrt{\tfrac{1}{n} \sum_j (x_j - \bar x)^2 + \epsilon}

    It is ``rms_norm`` of the centred row, and so are its derivatives. Domain ℝⁿ × ℝⁿ × ℝⁿ, smooth;
    adding a number to every x changes nothing. ``x`` has shape (..., n), ``weight`` and ``bias``
    (n). A NaN or an infinity makes its row NaN. float64, float32, float16, bfloat16.

    Raises ValueError for a ``weight`` or a ``bias`` of another shape, or ``eps`` that is not
    positive. Source: ``torch.nn.functional.layer_norm``; Ba, Kiros and Hinton (2016).

    >>> layer_norm(torch.tensor([1.0, 2.0, 4.0]), torch.ones(3), torch.zeros(3))
    tensor([-1.0690, -0.2673,  1.3363])
    """
    return weight * _by_deviation(x, eps).x + bias


@jacobian(layer_norm)
def layer_norm_jacobian(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    r""":math:`\partial y_i / \partial x_j = \tfrac{w_i}{s} (\delta_{ij} - \tfrac{1}{n} -
    \tfrac{1}{n} \hat x_i \hat x_j)`.

    >>> layer_norm_jacobian(torch.tensor([1.0, 2.0, 4.0]), torch.ones(3), torch.zeros(3))
    tensor([[ 0.2291, -0.3436,  0.1145],
            [-0.3436,  0.5154, -0.1718],
            [ 0.1145, -0.1718,  0.0573]])
    """
    return weight.unsqueeze(-1) * _by_deviation(x.unsqueeze(-2), eps).moved(_identity(x))


@vjp(layer_norm)
def layer_norm_vjp(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    grad_output: Tensor,
    eps: float = 1e-5,
    *,
    wrt: Affine = "x",
) -> Tensor:
    r""":math:`\tfrac{1}{s} (h - \bar h - \hat x\,\overline{h \hat x})` for h = g w, bars for means.

    For the weight it is :math:`\sum g \hat x` and for the bias :math:`\sum g`, over rows.

    >>> x, g = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 0.0])
    >>> layer_norm_vjp(x, torch.ones(3), torch.zeros(3), g)
    tensor([ 0.2291, -0.3436,  0.1145])
    """
    if wrt == "bias":
        return torch.where(x.isnan(), x, grad_output)
    row = _by_deviation(x, eps)
    return grad_output * row.x if wrt == "weight" else row.moved(grad_output * weight)


@jvp(layer_norm)
def layer_norm_jvp(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    tangent: Tensor,
    eps: float = 1e-5,
    *,
    along: Affine = "x",
) -> Tensor:
    r""":math:`\tfrac{w}{s} (t - \bar t - \hat x\,\overline{t \hat x})`.

    For the weight it is :math:`t \hat x`, for the bias t.

    >>> x, t = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 0.0])
    >>> layer_norm_jvp(x, torch.ones(3), torch.zeros(3), t)
    tensor([ 0.2291, -0.3436,  0.1145])
    """
    if along == "bias":
        return torch.where(x.isnan(), x, tangent)
    row = _by_deviation(x, eps)
    return tangent * row.x if along == "weight" else weight * row.moved(tangent)


@hvp(layer_norm)
def layer_norm_hvp(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    grad_output: Tensor,
    tangent: Tensor,
    eps: float = 1e-5,
    *,
    wrt: Affine = "x",
    along: Affine = "x",
) -> Tensor:
    r""":math:`-\tfrac{1}{s} (\dot x\,\overline{h \hat x} + \hat x\,\overline{h \dot x} +
    \dot h\,\overline{t \hat x})` for centred h = g w and t, as of ``rms_norm``.

    For x and the weight it is a product as in the vjp; in the weight alone, and by the bias, 0.

    >>> x, g = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 0.0])
    >>> layer_norm_hvp(x, torch.ones(3), torch.zeros(3), g, g)
    tensor([ 0.1964, -0.1800, -0.0164])
    """
    if "bias" in (wrt, along):
        return torch.where(x.isnan(), x, 0.0)
    return _second(_by_deviation(x, eps), x, weight, grad_output, tangent, wrt, along)


def _by_deviation(x: Tensor, eps: float) -> _Normalized:
    first = x.narrow(-1, 0, 1)
    x = torch.where((x == first).all(-1, keepdim=True), x - first, x)  # exactly 0 if all are equal
    centring, n = _Centring.of(x), x.shape[-1]
    unit = Unit.of(centring.coordinates(x), n * eps)
    return _Normalized(unit, n**0.5, centring.coordinates, centring.row)


@dataclass(frozen=True)
class _Centring:
    """x − x̄ in orthogonal coordinates: one element against the mean of the others, which is the
    one furthest from x̄, and the others against their mean.

    In them a row of two, or one that a single element dominates, has derivatives that are small
    terms, not differences of large ones.
    """

    at: Tensor
    """True at the element, False at the others."""

    n: int

    @classmethod
    def of(cls, x: Tensor) -> _Centring:
        n = x.shape[-1]
        furthest = (x - (x / n).sum(-1, keepdim=True)).abs().argmax(-1, keepdim=True)
        return cls(is_at(x, furthest), n)

    def coordinates(self, v: Tensor) -> Tensor:
        """Return the coordinates of v − v̄."""
        others = max(self.n - 1, 1)
        apart = v - (v.masked_fill(self.at, 0) / others).sum(-1, keepdim=True)
        return torch.where(self.at, ((self.n - 1) / self.n) ** 0.5 * apart, apart)

    def row(self, coordinates: Tensor) -> Tensor:
        """Return the centred row that has some coordinates."""
        root = ((self.n - 1) / self.n) ** 0.5
        one = torch.where(self.at, coordinates, 0.0).sum(-1, keepdim=True)
        return torch.where(self.at, root * one, coordinates - one * root / max(self.n - 1, 1))


# --- p-norm --------------------------------------------------------------------------------------


def _normalize_truth(x: Any, p: Any, eps: Any) -> Any:
    longer = np.frompyfunc(lambda norm: eps if norm[0] < eps else norm, 1, 1)
    return x / longer(series.norm(x, p))[:, None]


@rowwise(
    torch=lambda x, p, dim, eps: F.normalize(x, p, dim, eps),
    truth=_normalize_truth,
    domains={"p": NORM_DEGREE, "eps": POSITIVE},
    precision="normwise",
    cases=({}, {"p": 3.0, "eps": 0.5}),
    differs={"dim": "torch's 1 is a dimension that one row alone has not"},
)
def normalize(x: Tensor, p: float = 2.0, dim: int = -1, eps: float = 1e-12) -> Tensor:
    r"""Rows divided by their p-norm, or by ε where that is smaller.

    .. math:: y = \frac{x}{\max(\lVert x \rVert_p, \epsilon)}

    Domain ℝⁿ, codomain the unit ball; a corner where the norm is ε, and where an element is 0 for
    p = 1. Shape (..., n, ...), any ``dim``. A NaN or an infinity makes its row NaN. float64,
    float32, float16, bfloat16.

    Raises ValueError for ``p`` below 1 or infinite, or ``eps`` that is not positive, IndexError
    where ``dim`` is out of range. Source: ``torch.nn.functional.normalize``.

    >>> normalize(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """
    norm = Norm.of(x, p)
    return torch.where(_is_short(norm, eps), x / eps, norm.over)


@jacobian(normalize)
def normalize_jacobian(x: Tensor, p: float = 2.0, dim: int = -1, eps: float = 1e-12) -> Tensor:
    r""":math:`\partial y_i / \partial x_j = \tfrac{1}{N} (\delta_{ij} - y_i s_j)`, s = ∇N.

    For a norm N below ε it is :math:`\tfrac{1}{\epsilon} \delta_{ij}`.

    >>> normalize_jacobian(torch.tensor([3.0, 4.0]))
    tensor([[ 0.1280, -0.0960],
            [-0.0960,  0.0720]])
    """
    norm = Norm.of(x.unsqueeze(-2), p)
    columns = norm.transposed_across(_identity(x)) / norm.value
    return torch.where(_is_short(norm, eps), _identity(x) / eps, columns)


@vjp(normalize)
def normalize_vjp(
    x: Tensor, grad_output: Tensor, p: float = 2.0, dim: int = -1, eps: float = 1e-12
) -> Tensor:
    r""":math:`\tfrac{1}{N} (g - s\,y^T g)`, s = ∇N; :math:`g / \epsilon` for a norm N below ε.

    >>> normalize_vjp(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0]))
    tensor([ 0.1280, -0.0960])
    """
    norm = Norm.of(x, p)
    back = norm.transposed_across(grad_output) / norm.value
    return torch.where(_is_short(norm, eps), grad_output / eps, back)


@jvp(normalize)
def normalize_jvp(
    x: Tensor, tangent: Tensor, p: float = 2.0, dim: int = -1, eps: float = 1e-12
) -> Tensor:
    r""":math:`\tfrac{1}{N} (t - y\,s^T t)`, s = ∇N; :math:`t / \epsilon` for a norm N below ε.

    >>> normalize_jvp(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0]))
    tensor([ 0.1280, -0.0960])
    """
    norm = Norm.of(x, p)
    return torch.where(_is_short(norm, eps), tangent / eps, norm.across(tangent) / norm.value)


@hvp(normalize)
def normalize_hvp(
    x: Tensor,
    grad_output: Tensor,
    tangent: Tensor,
    p: float = 2.0,
    dim: int = -1,
    eps: float = 1e-12,
) -> Tensor:
    r""":math:`-\tfrac{1}{N} (J^T g\,s^T t + y^T g\,\nabla^2 N\,t + s\,g^T J t)`.

    For a norm N below ε it is 0.

    >>> g = torch.tensor([1.0, 0.0])
    >>> normalize_hvp(torch.tensor([3.0, 4.0]), g, g)
    tensor([-0.0461,  0.0026])
    """
    norm = Norm.of(x, p)
    y, s = norm.over, norm.slope
    back, forth = norm.transposed_across(grad_output), norm.across(tangent)
    terms = (
        back * (s * tangent).sum(-1, keepdim=True),
        norm.value * norm.bend(tangent) * (y * grad_output).sum(-1, keepdim=True),
        s * (grad_output * forth).sum(-1, keepdim=True),
    )
    bend = -(terms[0] + terms[1] + terms[2]) / norm.value / norm.value
    return torch.where(_is_short(norm, eps), 0.0, bend)


def _is_short(norm: Norm, eps: float) -> Tensor:
    return norm.value < eps
