"""The layout of arrays, and formulas evaluated in blocks: float64 temporaries stay in the cache."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradref.arrays.rounding import narrowed, widen

BLOCK = 1 << 16
"""How many elements are evaluated at a time: 512 KiB in float64."""

Extent = Literal["element", "output", "row", "class", "jacobian", "whole"]
"""What an array has one number for: each element of the input, each output of each row, each row,
each class, each pair of an output and an element of a row, or the whole input."""


@dataclass(frozen=True)
class Layout:
    """The shape of an input and the dimension that couples its elements into rows, if there is one.

    A row has as many outputs as one of its ``parts``. A canonical array has the leading shape
    ``(elements,)`` where nothing is coupled; else that of the rows, ``(before,)`` or
    ``(before, after)``, followed by the coupled dimension.
    """

    shape: tuple[int, ...]
    axis: int | None
    parts: int = 1

    @property
    def lead(self) -> tuple[int, ...]:
        """The leading shape of canonical arrays."""
        if self.axis is None:
            return (math.prod(self.shape),)
        before, after = math.prod(self.shape[: self.axis]), math.prod(self.shape[self.axis + 1 :])
        return (before,) if after == 1 else (before, after)

    @property
    def classes(self) -> int:
        """The length of the coupled dimension."""
        return 1 if self.axis is None else self.shape[self.axis]

    def _of_a_row(self, extent: Extent) -> tuple[int, ...]:
        """Return the shape of what an array of this extent has for each row."""
        outputs = self.classes // self.parts
        shapes = {"element": (self.classes,), "output": (outputs,), "row": ()}
        return shapes.get(extent, (outputs, self.classes))

    def shape_of(self, extent: Extent) -> tuple[int, ...]:
        """Return the shape that a user sees for an array of this extent."""
        if extent == "whole":
            return ()
        if extent == "class":
            return (self.classes,)
        if self.axis is None:
            return self.shape
        before, after = self.shape[: self.axis], self.shape[self.axis + 1 :]
        one = self._of_a_row(extent)
        return (*before, *one, *after) if len(one) == 1 else (*before, *after, *one)

    def canonical(self, array: Tensor, extent: Extent) -> Tensor:
        """Return an array in its canonical shape: a view wherever the strides allow one."""
        if extent in ("class", "whole"):
            return array
        one = () if self.axis is None else self._of_a_row(extent)
        if len(one) == 1 and len(self.lead) == 2:
            before, after = self.lead
            return array.reshape(before, *one, after).transpose(1, 2)
        shape = (*self.lead, *one)
        return array if array.shape == shape else array.reshape(shape)

    def restore(self, canonical: Tensor, extent: Extent) -> Tensor:
        """Return a canonical array in the shape that a user sees, contiguous."""
        if extent in ("element", "output") and len(self.lead) == 2:
            canonical = canonical.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        shape = self.shape_of(extent)
        return canonical if canonical.shape == shape else canonical.reshape(shape)

    def blocks(self, extent: Extent) -> Iterator[tuple[slice, ...]]:
        """Yield slices of the leading shape, each for about ``BLOCK`` elements of a result.

        A single ``()`` stands for the whole, if that is small or torch is compiling.
        """
        width = max(self.classes, math.prod(self._of_a_row(extent)))
        if torch.compiler.is_compiling() or math.prod(self.lead) * width <= BLOCK:
            yield ()
            return
        budget = max(1, BLOCK // max(1, width))
        steps = [min(size, budget) for size in self.lead]
        steps[0] = max(1, budget // max(1, math.prod(steps[1:])))
        starts = (range(0, size, max(1, step)) for size, step in zip(self.lead, steps, strict=True))
        for first in itertools.product(*starts):
            yield tuple(slice(at, at + step) for at, step in zip(first, steps, strict=True))


Inputs = Mapping[str, tuple[Tensor, Extent]]


def _evaluate(
    formula: Callable[..., Tensor],
    layout: Layout,
    inputs: Inputs,
    blocks: Iterable[tuple[slice, ...]],
) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
    """Yield each block, and ``formula`` of the arrays there, widened."""
    canonical = {
        name: (layout.canonical(array, extent), extent) for name, (array, extent) in inputs.items()
    }
    for block in blocks:
        yield (
            block,
            formula(
                **{
                    name: widen(
                        array[block] if block and extent not in ("class", "whole") else array
                    )
                    for name, (array, extent) in canonical.items()
                }
            ),
        )


def compute(
    formula: Callable[..., Tensor],
    layout: Layout,
    inputs: Inputs,
    extent: Extent,
    dtype: torch.dtype,
    out: Tensor | None = None,
) -> Tensor:
    """Return ``formula`` of the inputs, rounded once to ``dtype``, in ``out`` or fresh memory."""
    first, _ = next(iter(inputs.values()))

    def in_one_block() -> Tensor:
        ((_, wide),) = _evaluate(formula, layout, inputs, [()])
        return layout.restore(narrowed(wide, dtype), extent)

    if out is None and len(list(itertools.islice(layout.blocks(extent), 2))) == 1:
        return in_one_block()
    direct = out is not None and out.is_contiguous()
    result = (
        out if out is not None and direct else first.new_empty(layout.shape_of(extent), dtype=dtype)
    )
    into = layout.canonical(result, extent)
    try:
        for block, wide in _evaluate(formula, layout, inputs, layout.blocks(extent)):
            into[block] = narrowed(wide, dtype)
    except RuntimeError:
        if out is not None:
            raise
        return in_one_block()  # under vmap a mapped array fits into no buffer
    return result if out is None or direct else out.copy_(result)


def summed(formula: Callable[..., Tensor], layout: Layout, inputs: Inputs) -> Tensor:
    """Return the float64 sum over all rows of ``formula``, one number for each class."""
    rows = tuple(range(len(layout.lead)))
    evaluated = _evaluate(formula, layout, inputs, layout.blocks("element"))
    return torch.stack([wide.sum(rows) for _, wide in evaluated]).sum(0)


def total(formula: Callable[..., Tensor], layout: Layout, inputs: Inputs) -> Tensor:
    """Return the float64 sum of ``formula`` over all blocks."""
    evaluated = _evaluate(formula, layout, inputs, layout.blocks("row"))
    return torch.stack([wide.sum() for _, wide in evaluated]).sum()
