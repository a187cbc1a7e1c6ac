"""Check the arrays of a call, of whatever library, and see them as tensors on the same memory."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
import torch.utils.dlpack
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # there is no public name for it
from torch.autograd.forward_ad import unpack_dual

from gradref.arrays.rounding import FLOATS, WIDE

_Restore = Callable[[Tensor], Any]


def reject(argument: str, got: object, wants: str, error: type[Exception] = ValueError) -> NoReturn:
    """Raise ``error`` with the argument's name, what it got and what it wants."""
    raise error(f"{argument}: got {got}, wants {wants}")


def describe(value: object) -> str:
    """Return dtype, kind and shape of an array, or type and value of anything else, in words."""
    if isinstance(value, (Tensor, np.ndarray)):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a {dtype} {kind} of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r}"


# --- other libraries in and out ----------------------------------------------------------------


def enter(argument: str, value: Any) -> tuple[Tensor, _Restore]:
    """Return ``value`` as a tensor, and the function that turns a result into its kind of array.

    The tensor is on the same memory unless torch cannot use that.
    """
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


def has_no_values(tensor: Tensor) -> bool:
    """Return whether torch is tracing or mapping, when nobody can see what a tensor holds."""
    if torch.compiler.is_compiling() or tensor.is_meta:
        return True
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return True
    return is_functorch_wrapped_tensor(tensor)


def is_differentiated(value: Tensor) -> bool:
    """Return whether torch would differentiate what is computed from ``value``, in either mode."""
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
    """Return whether torch can use the memory: native byte order, strides of 0 or more items."""
    whole = all(step >= 0 and step % value.itemsize == 0 for step in value.strides)
    return value.dtype.isnative and whole


def to_float(tensor: Tensor, like: Any) -> Tensor:
    """Promote integers as the library of ``like`` does in a function such as exp."""
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
    """Return ``out`` as a tensor, None where it is not given; reject it unless the result fits.

    All checks come first: a call that is rejected has written nothing.
    """
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
    place = memory_range(tensor)
    for name, array in inputs.items():
        if overlap(place, memory_range(array)) and not is_same_view(tensor, array):
            reject("out", f"memory that partly overlaps {name}", f"{name} itself or other memory")
    return tensor


def is_same_view(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are one view: then each block is read before it is written."""
    return (a.data_ptr(), a.shape, a.stride()) == (b.data_ptr(), b.shape, b.stride())


def memory_range(t: Tensor) -> tuple[int, int]:
    """Return the memory range of a tensor: its first address and the one past its last."""
    first = t.data_ptr()
    if t.is_contiguous() or not t.numel():
        return first, first + t.nbytes
    last = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    return first, first + (last + 1) * t.element_size()


def overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Return whether two memory ranges have an address in common."""
    return a[0] < b[1] and b[0] < a[1]
