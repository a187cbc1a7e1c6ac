"""Other libraries: their arrays on the same memory, and how they differentiate a function."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack


class UnsupportedError(Exception):
    """A kernel does not offer what is asked of it: a dtype, a derivative, a layout."""


# --- arrays ---------------------------------------------------------------------------------------


Convert = tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]


def converter(library: str, *, is_reversed: bool) -> Convert:
    """Return conversions to a library's arrays and back, on the same memory where possible."""
    if library == "numpy":
        return (_to_numpy_reversed if is_reversed else _to_numpy), _of_numpy
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


Graph = Literal[
    "used once",
    "used twice",
    "of all arguments",
    "with the value overwritten",
    "with the arguments overwritten",
    "of the gradient by grad_output",
]
"""What is done with the graph of a call, none of which changes a gradient.

An elementwise gradient g f′ has the derivative f′ by g, and along g that is the gradient again.
"""

OF_ALL: Graph = "of all arguments"
ALONG_GRAD_OUTPUT: Graph = "of the gradient by grad_output"
OVERWRITTEN: tuple[Graph, ...] = ("with the value overwritten", "with the arguments overwritten")
"""What may raise: torch does where it finds that a saved tensor has changed."""


@dataclass(frozen=True)
class Wanted:
    """Which derivative of a function: by which of its arrays, with which vectors.

    A second derivative is that of the gradient by the array ``along``, with a ``tangent``.
    """

    wrt: Sequence[int]
    grad_output: Any
    along: int = 0
    tangent: Any = None
    graph: Graph = "used once"


Differentiated = Callable[[Callable[..., Any], Sequence[Any], Wanted], Sequence[Any]]
"""The derivatives of a function at some arrays."""


def derivatives(library: str) -> Differentiated:
    """Return how a library differentiates a function."""
    known: dict[str, Differentiated] = {"torch": _by_torch, "jax": _by_jax}
    if library not in known:
        raise UnsupportedError(f"{library} does not differentiate functions")
    return known[library]


def _by_torch(
    function: Callable[..., Any], arrays: Sequence[Tensor], wanted: Wanted
) -> Sequence[Tensor | None]:
    is_second, graph = wanted.tangent is not None, wanted.graph
    needed = {*wanted.wrt, *((wanted.along,) if is_second else ())}
    leaves = [
        array.detach().requires_grad_()
        if array.is_floating_point() and (i in needed or graph == OF_ALL)
        else array
        for i, array in enumerate(arrays)
    ]
    by, vector = [leaves[i] for i in wanted.wrt], wanted.grad_output
    result = _as_tensor(function(*leaves))
    if not result.requires_grad:
        raise UnsupportedError("its result carries no graph")
    if graph in OVERWRITTEN:
        with torch.no_grad():
            for array in (result,) if graph == OVERWRITTEN[0] else leaves:
                array.zero_()
    try:
        if graph == "used twice":
            torch.autograd.grad(result, by, vector, retain_graph=True, allow_unused=True)
        if graph == ALONG_GRAD_OUTPUT:
            return _along_grad_output(result, by, vector)
        if not is_second:
            return torch.autograd.grad(result, by, vector, allow_unused=True)
        return _second_by_torch(result, leaves[wanted.along], by, vector, wanted.tangent)
    except RuntimeError as error:
        if any(words in str(error) for words in ONLY_ONCE):
            raise UnsupportedError(str(error).split("\n")[0]) from None
        raise


def _along_grad_output(result: Tensor, by: Sequence[Tensor], vector: Tensor) -> Sequence[Tensor]:
    leaf = vector.detach().requires_grad_()
    (first, *_) = torch.autograd.grad(result, by, leaf, create_graph=True)
    both = torch.autograd.grad(first, [leaf, *by], vector, allow_unused=True)
    if both[0] is None:
        raise UnsupportedError("its gradient has no derivative by grad_output")
    return both[:1]


def _second_by_torch(
    result: Tensor, along: Tensor, by: Sequence[Tensor], vector: Tensor, tangent: Tensor
) -> Sequence[Tensor]:
    (first,) = torch.autograd.grad(result, along, vector, create_graph=True, allow_unused=True)
    if first is None:
        return [torch.zeros_like(x) for x in by]
    if not first.requires_grad:
        raise UnsupportedError("its derivative carries no graph")
    second = torch.autograd.grad(first, by, tangent, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(second, by, strict=True)]


def _by_jax(function: Callable[..., Any], arrays: Sequence[Any], wanted: Wanted) -> Sequence[Any]:
    import jax  # pyright: ignore[reportMissingImports]  # where it is installed

    def slopes(by: Sequence[int], *at: Any) -> Any:
        def of_some(*some: Any) -> Any:
            given = list(at)
            for i, array in zip(by, some, strict=True):
                given[i] = array
            return function(*given)

        value, pull = jax.vjp(of_some, *(at[i] for i in by))
        return pull(wanted.grad_output.astype(value.dtype).reshape(value.shape))

    if wanted.tangent is None:
        found: Sequence[Any] = slopes(wanted.wrt, *arrays)
        return found

    def along(*at: Any) -> Any:
        return (slopes([wanted.along], *at)[0] * wanted.tangent).sum()

    seconds: Sequence[Any] = jax.grad(along, argnums=tuple(wanted.wrt))(*arrays)
    return seconds
