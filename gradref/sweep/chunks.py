"""One compiled pass over 2²⁴ consecutive float32 inputs: generate, evaluate, compare."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from gradref.arrays import WIDE, binade
from gradref.environment import has_compiler
from gradref.judge.ulp import HISTOGRAM_EDGES
from gradref.sweep.tally import Tally

P = ParamSpec("P")
Result = TypeVar("Result")

SIZE = 1 << 24
COUNT = 1 << 8
"""Of all 2³² bit patterns chunk i holds those with the highest byte i."""

_FLOAT32 = torch.finfo(torch.float32)
BEYOND_FLOAT32 = 2.0**128
"""The power of two above all finite float32 numbers."""


@dataclass(frozen=True)
class Pass:
    """The comparison of a function with a float64 formula, chunk by chunk.

    Float64 leaves an input undecided where the error is within ``margin`` ulp of half an ulp, in
    the intervals of ``near``, at infinities and at the points of ``listed``. In the intervals of
    ``exact`` float64 holds the truth itself: there the margin is 0.
    """

    formula: Callable[[Tensor], Tensor]
    margin: float
    near: Sequence[tuple[float, float]]
    listed: Sequence[float]
    exact: Sequence[tuple[float, float]] = ()
    device: str = "cpu"

    def inputs(self, chunk: int, size: int = SIZE) -> Tensor:
        """Return the inputs of a chunk, NaNs included."""
        return _inputs(self._start(chunk), size)

    def inputs_at(self, chunk: int, index: Tensor) -> Tensor:
        """Return the inputs of a chunk at some places."""
        return (self._start(chunk) + index).to(torch.int32).view(torch.float32)

    def run(self, chunk: int, got: Tensor | None, size: int = SIZE) -> tuple[Tensor, Tally]:
        """Return the places of the undecided inputs in a chunk, and the tally of all others.

        ``got`` holds the results to judge; None stands for the formula itself, rounded once.
        """
        start = self._start(chunk)
        is_undecided, worst = self._compiled(start, got, size)
        undecided = is_undecided.nonzero().squeeze(1)
        inputs = size - len(undecided)
        if worst <= 0.5:
            return undecided, replace(Tally.all_correct(inputs), worst=float(worst))
        assert got is not None  # our own formula is never further from itself than half an ulp
        counted = self._compiled_count(start, got, is_undecided, size)
        at, wrong_nonfinite, lost_to_zero, wrong_sign, *beyond = map(int, counted)
        return undecided, Tally(
            inputs,
            tuple(a - b for a, b in pairwise((inputs, *beyond, 0))),
            float(worst),
            (int(start) + at) & 0xFFFFFFFF,
            wrong_nonfinite=wrong_nonfinite,
            lost_to_zero=lost_to_zero,
            wrong_sign=wrong_sign,
        )

    def _start(self, chunk: int) -> Tensor:
        bits = chunk * SIZE
        signed = bits - (1 << 32) if bits >= 1 << 31 else bits
        return torch.tensor(signed, dtype=torch.int32, device=self.device)

    @functools.cached_property
    def _compiled(self) -> Callable[..., tuple[Tensor, Tensor]]:
        return compiled(self._judge, self.device)

    @functools.cached_property
    def _compiled_count(self) -> Callable[..., Sequence[Tensor]]:
        return compiled(self._count, self.device)

    def _judge(self, start: Tensor, got: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        """Return which inputs are undecided, and the worst error of the others."""
        x = _inputs(start, size)
        wide = self.formula(x.to(WIDE))
        narrow = wide.to(torch.float32) if got is None else got
        ulp = _errors(narrow.to(WIDE), wide)
        undecided = (ulp - 0.5).abs() <= self.margin
        for low, high in self.exact:
            undecided = undecided & ~((x >= low) & (x <= high))
        undecided = undecided | x.isinf()
        for low, high in self.near:
            undecided = undecided | ((x >= low) & (x <= high))
        for point in self.listed:
            undecided = undecided | (x == point)
        return undecided, torch.where(undecided, 0.0, ulp).amax()

    def _count(self, start: Tensor, got: Tensor, undecided: Tensor, size: int) -> Sequence[Tensor]:
        """Return the place of the worst decided error, and the number of errors of each kind."""
        wide = self.formula(_inputs(start, size).to(WIDE))
        ulp = torch.where(undecided, 0.0, _errors(got.to(WIDE), wide))
        return (
            ulp.argmax(),
            (~undecided & (got.isfinite() != wide.isfinite())).sum(),
            ((got == 0) & (wide != 0) & (ulp > 1)).sum(),
            (~undecided & ((got < 0) & (wide > 0) | (got > 0) & (wide < 0))).sum(),
            *((ulp > edge).sum() for edge in HISTOGRAM_EDGES),
        )


def _inputs(start: Tensor, size: int) -> Tensor:
    bits = torch.arange(size, dtype=torch.int32, device=start.device) + start
    return bits.view(torch.float32)


def _errors(got: Tensor, wide: Tensor) -> Tensor:
    """Compute :func:`gradref.judge.ulp.errors` for float32 on tensors, so that it compiles."""
    overflow = got.isinf() & wide.isfinite()
    finite = torch.where(overflow, torch.full_like(got, BEYOND_FLOAT32).copysign(got), got)
    high = torch.where(overflow, wide.clamp(-BEYOND_FLOAT32, BEYOND_FLOAT32), wide)
    spacing = binade(wide).clamp(_FLOAT32.smallest_normal, 2.0**127) * _FLOAT32.eps
    ulp = (finite - high).abs() / spacing
    same = (got == wide) | (got.isnan() & wide.isnan())
    return torch.where(same, 0.0, torch.where(ulp.isnan(), math.inf, ulp))


def compiled(function: Callable[P, Result], device: str) -> Callable[P, Result]:
    """Compile ``function`` into one kernel; without a C++ compiler return it as it is."""
    if not has_compiler(device):
        warnings.warn("no C++ compiler: the sweep runs uncompiled, and slowly", stacklevel=2)
        return function
    torch.compiler.reset()  # kernels of other formulas count against a limit
    # Expressions that are used twice are kept, not repeated: else compiling takes 3 times as long.
    keep: dict[str, Any] = {"realize_opcount_threshold": 8} if device == "cpu" else {}
    return torch.compile(function, fullgraph=True, dynamic=False, options=keep)
