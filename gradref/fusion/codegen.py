"""The C++ that inductor writes for a CPU, made faster: an optional part, out of private classes.

Stock inductor takes a vector apart to cast its bits; it asks for NaN at every bound, though a bound
that is a constant is none; it adds short sums in a cascade; it stores rows that no other loop reads
and loads again and again what is the same for a whole row. The classes here write what a compiler
turns into vector instructions, and prefetch the next row meanwhile. They change what a loop costs,
not what it means. :func:`gradref.fusion.compiler.code_generator` says when they are used.
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
from torch._inductor.custom_graph_pass import CustomSchedulerPass
from torch._inductor.dependencies import WeakDep
from torch._inductor.utils import IndentedBuffer
from torch._inductor.virtualized import V
from torch.utils._sympy.symbol import SymT, symbol_is_type

from gradref.fusion.passes import CachedBySource
from gradref.fusion.settings import SMALL

Code = Callable[..., Any]
"""Write the C++ of an operation on variables of inductor's."""

_index: Callable[[Any], str] = cexpr_index

NEXT_FITS = 1 << 17
"""The longest row, in elements, that leaves room in a core's cache for the next one."""

CAST = {
    (torch.float32, torch.int32): "at::vec::cast<float, int32_t>",
    (torch.int32, torch.float32): "at::vec::cast<int32_t, float>",
}
TYPE = {torch.float32: "float", torch.int32: "int32_t"}
INF = "std::numeric_limits<float>::infinity()"


def _kernel() -> Any:
    """Return the inductor kernel whose code is being written."""
    return V.kernel


def _bit_cast(inductors: Code) -> Code:
    """Reinterpret the bits of one or two vectors as another type of the same width."""

    def to_dtype_bitcast(x: Any, dtype: torch.dtype, src_dtype: torch.dtype) -> Any:
        cast, vectors = CAST.get((dtype, src_dtype)), _kernel()._get_num_vectors(dtype)
        if not x.is_vec or cast is None or vectors > 2:
            return inductors(x, dtype, src_dtype)
        if vectors == 1:
            return f"{cast}({x})"
        return f"at::vec::VectorizedN<{TYPE[dtype]}, 2>({cast}({x}[0]), {cast}({x}[1]))"

    return to_dtype_bitcast


def _clamped(inductors: Code, clamp: str) -> Code:
    """Bound a vector by a constant, which is not NaN, in one instruction."""

    def of(a: Any, b: Any) -> Any:
        numbers = [v for v in (a, b) if not v.is_vec and v.bounds.is_singleton()]
        vectors = [v for v in (a, b) if v.is_vec and v.dtype is torch.float32]
        if not (numbers and vectors):
            return inductors(a, b)
        return f"{clamp}({vectors[0]}, {_kernel().broadcast(numbers[0])})"

    return of


def _classified(inductors: Code, condition: str) -> Code:
    """Test float32 numbers for NaN or infinity by one comparison of vectors."""

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
"""How an operation is written; what inductor writes stays for scalars and other types."""


class VecOverrides(CppVecOverrides):
    """Write operations on vectors."""

    def __init__(self) -> None:
        for name, ours in OURS.items():
            setattr(self, name, ours(getattr(self, name)))  # inductor's belong to the instance too


class LongSums(CppKernel):
    """Add in a cascade only where a sum is longer than what one thread takes alone.

    A cascade adds its first 4096 vectors one after the other: below that it only costs time.
    """

    def need_use_acc_helper(
        self, reduction_type: str, dtype: torch.dtype, use_scalar: bool
    ) -> bool:
        """Return whether a reduction needs more than a register to accumulate in."""
        kernel: Any = super()
        if reduction_type != "sum" or self.call_ranges is None:
            return bool(kernel.need_use_acc_helper(reduction_type, dtype, use_scalar))
        length = math.prod(self.call_ranges[self.reduction_depth :])
        sizes: Any = V.graph.sizevars
        is_long = sizes.guard_or_false(length > SMALL)
        return dtype is torch.float32 and bool(is_long)


