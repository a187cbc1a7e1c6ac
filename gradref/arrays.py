"""The boundary: arrays of any library in, the same kind out; evaluated wide, rounded once.

A formula only ever sees float64 tensors of at most a few cache-sized blocks, with the coupled
dimension (classes, or the ``dim`` of a softmax) last. Everything that makes it usable on a
bfloat16 tensor, a transposed view, a NumPy array or a Python float happens here.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
import torch
import torch.utils.dlpack
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

WIDE = torch.float64
"""The dtype every formula is evaluated in."""

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""The dtypes a result can have."""

BLOCK = 1 << 16
"""Elements evaluated at a time: the float64 temporaries of one block stay in the cache."""

_EXPONENT_BITS = 0x7FF0000000000000
_Restore = Callable[[Tensor], Any]


def reject(argument: str, got: object, wants: str, error: type[Exception] = ValueError) -> NoReturn:
    """Raise ``error`` with the argument's name, what it got and what it wants."""
    raise error(f"{argument}: got {got}, wants {wants}")


def describe(value: object) -> str:
    """Shape, dtype and kind of an array, or the value itself, for an error message."""
    if isinstance(value, (Tensor, np.ndarray)):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a {dtype} {kind} of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r}"


# --- the final rounding ----------------------------------------------------------------------


