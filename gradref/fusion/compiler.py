"""torch.compile as the fused kernels use it: any length, passes of our own, a call to replay."""

from __future__ import annotations

import functools
import importlib
import itertools
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
import torch._inductor
import torch.fx
from torch import Tensor

from gradref.fusion.passes import CommonSubexpressionElimination
from gradref.fusion.private import mark_dynamic

CODEGEN = "gradref.fusion.codegen"
"""The optional part: our C++ code generator, made of private classes of inductor's."""

CODEGEN_VERSIONS = (2, 13), (2, 15)
"""The first and the last torch that the code generator has been tried with."""

_NUMBERS = itertools.count()

Result = TypeVar("Result")


@functools.cache
def code_generator() -> types.ModuleType | None:
    """Return the code generator; None, with one warning, where this torch has no place for it.

    Stock inductor then writes the loops: the same numbers, in more time.
    """
    first, last = CODEGEN_VERSIONS
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    if not first <= version <= last:
        reason = f"it is written for {first[0]}.{first[1]} to {last[0]}.{last[1]}"
    else:
        try:
            return importlib.import_module(CODEGEN)
        except (ImportError, AttributeError, TypeError) as problem:  # a private name is not there
            reason = str(problem)
    words = f"gradref.fuse: no C++ code generator for torch {torch.__version__}: {reason}"
    warnings.warn(f"{words}; inductor's own is used, which is slower", stacklevel=2)
    return None


def _passes() -> dict[str, Any]:
    """Return the passes of our own, as options of inductor's."""
    generator = code_generator()
    return {
        "post_grad_custom_pre_pass": CommonSubexpressionElimination(),
        **({} if generator is None else generator.scheduler_passes()),
    }


@dataclass(frozen=True)
class GraphCall:
    """One call of a compiled graph: of which arguments, with which results."""

    graph: Callable[..., Sequence[Any]]
    arguments: Sequence[Any]
    results: Sequence[Any]


class Compiled(Generic[Result]):
    """``evaluate``, of a dict of tensors and a list of buffers, compiled for any lengths.

    A dict of tuples of tensors, and a list of such tuples, will do as well.
    """

    compilations = 0
    """How many graphs have been compiled in this process."""

    def __init__(self, evaluate: Callable[..., Result], settings: Mapping[str, Any]) -> None:
        def of(tensors: Mapping[str, Any], buffers: Sequence[Any]) -> Result:
            return evaluate(tensors, buffers)

        # Dynamo counts what it compiles by code objects, and by their names remembers what varied.
        code = of.__code__.replace(co_name=f"kernel_{next(_NUMBERS)}")
        apart = types.FunctionType(code, of.__globals__, closure=of.__closure__)
        self._options = {**_passes(), **settings}
        self._compiled = torch.compile(apart, fullgraph=True, backend=self._backend)
        self._is_new = True
        self._latest: GraphCall | None = None

    def _backend(self, graph: torch.fx.GraphModule, examples: Sequence[Any]) -> Callable[..., Any]:
        Compiled.compilations += 1
        compiled: Any = torch._inductor.compile(graph, list(examples), options=self._options)

        def noted(*arguments: Any) -> Any:
            results = compiled(*arguments)
            self._latest = GraphCall(compiled, arguments, results)
            return results

        return noted

    def __call__(
        self, tensors: Mapping[str, Any], buffers: Sequence[Any]
    ) -> tuple[Result, GraphCall | None]:
        """Return the result, and what was called for it on these very tensors: not the first time.

        The first call is of views, whose lengths are marked as varying: a kernel is then compiled
        for any length, and not once for the first and once for the second.
        """
        if not self._is_new:
            result = self._compiled(tensors, buffers)
            graph_call, self._latest = self._latest, None  # it would keep the arrays
            return result, graph_call
        views: dict[int, Tensor] = {}
        result = self._compiled(_views(tensors, views), _views(buffers, views))
        self._is_new, self._latest = False, None
        return result, None


def _views(arrays: Any, known: dict[int, Tensor]) -> Any:
    """Return arrays, as they are nested, as views of any length: one tensor as one view."""
    if isinstance(arrays, Mapping):
        return {name: _views(value, known) for name, value in arrays.items()}
    if isinstance(arrays, Sequence):
        return [_views(value, known) for value in arrays]
    return None if arrays is None else known.setdefault(id(arrays), _of_any_length(arrays))


def _of_any_length(tensor: Tensor) -> Tensor:
    view = tensor.detach()
    for dim in range(view.dim()):
        mark_dynamic(view, dim)
    return view
