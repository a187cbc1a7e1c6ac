r"""Cross entropy of logits whose classes are spread over the ranks of ``torch.distributed``.

Every rank describes what it holds of a row by three numbers: the maximum m and the sum s of
exp(x − m) over its classes without the target, and the logit of the target if it is here. One
all-gather tells them to all ranks; from then on each has the loss of the row and its own part of
the gradient:

.. math:: z = \log \sum_{j \ne t} e^{x_j} - x_t, \quad \ell = \operatorname{softplus}(z), \quad
          \frac{\partial\ell}{\partial x_t} = -\sigma(z), \quad
          \frac{\partial\ell}{\partial x_j} = \frac{e^{x_j}}{\sum_c e^{x_c}}

As the target is kept out of the sums, nothing cancels where its probability is near 1.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from activations import sigmoid, softplus
from gradref import arrays
from gradref.arrays import Extent, Layout, describe, reject
from gradref.formula.weighting import weighted
from losses._classification import Reduction


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    *,
    group: dist.ProcessGroup | None = None,
    first_class: int | None = None,
    num_classes: int | None = None,
) -> Tensor:
    r"""Cross entropy of this rank's logits against class indices, which torch differentiates.

    The function is :func:`losses.cross_entropy`, the result the same on every rank. ``input`` holds
    the c classes of this rank, c may be 0, in the shape (c), (N, c) or (N, c, d₁, ...); ``target``,
    the same without c, and ``weight``, of all classes, are the same on every rank. A rank's classes
    start at ``first_class`` of ``num_classes``; by default all ranks of ``group`` (by default all
    there are; without a process group it is one) hold equally many, in their order. A DTensor that
    is sharded over its classes says all of this itself, and its loss is a DTensor.

    There is one all-gather of 12 bytes a row from each rank, 20 with label smoothing, and twice
    that in float64; none for the gradient. All is evaluated in float64, but what is sent is rounded
    to float32, which a result shows by an ulp or two. A target that no rank holds gives NaN.

    Raises ValueError for shapes that do not match, a DTensor sharded otherwise, an unknown
    reduction, or ``label_smoothing`` outside [0, 1]; TypeError for a target that is not an integer.
    Source: Shoeybi et al. (2019); ``torch.distributed.tensor.parallel.loss_parallel``.

    >>> logits = torch.tensor([[2.0, 3.0, 1.0], [3.0, 7.0, 9.0]], requires_grad=True)
    >>> cross_entropy(logits, torch.tensor([1, 2])).backward()
    >>> logits.grad[0]
    tensor([ 0.1224, -0.1674,  0.0450])
    """
    shard = _Shard.of(input, group, first_class, num_classes)
    options = _Options(_whole(weight), ignore_index, reduction, label_smoothing)
    loss: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]  # torch's is untyped
        shard.local(input), _whole(target), shard, options
    )
    return shard.replicated(loss)


def cross_entropy_and_gradient(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    *,
    group: dist.ProcessGroup | None = None,
    first_class: int | None = None,
    num_classes: int | None = None,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient with respect to this rank's logits, without autograd.

    As :func:`cross_entropy`. The gradient of a DTensor is sharded as the logits are; ``out`` takes
    the gradient and may be the logits themselves.

    >>> logits = torch.tensor([[0.0, 0.0]])
    >>> cross_entropy_and_gradient(logits, torch.tensor([0]), out=logits)
    (tensor(0.6931), tensor([[-0.5000,  0.5000]]))
    """
    shard = _Shard.of(input, group, first_class, num_classes)
    options = _Options(_whole(weight), ignore_index, reduction, label_smoothing)
    logits = shard.local(input)
    arrays.enter("input", logits)
    buffer = None if out is None else shard.local(out)
    buffer = arrays.enter_out(buffer, logits, logits.shape, logits.dtype, {"input": logits})
    rows = _Rows(logits, _whole(target), shard, options)
    loss, gradient = rows.loss(), rows.gradient(logits, out=buffer)
    return shard.replicated(loss), shard.sharded(gradient) if out is None else out


