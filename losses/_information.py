"""Information measures of probability distributions, and torch's pointwise divergence.

The body of a measure is its value for every row (or element), that of a gradient its derivative,
and the outcomes are the last dimension; ``grad_output``, ``reduction`` and ``dim`` are applied by
the decorators (gradref.declare.calls).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import e, log
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradref.declare import gradient, hessian_diagonal, hvp, loss
from gradref.declare.domains import (
    BETWEEN_0_AND_1,
    DISTRIBUTION,
    LOG_PROBABILITY,
    LOGARITHM_BASE,
    Domain,
    Interval,
)
from gradref.formula.errorfree import times_exp
from gradref.truth import series

__all__ = [
    "distribution_cross_entropy",
    "distribution_cross_entropy_gradient",
    "distribution_cross_entropy_hessian_diagonal",
    "distribution_cross_entropy_hvp",
    "entropy",
    "entropy_gradient",
    "entropy_hessian_diagonal",
    "entropy_hvp",
    "jensen_shannon_divergence",
    "jensen_shannon_divergence_gradient",
    "jensen_shannon_divergence_hessian_diagonal",
    "jensen_shannon_divergence_hvp",
    "kl_div",
    "kl_div_gradient",
    "kl_div_hessian_diagonal",
    "kl_div_hvp",
    "kl_divergence",
    "kl_divergence_gradient",
    "kl_divergence_hessian_diagonal",
    "kl_divergence_hvp",
    "total_variation",
    "total_variation_gradient",
    "total_variation_hessian_diagonal",
    "total_variation_hvp",
]

Reduction = Literal["none", "batchmean", "sum", "mean"]
Argument = Literal["input", "target"]
Distribution = Literal["p", "q"]
_PAIR: dict[str, Domain | Interval] = {"p": DISTRIBUTION, "q": DISTRIBUTION, "base": LOGARITHM_BASE}
_BASES: tuple[dict[str, float], ...] = ({}, {"base": 2.0})


def _in_base(nats: Any, base: Any) -> Any:
    return nats if float(base) == e else nats / base.log()


# --- entropy -------------------------------------------------------------------------------------


@loss(
    torch=lambda p, dim, base: torch.special.entr(p).sum(dim) / log(base),
    truth=lambda p, base: _in_base(-series.xlogy(p, p), base),
    domains={"p": DISTRIBUTION, "base": LOGARITHM_BASE},
    coupled="dim",
    cases=_BASES,
)
def entropy(p: Tensor, dim: int = -1, base: float = e) -> Tensor:
    r"""Shannon entropy of the distributions along ``dim``; in bits for ``base=2``.

    .. math:: H(P) = -\sum_i p_i \log p_i, \qquad 0 \log 0 = 0

    Domain [0, 1]ⁿ (that p sums to 1 is not checked), codomain [0, log n], concave. Shape
    (..., n, ...), the result is without ``dim``. float64, float32, float16, bfloat16.

    Raises ValueError for numbers outside [0, 1] or a base ≤ 1, IndexError for ``dim`` out of range.
    Source: Shannon (1948); ``torch.special.entr``.

    >>> entropy(torch.tensor([0.5, 0.25, 0.25]), base=2)
    tensor(1.5000)
    """
    return -torch.xlogy(p, p).sum(dim) / log(base)


@gradient(entropy)
def entropy_gradient(
    p: Tensor,
    dim: int = -1,
    base: float = e,
    *,
    wrt: Literal["p"] = "p",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial H / \partial p_i = -(\log p_i + 1)`; inf at 0.

    >>> entropy_gradient(torch.tensor([0.5, 0.5]))
    tensor([-0.3069, -0.3069])
    """
    return -(torch.log(p) + 1) / log(base)


