"""One pass over 2²⁴ consecutive float32 inputs: generate, evaluate, compare, in one kernel."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from gradref.arrays import WIDE
from gradref.measure.environment import has_compiler

P = ParamSpec("P")
Result = TypeVar("Result")

SIZE = 1 << 24
COUNT = 1 << 8
"""Chunks in all 2³² bit patterns: chunk i holds those with the highest byte i."""

_EXPONENT_BITS = 0x7FF0000000000000
_FLOAT32 = torch.finfo(torch.float32)
_BEYOND = 2.0**128


@dataclass(frozen=True)
class Pass:
    """The comparison of a function with a float64 formula, chunk by chunk.

    Undecided are the inputs that float64 cannot settle: within ``margin`` ulp of an error of half
    an ulp, in an interval of ``near``, infinite, or one of ``listed``. In an interval of ``exact``
    float64 holds the truth itself, and decides everything.
    """

    formula: Callable[[Tensor], Tensor]
    margin: float
    near: Sequence[tuple[float, float]]
    listed: Sequence[float]
    exact: Sequence[tuple[float, float]] = ()
    device: str = "cpu"

    def inputs(self, chunk: int, size: int = SIZE) -> Tensor:
        """The inputs of a chunk, NaNs included."""
        return _inputs(self._start(chunk), size)

    def inputs_at(self, chunk: int, index: Tensor) -> Tensor:
        """Some of the inputs of a chunk."""
        return (self._start(chunk) + index).to(torch.int32).view(torch.float32)

    def run(self, chunk: int, got: Tensor | None, size: int = SIZE) -> tuple[Tensor, float]:
        """Which inputs are undecided, and the largest error at all the others.

        ``got`` is what the function gives; None for the formula itself, rounded once.
        """
        undecided, worst = self._compiled(self._start(chunk), got, size)
        return undecided, float(worst)

    def errors(self, chunk: int, got: Tensor, size: int = SIZE) -> tuple[Tensor, Tensor]:
        """The error in ulp at every input of a chunk, and the float64 values."""
        x = self.inputs(chunk, size)
        wide = self.formula(x.to(WIDE))
        return _errors(got.to(WIDE), wide), wide

    def _start(self, chunk: int) -> Tensor:
        bits = chunk * SIZE
        signed = bits - (1 << 32) if bits >= 1 << 31 else bits
        return torch.tensor(signed, dtype=torch.int32, device=self.device)

    @functools.cached_property
    def _compiled(self) -> Callable[..., tuple[Tensor, Tensor]]:
        return compiled(self._judge, self.device)

    def _judge(self, start: Tensor, got: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
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


def _inputs(start: Tensor, size: int) -> Tensor:
    bits = torch.arange(size, dtype=torch.int32, device=start.device) + start
    return bits.view(torch.float32)


def _errors(got: Tensor, wide: Tensor) -> Tensor:
    """As :func:`gradref.measure.ulp.errors` for float32, on tensors, so that it compiles."""
    overflow = got.isinf() & wide.isfinite()
    finite = torch.where(overflow, torch.full_like(got, _BEYOND).copysign(got), got)
    high = torch.where(overflow, wide.clamp(-_BEYOND, _BEYOND), wide)
    binade = (wide.view(torch.int64) & _EXPONENT_BITS).view(WIDE)
    spacing = binade.clamp(_FLOAT32.smallest_normal, 2.0**127) * _FLOAT32.eps
    ulp = (finite - high).abs() / spacing
    same = (got == wide) | (got.isnan() & wide.isnan())
    return torch.where(same, 0.0, torch.where(ulp.isnan(), math.inf, ulp))


def compiled(function: Callable[P, Result], device: str) -> Callable[P, Result]:
    """One kernel for the whole of ``function``; without a C++ compiler, the function itself."""
    if not has_compiler(device):
        warnings.warn("no C++ compiler: the sweep runs uncompiled, and slowly", stacklevel=2)
        return function
    torch.compiler.reset()  # kernels of other formulas count against a limit
    # Expressions that are used twice are kept, not repeated: else compiling takes 3 times as long.
    keep: dict[str, Any] = {"realize_opcount_threshold": 8} if device == "cpu" else {}
    return torch.compile(function, fullgraph=True, dynamic=False, options=keep)
