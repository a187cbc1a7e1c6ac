"""The C++ that inductor writes, where it leaves time: classes of its own, in place of its own.

It takes apart a vector whose bits are cast, asks four instructions of a bound that is a number and
has a maximum wait for as many, cascades sums too short for it, stores what no other loop reads,
loads again and again what is the same for a row, and lets the memory wait meanwhile.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch._inductor.codegen.cpp import (
    CppKernel,
    CppKernelProxy,
    CppTile2DKernel,
    CppTile2DOverrides,
    CppVecKernel,
    CppVecOverrides,
)
from torch._inductor.codegen.cpp_utils import LocalBufferContext, cexpr_index
from torch._inductor.utils import IndentedBuffer
from torch._inductor.virtualized import V
from torch.utils._sympy.symbol import SymT, symbol_is_type

from gradref.fusion.compiler import SMALL

Code = Callable[..., Any]
"""What writes the code of an operation on variables of inductor's."""

_index: Callable[[Any], str] = cexpr_index

NEXT_FITS = 1 << 17
"""The longest row, in elements, beside which the next one is still in a core's cache when its turn
comes."""

CAST = {
    (torch.float32, torch.int32): "at::vec::cast<float, int32_t>",
    (torch.int32, torch.float32): "at::vec::cast<int32_t, float>",
}
TYPE = {torch.float32: "float", torch.int32: "int32_t"}
INF = "std::numeric_limits<float>::infinity()"


def _kernel() -> Any:
    """The one whose code is being written."""
    return V.kernel


def _bit_cast(inductors: Code) -> Code:
    """The bits of one or two vectors as another type of the same width."""

    def to_dtype_bitcast(x: Any, dtype: torch.dtype, src_dtype: torch.dtype) -> Any:
        cast, vectors = CAST.get((dtype, src_dtype)), _kernel()._get_num_vectors(dtype)
        if not x.is_vec or cast is None or vectors > 2:
            return inductors(x, dtype, src_dtype)
        if vectors == 1:
            return f"{cast}({x})"
        return f"at::vec::VectorizedN<{TYPE[dtype]}, 2>({cast}({x}[0]), {cast}({x}[1]))"

    return to_dtype_bitcast


def _clamped(inductors: Code, clamp: str) -> Code:
    """The larger or smaller of a vector and a number, which is not NaN."""

    def of(a: Any, b: Any) -> Any:
        numbers = [v for v in (a, b) if not v.is_vec and v.bounds.is_singleton()]
        vectors = [v for v in (a, b) if v.is_vec and v.dtype is torch.float32]
        if not (numbers and vectors):
            return inductors(a, b)
        return f"{clamp}({vectors[0]}, {_kernel().broadcast(numbers[0])})"

    return of


def _classified(inductors: Code, condition: str) -> Code:
    """A class of float32 numbers by a comparison."""

    def of(x: Any) -> Any:
        if not x.is_vec or x.dtype is not torch.float32:
            return inductors(x)
        vector, mask = _kernel()._get_vec_type(x.dtype), _kernel()._get_mask_type(x.dtype)
        return f"{mask}({condition.format(x=x, vector=vector, inf=INF)})"

    return of


OURS: dict[str, Callable[[Code], Code]] = {
    "to_dtype_bitcast": _bit_cast,
    "maximum": functools.partial(_clamped, clamp="at::vec::clamp_min"),
    "minimum": functools.partial(_clamped, clamp="at::vec::clamp_max"),
    "isnan": functools.partial(_classified, condition="{x} != {x}"),
    "isinf": functools.partial(_classified, condition="{x}.abs() == {vector}({inf})"),
}
"""What writes an operation, made from what inductor writes for scalars and other types."""


class VecOverrides(CppVecOverrides):
    """Operations on vectors."""

    def __init__(self) -> None:
        for name, ours in OURS.items():
            setattr(self, name, ours(getattr(self, name)))  # inductor's belong to the instance too


class LongSums(CppKernel):
    """Sums in a cascade only where they are longer than what one thread takes alone.

    A cascade adds 4096 vectors one after the other, before it is one.
    """

    def need_use_acc_helper(
        self, reduction_type: str, dtype: torch.dtype, use_scalar: bool
    ) -> bool:
        """Whether a sum, or anything else, is accumulated with more than a register."""
        kernel: Any = super()
        if reduction_type != "sum" or self.call_ranges is None:
            return bool(kernel.need_use_acc_helper(reduction_type, dtype, use_scalar))
        length = math.prod(self.call_ranges[self.reduction_depth :])
        sizes: Any = V.graph.sizevars
        is_long = sizes.guard_or_false(length > SMALL)
        return dtype is torch.float32 and bool(is_long)