def round_once(wide: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float64 to ``dtype``, to nearest even, in one step.

    torch converts float64 to a 16-bit format through float32, which rounds twice. Adding and
    subtracting 1.5·2⁵² quanta makes the float64 adder round at the last bit of ``dtype`` instead;
    the sum loses the sign of a zero, which is copied back.
    """
    if dtype in (torch.float64, torch.float32):
        return wide.to(dtype)
    info = torch.finfo(dtype)
    binade = (wide.view(torch.int64) & _EXPONENT_BITS).view(WIDE)
    shift = binade.clamp(info.smallest_normal, info.max) * (info.eps * 1.5 * 2.0**52)
    return ((wide + shift) - shift).copysign(wide).to(dtype)


# --- other libraries in and out ----------------------------------------------------------------


def enter(argument: str, value: Any) -> tuple[Tensor, _Restore]:
    """``value`` as a tensor on the same memory, and what turns a result into its kind."""
    if isinstance(value, Tensor):
        return _enter_tensor(argument, value), lambda result: result
    if isinstance(value, (np.ndarray, np.generic)):
        return _enter_numpy(argument, np.asanyarray(value)), lambda result: result.numpy()[()]
    if isinstance(value, (bool, int, float)):
        if abs(value) > sys.float_info.max and value not in (math.inf, -math.inf):
            reject(argument, "an int beyond every float", "a tensor, an array or a float")
        return torch.tensor(float(value), dtype=WIDE), lambda result: float(result)
    if hasattr(value, "__dlpack__") and hasattr(value, "__array_namespace__"):
        namespace = value.__array_namespace__()
        return _enter_tensor(argument, torch.utils.dlpack.from_dlpack(value)), namespace.from_dlpack
    return reject(argument, describe(value), "a tensor, an array or a float", TypeError)


def _enter_tensor(argument: str, value: Tensor) -> Tensor:
    if value.layout is not torch.strided:
        reject(argument, f"a {value.layout} tensor", "a dense tensor", TypeError)
    if is_differentiated(value):
        reject(
            argument,
            "a tensor that torch differentiates",
            f"{argument}.detach() (the result carries no graph), or the function through "
            "gradref.as_autograd",
        )
    if value.dtype in FLOATS:
        return value
    if value.dtype.is_floating_point or value.dtype.is_complex:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
        reject(argument, describe(value), f"one of {names}, or integers", TypeError)
    return value


def is_differentiated(value: Tensor) -> bool:
    """Whether torch would follow what is computed from ``value``, backward or forward."""
    if torch.compiler.is_compiling():
        return value.requires_grad and torch.is_grad_enabled()
    if torch._C._is_fwd_grad_enabled():  # there is no public name for it
        tangent = unpack_dual(value).tangent  # type: ignore[no-untyped-call]  # torch's is untyped
        if tangent is not None:
            return True
    return value.requires_grad and torch.is_grad_enabled()


def _enter_numpy(argument: str, value: np.ndarray[Any, Any]) -> Tensor:
    if value.dtype.kind not in "fiub":
        reject(argument, describe(value), "floats or integers", TypeError)
    if value.dtype.kind == "f" and value.dtype.itemsize > 8:
        reject(argument, describe(value), "float64, float32 or float16", TypeError)
    if isinstance(value, np.ma.MaskedArray):
        reject(argument, "a masked array", "one without a mask", TypeError)
    if not (value.flags.writeable and _shareable(value)):
        value = value.astype(value.dtype.newbyteorder("="))
    return torch.from_numpy(value)


def _shareable(value: np.ndarray[Any, Any]) -> bool:
    """Whether torch can use the memory: native numbers in whole, positive steps."""
    whole = all(step >= 0 and step % value.itemsize == 0 for step in value.strides)
    return value.dtype.isnative and whole


def to_float(tensor: Tensor, like: Any) -> Tensor:
    """Promote integers as the library of ``like`` does for a transcendental function."""
    if tensor.is_floating_point():
        return tensor
    if isinstance(like, (np.ndarray, np.generic)):
        promoted = np.exp(np.zeros(0, dtype=like.dtype)).dtype
        return tensor.to(torch.from_numpy(np.zeros(0, dtype=promoted)).dtype)
    return tensor.to(torch.get_default_dtype())


# --- out= --------------------------------------------------------------------------------------


def enter_out(
    out: Any, like: Any, shape: Sequence[int], dtype: torch.dtype, inputs: Mapping[str, Tensor]
) -> Tensor | None:
    """``out``, if given, as a tensor, after every check: nothing is written before them."""
    if out is None:
        return None
    kind = Tensor if isinstance(like, Tensor) else np.ndarray
    if not isinstance(out, kind):
        reject("out", describe(out), f"a {kind.__name__}, as the input is", TypeError)
    if isinstance(out, np.ndarray):
        if not out.flags.writeable:
            reject("out", "a read-only array", "a writable one")
        if not _shareable(out):
            reject("out", "an array of odd strides or byte order", "one that torch can share")
    tensor: Tensor = torch.from_numpy(out) if isinstance(out, np.ndarray) else out
    if tensor.requires_grad or tensor.layout is not torch.strided:
        reject("out", "a tensor that requires grad or is sparse", "a plain dense one")
    device = next(iter(inputs.values())).device
    if tensor.shape != tuple(shape):
        reject("out", f"shape {tuple(tensor.shape)}", f"shape {tuple(shape)}")
    if tensor.dtype != dtype:
        reject("out", str(tensor.dtype), str(dtype), TypeError)
    if tensor.device != device:
        reject("out", f"device {tensor.device}", f"device {device}")
    strides = zip(tensor.stride(), tensor.shape, strict=True)
    if any(stride == 0 and size > 1 for stride, size in strides):
        reject("out", "a tensor that overlaps itself", "one with memory of its own")
    place = extent(tensor)
    for name, array in inputs.items():
        if overlap(place, extent(array)) and not is_same_view(tensor, array):
            reject("out", f"memory that partly overlaps {name}", f"{name} itself or other memory")
    return tensor


def is_same_view(a: Tensor, b: Tensor) -> bool:
    """Whether every block of one is that of the other, and so is read before it is written."""
    return (a.data_ptr(), a.shape, a.stride()) == (b.data_ptr(), b.shape, b.stride())


def extent(t: Tensor) -> tuple[int, int]:
    """Where its memory begins and ends."""
    first = t.data_ptr()
    if t.is_contiguous() or not t.numel():
        return first, first + t.nbytes
    last = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    return first, first + (last + 1) * t.element_size()


def overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two extents have memory in common."""
    return a[0] < b[1] and b[0] < a[1]


# --- blocks --------------------------------------------------------------------------------------


Extent = Literal["element", "row", "class", "square", "whole"]
"""How far an array reaches: over the input's elements, its rows, its classes, rows × classes², or
not at all, being one number for the whole of it."""


@dataclass(frozen=True)
class Layout:
    """The input's shape and its coupled dimension, if any, seen as rows.

    Canonical arrays have the leading shape ``(elements,)`` where nothing is coupled, else that of
    the rows, ``(before,)`` or ``(before, after)``, and the coupled dimension last.
    """

    shape: tuple[int, ...]
    axis: int | None

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

    def shape_of(self, extent: Extent) -> tuple[int, ...]:
        """The shape a user sees for an array of this extent."""
        if extent == "whole":
            return ()
        if extent == "class":
            return (self.classes,)
        if extent == "element" or self.axis is None:
            return self.shape
        row = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        return (*row, self.classes, self.classes) if extent == "square" else row

    def canonical(self, array: Tensor, extent: Extent) -> Tensor:
        """``array`` with the leading shape first: a view wherever the strides allow one."""
        if extent in ("class", "whole"):
            return array
        if extent == "element" and len(self.lead) == 2:
            before, after = self.lead
            return array.reshape(before, self.classes, after).transpose(1, 2)
        inner = {"row": (), "element": (self.classes,), "square": (self.classes, self.classes)}
        shape = (*self.lead, *(() if self.axis is None else inner[extent]))
        return array if array.shape == shape else array.reshape(shape)

    def restore(self, canonical: Tensor, extent: Extent) -> Tensor:
        """The inverse of :meth:`canonical`."""
        if extent == "element" and len(self.lead) == 2:
            canonical = canonical.transpose(1, 2)
        shape = self.shape_of(extent)
        return canonical if canonical.shape == shape else canonical.reshape(shape)

    def blocks(self, extent: Extent) -> Iterator[tuple[slice, ...]]:
        """Slices of the leading shape, each about ``BLOCK`` elements of a result; none for all."""
        width = self.classes**2 if extent == "square" else self.classes
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
    formula: Callable[..., Tensor], layout: Layout, inputs: Inputs, extent: Extent
) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
    """``formula`` of float64 arrays, one block after the other."""
    canonical = {
        name: (layout.canonical(array, extent), extent) for name, (array, extent) in inputs.items()
    }
    for block in layout.blocks(extent):
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
    """``formula`` of every block, rounded once to ``dtype``, into ``out`` or fresh memory."""
    first, _ = next(iter(inputs.values()))
    evaluated = _evaluate(formula, layout, inputs, extent)
    results = ((block, narrowed(result, dtype)) for block, result in evaluated)
    if out is None and len(list(itertools.islice(layout.blocks(extent), 2))) == 1:
        return layout.restore(next(results)[1], extent)
    direct = out is not None and out.is_contiguous()
    result = (
        out if out is not None and direct else first.new_empty(layout.shape_of(extent), dtype=dtype)
    )
    into = layout.canonical(result, extent)
    for block, narrow in results:
        into[block] = narrow
    return result if out is None or direct else out.copy_(result)


