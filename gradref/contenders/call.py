"""One call of a kernel, in guarded and poisoned memory, so that misuse of memory shows."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import import_module
from threading import Event
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from gradref.contenders.kernel import Kernel, Role

MemoryLayout = Literal[
    "contiguous", "transposed", "strided", "offset", "expanded", "broadcast", "reversed"
]
"""How an array lies in memory: "expanded" is one row for all, "broadcast" one element for a row."""

CALLS_TOGETHER = 24
"""How often a kernel is called while another thread calls it too."""

Results = tuple[Tensor | None, ...]

ZEROED = 1 << 16
"""Elements of the largest arrays like which memory is filled with zeros before a call."""

GUARD = 64
"""Elements on either side of an array that no kernel may write to."""


@dataclass(frozen=True)
class Call:
    """A function of a kernel, and what to call it with.

    ``vector`` is the incoming gradient of a backward, or the tangent of a jvp; ``wrt`` holds the
    positions of the arrays that a gradient is wanted for. ``layout`` is that of the arrays,
    ``vector_layout`` that of the vector. With ``earlier`` there is a call before this one, with
    these contents in the very same tensors; if ``together`` at the same time, by another thread.
    """

    kernel: str
    role: Role
    arrays: tuple[Tensor, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    vector: Tensor | None = None
    wrt: tuple[int, ...] = ()
    order: int = 0
    layout: MemoryLayout = "contiguous"
    vector_layout: MemoryLayout = "contiguous"
    poisoned: bool = False
    earlier: tuple[Tensor, ...] = ()
    together: bool = False


@dataclass(frozen=True)
class Returned:
    """What a call returned: the results, or why there are none, and what happened to memory.

    ``wrote`` names the arrays that were changed in or next to their memory, ``shares`` those whose
    memory a result shares. The results are ``stale`` if the call before, with other contents in the
    same memory, gave the same bits, and ``overwrites`` says that its results were changed since.
    """

    results: Results = ()
    problem: str = ""
    unsupported: str = ""
    wrote: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    stale: bool = False
    overwrites: bool = False


@dataclass(frozen=True)
class _Prepared:
    """A call with its arrays in guarded memory."""

    kernel: Kernel
    call: Call
    entered: Mapping[str, _Guarded]
    names: Sequence[str]
    vector: str

    @classmethod
    def of(cls, kernel: Kernel, call: Call) -> _Prepared:
        named = dict(zip(kernel.record.arguments, call.arrays, strict=True))
        parameters = {k: v for k, v in call.keywords.items() if isinstance(v, Tensor)}
        vector = "tangent" if call.role == "jvp" else "grad_output"
        given = {**named, **parameters, **({} if call.vector is None else {vector: call.vector})}
        entered = {
            name: _Guarded.of(array, call.vector_layout if name == vector else call.layout)
            for name, array in given.items()
        }
        return cls(kernel, call, entered, list(named), vector)

    def wrote(self) -> tuple[str, ...]:
        """Return the arrays that were written into, or next to, where that is not declared."""
        in_place = self.kernel.contract.in_place
        return tuple(n for n, e in self.entered.items() if e.changed(but_inside=n in in_place))

    def shares(self, results: Results) -> tuple[str, ...]:
        """Return the arrays in whose memory results lie, where that is not declared."""
        apart = (n for n in self.entered if n not in self.kernel.contract.in_place)
        return tuple(n for n in apart if self.entered[n].is_shared_with(results))

    def invoke(self) -> Results:
        """Return what the kernel gives, in its own memory."""
        tensors = {name: e.tensor for name, e in self.entered.items()}
        return _invoke(self.kernel, self.call, self.names, tensors, self.vector)

    def write(self, contents: Sequence[Tensor]) -> None:
        """Have the arrays hold other contents, in the same memory."""
        for name, content in zip(self.names, contents, strict=True):
            entered = self.entered[name]
            entered.tensor.copy_(content)
            entered.before.copy_(entered.buffer)


def perform(kernel: Kernel, call: Call) -> Returned:
    """Make a call and return what it returned; an exception of the kernel is an answer as well."""
    prepared = _Prepared.of(kernel, call)
    held, earlier = Results(), Results()
    try:
        if call.earlier and not call.together:
            prepared.write(call.earlier)
            held = prepared.invoke()
            earlier = _copies(held)
            prepared.write(call.arrays)
        if not call.poisoned:
            _free_zeros_like(call.arrays)
        with _Poison(call.poisoned):
            raw = _beside_another(prepared) if call.together else prepared.invoke()
        results = _copies(raw)
    except UnsupportedError as reason:
        return Returned(unsupported=str(reason))
    except UnsteadyError:
        return Returned(problem="different results while another thread calls it too")
    except Exception as problem:
        words = f"raises {type(problem).__name__}: {problem}".split("\n")[0]
        if isinstance(problem, NotImplementedError) or "not implemented" in words:
            return Returned(unsupported=words)
        return Returned(problem=words)
    return Returned(
        results,
        wrote=prepared.wrote(),
        shares=prepared.shares(raw),
        stale=bool(held) and _is_stale(earlier, results),
        overwrites=bool(held) and not kernel.contract.in_place and not _are_the_same(held, earlier),
    )


def _beside_another(prepared: _Prepared) -> Results:
    """Return the results of a call that another thread makes others beside.

    Raise UnsteadyError where the same call has given different ones.
    """
    call = prepared.call
    other = _Prepared.of(prepared.kernel, replace(call, arrays=call.earlier, earlier=()))
    before, over = sys.getswitchinterval(), Event()

    def go_on() -> None:
        while not over.is_set():
            other.invoke()

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(go_on)
            try:
                found = []
                for i in range(CALLS_TOGETHER):
                    prepared.write(call.arrays)
                    found.append(_copies(prepared.invoke()))
                    time.sleep(1e-3 * (i % 5))  # or the threads may stay in step
            finally:
                over.set()
    finally:
        sys.setswitchinterval(before)
    if any(not _are_the_same(found[0], results) for results in found):
        raise UnsteadyError
    return found[0]


def _are_the_same(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> bool:
    pairs = zip(_copies(a), _copies(b), strict=True)
    return all(
        x is y or (x is not None and y is not None and torch.equal(x.nan_to_num(), y.nan_to_num()))
        for x, y in pairs
    )


def _copies(results: Sequence[Tensor | None]) -> Results:
    return tuple(None if r is None else r.detach().cpu().clone() for r in results)


def _is_stale(earlier: Sequence[Tensor | None], results: Sequence[Tensor | None]) -> bool:
    """Return whether the results are the earlier ones, each of which has different elements."""
    pairs = [(a, b) for a, b in zip(earlier, results, strict=True) if a is not None]
    vary = all(a.numel() > 1 and (a != a.reshape(-1)[0]).any() for a, _ in pairs)
    return vary and all(b is not None and torch.equal(a, b) for a, b in pairs)


ONLY_ONCE = ("not implemented", "does not require grad", "once_differentiable")
"""What torch says of a function that has no further derivative."""


class UnsupportedError(Exception):
    """A kernel does not offer what is asked of it: a dtype, a derivative, a layout."""


class UnsteadyError(Exception):
    """A kernel gives different results for the same call."""


@dataclass(frozen=True)
class _Guarded:
    """An array as the kernel sees it, the buffer with its guards, and a copy of that buffer."""

    tensor: Tensor
    buffer: Tensor
    before: Tensor

    @classmethod
    def of(cls, array: Tensor, layout: MemoryLayout) -> _Guarded:
        buffer, tensor = _laid_out(array, layout)
        return cls(tensor, buffer, buffer.clone())

    def is_shared_with(self, results: Sequence[Tensor | None]) -> bool:
        """Return whether a result lies in the memory of the array."""
        own = self.buffer.untyped_storage().data_ptr()
        return bool(self.buffer.numel()) and any(
            r is not None and r.numel() and r.untyped_storage().data_ptr() == own for r in results
        )

    def changed(self, *, but_inside: bool) -> bool:
        """Return whether any bit of the guards has changed, or of the array, which may be written.

        ``but_inside`` is for an array that the kernel has declared to write into.
        """
        if but_inside:
            inside = self.before.as_strided(
                self.tensor.shape, self.tensor.stride(), self.tensor.storage_offset()
            )
            inside.copy_(self.tensor.detach())
        if self.buffer.is_floating_point():
            integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[self.buffer.itemsize]
            return not torch.equal(
                self.buffer.detach().view(integer), self.before.detach().view(integer)
            )
        return not torch.equal(self.buffer, self.before)


def _laid_out(array: Tensor, layout: MemoryLayout) -> tuple[Tensor, Tensor]:
    """Return a buffer with guards, and in it the array in a memory layout."""
    sentinel = math.nan if array.is_floating_point() else 0
    shape = array.shape
    step = {"strided": 2}.get(layout, 1)
    offset = GUARD + (3 if layout == "offset" else 0)
    span = array.numel() * step
    buffer = array.new_full((span + 2 * GUARD + 3,), sentinel)
    inner = buffer[offset : offset + span : step] if span else buffer[:0]
    if layout == "transposed" and array.dim() >= 2:
        view = inner.view(*shape[:-2], shape[-1], shape[-2]).transpose(-1, -2)
    else:
        view = inner.view(shape)
    view.copy_(array.flip(list(range(array.dim()))) if layout == "reversed" else array)
    if layout == "expanded" and array.dim() >= 1 and shape[0] > 1:
        view = view[:1].expand(shape)
    if layout == "broadcast" and array.dim() >= 1 and shape[-1] > 1:
        view = view[..., :1].expand(shape)
    return buffer, view


def _free_zeros_like(arrays: Sequence[Tensor]) -> None:
    """Overwrite freed memory with zeros: else the next call may be given NaN of a poisoned one."""
    few = (array for array in arrays if array.numel() <= ZEROED)
    _ = [torch.zeros_like(array) for array in few for _ in range(64)]


class _Poison:
    """Have torch fill fresh memory with NaN while a kernel runs; NumPy may be given such memory."""

    def __init__(self, active: bool) -> None:
        self._active = active

    def __enter__(self) -> None:
        if self._active:
            # torch.use_deterministic_algorithms would import inductor, which takes a second, and
            # change how it compiles the kernel.
            self._was = torch.get_deterministic_debug_mode()
            torch.set_deterministic_debug_mode("warn")
            setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)  # noqa: B010

    def __exit__(self, *problem: object) -> None:
        if self._active:
            torch.set_deterministic_debug_mode(self._was)


Convert = tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]


def _converter(library: str, layout: MemoryLayout) -> Convert:
    """Return conversions to a library's arrays and back, on the same memory where possible."""
    if library == "numpy":

        def to_numpy(tensor: Tensor) -> Any:
            array = _numpy_bfloat16(tensor) if tensor.dtype is torch.bfloat16 else tensor.numpy()
            return np.flip(array) if layout == "reversed" else array

        return to_numpy, _of_numpy
    if library == "jax":
        from jax import dlpack  # pyright: ignore[reportMissingImports]  # where it is installed

        def to_jax(tensor: Tensor) -> Any:
            try:
                array = dlpack.from_dlpack(tensor)
            except Exception:  # whatever the compiler behind it raises
                if tensor.is_contiguous():
                    raise
                raise UnsupportedError("JAX does not take its strides") from None
            if array.dtype.itemsize != tensor.itemsize:
                raise UnsupportedError("JAX has 64 bits with jax_enable_x64 alone")
            return array

        return to_jax, from_dlpack
    return lambda tensor: tensor, _tensor


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


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"returned {type(value).__name__}, wants a tensor")
    if value.is_meta:
        raise TypeError("returned a tensor without memory, on the meta device")
    return value


