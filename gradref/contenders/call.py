"""One call of a kernel, in guarded and poisoned memory, so that misuse of memory shows."""

from __future__ import annotations

import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor

from gradref.contenders.kernel import Kernel, Role
from gradref.contenders.libraries import (
    OF_ALL,
    Graph,
    UnsupportedError,
    Wanted,
    converter,
    derivatives,
)
from gradref.contenders.memory import Guarded, MemoryLayout, Poison, free_zeros_like

CALLS_TOGETHER = 24
"""How often a kernel is called while another thread calls it too."""

Results = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Call:
    """A function of a kernel, and what to call it with.

    ``grad_output`` is the incoming gradient of a backward, ``tangent`` that of a jvp, or the vector
    that the gradient by the array ``along`` is derived with; ``wrt`` holds the positions of the
    arrays that a gradient is wanted for, and ``graph`` says what is done with torch's. ``layouts``
    are those of what is not contiguous, by name. With ``earlier`` there is a call before this one,
    with these contents in the very same tensors; if ``together`` at the same time, by another
    thread. The last of the arrays are passed by the names in ``by_name``.
    """

    kernel: str
    role: Role
    arrays: tuple[Tensor, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    grad_output: Tensor | None = None
    tangent: Tensor | None = None
    wrt: tuple[int, ...] = ()
    along: int = 0
    by_name: tuple[str, ...] = ()
    graph: Graph = "used once"
    layouts: Mapping[str, MemoryLayout] = field(default_factory=dict)
    poisoned: bool = False
    earlier: tuple[Tensor, ...] = ()
    together: bool = False


@dataclass(frozen=True)
class Returned:
    """What a call returned: the results, or why there are none, and what happened to memory.

    ``wrote`` names the arrays that were changed in or next to their memory, ``shares`` those whose
    memory a result shares. The results are ``stale`` if the call before, with other contents in the
    same memory, gave the same bits, and ``overwrites`` says that its results were changed since.
    ``changed`` names what of the state of torch is another than before.
    """

    results: Results = ()
    problem: str = ""
    unsupported: str = ""
    wrote: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    stale: bool = False
    overwrites: bool = False
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Prepared:
    """A call with its arrays in guarded memory."""

    kernel: Kernel
    call: Call
    entered: Mapping[str, Guarded]
    names: Sequence[str]

    @classmethod
    def of(cls, kernel: Kernel, call: Call) -> _Prepared:
        arguments = (*kernel.record.arguments, *call.by_name)
        named = dict(zip(arguments, call.arrays, strict=True))
        parameters = {k: v for k, v in call.keywords.items() if isinstance(v, Tensor)}
        entered = {
            name: Guarded.of(array, call.layouts.get(name, "contiguous"))
            for name, array in {**named, **parameters, **_vectors(call)}.items()
        }
        return cls(kernel, call, entered, list(named))

    @property
    def described(self) -> str:
        """The arrays, by name, dtype and shape."""
        return ", ".join(
            f"{name} {e.tensor.dtype} {tuple(e.tensor.shape)}".replace("torch.", "")
            for name, e in self.entered.items()
        )

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
        return _invoke(self.kernel, self.call, self.names, tensors)

    def write(self, contents: Sequence[Tensor]) -> None:
        """Have the arrays hold other contents, in the same memory."""
        for name, content in zip(self.names, contents, strict=True):
            entered = self.entered[name]
            entered.tensor.copy_(content)
            entered.before.copy_(entered.buffer)
        for name, vector in _vectors(self.call).items():
            self.entered[name].tensor.copy_(vector)


def _vectors(call: Call) -> dict[str, Tensor]:
    """Return the vectors of a call by their names."""
    known = {"grad_output": call.grad_output, "tangent": call.tangent}
    return {name: vector for name, vector in known.items() if vector is not None}


def perform(kernel: Kernel, call: Call) -> Returned:
    """Make a call and return what it returned; an exception of the kernel is an answer as well."""
    prepared = _Prepared.of(kernel, call)
    torch.rand(1)  # else a seed that each call sets anew would be there already
    held, earlier, state = Results(), Results(), _state()
    try:
        if call.earlier and not call.together:
            prepared.write(call.earlier)
            held = prepared.invoke()
            earlier = _copies(held)
            prepared.write(call.arrays)
        if not call.poisoned:
            free_zeros_like(call.arrays)
        with Poison(call.poisoned):
            raw = _beside_another(prepared) if call.together else prepared.invoke()
        results = _copies(raw)
    except UnsupportedError as reason:
        return Returned(unsupported=str(reason))
    except UnsteadyError:
        return Returned(problem="different results while another thread calls it too")
    except Exception as problem:
        words = f"raises {type(problem).__name__}: {problem}".split("\n")[0] + _frame(problem)
        words += f", called with {prepared.described}"
        if isinstance(problem, NotImplementedError) or "not implemented" in words:
            return Returned(unsupported=words)
        return Returned(problem=words)
    return Returned(
        results,
        wrote=prepared.wrote(),
        shares=prepared.shares(raw),
        stale=bool(held) and _is_stale(earlier, results),
        changed=tuple(name for name, was in _state().items() if was != state[name]),
        overwrites=bool(held) and not kernel.contract.in_place and not _are_the_same(held, earlier),
    )


def _state() -> dict[str, Any]:
    """Return what of torch's state a kernel has to leave alone."""
    return {
        "the random numbers": torch.get_rng_state().numpy().tobytes(),
        "the default dtype": torch.get_default_dtype(),
        "whether gradients are computed": torch.is_grad_enabled(),
        "the number of threads": torch.get_num_threads(),
    }


_NOT_THEIRS = tuple(
    str(Path(folder))
    for folder in (
        Path(__file__).parents[1],
        Path(torch.__file__).parent,
        sysconfig.get_path("stdlib"),
    )
)
"""Folders of which no line says where somebody's mistake is."""


def _frame(problem: Exception) -> str:
    """Return the last line of somebody's file that an exception came through, if there is one."""
    frames = traceback.extract_tb(problem.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith(("<", *_NOT_THEIRS))]
    return f" ({Path(theirs[-1].filename).name}:{theirs[-1].lineno})" if theirs else ""


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
            others = pool.submit(go_on)
            try:
                found = []
                for i in range(CALLS_TOGETHER):
                    prepared.write(call.arrays)
                    found.append(_copies(prepared.invoke()))
                    time.sleep(1e-3 * (i % 5))  # or the threads may stay in step
            finally:
                over.set()
            others.result()  # what it raises there
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


class UnsteadyError(Exception):
    """A kernel gives different results for the same call."""


def _taking(function: Callable[..., Any], by_name: Sequence[str]) -> Callable[..., Any]:
    """Return a function that takes the last of its arrays by name as one that does not."""
    if not by_name:
        return function

    def call(*arrays: Any, **keywords: Any) -> Any:
        count = len(arrays) - len(by_name)
        named = dict(zip(by_name, arrays[count:], strict=True))
        return function(*arrays[:count], **named, **keywords)

    return call


def _on_copies(function: Callable[..., Any], written: Sequence[bool], *arrays: Any) -> Any:
    """Call a function with copies of what it writes into: torch forbids that of a leaf."""
    return function(*(x.clone() if w else x for x, w in zip(arrays, written, strict=True)))


def _invoke(
    kernel: Kernel,
    call: Call,
    names: Sequence[str],
    tensors: Mapping[str, Tensor],
) -> Results:
    """Return the results of a call: the value, or a gradient for each of ``wrt``."""
    function = _taking(kernel.functions[call.role], call.by_name)
    into, back = converter(kernel.library, is_reversed="reversed" in call.layouts.values())
    keywords = {k: into(tensors[k]) if k in tensors else v for k, v in call.keywords.items()}
    given = [into(tensors[name]) for name in names]
    vectors = {name: into(tensors[name]) for name in _vectors(call)}
    if call.graph == OF_ALL and not vectors:
        given = [array.requires_grad_(array.is_floating_point()) for array in given]
    if call.role == "function" and vectors:
        written = [name in kernel.contract.in_place for name in names]
        of_arrays = partial(_on_copies, partial(function, **keywords), written)
        differentiated = derivatives(kernel.library)
        wanted = Wanted(call.wrt, along=call.along, graph=call.graph, **vectors)
        found = differentiated(of_arrays, given, wanted)
        return tuple(None if result is None else back(result) for result in found)
    if call.role == "backward":
        result = function(vectors["grad_output"], *given, **keywords)
        gradients = result if isinstance(result, (tuple, list)) else (result,)
        return tuple(
            back(gradients[i]) if i < len(gradients) and gradients[i] is not None else None
            for i in call.wrt
        )
    if call.role == "jvp":
        return (back(function(*given, vectors["tangent"], **keywords)),)
    if call.role == "value_and_gradient":
        value, gradient = function(*given, **keywords)
        first = gradient[0] if isinstance(gradient, (tuple, list)) else gradient
        return back(value), back(first)
    return (back(function(*given, **keywords)),)
