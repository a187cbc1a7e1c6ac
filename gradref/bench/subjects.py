"""What is timed: an operation on some arrays, and everybody who can compute its value and slope."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gradref import inductor
from gradref.fused import Fused, fuse
from gradref.measure.rows import draw_sample
from gradref.measure.verdict import Case
from gradref.operation import Operation

OURS, FRESH, PLAIN = "fused, out=", "fused", "plain, out="
EAGER, COMPILED, BOUND = "autograd", "compiled autograd", "bound"

CLASSES = 32_000
"""The length of a row, where the size allows it."""


class WrongResultError(Exception):
    """Two contenders do not agree: there is nothing to time."""


@dataclass(frozen=True)
class Subject:
    """The value and the derivative of an operation on arrays of some size."""

    record: Operation
    dtype: str
    device: str
    size: int
    seed: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows of ``CLASSES``, if there is more than one; a vector for what is elementwise."""
        if self.record.coupled is None:
            return (self.size,)
        classes = min(CLASSES, max(2, self.size // 8))
        return (self.size // classes, classes)

    @cached_property
    def arrays(self) -> dict[str, Tensor]:
        """The arguments."""
        generator = torch.Generator().manual_seed(self.seed)
        kind: torch.dtype = getattr(torch, self.dtype)
        case = Case(self.record.name, {}, self.dtype, self.device)
        if self.record.kind == "elementwise":
            sample = {"x": None}
        else:
            sample = dict.fromkeys(draw_sample(self.record, case, 3, 16, self.seed).arrays)
        made = {}
        for name in sample:
            domain = self._draw(name)
            if domain == "index":
                drawn = torch.randint(0, self.shape[1], self.shape[:1], generator=generator)
            else:
                drawn = torch.randn(self.shape, generator=generator) * 3
                if domain == "unit":
                    drawn = drawn.sigmoid()
                if domain in ("distribution", "log_probability"):
                    drawn = drawn.softmax(-1)
                if domain == "log_probability":
                    drawn = drawn.log()
                drawn = drawn.to(kind)
            made[name] = drawn.to(self.device)
        return made

    def _draw(self, name: str) -> str:
        domains = self.record.array_domains({**self.record.parameters})
        return domains[name][0].draw if name in domains else "real"

    @cached_property
    def vector(self) -> dict[str, Tensor]:
        """What a row-wise function is pulled back with."""
        if self.record.kind != "rowwise":
            return {}
        return {"grad_output": torch.randn_like(self.first)}

    @property
    def first(self) -> Tensor:
        """The argument that the derivative is taken with respect to."""
        return next(iter(self.arrays.values()))

    @property
    def _more(self) -> dict[str, Any]:
        return {"wrt": self.record.arguments[0]} if self.record.kind == "loss" else {}

    @cached_property
    def kernel(self) -> Fused:
        """Ours."""
        return fuse(self.record.function)

    @cached_property
    def buffers(self) -> Any:
        """Where the arrays among the results go."""
        if self.record.kind == "loss":
            return torch.empty_like(self.first)
        return torch.empty_like(self.first), torch.empty_like(self.first)

    def contenders(self) -> dict[str, Callable[[], Any]]:
        """Everybody, by name; all return the value and the derivative but the bound."""
        found = {
            OURS: lambda: self._fused(out=self.buffers),
            FRESH: lambda: self._fused(),
            PLAIN: self._plain,
            BOUND: lambda: self._bound(),
        }
        if self.record.torch is not None:
            found[EAGER] = lambda: self._autograd(self.witness)
            compiled = torch.compile(self.witness)
            found[COMPILED] = lambda: self._autograd(compiled)
        return found

    def _fused(self, **out: Any) -> Any:
        return self.kernel(*self.arrays.values(), **self.vector, **self._more, **out)

    def _plain(self) -> Any:
        slope = self.kernel.results[1]
        gradient_buffer = self.buffers if self.record.kind == "loss" else self.buffers[1]
        arguments = list(self.arrays.values())
        function = self.record.function
        value = (
            function(*arguments)
            if self.record.kind == "loss"
            else function(*arguments, out=self.buffers[0])
        )
        derivative = self.record.derivatives[slope]
        return value, derivative(*arguments, **self.vector, **self._more, out=gradient_buffer)

    def witness(self, *arguments: Tensor) -> Tensor:
        """torch's counterpart, by its defaults."""
        assert self.record.torch is not None  # asked for only where there is one
        array = {n: v for n, v in self.record.parameters.items() if n != "dim"}
        if self.record.kind == "rowwise":
            return self.record.torch(*arguments, dim=-1)
        if self.record.kind == "loss":
            named = dict(zip(self.arrays, arguments, strict=True))
            dim = {"dim": -1} if "dim" in self.record.parameters else {}
            return self.record.torch(**named, **array, **dim)
        return self.record.torch(*arguments, **array)

    def _autograd(self, function: Callable[..., Tensor]) -> Any:
        leaf, *others = self.arrays.values()
        leaf = leaf.detach().requires_grad_()
        value = function(leaf, *others)
        vector = self.vector.get("grad_output", self._ones)
        if value.dim() == 0:
            vector = self._ones.flatten()[0]
        elif value.shape != vector.shape:
            vector = torch.ones_like(value)
        (slope,) = torch.autograd.grad(value, leaf, vector)
        return value.detach(), slope

    @cached_property
    def _ones(self) -> Tensor:
        return torch.ones_like(self.first)

    @cached_property
    def _bound(self) -> Callable[[], None]:
        """A kernel with the same reads and writes, and next to no arithmetic."""
        read = [a for a in (*self.arrays.values(), *self.vector.values()) if a.is_floating_point()]
        buffers = self.buffers if isinstance(self.buffers, tuple) else (self.buffers,)

        def touch(tensors: dict[str, Tensor], into: list[Tensor | None]) -> None:
            total: Tensor = functools.reduce(torch.add, tensors.values())
            for i, buffer in enumerate(into):
                assert buffer is not None
                buffer.copy_(total * (i + 1.5))

        _, kernel = inductor.fused(touch)
        tensors = {str(i): a for i, a in enumerate(read)}
        return lambda: kernel(tensors, list(buffers))

    @property
    def traffic(self) -> int:
        """The bytes that have to be read and written at least."""
        buffers = self.buffers if isinstance(self.buffers, tuple) else (self.buffers,)
        touched = (*self.arrays.values(), *self.vector.values(), *buffers)
        return sum(t.numel() * t.element_size() for t in touched)

    def check(self) -> None:
        """Refuse to time what does not agree: on a sum of magnitudes, to a few digits."""
        contenders = self.contenders()
        expected = [_cloned(r) for r in contenders.pop(PLAIN)()]
        contenders.pop(BOUND)
        tolerance = 64 * torch.finfo(getattr(torch, self.dtype)).eps
        for name, run in contenders.items():
            for got, want in zip(run(), expected, strict=True):
                off = (got.double() - want).abs().nansum()
                if not off <= tolerance * want.abs().nansum() + math.sqrt(want.numel()) * 1e-6:
                    raise WrongResultError(f"{self.record.name}: {name} disagrees with the formula")


def _cloned(result: Tensor) -> Tensor:
    return result.detach().double().clone()


def subjects(
    records: list[Operation], dtypes: list[str], device: str, sizes: list[int]
) -> Iterator[Subject]:
    """Every operation that torch differentiates too, in every dtype and size."""
    for record in records:
        if record.torch is not None and record.name != "heaviside":
            for dtype in dtypes:
                for size in sizes:
                    yield Subject(record, dtype, device, size)