class _CrossEntropy(torch.autograd.Function):
    """The loss forward, this rank's gradient backward."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, shard: _Shard, options: _Options) -> Any:
        ctx.save_for_backward(input)
        ctx.rows = _Rows(input, target, shard, options)
        return ctx.rows.loss()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides names
        ctx: Any, *outputs: Tensor
    ) -> Any:
        return ctx.rows.gradient(*ctx.saved_tensors, *outputs), None, None, None


# --- who holds what ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shard:
    """The classes of this rank: from which on, of how many, and who holds the others."""

    first: int
    num_classes: int
    group: dist.ProcessGroup | None
    dtensor: Any = None

    @classmethod
    def of(
        cls,
        input: Any,
        group: dist.ProcessGroup | None,
        first_class: int | None,
        num_classes: int | None,
    ) -> _Shard:
        """As a DTensor says, or the arguments, or shards of one length."""
        if not isinstance(input, Tensor) or not input.dim():
            reject("input", describe(input), "a tensor of at least one dimension", TypeError)
        axis = min(1, input.dim() - 1)
        if hasattr(input, "placements"):
            given = {"group": group, "first_class": first_class, "num_classes": num_classes}
            for name, value in given.items():
                if value is not None:
                    reject(name, describe(value), "None for a DTensor, which knows it")
            return cls._of_dtensor(input, axis)
        ranks = dist.get_world_size(group) if dist.is_initialized() else 1
        rank = dist.get_rank(group) if dist.is_initialized() else 0
        here = input.shape[axis]
        first = rank * here if first_class is None else first_class
        classes = ranks * here if num_classes is None else num_classes
        if not 0 <= first <= first + here <= classes:
            got = f"{here} classes from {first} on, of {classes}"
            reject("first_class, num_classes", got, "a part of all classes")
        return cls(first, classes, group)

    @classmethod
    def _of_dtensor(cls, input: Any, axis: int) -> _Shard:
        """torch gives every rank ⌈C/R⌉ classes, until none are left."""
        mesh, classes = input.device_mesh, input.shape[axis]
        over = [dim for dim, p in enumerate(input.placements) if not p.is_replicate()]
        if [input.placements[dim].is_shard(axis) for dim in over] != [True]:
            wants = f"Shard({axis}) over one dimension of the mesh, else replicated"
            reject("input", f"a DTensor placed {input.placements}", wants)
        each = -(-classes // mesh.size(over[0]))
        first = min(classes, each * mesh.get_local_rank(over[0]))
        return cls(first, classes, mesh.get_group(over[0]), input)

    def local(self, tensor: Any) -> Tensor:
        """What this rank holds of a tensor that is sharded as the logits are."""
        local: Tensor = tensor if self.dtensor is None else tensor.to_local()
        return local

    def sharded(self, local: Tensor) -> Tensor:
        """The inverse of :meth:`local`."""
        if self.dtensor is None:
            return local
        mesh, placements = self.dtensor.device_mesh, self.dtensor.placements
        form = {"shape": self.dtensor.shape, "stride": self.dtensor.stride()}
        whole: Tensor = type(self.dtensor).from_local(local, mesh, placements, **form)
        return whole

    def replicated(self, local: Tensor) -> Tensor:
        """A tensor that all ranks have, as a DTensor where the logits are one."""
        if self.dtensor is None:
            return local
        from torch.distributed.tensor import Replicate  # it takes a second to import

        mesh = self.dtensor.device_mesh
        everywhere: Tensor = type(self.dtensor).from_local(local, mesh, [Replicate()] * mesh.ndim)
        return everywhere

    def all_gather(self, statistics: Tensor) -> Tensor:
        """The statistics of every rank, along a new first dimension."""
        if not dist.is_initialized():
            return statistics.unsqueeze(0)
        ranks = dist.get_world_size(self.group)
        gathered = statistics.new_empty(ranks, *statistics.shape)
        # Its name until torch 2.13, which warns of it.
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        gather(gathered.flatten(0, 1), statistics, group=self.group)
        return gathered


def _whole(tensor: Any) -> Any:
    """All of a tensor that every rank has to see."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


