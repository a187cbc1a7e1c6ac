"""What is timed: an operation on some arrays, by every contender with its value and derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from typing import Any

import torch
from torch import Tensor

from gradref.arrays import BLOCK, narrowed, widen
from gradref.declare.operation import REAL, Domain, Operation, formula_of
from gradref.fusion.compiler import Compiled
from gradref.fusion.fused import Fused, fuse
from gradref.fusion.settings import settings
from gradref.judge.gates import apart_on_average

OURS, FRESH, PLAIN = "fused, out=", "fused", "plain, out="
EAGER, COMPILED, BOUND = "autograd", "compiled autograd", "bound"
FORMULAS = "formulas, in blocks"
STANDARD = (OURS, FRESH, PLAIN, EAGER, COMPILED, BOUND, FORMULAS)
VALUE, TORCH_VALUE = "value, out=", "torch's value, out="
"""Contenders for the value alone, of a row-wise function that torch has with ``out=``."""

CLASSES = 32_000
"""The length of a row, where the size allows for it."""

FEATURES = 256
"""The length of what logits are products of."""


Peers = Callable[[str, Sequence[Tensor]], Iterable[tuple[str, Callable[[], Any]]]]
"""Others that have an operation of a name: what each is called, and its call on some arguments.

The call returns what the fused kernel does: the value and the derivative.
"""


class WrongResultError(Exception):
    """Two contenders do not agree, so that their times cannot be compared."""


@dataclass(frozen=True)
class Subject:
    """An operation, whose value and derivative are timed on arrays of some size."""

    record: Operation
    dtype: str
    device: str
    size: int
    seed: int = 0
    peers: Peers | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """A vector where nothing is coupled; else rows of ``CLASSES``, shorter ones to have 8."""
        return (self.size,) if self.record.coupled is None else _rows_of(self.size)

    @cached_property
    def arrays(self) -> dict[str, Tensor]:
        """The arguments: ordinary numbers in their domains."""
        generator = torch.Generator().manual_seed(self.seed)
        domains = self.record.array_domains(self.record.parameters)
        return {
            name: self._drawn(domains.get(name, (REAL,))[0], generator)
            for name in self.record.arguments
        }

    def _drawn(self, domain: Domain, generator: torch.Generator) -> Tensor:
        draw, shapes = domain.draw, {"class": self.shape[1:], "row": self.shape[:1]}
        shape = shapes.get(domain.extent, self.shape)
        if draw == "index":
            index = torch.randint(0, self.shape[1], shape, generator=generator)
            if domain.extent == "element":
                index[:, 1:] = -1  # a list of one class
            return index.to(self.device)
        real = torch.randn(shape, generator=generator) * 3
        if draw == "unit":
            real = real.sigmoid()
        if draw == "label":
            real = torch.tensor(domain.values)[(real > 0).long()]
        if draw in ("positive", "count"):
            real = real.abs()
        if draw == "distribution":
            real = real.softmax(-1)
        if draw == "log_probability":
            real = real.log_softmax(-1)
        return real.to(self.device, getattr(torch, self.dtype))

    @cached_property
    def vector(self) -> dict[str, Tensor]:
        """The ``grad_output`` of a row-wise function; else nothing."""
        if self.record.kind != "rowwise":
            return {}
        outputs = self.shape[1] // self.record.parts
        return {"grad_output": torch.randn_like(self.first[:, :outputs])}

    @property
    def first(self) -> Tensor:
        """The argument that the derivative is taken with respect to."""
        return next(iter(self.arrays.values()))

    @cached_property
    def _more(self) -> dict[str, Any]:
        return {"wrt": self.record.arguments[0]} if self.record.kind == "loss" else {}

    @cached_property
    def kernel(self) -> Fused:
        """Our fused kernel."""
        return fuse(self.record.function)

    @cached_property
    def buffers(self) -> tuple[Tensor, ...]:
        """The memory for those results that are arrays: of a loss only the gradient."""
        slope = torch.empty_like(self.first)
        if self.record.kind == "loss":
            return (slope,)
        return torch.empty_like(self.vector.get("grad_output", slope)), slope

    @cached_property
    def contenders(self) -> dict[str, Callable[[], Any]]:
        """Every contender by name; all but the bounds and ``VALUE`` return value and derivative."""
        found = {
            OURS: lambda: self._fused(out=self.buffers),
            FRESH: lambda: self._fused(),
            PLAIN: self._plain,
            BOUND: lambda: self._bound(),
            FORMULAS: lambda: self._formulas(),
            **self._values(),
        }
        if self.record.torch is not None:
            found[EAGER] = lambda: self._autograd(self.witness)
            compiled = torch.compile(self.witness)
            found[COMPILED] = lambda: self._autograd(compiled)
        if self.peers is not None:
            given = [*self.arrays.values(), *self.vector.values()]
            found |= dict(self.peers(self.record.name, given))
        return found

    def _fused(self, **out: Any) -> Any:
        return self.kernel(*self.arrays.values(), **self.vector, **self._more, **out)

    def _plain(self) -> Any:
        arguments = self.arrays.values()
        derivative = self.record.derivatives[self.kernel.results[1]]
        *for_value, last = self.buffers
        value = self.record.function(*arguments, out=for_value[0] if for_value else None)
        return value, derivative(*arguments, **self.vector, **self._more, out=last)

    @cached_property
    def _formulas(self) -> Callable[[], None]:
        """The bound of the plain calls: the formulas in float64 blocks, without any check."""
        derivative = formula_of(self.record.derivatives[self.kernel.results[1]])
        *for_value, last = self.buffers
        value = self._in_blocks(formula_of(self.record.function), {}, *for_value)
        slope = self._in_blocks(partial(derivative, **self._more), self.vector, last)

        def run() -> None:
            value()
            slope()

        return run

    def _in_blocks(
        self,
        formula: Callable[..., Tensor],
        vector: dict[str, Tensor],
        buffer: Tensor | None = None,
    ) -> Callable[[], None]:
        """Return a call of a formula in blocks of rows, into a buffer; without one, summed."""
        rows = max(1, BLOCK * len(self.first) // self.first.numel())
        arguments = {**self.arrays, **vector}
        count = -(-len(self.first) // rows)
        split = (
            [array] * count if name in self.record.shared else torch.split(array, rows)
            for name, array in arguments.items()
        )
        blocks = list(zip(*split, strict=True))
        places = [None] * len(blocks) if buffer is None else torch.split(buffer, rows)

        def run() -> None:
            for block, place in zip(blocks, places, strict=True):
                wide = formula(*map(widen, block), **self.record.parameters)
                if place is None:
                    wide.sum()
                else:
                    place.copy_(narrowed(wide, place.dtype))

        return run

    @cached_property
    def _value_kernel(self) -> Fused:
        return fuse(self.record.function, "value")

    def _values(self) -> dict[str, Callable[[], Any]]:
        """Return the contenders for the value alone: none, unless torch has it with ``out=``."""
        theirs = getattr(torch, self.record.name, None)
        has_more = len(self.record.arguments) > 1
        if self.record.kind != "rowwise" or theirs is None or has_more:
            return {}
        ours, buffer = self._value_kernel, self.buffers[0]
        return {
            VALUE: lambda: (ours(self.first, out=buffer),),
            TORCH_VALUE: lambda: (theirs(self.first, -1, out=buffer),),
        }

    def witness(self, *arguments: Tensor) -> Tensor:
        """Return the value of torch's counterpart, with our default parameters."""
        assert self.record.torch is not None  # asked for only where there is one
        if self.record.kind == "loss":
            named = dict(zip(self.arrays, arguments, strict=True))
            return self.record.torch(**named, **self.record.parameters)
        return self.record.torch(*arguments, **self.record.parameters)

    def _autograd(self, function: Callable[..., Tensor]) -> Any:
        leaf, *others = self.arrays.values()
        leaf = leaf.detach().requires_grad_()
        value = function(leaf, *others)
        vector = self.vector.get("grad_output", self._ones)
        if value.shape != vector.shape:
            vector = torch.ones_like(value)
        (slope,) = torch.autograd.grad(value, leaf, vector)
        return value.detach(), slope

    @cached_property
    def _ones(self) -> Tensor:
        return torch.ones_like(self.first)

    @cached_property
    def _bound(self) -> Callable[[], object]:
        """A kernel that reads and writes the same memory, with next to no arithmetic."""
        given = (*self.arrays.values(), *self.vector.values())
        read = [part for a in given if a.is_floating_point() for part in self._parts(a)]
        written = [part for buffer in self.buffers for part in self._parts(buffer)]

        def touch(tensors: dict[str, Tensor], into: list[Tensor]) -> None:
            total: Tensor = reduce(torch.add, tensors.values())
            for i, buffer in enumerate(into):
                buffer.copy_(total * (i + 1.5))

        compiled = Compiled(touch, settings(self.first.numel(), True))
        tensors = {str(i): a for i, a in enumerate(read)}
        compiled(tensors, written)
        _, call = compiled(tensors, written)
        assert call is not None  # it was of these very tensors
        return lambda: call.graph(*call.arguments)

    def _parts(self, array: Tensor) -> Sequence[Tensor]:
        """Return the parts of an array of whole rows of a gated unit; any other array alone."""
        parts = self.record.parts
        return array.chunk(parts, 1) if parts > 1 and array.shape == self.shape else (array,)

    @property
    def traffic(self) -> int:
        """The bytes that have to be read or written at least."""
        touched = (*self.arrays.values(), *self.vector.values(), *self.buffers)
        return sum(t.numel() * t.element_size() for t in touched)

    def check(self) -> None:
        """Raise WrongResultError unless the contenders agree: a sum of errors, to a few digits."""
        expected = [_cloned(r) for r in self.contenders[PLAIN]()]
        dtype = getattr(torch, self.dtype)
        for name, run in self.contenders.items():
            if name in (PLAIN, BOUND, FORMULAS):
                continue
            wanted = expected[:1] if name in (VALUE, TORCH_VALUE) else expected
            for got, want in zip(run(), wanted, strict=True):
                if apart_on_average(got, want, dtype):
                    raise WrongResultError(f"{self.record.name}: {name} disagrees with the formula")


