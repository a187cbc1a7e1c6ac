"""Other libraries: their arrays on the same memory, and how they differentiate a function."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from gradref.contenders.memory import MemoryLayout


class UnsupportedError(Exception):
    """A kernel does not offer what is asked of it: a dtype, a derivative, a layout."""


# --- arrays ---------------------------------------------------------------------------------------


Convert = tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]


def converter(library: str, layout: MemoryLayout) -> Convert:
    """Return conversions to a library's arrays and back, on the same memory where possible."""
    if library == "numpy":
        return (_to_numpy_reversed if layout == "reversed" else _to_numpy), _of_numpy
    if library == "jax":
        return _to_jax, from_dlpack
    return lambda tensor: tensor, _as_tensor


def _to_numpy(tensor: Tensor) -> Any:
    return _numpy_bfloat16(tensor) if tensor.dtype is torch.bfloat16 else tensor.numpy()


def _to_numpy_reversed(tensor: Tensor) -> Any:
    return np.flip(_to_numpy(tensor))


def _to_jax(tensor: Tensor) -> Any:
    if next(_TO_JAX) % 128 == 0:
        import_module("jax").clear_caches()  # it keeps about 17 MB of code for every shape
    try:
        array = import_module("jax.dlpack").from_dlpack(tensor)
    except Exception:  # whatever the compiler behind it raises
        if tensor.is_contiguous():
            raise
        raise UnsupportedError("JAX does not take its strides") from None
    if array.dtype.itemsize != tensor.itemsize:
        raise UnsupportedError("JAX has 64 bits with jax_enable_x64 alone")
    return array


_TO_JAX = itertools.count(1)


def _numpy_bfloat16(tensor: Tensor) -> Any:
    """Return an array of the dtype that ml_dtypes adds to NumPy, on the same memory."""
    try:
        import ml_dtypes
    except ImportError:
        raise UnsupportedError("NumPy has no bfloat16 without the package ml_dtypes") from None
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def _of_numpy(value: Any) -> Tensor:
    array = np.asarray(value)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch has no such arrays
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _as_tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"returned {type(value).__name__}, wants a tensor")
    if value.is_nested or value.layout is not torch.strided:
        raise TypeError(f"returned a tensor of layout {value.layout}, wants a dense one")
    if value.is_meta:
        raise TypeError("returned a tensor without memory, on the meta device")
    return value


# --- derivatives ----------------------------------------------------------------------------------


ONLY_ONCE = ("not implemented", "does not require grad", "once_differentiable")
"""What torch says of a function that has no further derivative."""


Differentiated = Callable[
    [Callable[..., Any], Sequence[Any], Sequence[int], Any, int], Sequence[Any]
]
"""The derivatives by some of a function's arrays, with a vector, of an order."""


def derivatives(library: str) -> Differentiated:
    """Return how a library differentiates a function."""
    known: dict[str, Differentiated] = {"torch": _by_torch, "jax": _by_jax}
    if library not in known:
        raise UnsupportedError(f"{library} does not differentiate functions")
    return known[library]


def _by_torch(
    function: Callable[..., Any],
    arrays: Sequence[Tensor],
    wrt: Sequence[int],
    vector: Tensor,
    order: int,
) -> Sequence[Tensor | None]:
    leaves = [
        array.detach().requires_grad_() if array.is_floating_point() and i in wrt else array
        for i, array in enumerate(arrays)
    ]
    wanted = [leaves[i] for i in wrt]
    result = _as_tensor(function(*leaves))
    if not result.requires_grad:
        raise UnsupportedError("its result carries no graph")
    try:
        first = torch.autograd.grad(
            result, wanted, vector, create_graph=order > 1, allow_unused=True
        )
        if order == 1:
            return first
        assert first[0] is not None  # an elementwise function depends on its argument
        if not first[0].requires_grad:
            raise UnsupportedError("its derivative carries no graph")
        second = torch.autograd.grad(first[0].sum(), wanted, allow_unused=True)
    except RuntimeError as error:
        if any(words in str(error) for words in ONLY_ONCE):
            raise UnsupportedError(str(error).split("\n")[0]) from None
        raise
    return [torch.zeros_like(x) if g is None else g for g, x in zip(second, wanted, strict=True)]


def _by_jax(
    function: Callable[..., Any],
    arrays: Sequence[Any],
    wrt: Sequence[int],
    vector: Any,
    order: int,
) -> Sequence[Any]:
    import jax  # pyright: ignore[reportMissingImports]  # where it is installed

    def of_wanted(*wanted: Any) -> Any:
        given = list(arrays)
        for i, array in zip(wrt, wanted, strict=True):
            given[i] = array
        return function(*given)

    def slopes(*wanted: Any) -> Any:
        value, pull = jax.vjp(of_wanted, *wanted)
        return pull(vector.astype(value.dtype).reshape(value.shape))

    wanted = [arrays[i] for i in wrt]
    if order == 1:
        found: Sequence[Any] = slopes(*wanted)
        return found
    return [jax.grad(lambda x: slopes(x)[0].sum())(*wanted)]