# --- the mathematics -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Options:
    """What counts, and how it is summed."""

    weight: Tensor | None
    ignore_index: int
    reduction: Reduction
    label_smoothing: float

    def check(self, input: Tensor, target: Any, rows: tuple[int, ...], num_classes: int) -> None:
        """Refuse what does not fit, before anything is sent."""
        if not input.is_floating_point():
            reject("input", describe(input), "logits", TypeError)
        if not isinstance(target, Tensor) or target.is_floating_point():
            reject("target", describe(target), "a tensor of class indices", TypeError)
        if tuple(target.shape) != rows:
            reject("target", f"shape {tuple(target.shape)}", f"shape {rows}: nothing is broadcast")
        if self.weight is not None and tuple(self.weight.shape) != (num_classes,):
            reject("weight", f"shape {tuple(self.weight.shape)}", f"shape {(num_classes,)}")
        if self.reduction not in ("none", "mean", "sum"):
            reject("reduction", repr(self.reduction), "one of 'none', 'mean', 'sum'")
        if not 0 <= self.label_smoothing <= 1:
            reject("label_smoothing", self.label_smoothing, "a number in [0, 1]")


def _described(x: Tensor, is_target: Tensor) -> list[Tensor]:
    """m, s and x_t of every row, as far as it is here; x_t is NaN where the target is not."""
    others = x.masked_fill(is_target, -math.inf)
    m = others.amax(-1) if x.shape[-1] else x.new_full(x.shape[:-1], -math.inf)
    s = torch.exp(others - _finite(m).unsqueeze(-1)).sum(-1)
    x_t = torch.where(is_target, x, 0.0).sum(-1)
    return [m, s, torch.where(is_target.any(-1), x_t, math.nan)]


def _spread(x: Tensor, m: Tensor, weight: Tensor) -> list[Tensor]:
    """Σ w and Σ w (m − x) of every row, which label smoothing asks for."""
    return [weight.sum(-1), weighted(_finite(m).unsqueeze(-1) - x, weight).sum(-1)]


def _finite(m: Tensor) -> Tensor:
    """A maximum to subtract, also from a row of −inf."""
    return torch.where(m == -math.inf, 0.0, m)