def total(formula: Callable[..., Tensor], layout: Layout, inputs: Inputs) -> Tensor:
    """The float64 sum of ``formula`` over every block."""
    return torch.stack([wide.sum() for _, wide in _evaluate(formula, layout, inputs, "row")]).sum()


def widen(tensor: Tensor) -> Tensor:
    """Floating tensors in the dtype that formulas are evaluated in; indices as they are."""
    return tensor.to(evaluated_in(tensor.dtype)) if tensor.is_floating_point() else tensor


def narrowed(result: Tensor, dtype: torch.dtype) -> Tensor:
    """A result in ``dtype``, rounded once from what it was evaluated in."""
    return round_once(result, dtype) if result.dtype is WIDE else result.to(dtype)


# --- what a formula is evaluated in -----------------------------------------------------------


class _Evaluation(threading.local):
    """Whether formulas are evaluated in the native dtype; only :func:`native` changes it."""

    is_native = False


_EVALUATION = _Evaluation()


def evaluated_in(dtype: torch.dtype) -> torch.dtype:
    """float64; where it is native, float32 for that and for 16 bits."""
    return torch.float32 if _EVALUATION.is_native and dtype is not WIDE else WIDE


@contextlib.contextmanager
def native() -> Iterator[None]:
    """Evaluate float32 and 16 bits in float32, as fast kernels do, and not in float64."""
    before = _EVALUATION.is_native
    _EVALUATION.is_native = True
    try:
        yield
    finally:
        _EVALUATION.is_native = before
