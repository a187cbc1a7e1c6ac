r"""Cross entropy of logits that are never stored: they are a linear function of the input.

All is made of tiles of the logits, z = x Wᵀ + b for some rows and some classes, which are computed
when they are needed. The first pass over them leaves the softmax of every row as its largest term
and the sum of the others, the second makes a derivative: with a the coefficients of the loss
ℓ = −Σ a log p, and A = Σ a,

.. math:: G = \frac{\partial \ell}{\partial z} = A p - a, \qquad
          \frac{\partial \ell}{\partial x} = G W, \quad
          \frac{\partial \ell}{\partial W} = G^T x, \quad
          \frac{\partial \ell}{\partial b} = G^T 1

It is a loss of a batch: all rows share W and b. ``gradref.fuse`` of it computes the logits once, of
some of the rows at a time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradref import arrays
from gradref.arrays import describe, reject, widen
from gradref.declare import (
    batch_loss,
    gradient,
    hessian_diagonal,
    hvp,
    value_and_gradients,
)
from gradref.declare.domains import CLASS_WEIGHT, DISTRIBUTION, REAL
from gradref.formula.weighting import check_choice, check_reduction, times_grad_output
from losses._classification import (
    CLASS_INDEX,
    Reduction,
    cross_entropy_truth,
)

__all__ = [
    "linear_cross_entropy",
    "linear_cross_entropy_gradient",
    "linear_cross_entropy_hessian_diagonal",
    "linear_cross_entropy_hvp",
]

LinearArgument = Literal["input", "linear_weight", "linear_bias"]

ROWS, CLASSES = 256, 512
"""The size of a tile: 1 MiB in float64."""


def _ignored(ignore_index: int | None) -> int:
    """The class that is ignored; None stands for torch's −100."""
    return -100 if ignore_index is None else ignore_index


def _truth(
    input: Any,
    linear_weight: Any,
    target: Any,
    linear_bias: Any,
    weight: Any,
    ignore_index: int | None,
    label_smoothing: Any,
) -> Any:
    logits = (input[:, None] * linear_weight).sum(-1)
    logits = logits if linear_bias is None else logits + linear_bias
    ignored = _ignored(ignore_index)
    return cross_entropy_truth(logits, target, weight, ignored, label_smoothing).sum(-1)


def _shares(input: Any, target: Any, weight: Any, ignore_index: int | None, **_: Any) -> Any:
    ones = input[:, 0] * 0 + 1
    if target.dtype == object:
        return ones / len(input)
    counted = (target != _ignored(ignore_index)).astype(int)
    return ones / (counted if weight is None else counted * weight[target]).sum()


def _draw(rng: np.random.Generator, case: Mapping[str, Any], is_large: bool) -> dict[str, Any]:
    """Logits of a few units; in large calls also of hundreds, and of five rows one is ignored."""
    rows, features, classes = (67, 33, 33_003) if is_large else (5, 3, 4)
    sizes = [0.1, 1.0, 5.0, 60.0] if is_large else [0.1, 1.0, 5.0]
    indices = rng.integers(0, classes, rows)
    if is_large and "ignore_index" not in case:
        indices[::5] = _ignored(None)
    arrays = {
        "input": rng.normal(size=(rows, features)) * rng.choice(sizes, (rows, 1)),
        "linear_weight": rng.normal(size=(classes, features)) * 2 / features**0.5,
        "target": rng.dirichlet(np.ones(classes), rows) if "target" in case else indices,
    }
    if "linear_bias" in case:
        arrays["linear_bias"] = rng.normal(size=classes)
    if "weight" in case:
        arrays["weight"] = rng.choice([0.25, 1.0, 3.0], classes)
    return arrays


def _torch(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    ignore_index: int | None = None,
    **more: Any,
) -> Tensor:
    """What torch before 2.13 composes."""
    ignored = _ignored(ignore_index)
    logits = F.linear(input, linear_weight, linear_bias)
    return F.cross_entropy(logits, target, ignore_index=ignored, **more)


