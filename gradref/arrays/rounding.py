"""The dtypes of formulas and results: evaluated wide, rounded once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

WIDE = torch.float64
"""The dtype that formulas are evaluated in, except within :func:`native`."""

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""The dtypes that a result can have."""

_EXPONENT_BITS = 0x7FF0000000000000


def round_once(wide: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float64 to ``dtype``, to nearest even, in one step.

    torch converts float64 to a 16-bit format through float32, which rounds twice. Adding and
    subtracting 1.5·2⁵² ulp of ``dtype`` makes the float64 adder round at the last bit of ``dtype``
    instead; the sign of a zero is lost in that and copied back.
    """
    if dtype in (torch.float64, torch.float32):
        return wide.to(dtype)
    info = torch.finfo(dtype)
    shift = binade(wide).clamp(info.smallest_normal, info.max) * (info.eps * 1.5 * 2.0**52)
    return ((wide + shift) - shift).copysign(wide).to(dtype)


def binade(wide: Tensor) -> Tensor:
    """Return the greatest power of two up to the size of each float64: 0 for subnormal numbers."""
    return (wide.view(torch.int64) & _EXPONENT_BITS).view(WIDE)


def widen(tensor: Tensor) -> Tensor:
    """Return a floating tensor in the dtype that formulas are evaluated in; indices as they are."""
    return tensor.to(evaluated_in(tensor.dtype)) if tensor.is_floating_point() else tensor


def narrowed(result: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a result rounded to ``dtype``, once, from the dtype that it was evaluated in."""
    return round_once(result, dtype) if result.dtype is WIDE else result.to(dtype)


class _Evaluation(threading.local):
    """Whether formulas are evaluated natively, in each thread; only :func:`native` changes it.

    The class has no attribute of that name: dynamo, in torch 2.9, would read it in every thread.
    """

    def __init__(self) -> None:
        self.is_native = False


_EVALUATION = _Evaluation()


def evaluated_in(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that arrays of ``dtype`` are widened to: within :func:`native` float32.

    Else, and for float64, it is float64.
    """
    return torch.float32 if _EVALUATION.is_native and dtype is not WIDE else WIDE


@contextlib.contextmanager
def native() -> Iterator[None]:
    """Evaluate float32 and 16 bits in float32 inside the ``with`` block, as fast kernels do."""
    before = _EVALUATION.is_native
    _EVALUATION.is_native = True
    try:
        yield
    finally:
        _EVALUATION.is_native = before