class VecKernel(LongSums, CppVecKernel):
    """Write a loop over vectors."""

    overrides: Any = VecOverrides

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kernel: Any = super()
        kernel.__init__(*args, **kwargs)
        self.constants = IndentedBuffer()
        self.rows: dict[tuple[str, Any], None] = {}

    def load(self, name: str, index: Any) -> Any:
        """Load what is the same for a whole row before the loop over it, and note the rows read.

        A C++ compiler does not hoist such a load: it cannot exclude that a store changes it.
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
        """Return whether the loop takes its vectors along the rows."""
        is_last = 0 < self.tiling_idx == len(self.itervars) - 1
        return is_last and type(self) is VecKernel and _row_scope() is not None

    def fetch_next_row(self) -> None:
        """Prefetch the next row while this one is computed."""
        row, length = self.itervars[-2], _index(self.rename_indexing(self.ranges[-1]))
        for name, index in self.rows:
            place = _index(self.rename_indexing(index.subs(row, row + 1)))
            fetch = f"__builtin_prefetch({self.args.input(name)} + {place})"
            self.loads.writeline(f"if ({length} <= {NEXT_FITS}) {fetch};")

    def reduction_combine_vec(
        self, reduction_type: str, var: Any, next_value: Any, *args: Any, **kwargs: Any
    ) -> str:
        """Take a maximum that looks for NaN in the new operand alone.

        To look for it in the result would make every step wait for the one before.
        """
        kernel: Any = super()
        code = str(kernel.reduction_combine_vec(reduction_type, var, next_value, *args, **kwargs))
        is_float = kwargs.get("src_dtype", torch.float32) is torch.float32
        if not is_float or code != f"at::vec::maximum({var}, {next_value})":
            return code
        return f"at::vec::clamp_min({var}, {next_value}) | ({next_value} != {next_value})"


class TileKernel(VecKernel, CppTile2DKernel):
    """Write a loop over square tiles, which are transposed."""

    overrides = CppTile2DOverrides


class KernelProxy(CppKernelProxy):
    """Write one of the inner loops that share a loop over the rows."""

    kernel_cls, vec_kernel_cls, tile2d_kernel_cls = LongSums, VecKernel, TileKernel

    def codegen_nodes(self, nodes: list[Any]) -> None:
        """Buffer a row only where another loop reads it, and prefetch the next row.

        What is written and read within one loop, as the copy of a result into its buffer, is left
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
            kernel.rows = {at: None for at in kernel.rows if not _is_gathered(at[1])}
            kernel.fetch_next_row()


def _is_gathered(index: Any) -> bool:
    """Return whether an index is itself loaded: it is not known before its row is."""
    return any(symbol_is_type(s, SymT.TMP) for s in index.free_symbols)


def _row_scope() -> LocalBufferContext | None:
    """Return where the loops over a row keep what they share; None outside of such loops."""
    scope = V.local_buffer_context
    return scope if isinstance(scope, LocalBufferContext) else None


def _after(constants: IndentedBuffer, lines: Callable[[], list[str]]) -> list[str]:
    """Write a loop in the scope of the constants that it uses."""
    return [*(f"if ({line} true)" for line in constants.getvalue().splitlines()), *lines()]


def _not_in(scope: LocalBufferContext, name: str) -> None:
    """Take a buffer out of what the loops over a row keep."""
    local = scope.global_to_local.pop(name, None)
    if local is None:
        return
    V.graph.removed_buffers.discard(name)
    scope.removed_buffers.discard(name)
    if local not in scope.global_to_local.values():
        del scope.local_buffers[local.get_name()]


# --- passes of the scheduler ---------------------------------------------------------------------


def scheduler_passes() -> dict[str, Any]:
    """Return the passes before and after the fusion of loops, as options of inductor's."""
    return {
        "_pre_fusion_custom_pass": DelayReductions(),
        "_post_fusion_custom_pass": GenerateVectorCode(),
    }


class DelayReductions(CachedBySource, CustomSchedulerPass):
    """Schedule the sum of a loss last, so that its gradient can share the loop over the rows.

    Inductor fuses a sum with elementwise work that comes before it, not after it; and it would
    fuse the sum with the count of the rows, for which the gradient then waits.
    """

    def __call__(self, nodes: list[Any]) -> list[Any]:
        """Move what no array waits for, a loss and what becomes of it, to the end."""
        sums = {n.get_name() for n in nodes if n.is_reduction()}
        size = max(map(_elements, nodes))
        arrays = [n for n in nodes if not n.is_reduction() and _elements(n) == size]
        awaited = set().union(*(n.ancestors for n in arrays), (n.get_name() for n in arrays))
        first = [n for n in nodes if n.get_name() in awaited]
        last = [n for n in nodes if n.get_name() not in awaited]
        for node in last:
            for array in arrays:
                if node.is_reduction() and array.ancestors & sums:
                    _wait(node, array)
        return first + last


class GenerateVectorCode(CachedBySource, CustomSchedulerPass):
    """Let :class:`KernelProxy` write the loops for a CPU."""

    def __call__(self, nodes: list[Any]) -> list[Any]:
        """Return the same nodes."""
        for device in {node.get_device() for node in nodes}:
            if device is not None and device.type == "cpu":
                backend: Any = V.graph.scheduler.get_backend(device)
                backend.kernel_proxy_cls = KernelProxy
        return nodes


def _elements(node: Any) -> int:
    try:
        size = node.node.get_numel()
    except NotImplementedError:  # of an operation with several results, as sort
        return 0
    return int(V.graph.sizevars.optimization_hint(size, fallback=1 << 20))


def _wait(node: Any, other: Any) -> None:
    """Make a node depend on another one that it does not read."""
    for name in other.get_buffer_names():
        node.add_fake_dep(WeakDep(name, mutating_buf=name, is_fake=True))
    node.ancestors |= other.ancestors | {other.get_name()}