@batch_loss(
    torch=getattr(F, "linear_cross_entropy", _torch),
    truth=_truth,
    shares=_shares,
    draw=_draw,
    domains={"target": (CLASS_INDEX, DISTRIBUTION)},
    precision="absolute, normwise",
    cases=(
        {},
        {"linear_bias": REAL, "ignore_index": 1, "label_smoothing": 0.125},
        {"weight": CLASS_WEIGHT, "ignore_index": 0},
        {"target": DISTRIBUTION, "linear_bias": REAL, "weight": CLASS_WEIGHT},
    ),
    differs={"options": "torch's choose how many logits it stores; ours are never stored whole"},
)
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Cross entropy of the logits z = x Wᵀ + b, of which only a tile at a time is in memory.

    .. math:: \ell = -\sum_c a_c \log p_c, \qquad p = \operatorname{softmax}(x W^T + b), \qquad
              a_c = w_c \left((1 - \varepsilon)\,t_c + \tfrac{\varepsilon}{C}\right)

    where t is the one-hot row of a class index, or the row of probabilities, and ε is
    ``label_smoothing``. The mean divides by Σ w of the targets that are not ``ignore_index``, which
    None stands −100 for, and for probabilities by the number of rows; over no row it is NaN with
    gradient 0.

    ``input`` has shape (F) or (N, F), ``linear_weight`` (C, F), ``linear_bias`` and ``weight`` (C);
    ``target`` has shape () or (N) for indices (integers), (C) or (N, C) for probabilities (floats).
    Domain ℝ, codomain [0, ∞), smooth. A row whose logits have a NaN or ∞ is NaN; a bias of −∞ is
    probability 0. float64, float32, float16, bfloat16, tensors or NumPy arrays; evaluated in
    float64 with five numbers a row beside the tiles, rounded once.

    Raises IndexError for a class out of range; TypeError for a tensor of another kind; ValueError
    for shapes that do not match, probabilities outside [0, 1], probabilities with an
    ``ignore_index``, a negative weight, an unknown reduction, or ``label_smoothing`` outside
    [0, 1]. Source: ``torch.nn.functional.linear_cross_entropy``, whose ``options`` choose how many
    logits it stores, and whose weights of more than two dimensions are not taken.

    >>> x, w = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    >>> linear_cross_entropy(x, w, torch.tensor([1]))
    tensor(0.4076)
    """
    problem = _Problem.of(
        input, linear_weight, target, linear_bias, weight, ignore_index, label_smoothing
    )
    return problem.restore(problem.reduced(reduction, problem.softmax()))


@gradient(linear_cross_entropy)
def linear_cross_entropy_gradient(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    wrt: LinearArgument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`G\,W` by x, :math:`G^T x` by W and :math:`G^T 1` by b, where :math:`G = A p - a`.

    G is (A − a) p − a (1 − p): for a class index p_t − 1 is a sum of the others, nothing cancels
    where p_t is near 1. A derivative by what all rows share is a sum over them; it is rounded once.

    >>> x, w = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    >>> linear_cross_entropy_gradient(x, w, torch.tensor([1]), wrt="linear_weight")
    tensor([[ 0.2447,  0.4895],
            [-0.3348, -0.6695],
            [ 0.0900,  0.1801]])
    """
    problem = _Problem.of(
        input, linear_weight, target, linear_bias, weight, ignore_index, label_smoothing
    )
    of_rows = problem.derivatives(reduction, grad_output)
    factor = problem.factor(wrt)
    return problem.restore(of_rows.contracted(wrt, (of_rows.slope, factor)))


