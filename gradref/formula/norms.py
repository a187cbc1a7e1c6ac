"""Norms of a row, rows divided by a norm, and the derivatives of both.

Squares are taken in units of the largest element, so that none overflows. Where a difference would
cancel, one element against the whole row, a sum over the others takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Norm:
    """The p-norm of every row u: of w, which is u in units of its largest element."""

    p: float
    u: Tensor
    scale: Tensor
    w: Tensor
    total: Tensor
    """The sum of the powers of w, 1 to n, and 1 for a row of zeros."""

    @classmethod
    def of(cls, u: Tensor, p: float) -> Norm:
        """Return the norm of every row of u."""
        scale = u.abs().amax(-1, keepdim=True)
        w = u / torch.where((scale == 0) | scale.isinf(), 1.0, scale)
        total = w.abs().pow(p).sum(-1, keepdim=True)
        return cls(p, u, scale, w, torch.where(total == 0, 1.0, total))

    @property
    def value(self) -> Tensor:
        """The norm, as a row of one number."""
        return self.scale * self.total.pow(1 / self.p)

    @property
    def power(self) -> Tensor:
        """sign(w) abs(w)^(p − 1), to which the gradient is proportional."""
        return self.w.sign() * self.w.abs().pow(self.p - 1)

    @property
    def slope(self) -> Tensor:
        """The gradient s: sign(u) (abs(u) / norm)^(p − 1), 0 where u is 0."""
        slope = self.power * self.total.pow(1 / self.p - 1)
        return torch.where(self.w.isnan(), self.w, slope)

    @property
    def over(self) -> Tensor:
        """y: u over its norm."""
        return self.w * self.total.pow(-1 / self.p)

    def across(self, v: Tensor) -> Tensor:
        """Return (1 − y sᵀ) v, of which u itself is projected to 0."""
        beside = v - _part(v, self.w)
        return beside - self.w * ((self.power * beside).sum(-1, keepdim=True) / self.total)

    def transposed_across(self, v: Tensor) -> Tensor:
        """Return (1 − s yᵀ) v, of which s itself is projected to 0."""
        beside = v - _part(v, self.power)
        return beside - self.power * ((self.w * beside).sum(-1, keepdim=True) / self.total)

    def bend(self, v: Tensor) -> Tensor:
        """Return the Hessian times v."""
        if self.p == 1:
            return torch.where(self.u.isnan(), self.u, 0 * v)
        return (self.p - 1) * self.over.abs().pow(self.p - 2) * self.across(v) / self.value

    @property
    def bend_diagonal(self) -> Tensor:
        """The diagonal of the Hessian."""
        if self.p == 1:
            return torch.where(self.u.isnan(), self.u, 0.0)
        w, p = self.w, self.p
        own = w.abs().pow(p - 2) * sum_of_others(w.abs().pow(p), w)
        return (p - 1) * own * self.total.pow(1 / p - 2) / self.scale


@dataclass(frozen=True)
class Unit:
    r"""Every row divided by its length :math:`r = \sqrt{\sum x^2 + \epsilon}`, of w as above."""

    scale: Tensor
    w: Tensor
    squares: Tensor
    rest: Tensor
    """ε in the same units: r² is the sum of ``squares`` and ``rest``."""

    @classmethod
    def of(cls, x: Tensor, epsilon: float) -> Unit:
        """Return rows of at most unit length; for an ``epsilon`` of 0, NaN for zeros."""
        scale = x.abs().amax(-1, keepdim=True).clamp(min=epsilon**0.5)
        w = x / scale
        return cls(scale, w, w.square().sum(-1, keepdim=True), epsilon / scale / scale)

    @property
    def x(self) -> Tensor:
        """The row over its length."""
        return self.w / self.total.sqrt()

    @property
    def length(self) -> Tensor:
        """r."""
        return self.scale * self.total.sqrt()

    @property
    def total(self) -> Tensor:
        """r² in units of ``scale``."""
        return self.squares + self.rest

    @property
    def missing(self) -> Tensor:
        """ε/r², which the sum of the squares of x/r lacks to 1."""
        return self.rest / self.total

    def moved(self, v: Tensor) -> Tensor:
        """Return the Jacobian (1 − x xᵀ)/r of x times v; it is symmetric.

        The part of v along x is projected to ``missing`` times it; v may be little else.
        """
        part = torch.where(self.missing < 0.5, _part(v, self.w), 0.0)  # else nothing cancels
        beside = v - part
        share = (self.w * beside).sum(-1, keepdim=True) / self.total
        return (beside - self.w * share + self.missing * part) / self.length

    def bent(self, g: Tensor, v: Tensor) -> Tensor:
        """Return the derivative of ``moved(g)`` along v."""
        x, along_g, along_v = self.x, self.moved(g), self.moved(v)
        terms = (
            along_v * (g * x).sum(-1, keepdim=True),
            along_g * (v * x).sum(-1, keepdim=True),
            x * (g * along_v).sum(-1, keepdim=True),
        )
        return -(terms[0] + terms[1] + terms[2]) / self.length

    def bent_diagonal(self, g: Tensor) -> Tensor:
        """Return the diagonal of the matrix that ``bent(g, v)`` multiplies v by."""
        x, squares = self.x, self.w.square()
        own = (sum_of_others(squares, self.w) + self.rest) / self.total
        against = ((self.squares - 3 * squares) + self.rest) / self.total
        bend = 3 * own * x * g + against * sum_of_others(x * g, self.w)
        return -bend / self.length.square()


def _part(v: Tensor, a: Tensor) -> Tensor:
    """The multiple of a that equals v where a is largest; 0 for a row of zeros."""
    at = _largest(a)
    largest = torch.take_along_dim(a, at, -1)
    return torch.take_along_dim(v, at, -1) * (a / torch.where(largest == 0, 1.0, largest))


def _largest(a: Tensor) -> Tensor:
    return a.abs().argmax(-1, keepdim=True)


def sum_of_others(terms: Tensor, w: Tensor) -> Tensor:
    """Return for every i the sum of the terms j ≠ i: not a difference where w is the largest."""
    first = is_at(w, _largest(w))
    total = terms.sum(-1, keepdim=True)
    return torch.where(first, terms.masked_fill(first, 0).sum(-1, keepdim=True), total - terms)


def is_at(x: Tensor, index: Tensor) -> Tensor:
    """Return True at one index of every row of x, and False at the others."""
    return torch.zeros_like(x, dtype=torch.bool).scatter(-1, index, True)