class _Rows:
    """The rows of one call, after the ranks have told each other about them, in float64.

    ``odds`` is z, ``total`` is log Σ exp(x) over all classes, and ``spread``, for label smoothing,
    Σ w (total − x) over all but the target; ``mass`` is the target's weight, 0 if it is ignored;
    ``here`` are the classes of this rank.
    """

    def __init__(self, input: Tensor, target: Tensor, shard: _Shard, options: _Options) -> None:
        self.layout = Layout(tuple(input.shape), min(1, input.dim() - 1))
        options.check(input, target, self.layout.shape_of("row"), shard.num_classes)
        self.dtype, self.target, self.shard, self.options = input.dtype, target, shard, options
        self.here = slice(shard.first, shard.first + self.layout.classes)
        weight = input.new_ones(shard.num_classes, dtype=arrays.WIDE)
        self.weight = weight if options.weight is None else options.weight.to(arrays.WIDE)
        self.is_ignored = target == options.ignore_index
        known = target.clamp(0, shard.num_classes - 1)
        self.mass = self.weight[known].masked_fill(self.is_ignored, 0)
        m, s, x_t, *spread = shard.all_gather(self._statistics(input)).to(arrays.WIDE).unbind(-1)
        highest = _finite(m.amax(0))
        others = highest + torch.log((s * torch.exp(m - highest)).sum(0))
        logit = functools.reduce(torch.fmax, x_t.unbind())  # fmax passes over a NaN
        logit = torch.where(logit == math.inf, math.nan, logit)  # as in a softmax
        self.odds, self.total = others - logit, torch.logaddexp(others, logit)
        self.spread: Tensor | float = 0.0
        if spread:
            mass, distance = spread
            self.spread = (mass * (self.total - _finite(m)) + distance).sum(0)

    def _statistics(self, input: Tensor) -> Tensor:
        """What this rank tells the others: 3 numbers a row, or 5."""
        layout, smoothing = self.layout, self.options.label_smoothing
        logits = layout.canonical(input, "element")
        target = layout.canonical(self.target, "row")
        dtype = torch.promote_types(input.dtype, torch.float32)
        told = logits.new_empty((*layout.lead, 5 if smoothing else 3), dtype=dtype)
        for block in layout.blocks("row"):
            x, is_target = logits[block].to(arrays.WIDE), self._is_target(target[block])
            found = _described(x, is_target)
            if smoothing:
                found += _spread(x, found[0], self._weight_here(x).masked_fill(is_target, 0))
            told[block] = torch.stack(found, dim=-1)
        return told.view(*self.target.shape, told.shape[-1])

    def _is_target(self, target: Tensor) -> Tensor:
        """Which of the classes here is the target of its row."""
        classes = torch.arange(self.here.start, self.here.stop, device=target.device)
        return target.unsqueeze(-1) == classes

    def _weight_here(self, like: Tensor) -> Tensor:
        """The weights of the classes here, for every row."""
        return self.weight[self.here].expand_as(like)

    def loss(self) -> Tensor:
        """(1 − ε) w softplus(z) + ε/C Σ w (total − x), summed as the reduction says."""
        share = self.options.label_smoothing
        at_target = weighted(softplus(self.odds), self.mass)
        each = (1 - share) * at_target
        if share:
            each = each + share / self.shard.num_classes * (at_target + self.spread)
        each = each.masked_fill(self.is_ignored, 0)
        if self.options.reduction != "none":
            each = each.sum() / self._denominator()
        return arrays.narrowed(each, self.dtype)

    def _denominator(self) -> Tensor:
        """What the reduction divides by."""
        return self.mass.sum() if self.options.reduction == "mean" else self.mass.new_ones(())

    def gradient(
        self, input: Tensor, grad_output: Tensor | None = None, out: Tensor | None = None
    ) -> Tensor:
        """A p − a of every class here, where A = Σ a; at the target A − a − A σ(z)."""
        smooth = self.options.label_smoothing / self.shard.num_classes
        hard = (1 - self.options.label_smoothing) * self.mass
        a, rest = hard + smooth * self.mass, smooth * (self.weight.sum() - self.mass)
        denominator = self._denominator()
        scale = 1 / torch.where(denominator == 0, math.inf, denominator)
        scale = scale if grad_output is None else scale * grad_output.to(arrays.WIDE)

        def of_block(
            x: Tensor,
            target: Tensor,
            total: Tensor,
            at_target: Tensor,
            sum_a: Tensor,
            scale: Tensor,
        ) -> Tensor:
            p = torch.exp(x - total.unsqueeze(-1))
            elsewhere = sum_a.unsqueeze(-1) * p - smooth * self._weight_here(x)
            of_row = torch.where(self._is_target(target), at_target.unsqueeze(-1), elsewhere)
            of_row = of_row * scale.unsqueeze(-1)
            return of_row.masked_fill((target == self.options.ignore_index).unsqueeze(-1), 0)

        rows = {
            "target": self.target,
            "total": self.total,
            "at_target": rest - (a + rest) * sigmoid(self.odds),
            "sum_a": a + rest,
            "scale": scale.expand_as(self.mass),
        }
        inputs: dict[str, tuple[Tensor, Extent]] = {"x": (input, "element")}
        inputs |= {name: (row, "row") for name, row in rows.items()}
        return arrays.compute(of_block, self.layout, inputs, "element", input.dtype, out)