@value_and_gradients(linear_cross_entropy)
def _value_and_gradients(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    wrt: Sequence[str] = ("input",),
    grad_output: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """The loss, and its gradient by each argument, of logits that are computed once."""
    problem = _Problem.of(
        input, linear_weight, target, linear_bias, weight, ignore_index, label_smoothing
    )
    softmax, gradients = problem.gradients(wrt, problem.scale(reduction, grad_output))
    return tuple(map(problem.restore, (problem.reduced(reduction, softmax), *gradients)))


@hvp(linear_cross_entropy)
def linear_cross_entropy_hvp(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    tangent: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    wrt: LinearArgument = "input",
    along: LinearArgument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\dot G\,W` by x, :math:`\dot G^T x` by W and :math:`\dot G^T 1` by b.

    .. math:: \dot G = A\,p\,\Bigl(\dot z - \sum_j p_j \dot z_j\Bigr)

    ż is v Wᵀ along x, x vᵀ along W, and v along b. The derivative of the other factor, G v or Gᵀ v,
    is added where one of x and W moves and the other asks.

    >>> x, w = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    >>> linear_cross_entropy_hvp(x, w, torch.tensor([1]), torch.tensor([[1.0, 0.0]]))
    tensor([[ 0.1848, -0.1628]])
    """
    problem = _Problem.of(
        input, linear_weight, target, linear_bias, weight, ignore_index, label_smoothing
    )
    vector = problem.tangent(tangent, along)
    of_rows = problem.derivatives(reduction, grad_output)
    products = [(of_rows.bend(of_rows.moved(vector, along)), problem.factor(wrt))]
    if {wrt, along} == {"input", "linear_weight"}:
        products += [(of_rows.slope, vector)]
    return problem.restore(of_rows.contracted(wrt, *products))


@hessian_diagonal(linear_cross_entropy)
def linear_cross_entropy_hessian_diagonal(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    wrt: LinearArgument = "input",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`A \sum_c p_c (W_{cf} - \bar W_f)^2`, a variance, by x.

    By W it is :math:`\sum_r A\,p_c (1 - p_c)\,x_f^2`, and without x² by b.

    The variance is that of W less the row of the most probable class: it keeps its digits where one
    class has nearly all the probability, and loses some where all of W is far from 0.

    >>> x, w = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    >>> linear_cross_entropy_hessian_diagonal(x, w, torch.tensor([1]))
    tensor([[0.1848, 0.2227]])
    """
    problem = _Problem.of(
        input, linear_weight, target, linear_bias, weight, ignore_index, label_smoothing
    )
    of_rows = problem.derivatives(reduction, grad_output)
    if wrt == "input":
        return problem.restore(of_rows.variance())
    factor = problem.factor(wrt)
    squares = of_rows.contracted(wrt, (of_rows.curvature, lambda part: factor(part).square()))
    return problem.restore(squares)


# --- one call ------------------------------------------------------------------------------------


Factor = Callable[[slice | Tensor], Tensor]
"""Some of the rows, or of the classes, of a matrix, in float64."""

Tile = Callable[[slice, slice], Tensor]
"""A number for each of some rows and some classes, in float64."""


@dataclass(frozen=True)
class _Problem:
    """The checked arguments of a call: x (N, F), W (C, F), b and weights (C), and N targets."""

    x: Tensor
    w: Tensor
    b: Tensor
    weight: Tensor
    target: Tensor
    is_ignored: Tensor
    label_smoothing: float
    given: dict[str, Tensor]
    restore: Callable[[Tensor], Tensor]

    @classmethod
    def of(
        cls,
        input: Any,
        linear_weight: Any,
        target: Any,
        linear_bias: Any,
        weight: Any,
        ignore_index: int | None,
        label_smoothing: float,
    ) -> _Problem:
        (x, restore), (w, _) = _floats("input", input), _floats("linear_weight", linear_weight)
        if w.dim() != 2 or not w.numel():
            reject("linear_weight", f"shape {tuple(w.shape)}", "shape (C, F), both > 0")
        if x.dim() not in (1, 2) or x.shape[-1] != w.shape[1]:
            reject("input", f"shape {tuple(x.shape)}", f"shape (N, {w.shape[1]}) or without N")
        if not 0 <= label_smoothing <= 1:
            reject("label_smoothing", label_smoothing, "a number in [0, 1]")
        given = {"input": x, "linear_weight": w}
        if linear_bias is not None:
            given["linear_bias"] = _of_classes("linear_bias", linear_bias, len(w))
        weights = w.new_ones(len(w)) if weight is None else _of_classes("weight", weight, len(w))
        if not arrays.has_no_values(weights) and (weights < 0).any():
            reject("weight", f"a value of {weights.min().item()}", "weights >= 0")
        targets, is_ignored = _targets(target, (*x.shape[:-1], len(w)), ignore_index)
        return cls(
            x=x.reshape(-1, x.shape[-1]),
            w=w,
            b=given.get("linear_bias", w.new_zeros(len(w))),
            weight=weights,
            target=targets,
            is_ignored=is_ignored,
            label_smoothing=label_smoothing,
            given=given,
            restore=restore,
        )

    def part(self, rows: slice) -> _Problem:
        """Return the problem of some of the rows."""
        x, target, is_ignored = (a[rows] for a in (self.x, self.target, self.is_ignored))
        return replace(self, x=x, target=target, is_ignored=is_ignored)

    def matrix(self, argument: str) -> Tensor:
        """Return an argument as a matrix: of rows or of classes, a bias as one column."""
        known = {"input": self.x, "linear_weight": self.w, "linear_bias": self.b[:, None]}
        return known[argument]

    # -- tiles and the factors that they are multiplied with

    @property
    def rows(self) -> list[slice]:
        """The rows of each tile."""
        return _slices(len(self.x), ROWS)

    @property
    def classes(self) -> list[slice]:
        """The classes of each tile."""
        return _slices(len(self.w), CLASSES)

    def by_row(self, array: Tensor) -> Factor:
        """Return what takes rows of an array; those that are ignored are 0, whatever they hold."""
        return lambda rows: widen(array[rows]).masked_fill(self.is_ignored[rows, None], 0)

    def factor(self, argument: str) -> Factor:
        """Return what z is the product of, beside this argument."""
        if argument == "input":
            return lambda classes: widen(self.w[classes])
        return self.by_row(
            self.x if argument == "linear_weight" else self.x.new_ones(len(self.x), 1)
        )

    def logits(self, rows: slice, classes: slice, out: Tensor | None = None) -> Tensor:
        """Return z = x Wᵀ + b."""
        x, w = self.by_row(self.x)(rows), widen(self.w[classes])
        return torch.addmm(widen(self.b[classes]), x, w.T, out=out)

    def coefficients(self, rows: slice, classes: slice) -> Tensor:
        """Return a, so that the loss is −Σ a log p."""
        smooth = self.label_smoothing / len(self.w) * widen(self.weight[classes])
        if self.target.dim() == 2:
            hard = widen(self.target[rows, classes]) * widen(self.weight[classes])
            return (1 - self.label_smoothing) * hard + smooth
        is_target, mass = _at(self.target[rows], classes), widen(self.mass[rows, None])
        counted = ~self.is_ignored[rows, None]
        return torch.where(is_target, (1 - self.label_smoothing) * mass, 0.0) + smooth * counted

    def sums(self, z: Tensor, rows: slice, classes: slice) -> tuple[Tensor, Tensor]:
        """Return Σ a and Σ a z over a tile."""
        if not self.is_one_hot:
            a = self.coefficients(rows, classes)
            return a.sum(-1), torch.where(a == 0, 0, a * z).sum(-1)
        column, is_here = self.column(rows, classes)
        mass = widen(self.mass[rows]) * is_here.squeeze(1)
        return mass, torch.where(mass == 0, 0, mass * z.gather(1, column).squeeze(1))

    @property
    def is_one_hot(self) -> bool:
        """Whether a is 0 but at the target: then nobody needs it as a tile."""
        return self.target.dim() == 1 and not self.label_smoothing

    def column(self, rows: slice, classes: slice) -> tuple[Tensor, Tensor]:
        """Return the column of a tile that is the target of a row, and whether there is one."""
        column = self.target[rows, None] - classes.start
        size = classes.stop - classes.start
        return column.clamp(0, size - 1), (column >= 0) & (column < size)

    @cached_property
    def mass(self) -> Tensor:
        """The weight of the target of every row, 0 where it is ignored; 1 for probabilities."""
        if self.target.dim() == 2:
            return self.weight.new_ones(len(self.x))
        return self.weight[self.target.clamp(0, len(self.w) - 1)].masked_fill(self.is_ignored, 0)

    def tangent(self, tangent: Any, along: str) -> Factor:
        """Return what takes rows, or classes, of a vector of the shape of an argument."""
        vector, _ = _floats("tangent", tangent)
        check_choice("along", along, *self.given)
        if vector.shape != self.given[along].shape:
            wants = f"shape {tuple(self.given[along].shape)}, as {along}"
            reject("tangent", f"shape {tuple(vector.shape)}", wants)
        matrix = vector[:, None] if along == "linear_bias" else vector.reshape(-1, self.x.shape[1])
        return self.by_row(matrix) if along == "input" else lambda classes: widen(matrix[classes])

    def softmax(self) -> _Softmax:
        """Return the softmax of every row, after a pass over all classes."""
        found = []
        for rows in self.rows:
            tiles = ((part, self.logits(rows, part)) for part in self.classes)
            of_tiles = (_Softmax.of(z, *self.sums(z, rows, part), part.start) for part, z in tiles)
            found.append(functools.reduce(_Softmax.joined, of_tiles))
        return _Softmax(*map(torch.cat, zip(*found, strict=True)))

    def gradients(self, names: Sequence[str], scale: Tensor) -> tuple[_Softmax, list[Tensor]]:
        """Return the softmax, and the gradient by each argument, of logits computed once.

        A tenth of the rows, or a tile, has all of its logits in memory at a time.
        """
        for name in names:
            check_choice("wrt", name, *self.given)
        sums = {name: torch.zeros_like(widen(self.matrix(name))) for name in names}
        every, found = slice(0, len(self.w)), []
        size = max(1, len(self.x) // 10, ROWS * CLASSES // len(self.w))
        memory = widen(self.x).new_empty(min(size, len(self.x)), len(self.w))
        for rows in _slices(len(self.x), size):
            part, here = self.part(rows), slice(0, rows.stop - rows.start)
            z = part.logits(here, every, out=memory[here])
            found.append(_Softmax.of(z, *part.sums(z, here, every), 0))
            if not names:
                continue
            of_rows = _Derivatives(part, found[-1], scale[rows])
            tile = of_rows.slope_of(found[-1].normalized(z), here, every)
            for name in names:
                if name == "input":
                    torch.mm(tile, part.factor(name)(every), out=sums[name][rows])
                else:
                    sums[name].addmm_(tile.T, part.factor(name)(here))
        given = ((wide, self.given[name]) for name, wide in sums.items())
        gradients = [arrays.narrowed(wide, a.dtype).view(a.shape) for wide, a in given]
        return _Softmax(*map(torch.cat, zip(*found, strict=True))), gradients

    # -- what the reduction does

    def denominator(self, reduction: str) -> Tensor:
        """Return what a sum over the rows is divided by."""
        check_reduction(reduction)
        mean = self.mass.to(torch.float64).sum()
        return mean if reduction == "mean" else torch.ones_like(mean)

    def reduced(self, reduction: str, softmax: _Softmax) -> Tensor:
        """Return the loss, rounded."""
        denominator = self.denominator(reduction)
        each = softmax.loss.masked_fill(self.is_ignored, 0)
        wide = each if reduction == "none" else each.sum() / denominator
        dtypes = (array.dtype for array in self.given.values())
        loss = arrays.narrowed(wide, functools.reduce(torch.promote_types, dtypes))
        return loss.reshape(self.given["input"].shape[:-1]) if reduction == "none" else loss

    def scale(self, reduction: str, grad_output: Any) -> Tensor:
        """Return how often each row counts in the reduced loss, times ``grad_output``."""
        denominator = self.denominator(reduction)
        scale = 1 / torch.where(denominator == 0, math.inf, denominator)
        shape = self.given["input"].shape[:-1] if reduction == "none" else ()
        scale = times_grad_output(scale, grad_output, shape).reshape(-1)
        return scale.to(widen(self.x).dtype).expand(len(self.x))

    def derivatives(self, reduction: str, grad_output: Any) -> _Derivatives:
        """Return the derivatives of the reduced loss, times ``grad_output``."""
        return _Derivatives(self, self.softmax(), self.scale(reduction, grad_output))


class _Softmax(NamedTuple):
    """The softmax of every row as far as its classes were seen, and what the loss is made of.

    Of the terms exp(z − top) the largest, that of the class ``best``, is 1 and stays apart from the
    sum of the ``others``: where that is small it is the probability of an error. ``mass`` is Σ a
    and ``linear`` is Σ a z.
    """

    top: Tensor
    best: Tensor
    others: Tensor
    mass: Tensor
    linear: Tensor

    @classmethod
    def of(cls, z: Tensor, mass: Tensor, linear: Tensor, first_class: int) -> _Softmax:
        """Return that of a tile, and leave in z the terms but for the largest, which is 0."""
        top, best = z.max(-1)
        top = top.masked_fill(top == math.inf, math.nan)  # as in a softmax
        terms = z.sub_(_finite(top)[:, None]).exp_().scatter_(-1, best[:, None], 0)
        return cls(top, best + first_class, terms.sum(-1), mass, linear)

    def joined(self, more: _Softmax) -> _Softmax:
        """Return that of the classes of two."""
        top = torch.maximum(self.top, more.top)
        less = torch.exp(torch.minimum(self.top, more.top) - _finite(top))
        is_here = self.top >= more.top
        return _Softmax(
            top,
            torch.where(is_here, self.best, more.best),
            torch.where(
                is_here,
                self.others + (1 + more.others) * less,
                more.others + (1 + self.others) * less,
            ),
            self.mass + more.mass,
            self.linear + more.linear,
        )

    def normalized(self, terms: Tensor) -> Tensor:
        """Return p for all classes in the memory of the terms that :meth:`of` has left."""
        return terms.scatter_(-1, self.best[:, None], 1).div_(1 + self.others[:, None])

    @property
    def loss(self) -> Tensor:
        """A log(1 + others) + Σ a (top − z)."""
        return self.mass * torch.log1p(self.others) + (self.mass * self.top - self.linear)


@dataclass(frozen=True)
class _Derivatives:
    """The derivatives of the loss, each row of which counts ``scale`` times."""

    problem: _Problem
    softmax: _Softmax
    scale: Tensor

    def probabilities(self, rows: slice, classes: slice) -> Tensor:
        """Return p."""
        top, _, others, *_ = (each[rows, None] for each in self.softmax)
        return self.problem.logits(rows, classes).sub_(top).exp_().div_(1 + others)

    def complements(self, p: Tensor, rows: slice, is_best: Tensor) -> Tensor:
        """Return 1 − p; it is a sum where p is near 1, as of the best class of a row."""
        others = self.softmax.others[rows, None]
        return torch.where(is_best, others / (1 + others), 1 - p)

    def slope(self, rows: slice, classes: slice) -> Tensor:
        """Return A p − a."""
        return self.slope_of(self.probabilities(rows, classes), rows, classes)

    def slope_of(self, p: Tensor, rows: slice, classes: slice) -> Tensor:
        """Return A p − a in the memory of p."""
        best = self.softmax.best[rows]
        mass, scale = self.softmax.mass[rows, None], self.scale[rows, None]
        if not self.problem.is_one_hot:
            a = self.problem.coefficients(rows, classes)
            q = self.complements(p, rows, _at(best, classes))
            return ((mass - a) * p - a * q) * scale
        column, is_here = self.problem.column(rows, classes)
        rise = p.gather(1, column)
        fall = self.complements(rise, rows, best[:, None] == self.problem.target[rows, None])
        return p.scatter_(1, column, torch.where(is_here, -fall, rise)).mul_(mass * scale)

    def curvature(self, rows: slice, classes: slice) -> Tensor:
        """Return A p (1 − p)."""
        p = self.probabilities(rows, classes)
        q = self.complements(p, rows, _at(self.softmax.best[rows], classes))
        return p * q * (self.softmax.mass * self.scale)[rows, None]

    def moved(self, tangent: Factor, along: str) -> Tile:
        """Return ż, less that of the most probable class of the row."""
        best, factor = self.softmax.best, self.problem.factor(along)
        by_row, by_class = (tangent, factor) if along == "input" else (factor, tangent)

        def moved(rows: slice, classes: slice) -> Tensor:
            v, is_best = by_row(rows), _at(best[rows], classes)
            of_best = (v * by_class(best[rows])).sum(-1, keepdim=True)
            return (v @ by_class(classes).T - of_best).masked_fill(is_best, 0)

        return moved

    def bend(self, moved: Tile) -> Tile:
        """Return A p (ż − Σ p ż)."""
        problem = self.problem

        def weighted(rows: slice, classes: slice) -> Tensor:
            return self.probabilities(rows, classes) * moved(rows, classes)

        means = [_sum(weighted(rows, c).sum(-1) for c in problem.classes) for rows in problem.rows]
        mean = torch.cat(means)

        def bend(rows: slice, classes: slice) -> Tensor:
            p = self.probabilities(rows, classes)
            share = (self.softmax.mass * self.scale)[rows, None]
            return share * p * (moved(rows, classes) - mean[rows, None])

        return bend

    def contracted(self, wrt: str, *products: tuple[Tile, Factor]) -> Tensor:
        """Return tiles times factors: their sum over the classes by x, over the rows by W and b."""
        check_choice("wrt", wrt, *self.problem.given)
        problem, given = self.problem, self.problem.given[wrt]
        result = given.new_empty(given.shape)
        matrix = result.view(-1, 1 if wrt == "linear_bias" else problem.w.shape[1])
        by_row = wrt == "input"
        kept, summed = (
            (problem.rows, problem.classes) if by_row else (problem.classes, problem.rows)
        )
        for here in kept:
            terms = (
                (tile(here, there) if by_row else tile(there, here).T) @ factor(there)
                for there in summed
                for tile, factor in products
            )
            matrix[here] = arrays.narrowed(_sum(terms), given.dtype)
        return result

    def variance(self) -> Tensor:
        """Return A Σ p (W − Σ p W)², of W less its row of the most probable class."""
        problem, best, given = self.problem, self.softmax.best, self.problem.given["input"]
        features = problem.w.shape[1]
        result = given.new_empty(given.shape)
        matrix = result.view(problem.x.shape)

        def moments(rows: slice, classes: slice) -> Tensor:
            """Return Σ p, Σ p W and Σ p W² over all classes but the most probable one."""
            p = self.probabilities(rows, classes)
            w = widen(problem.w[classes])
            powers = torch.cat([torch.ones_like(w[:, :1]), w, w.square()], dim=1)
            return p.masked_fill(_at(best[rows], classes), 0) @ powers

        for rows in problem.rows:
            sums = _sum(moments(rows, c) for c in problem.classes)
            share, linear, square = torch.split(sums, [1, features, features], dim=1)
            of_best = widen(problem.w[best[rows]])
            mean = linear - of_best * share
            spread = square - 2 * of_best * linear + of_best.square() * share
            counts = (self.softmax.mass * self.scale)[rows, None]
            matrix[rows] = arrays.narrowed(counts * (spread - mean.square()), given.dtype)
        return result


# --- helpers -------------------------------------------------------------------------------------


def _floats(name: str, value: Any) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return an array as a tensor, and what turns a result into its kind."""
    tensor, restore = arrays.enter(name, value)
    if not tensor.is_floating_point():
        reject(name, describe(value), "floats", TypeError)
    return tensor, restore


def _of_classes(name: str, value: Any, classes: int) -> Tensor:
    tensor, _ = _floats(name, value)
    if tensor.shape != (classes,):
        reject(name, f"shape {tuple(tensor.shape)}", f"shape ({classes},): one for each class")
    return tensor


def _targets(target: Any, logits: tuple[int, ...], ignored: int | None) -> tuple[Tensor, Tensor]:
    """Return class indices (N) or probabilities (N, C), and which of the rows are ignored."""
    t, _ = arrays.enter("target", target)
    classes = logits[-1]
    shape = logits if t.is_floating_point() else logits[:-1]
    if t.is_floating_point() and t.shape == logits[:-1]:
        reject("target", describe(target), "integers for class indices", TypeError)
    if t.shape != shape:
        reject("target", f"shape {tuple(t.shape)}", f"shape {shape}: nothing is broadcast")
    if t.is_floating_point():
        if ignored is not None:
            reject("ignore_index", ignored, "None where the target is probabilities")
        outside = (t < 0) | (t > 1)
        if not arrays.has_no_values(t) and outside.any():
            reject("target", f"a value of {t[outside][0].item()}", "probabilities in [0, 1]")
        t = t.reshape(-1, classes)
        return t, torch.zeros_like(t[:, 0], dtype=torch.bool)
    t = t.reshape(-1).to(torch.int64)
    is_ignored = t == _ignored(ignored)
    outside = ((t < 0) | (t >= classes)) & ~is_ignored
    if not arrays.has_no_values(t) and outside.any():
        wants = f"class indices in [0, {classes})"
        reject("target", f"a value of {t[outside][0].item()}", wants, IndexError)
    return t, is_ignored


def _slices(size: int, step: int) -> list[slice]:
    """Return the parts of a dimension; one where it is empty."""
    return [slice(at, min(at + step, size)) for at in range(0, max(size, 1), step)]


def _at(chosen: Tensor, classes: slice) -> Tensor:
    """Return which of some classes is the one of its row."""
    part = torch.arange(classes.start, classes.stop, device=chosen.device)
    return chosen[:, None] == part


def _finite(top: Tensor) -> Tensor:
    """Return a maximum to subtract, also from a row of −inf."""
    return top.masked_fill(top == -math.inf, 0)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, terms)