def _invoke(
    kernel: Kernel,
    call: Call,
    names: Sequence[str],
    tensors: Mapping[str, Tensor],
    vector: str,
) -> Results:
    """Return the results of a call: the value, or a gradient for each of ``wrt``."""
    function = kernel.functions[call.role]
    if kernel.library == "jax":
        _forget_compiled()
    into, back = _converter(kernel.library, call.layout)
    keywords = {k: into(tensors[k]) if k in tensors else v for k, v in call.keywords.items()}
    given = [into(tensors[name]) for name in names]
    if call.role == "function" and call.order and kernel.library == "jax":
        found = _differentiated_by_jax(function, call, given, into(tensors[vector]), keywords)
        return tuple(map(back, found))
    if call.role == "function" and call.order:
        in_place = [name in kernel.contract.in_place for name in names]
        return _differentiated(function, call, given, tensors[vector], keywords, in_place)
    if call.role == "backward":
        result = function(into(tensors[vector]), *given, **keywords)
        gradients = result if isinstance(result, (tuple, list)) else (result,)
        return tuple(
            back(gradients[i]) if i < len(gradients) and gradients[i] is not None else None
            for i in call.wrt
        )
    if call.role == "jvp":
        return (back(function(*given, into(tensors[vector]), **keywords)),)
    if call.role == "value_and_gradient":
        value, gradient = function(*given, **keywords)
        first = gradient[0] if isinstance(gradient, (tuple, list)) else gradient
        return back(value), back(first)
    return (back(function(*given, **keywords)),)