class VecKernel(LongSums, CppVecKernel):
    """A loop over vectors."""

    overrides: Any = VecOverrides

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kernel: Any = super()
        kernel.__init__(*args, **kwargs)
        self.constants = IndentedBuffer()
        self.rows: dict[tuple[str, Any], None] = {}

    def load(self, name: str, index: Any) -> Any:
        """Load what is the same for a whole row before the loop over it, and note where rows lie.

        The compiler does not, as it cannot know that nothing of it is stored to.
        """
        kernel: Any = super()
        if not self.is_along_row or self.tail_size is not None or self._load_mask is not None:
            return kernel.load(name, index)
        row, place = self.itervars[-2:]
        if name in V.graph.graph_inputs and row in index.free_symbols:
            self.rows[name, index] = None
        if any(s == place or symbol_is_type(s, SymT.TMP) for s in index.free_symbols):
            return kernel.load(name, index)
        loads, self.loads = self.loads, self.constants
        variable = kernel.load(name, index)
        self.loads = loads
        return variable

    @property
    def is_along_row(self) -> bool:
        """Whether the vectors of a loop over rows lie in the rows."""
        is_last = 0 < self.tiling_idx == len(self.itervars) - 1
        return is_last and type(self) is VecKernel and _row_scope() is not None

    def fetch_next_row(self) -> None:
        """Let the memory work while this row is computed."""
        row, length = self.itervars[-2], _index(self.rename_indexing(self.ranges[-1]))
        for name, index in self.rows:
            place = _index(self.rename_indexing(index.subs(row, row + 1)))
            fetch = f"__builtin_prefetch({self.args.input(name)} + {place})"
            self.loads.writeline(f"if ({length} <= {NEXT_FITS}) {fetch};")

    def reduction_combine_vec(
        self, reduction_type: str, var: Any, next_value: Any, *args: Any, **kwargs: Any
    ) -> str:
        """A maximum that looks for NaN in what comes next, without waiting for the last result."""
        kernel: Any = super()
        code = str(kernel.reduction_combine_vec(reduction_type, var, next_value, *args, **kwargs))
        is_float = kwargs.get("src_dtype", torch.float32) is torch.float32
        if not is_float or code != f"at::vec::maximum({var}, {next_value})":
            return code
        return f"at::vec::clamp_min({var}, {next_value}) | ({next_value} != {next_value})"


class TileKernel(VecKernel, CppTile2DKernel):
    """A loop over squares of vectors, which are transposed."""

    overrides = CppTile2DOverrides


class KernelProxy(CppKernelProxy):
    """One of the loops over a row that share a loop over the rows."""

    kernel_cls, vec_kernel_cls, tile2d_kernel_cls = LongSums, VecKernel, TileKernel

    def codegen_nodes(self, nodes: list[Any]) -> None:
        """Keep a row in memory only where another loop reads it, and fetch the next one in time.

        One that is written and read in one loop, like the copy of a result into its buffer, is left
        to inductor, which removes it.
        """
        scope = _row_scope()
        if scope is None:
            super().codegen_nodes(nodes)
            return
        for buffer in (b for node in nodes for b in node.get_outputs()):
            if all(user.node in nodes for user in buffer.users):
                _not_in(scope, buffer.get_name())
        known = set(self.kernel_group.args.output_buffers)
        super().codegen_nodes(nodes)
        kernel: Any = self.kernels[0]
        if not isinstance(kernel, VecKernel) or not kernel.is_along_row:
            return
        nest: Any = self.loop_nest
        loop = nest.loops[-1]
        loop.lines = functools.partial(_after, kernel.constants, loop.lines)
        reads = {read.name for node in nodes for read in node.read_writes.reads}
        if reads & known and any(node.is_reduction() for node in nodes):
            kernel.fetch_next_row()


def _row_scope() -> LocalBufferContext | None:
    """Where loops over a row share what they keep of it; None elsewhere."""
    scope = V.local_buffer_context
    return scope if isinstance(scope, LocalBufferContext) else None


def _after(constants: IndentedBuffer, lines: Callable[[], list[str]]) -> list[str]:
    """A loop in the scope of its constants."""
    return [*(f"if ({line} true)" for line in constants.getvalue().splitlines()), *lines()]


def _not_in(scope: LocalBufferContext, name: str) -> None:
    local = scope.global_to_local.pop(name, None)
    if local is None:
        return
    V.graph.removed_buffers.discard(name)
    scope.removed_buffers.discard(name)
    if local not in scope.global_to_local.values():
        del scope.local_buffers[local.get_name()]