class BatchSubject(Subject):
    """A loss of logits that are a product: its value, and its gradients by both matrices.

    The size is that of the logits, which no kernel has to store. There is no bound of memory: what
    takes time are products of matrices.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The rows and the classes of the logits."""
        return _rows_of(self.size)

    @cached_property
    def arrays(self) -> dict[str, Tensor]:
        """Two matrices, whose products are logits of a few units, and a class for each row."""
        generator = torch.Generator().manual_seed(self.seed)
        rows, classes = self.shape
        x, w = (torch.randn(n, FEATURES, generator=generator) for n in self.shape)
        target = torch.randint(0, classes, (rows,), generator=generator)
        to = partial(Tensor.to, device=self.device, dtype=getattr(torch, self.dtype))
        arrays = to(x), to(w * 2 / FEATURES**0.5), target.to(self.device)
        return dict(zip(self.record.arguments, arrays, strict=True))

    @cached_property
    def contenders(self) -> dict[str, Callable[[], Any]]:
        """Every contender by name; all return the value and both gradients."""
        compiled, plain = torch.compile(self.witness), self.record.value_and_gradients
        assert plain is not None  # subjects() has looked
        given, matrices = tuple(self.arrays.values()), tuple(self.arrays)[:2]
        return {
            OURS: lambda: self.kernel(*given, wrt=matrices),
            PLAIN: lambda: plain(*given, wrt=matrices),
            EAGER: lambda: self._autograd(self.witness),
            COMPILED: lambda: self._autograd(compiled),
        }

    def _autograd(self, function: Callable[..., Tensor]) -> Any:
        x, w, target = self.arrays.values()
        leaves = [matrix.detach().requires_grad_() for matrix in (x, w)]
        value = function(*leaves, target)
        return value.detach(), *torch.autograd.grad(value, leaves)

    @property
    def traffic(self) -> int:
        """The bytes of the matrices, which are read, and of their gradients."""
        return sum(2 * t.numel() * t.element_size() for t in list(self.arrays.values())[:2])


def _rows_of(size: int) -> tuple[int, int]:
    """Return the shape of rows of ``CLASSES``, shorter ones to have 8."""
    classes = min(CLASSES, max(2, size // 8))
    return size // classes, classes


def _cloned(result: Tensor) -> Tensor:
    return result.detach().double().clone()


def _jumps(record: Operation) -> bool:
    """Return whether a function has a step, which torch does not differentiate."""
    if record.facts is None:
        return False
    kinks = record.facts.at(**record.parameters).kinks.values()
    return any(kink.left[0] != kink.right[0] for kink in kinks)


def subjects(
    records: list[Operation],
    dtypes: list[str],
    device: str,
    sizes: list[int],
    peers: Peers | None = None,
) -> Iterator[Subject]:
    """Yield every operation that is fused and that torch differentiates, by dtype and size."""
    for record in records:
        is_batch = record.kind == "batch"
        is_fused = not is_batch or record.value_and_gradients is not None
        if record.torch is not None and is_fused and not _jumps(record):
            kind = BatchSubject if is_batch else Subject
            for dtype in dtypes:
                for size in sizes:
                    yield kind(record, dtype, device, size, peers=peers)