def _forget_compiled() -> None:
    """Have JAX forget, now and then, what it has compiled: about 17 MB for every shape."""
    if next(_CALLS_OF_JAX) % 64 == 0:
        import_module("jax").clear_caches()


_CALLS_OF_JAX = itertools.count(1)


def _differentiated_by_jax(
    function: Callable[..., Any],
    call: Call,
    arrays: Sequence[Any],
    vector: Any,
    keywords: Mapping[str, Any],
) -> Sequence[Any]:
    """Return first or second derivatives of a function, by JAX's transformations."""
    import jax  # pyright: ignore[reportMissingImports]  # where it is installed

    def of_wanted(*wanted: Any) -> Any:
        given = list(arrays)
        for i, array in zip(call.wrt, wanted, strict=True):
            given[i] = array
        return function(*given, **keywords)

    def slopes(*wanted: Any) -> Any:
        value, pull = jax.vjp(of_wanted, *wanted)
        return pull(vector.astype(value.dtype).reshape(value.shape))

    wanted = [arrays[i] for i in call.wrt]
    if call.order == 1:
        found: Sequence[Any] = slopes(*wanted)
        return found
    return [jax.grad(lambda x: slopes(x)[0].sum())(*wanted)]


def _differentiated(
    function: Callable[..., Any],
    call: Call,
    arrays: list[Tensor],
    vector: Tensor,
    keywords: Mapping[str, Any],
    in_place: Sequence[bool],
) -> Results:
    """Return first or second derivatives of a function, by autograd through it.

    What it writes into is no leaf: torch forbids that.
    """
    leaves = [
        array.detach().requires_grad_() if array.is_floating_point() and i in call.wrt else array
        for i, array in enumerate(arrays)
    ]
    wanted = [leaves[i] for i in call.wrt]
    given = [x.clone() if w else x for x, w in zip(leaves, in_place, strict=True)]
    result = _tensor(function(*given, **keywords))
    if not result.requires_grad:
        raise UnsupportedError("its result carries no graph")
    try:
        first = torch.autograd.grad(
            result, wanted, vector, create_graph=call.order > 1, allow_unused=True
        )
        if call.order == 1:
            return first
        assert first[0] is not None  # an elementwise function depends on its argument
        if not first[0].requires_grad:
            raise UnsupportedError("its derivative carries no graph")
        second = torch.autograd.grad(first[0].sum(), wanted, allow_unused=True)
    except RuntimeError as error:
        if any(words in str(error) for words in ONLY_ONCE):
            raise UnsupportedError(str(error).split("\n")[0]) from None
        raise
    return tuple(
        torch.zeros_like(x) if g is None else g for g, x in zip(second, wanted, strict=True)
    )