@hvp(entropy)
def entropy_hvp(
    p: Tensor,
    tangent: Tensor,
    dim: int = -1,
    base: float = e,
    *,
    wrt: Literal["p"] = "p",
    along: Literal["p"] = "p",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`-v_i / p_i`: the Hessian is diagonal.

    >>> entropy_hvp(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
    tensor([-2., -0.])
    """
    return -tangent / p / log(base)


@hessian_diagonal(entropy)
def entropy_hessian_diagonal(
    p: Tensor,
    dim: int = -1,
    base: float = e,
    *,
    wrt: Literal["p"] = "p",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`-1 / p_i`.

    >>> entropy_hessian_diagonal(torch.tensor([0.5, 0.5]))
    tensor([-2., -2.])
    """
    return -1 / p / log(base)


# --- cross entropy of two distributions ----------------------------------------------------------


@loss(
    torch=lambda p, q, dim, base: -torch.xlogy(p, q).sum(dim) / log(base),
    truth=lambda p, q, base: _in_base(-series.xlogy(p, q), base),
    domains=_PAIR,
    coupled="dim",
    cases=_BASES,
)
def distribution_cross_entropy(p: Tensor, q: Tensor, dim: int = -1, base: float = e) -> Tensor:
    r"""Cross entropy of two distributions along ``dim``; in bits for ``base=2``.

    .. math:: H(P, Q) = -\sum_i p_i \log q_i = H(P) + D(P \Vert Q), \qquad 0 \log 0 = 0

    Domain [0, 1]ⁿ for both (that they sum to 1 is not checked), codomain [0, ∞]; inf where q = 0
    and p > 0. One shape (..., n, ...), the result is without ``dim``. float64, float32, float16,
    bfloat16. For logits and class indices see ``cross_entropy``.

    Raises ValueError for numbers outside [0, 1], two shapes or a base ≤ 1, IndexError for ``dim``
    out of range. Source: Cover and Thomas, Elements of Information Theory (2006).

    >>> distribution_cross_entropy(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75]), base=2)
    tensor(1.2075)
    """
    return -torch.xlogy(p, q).sum(dim) / log(base)


@gradient(distribution_cross_entropy)
def distribution_cross_entropy_gradient(
    p: Tensor,
    q: Tensor,
    dim: int = -1,
    base: float = e,
    *,
    wrt: Distribution = "q",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial H / \partial q_i = -p_i / q_i`,
    :math:`\partial H / \partial p_i = -\log q_i`.

    >>> distribution_cross_entropy_gradient(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75]))
    tensor([-2.0000, -0.6667])
    """
    return (-torch.log(q) if wrt == "p" else -_ratio(p, q)) / log(base)


@hvp(distribution_cross_entropy)
def distribution_cross_entropy_hvp(
    p: Tensor,
    q: Tensor,
    tangent: Tensor,
    dim: int = -1,
    base: float = e,
    *,
    wrt: Distribution = "q",
    along: Distribution = "q",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`p_i v_i / q_i^2` in q, 0 in p, and :math:`-v_i / q_i` for the mixed derivative.

    >>> p, q, v = torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]])
    >>> distribution_cross_entropy_hvp(p, q, v)
    tensor([8., 0.])
    """
    if wrt == along == "p":
        return torch.zeros_like(tangent)
    curvature = _curvature(p, q) if wrt == along else -1 / q
    return curvature * tangent / log(base)


@hessian_diagonal(distribution_cross_entropy)
def distribution_cross_entropy_hessian_diagonal(
    p: Tensor,
    q: Tensor,
    dim: int = -1,
    base: float = e,
    *,
    wrt: Distribution = "q",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`p_i / q_i^2` in q, 0 in p.

    >>> distribution_cross_entropy_hessian_diagonal(torch.tensor([0.5]), torch.tensor([0.25]))
    tensor([8.])
    """
    return torch.zeros_like(p) if wrt == "p" else _curvature(p, q) / log(base)


# --- Kullback-Leibler divergence -----------------------------------------------------------------


@loss(
    torch=lambda p, q, dim, base: (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(dim) / log(base),
    truth=lambda p, q, base: _in_base(series.xlogy(p, p) - series.xlogy(p, q), base),
    domains=_PAIR,
    coupled="dim",
    cases=_BASES,
)
def kl_divergence(p: Tensor, q: Tensor, dim: int = -1, base: float = e) -> Tensor:
    r"""Kullback-Leibler divergence of two distributions along ``dim``; in bits for ``base=2``.

    .. math:: D(P \Vert Q) = \sum_i p_i \log \frac{p_i}{q_i} = H(P, Q) - H(P),
              \qquad 0 \log \tfrac{0}{q} = 0

    Domain [0, 1]ⁿ for both (that they sum to 1 is not checked; if they do, D ≥ 0, and 0 only for
    P = Q); inf where q = 0 and p > 0. One shape (..., n, ...), the result is without ``dim``.
    float64, float32, float16, bfloat16. It is not symmetric. For log-probabilities see ``kl_div``.

    Raises ValueError for numbers outside [0, 1], two shapes or a base ≤ 1, IndexError for ``dim``
    out of range. Source: Kullback and Leibler (1951).

    >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
    >>> kl_divergence(p, q, base=2), kl_divergence(q, p, base=2)
    (tensor(0.2075), tensor(0.1887))
    """
    return torch.where(_absent(p, q), 0.0, p * _log_ratio(p, q, (p - q) / q)).sum(dim) / log(base)


@gradient(kl_divergence)
def kl_divergence_gradient(
    p: Tensor,
    q: Tensor,
    dim: int = -1,
    base: float = e,
    *,
    wrt: Distribution = "q",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial D / \partial q_i = -p_i / q_i`,
    :math:`\partial D / \partial p_i = \log(p_i / q_i) + 1`.

    >>> kl_divergence_gradient(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75]))
    tensor([-2.0000, -0.6667])
    """
    return (_log_ratio(p, q, (p - q) / q) + 1 if wrt == "p" else -_ratio(p, q)) / log(base)


@hvp(kl_divergence)
def kl_divergence_hvp(
    p: Tensor,
    q: Tensor,
    tangent: Tensor,
    dim: int = -1,
    base: float = e,
    *,
    wrt: Distribution = "q",
    along: Distribution = "q",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`p_i v_i / q_i^2` in q, :math:`v_i / p_i` in p, :math:`-v_i / q_i` mixed.

    >>> p, q, v = torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]])
    >>> kl_divergence_hvp(p, q, v)
    tensor([8., 0.])
    """
    if wrt == along:
        return _kl_curvature(p, q, wrt) * tangent / log(base)
    return -tangent / q / log(base)


@hessian_diagonal(kl_divergence)
def kl_divergence_hessian_diagonal(
    p: Tensor,
    q: Tensor,
    dim: int = -1,
    base: float = e,
    *,
    wrt: Distribution = "q",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`p_i / q_i^2` in q, :math:`1 / p_i` in p.

    >>> kl_divergence_hessian_diagonal(torch.tensor([0.5]), torch.tensor([0.25]))
    tensor([8.])
    """
    return _kl_curvature(p, q, wrt) / log(base)


def _kl_curvature(p: Tensor, q: Tensor, wrt: str) -> Tensor:
    return 1 / p if wrt == "p" else _curvature(p, q)


def _ratio(p: Tensor, q: Tensor) -> Tensor:
    """p/q, with 0/q = 0 also at q = 0."""
    return torch.where(_absent(p, q), 0.0, p / q)


def _curvature(p: Tensor, q: Tensor) -> Tensor:
    """p/q², with 0 for p = 0."""
    return torch.where(_absent(p, q), 0.0, p / q / q)


def _absent(p: Tensor, q: Tensor) -> Tensor:
    """Where p = 0 decides, whatever q is: but not for a NaN."""
    return (p == 0) & q.isnan().logical_not()


def _log_ratio(p: Tensor, q: Tensor, apart: Tensor) -> Tensor:
    """log(p/q) = log(1 + apart): by the second near 1, by two logarithms where p/q overflows."""
    ratio = p / q
    extreme = ratio.isinf() | (ratio < torch.finfo(ratio.dtype).smallest_normal)
    far = torch.where(extreme, torch.log(p) - torch.log(q), torch.log(ratio))
    return torch.where(apart.abs() <= 0.5, torch.log1p(apart), far)


# --- Jensen-Shannon divergence -------------------------------------------------------------------


def _jensen_shannon_truth(p: Any, q: Any, base: Any, beta: Any) -> Any:
    m = p * beta + q * (1 - beta)
    of_p = (series.xlogy(p, p) - series.xlogy(p, m)) * beta
    of_q = (series.xlogy(q, q) - series.xlogy(q, m)) * (1 - beta)
    return _in_base(of_p + of_q, base)


def _jensen_shannon(p: Tensor, q: Tensor, dim: int, base: float, beta: float) -> Tensor:
    m = beta * p + (1 - beta) * q
    of_p, of_q = (torch.xlogy(a, a) - torch.xlogy(a, m) for a in (p, q))
    return (beta * of_p + (1 - beta) * of_q).sum(dim) / log(base)


@loss(
    torch=_jensen_shannon,
    truth=_jensen_shannon_truth,
    domains={**_PAIR, "beta": BETWEEN_0_AND_1},
    coupled="dim",
    cases=({}, {"base": 2.0, "beta": 0.25}),
)
def jensen_shannon_divergence(
    p: Tensor, q: Tensor, dim: int = -1, base: float = e, beta: float = 0.5
) -> Tensor:
    r"""Jensen-Shannon divergence of two distributions along ``dim``; in bits for ``base=2``.

    .. math:: J = \beta\,D(P \Vert M) + (1 - \beta)\,D(Q \Vert M), \qquad
              M = \beta P + (1 - \beta) Q

    Symmetric for β = ½, and finite for all P and Q: at most the entropy of (β, 1 − β). Domain
    [0, 1]ⁿ for both (that they sum to 1 is not checked). One shape (..., n, ...), the result is
    without ``dim``. float64, float32, float16, bfloat16.

    Raises ValueError for numbers outside [0, 1], two shapes, a base ≤ 1 or ``beta`` outside of
    (0, 1), IndexError for ``dim`` out of range. Source: Lin (1991).

    >>> p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> jensen_shannon_divergence(p, q, base=2)
    tensor(1.)
    """
    mixture = _Mixture.of(p, q, beta)
    of_p = torch.where(_absent(p, q), 0.0, p * mixture.log_p)
    of_q = torch.where(_absent(q, p), 0.0, q * mixture.log_q)
    return (beta * of_p + (1 - beta) * of_q).sum(dim) / log(base)


@gradient(jensen_shannon_divergence)
def jensen_shannon_divergence_gradient(
    p: Tensor,
    q: Tensor,
    dim: int = -1,
    base: float = e,
    beta: float = 0.5,
    *,
    wrt: Distribution = "q",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial J / \partial p_i = \beta \log(p_i / m_i)`,
    :math:`\partial J / \partial q_i = (1 - \beta) \log(q_i / m_i)`.

    >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
    >>> jensen_shannon_divergence_gradient(p, q)
    tensor([-0.2027,  0.0912])
    """
    mixture = _Mixture.of(p, q, beta)
    slope = beta * mixture.log_p if wrt == "p" else (1 - beta) * mixture.log_q
    return slope / log(base)


@hvp(jensen_shannon_divergence)
def jensen_shannon_divergence_hvp(
    p: Tensor,
    q: Tensor,
    tangent: Tensor,
    dim: int = -1,
    base: float = e,
    beta: float = 0.5,
    *,
    wrt: Distribution = "q",
    along: Distribution = "q",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\beta (1 - \beta) \tfrac{q_i}{p_i m_i} v_i` in p, :math:`\tfrac{p_i}{q_i m_i}` in q,
    :math:`-\beta (1 - \beta) v_i / m_i` mixed.

    >>> p, q, v = torch.tensor([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    >>> jensen_shannon_divergence_hvp(p, q, v)
    tensor([0.5000, 0.0000])
    """
    if wrt == along:
        return _jensen_shannon_curvature(p, q, beta, wrt) * tangent / log(base)
    m = _Mixture.of(p, q, beta).m
    return -beta * (1 - beta) / m * tangent / log(base)


@hessian_diagonal(jensen_shannon_divergence)
def jensen_shannon_divergence_hessian_diagonal(
    p: Tensor,
    q: Tensor,
    dim: int = -1,
    base: float = e,
    beta: float = 0.5,
    *,
    wrt: Distribution = "q",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\beta (1 - \beta) \tfrac{q_i}{p_i m_i}` in p, :math:`\tfrac{p_i}{q_i m_i}` in q.

    >>> p, q = torch.tensor([0.5]), torch.tensor([0.5])
    >>> jensen_shannon_divergence_hessian_diagonal(p, q)
    tensor([0.5000])
    """
    return _jensen_shannon_curvature(p, q, beta, wrt) / log(base)


@dataclass(frozen=True)
class _Mixture:
    """m = βp + (1 − β)q, log(p/m) and log(q/m): by log1p of an exact difference near 1."""

    m: Tensor
    log_p: Tensor
    log_q: Tensor

    @classmethod
    def of(cls, p: Tensor, q: Tensor, beta: float) -> _Mixture:
        m = beta * p + (1 - beta) * q
        apart = (p - q) / m
        return cls(m, _log_ratio(p, m, (1 - beta) * apart), _log_ratio(q, m, -beta * apart))


def _jensen_shannon_curvature(p: Tensor, q: Tensor, beta: float, wrt: str) -> Tensor:
    a, other = (p, q) if wrt == "p" else (q, p)
    m = beta * p + (1 - beta) * q
    return beta * (1 - beta) * torch.where(_absent(other, a), 0.0, other / m / a)


# --- total variation -----------------------------------------------------------------------------


@loss(
    torch=lambda p, q, dim: (p - q).abs().sum(dim) / 2,
    truth=lambda p, q: series.magnitude(p - q) / 2,
    domains={"p": DISTRIBUTION, "q": DISTRIBUTION},
    coupled="dim",
)
def total_variation(p: Tensor, q: Tensor, dim: int = -1) -> Tensor:
    r"""Total variation distance of two distributions along ``dim``.

    .. math:: \delta = \tfrac{1}{2} \sum_i |p_i - q_i|

    Domain [0, 1]ⁿ for both (that they sum to 1 is not checked), codomain [0, 1] if they do; convex,
    with a corner where an element is equal. One shape (..., n, ...), the result is without ``dim``.
    float64, float32, float16, bfloat16.

    Raises ValueError for numbers outside [0, 1] or two shapes, IndexError for ``dim`` out of range.
    Source: Levin, Peres and Wilmer, Markov Chains and Mixing Times (2009).

    >>> total_variation(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75]))
    tensor(0.2500)
    """
    return (p - q).abs().sum(dim) / 2


@gradient(total_variation)
def total_variation_gradient(
    p: Tensor,
    q: Tensor,
    dim: int = -1,
    *,
    wrt: Distribution = "q",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\tfrac{1}{2} \operatorname{sign}(p_i - q_i)` in p, its negative in q; 0 at a corner.

    >>> total_variation_gradient(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75]))
    tensor([-0.5000,  0.5000])
    """
    slope = torch.where((p - q).isnan(), p - q, (p - q).sign()) / 2
    return slope if wrt == "p" else -slope


@hvp(total_variation)
def total_variation_hvp(
    p: Tensor,
    q: Tensor,
    tangent: Tensor,
    dim: int = -1,
    *,
    wrt: Distribution = "q",
    along: Distribution = "q",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`0`, also at a corner.

    >>> total_variation_hvp(torch.zeros(2), torch.ones(2), torch.ones(2))
    tensor([0., 0.])
    """
    return torch.where((p - q).isnan(), p - q, 0.0)


@hessian_diagonal(total_variation)
def total_variation_hessian_diagonal(
    p: Tensor,
    q: Tensor,
    dim: int = -1,
    *,
    wrt: Distribution = "q",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`0`, also at a corner.

    >>> total_variation_hessian_diagonal(torch.zeros(2), torch.ones(2))
    tensor([0., 0.])
    """
    return torch.where((p - q).isnan(), p - q, 0.0)


# --- torch's pointwise divergence ----------------------------------------------------------------


def _kl_div_truth(input: Any, target: Any, log_target: bool) -> Any:
    if log_target:
        weight = np.exp(target)
        return np.stack([weight * target, -weight * input], axis=-1)
    return np.stack([series.xlogy(target, target), -target * input], axis=-1)


@loss(
    torch=F.kl_div,
    truth=_kl_div_truth,
    domains={
        "input": LOG_PROBABILITY,
        "target": lambda log_target, **_: LOG_PROBABILITY if log_target else DISTRIBUTION,
    },
    cases=({}, {"log_target": True}),
)
def kl_div(
    input: Tensor, target: Tensor, reduction: Reduction = "mean", log_target: bool = False
) -> Tensor:
    r"""Pointwise Kullback-Leibler divergence of log-probabilities x from probabilities t.

    .. math:: \ell = t\,(\log t - x), \qquad \text{or } e^t\,(t - x)
              \text{ with } \mathtt{log\_target}

    ``reduction="batchmean"`` divides the sum by the first dimension and is the divergence of a
    batch of distributions; ``"mean"`` divides by the number of elements. Domain x ∈ ℝ, t ∈ [0, 1]
    (any log-probability with ``log_target``); at t = 0 (or −inf) it is 0. One shape: nothing is
    broadcast. float64, float32, float16, bfloat16.

    Raises ValueError for two shapes, a target outside [0, 1] without ``log_target``, or an unknown
    reduction. Source: ``torch.nn.functional.kl_div``.

    >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    >>> kl_div(q.log(), p, reduction="batchmean")
    tensor(0.1438)
    """
    if log_target:
        return _decayed(target - input, target)
    return torch.where(_absent(target, input), 0.0, target * (torch.log(target) - input))


@gradient(kl_div)
def kl_div_gradient(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "mean",
    log_target: bool = False,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial x = -t`,
    :math:`\partial \ell / \partial t = \log t - x + 1`;
    with ``log_target`` :math:`-e^t` and :math:`e^t\,(t - x + 1)`.

    At t = 0 the second is −inf.

    >>> kl_div_gradient(torch.zeros(2), torch.tensor([0.5, 0.5]), reduction="sum")
    tensor([-0.5000, -0.5000])
    """
    if log_target:
        return -torch.exp(target) if wrt == "input" else _decayed((target + 1) - input, target)
    return -target if wrt == "input" else torch.log(target) - input + 1


@hvp(kl_div)
def kl_div_hvp(
    input: Tensor,
    target: Tensor,
    tangent: Tensor,
    reduction: Reduction = "mean",
    log_target: bool = False,
    *,
    wrt: Argument = "input",
    along: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`0` in x, :math:`v / t` in t, :math:`-v` mixed; with ``log_target``
    :math:`e^t (t - x + 2)\,v` in t and :math:`-e^t v` mixed.

    >>> kl_div_hvp(torch.zeros(2), torch.tensor([0.5, 0.5]), torch.ones(2))
    tensor([0., 0.])
    """
    if wrt == along:
        return _kl_div_curvature(input, target, log_target, wrt) * tangent
    return -torch.exp(target) * tangent if log_target else -tangent


@hessian_diagonal(kl_div)
def kl_div_hessian_diagonal(
    input: Tensor,
    target: Tensor,
    reduction: Reduction = "mean",
    log_target: bool = False,
    *,
    wrt: Argument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`0` in x; :math:`1 / t` in t, with ``log_target`` :math:`e^t (t - x + 2)`.

    >>> kl_div_hessian_diagonal(torch.zeros(1), torch.tensor([0.5]), wrt="target")
    tensor([2.])
    """
    return _kl_div_curvature(input, target, log_target, wrt)


def _kl_div_curvature(input: Tensor, target: Tensor, log_target: bool, wrt: str) -> Tensor:
    if wrt == "input":
        return torch.zeros_like(input)
    if log_target:
        return _decayed((target + 2) - input, target)
    return 1 / target


def _decayed(c: Tensor, t: Tensor) -> Tensor:
    """c·exp(t), 0 at t = −inf whatever c is."""
    return torch.where(t == -torch.inf, 0.0, times_exp(c, t))
