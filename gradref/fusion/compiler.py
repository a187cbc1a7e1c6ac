"""torch.compile as the fused kernels use it, with two passes of our own."""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import torch.fx
from torch import Tensor
from torch._dynamo import maybe_mark_dynamic
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters
from torch._inductor import custom_graph_pass
from torch._inductor.compile_fx import compile_fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch._inductor.dependencies import WeakDep
from torch._inductor.exc import InductorError
from torch._inductor.virtualized import V

TracingError, CompilingError = TorchDynamoException, InductorError

_SchedulerPass: Any = getattr(custom_graph_pass, "CustomSchedulerPass", object)
"""An older torch has none, and does not order its loops for us."""

SOURCES = tuple(str(Path(__file__).with_name(name)) for name in ("compiler.py", "codegen.py"))
"""What a kernel in inductor's cache depends on, besides its graph."""

_NUMBERS = itertools.count()

Result = TypeVar("Result")


def compilations() -> int:
    """How many graphs have been compiled in this process."""
    return int(counters["stats"]["unique_graphs"])


SMALL = 1 << 15
"""Elements up to which two threads would take longer to meet than to compute."""


def settings(elements: int, is_native: bool) -> dict[str, Any]:
    """How inductor compiles a kernel: for one thread or all; a·b + c in one rounding, or in two.

    In float64 in two, as the plain call, whose results it has.
    """
    threads = {"cpp.threads": 1} if elements <= SMALL else {}
    contract = {"cpp.enable_floating_point_contract_flag": "fast"} if is_native else {}
    return threads | contract


@dataclass(frozen=True)
class Run:
    """What a kernel has run: a compiled graph, of which arguments and with which results."""

    graph: Callable[..., Sequence[Any]]
    arguments: Sequence[Any]
    results: Sequence[Any]


class Kernel(Generic[Result]):
    """``evaluate``, of a dict of tensors and a list of buffers, compiled for any lengths."""

    def __init__(self, evaluate: Callable[..., Result], settings: Mapping[str, Any]) -> None:
        def of(tensors: Mapping[str, Tensor], buffers: Sequence[Tensor | None]) -> Result:
            return evaluate(tensors, buffers)

        # Dynamo counts what it compiles by code objects, and by their names remembers what varied.
        code = of.__code__.replace(co_name=f"kernel_{next(_NUMBERS)}")
        apart = types.FunctionType(code, of.__globals__, closure=of.__closure__)
        passes: dict[str, Any] = {"post_grad_custom_pre_pass": OnceEach()}
        if _SchedulerPass is not object:
            passes["_pre_fusion_custom_pass"] = LossLast()
            passes["_post_fusion_custom_pass"] = VectorCode()
        self._options = {**passes, **settings}
        self._compiled = torch.compile(apart, fullgraph=True, backend=self._backend)
        self._is_new = True
        self._latest: Run | None = None

    def _backend(self, graph: torch.fx.GraphModule, examples: Sequence[Any]) -> Callable[..., Any]:
        compiled: Any = compile_fx(graph, examples, config_patches=self._options)

        def noted(*arguments: Any) -> Any:
            results = compiled(*arguments)
            self._latest = Run(compiled, arguments, results)
            return results

        return noted

    def __call__(
        self, tensors: Mapping[str, Tensor], buffers: Sequence[Tensor | None]
    ) -> tuple[Result, Run | None]:
        """The result, and what was run for it on these very tensors: nothing the first time."""
        if not self._is_new:
            result = self._compiled(tensors, buffers)
            run, self._latest = self._latest, None  # it would keep the arrays
            return result, run
        views = {id(t): _of_any_length(t) for t in (*tensors.values(), *buffers) if t is not None}
        result = self._compiled(
            {name: views[id(t)] for name, t in tensors.items()},
            [None if b is None else views[id(b)] for b in buffers],
        )
        self._is_new, self._latest = False, None
        return result, None


def _of_any_length(tensor: Tensor) -> Tensor:
    view = tensor.detach()
    for dim in range(view.dim()):
        maybe_mark_dynamic(view, dim)
    return view


class OfOurs:
    """A pass whose result depends on this package."""

    def uuid(self) -> bytes:
        """What a cached kernel depends on."""
        return get_hash_for_files(SOURCES)


class OnceEach(OfOurs, CustomGraphPass):
    """Compute every expression once: a value and its gradient share the sums of their rows.

    And nothing that changes nothing: a product with 1, a quotient by it, a sign below a modulus.
    """

    def __call__(self, graph: torch.fx.Graph) -> None:
        """Replace a node by an earlier one that is the same."""
        seen: dict[Any, torch.fx.Node] = {}
        for node in list(graph.nodes):
            if node.op != "call_function" or node.is_impure():
                continue
            try:
                first = _simplified(node) or seen.setdefault(_key(node), node)
            except TypeError:  # an argument that has no hash
                continue
            if first is not node:
                node.replace_all_uses_with(first)
                graph.erase_node(node)


def _simplified(node: Any) -> torch.fx.Node | None:
    """The argument that a node is equal to, if it is; else it is simplified itself."""
    aten = torch.ops.aten
    if node.target is aten.abs.default and node.args[0].target is aten.neg.default:
        node.args = node.args[0].args
    if node.target not in (aten.mul.Tensor, aten.div.Tensor) or node.args[1] != 1:
        return None
    argument: torch.fx.Node = node.args[0]
    return argument if argument.meta["val"].dtype is node.meta["val"].dtype else None


def _key(node: torch.fx.Node) -> Any:
    return node.target, _hashable(node.args), _hashable(node.kwargs)


class LossLast(OfOurs, _SchedulerPass):  # type: ignore[misc]  # it is chosen at run time
    """Take the sum of a loss last, so that a gradient can share the loop over its rows.

    Inductor fuses a sum with elementwise work that comes before it, not after it; and it would
    fuse the sum with the count of the rows, for which the gradient then waits.
    """

    def __call__(self, nodes: list[Any]) -> list[Any]:
        """The nodes; at the end those that no array waits for, a loss and what becomes of it."""
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


class VectorCode(OfOurs, _SchedulerPass):  # type: ignore[misc]  # it is chosen at run time
    """Generate the loops for a CPU by the classes of :mod:`gradref.fusion.codegen`."""

    def __call__(self, nodes: list[Any]) -> list[Any]:
        """The same nodes."""
        from gradref.fusion import codegen  # which an older torch has no place for

        for device in {node.get_device() for node in nodes}:
            if device is not None and device.type == "cpu":
                backend: Any = V.graph.scheduler.get_backend(device)
                backend.kernel_proxy_cls = codegen.KernelProxy
        return nodes


def _elements(node: Any) -> int:
    return int(V.graph.sizevars.optimization_hint(node.node.get_numel(), fallback=1 << 20))


def _wait(node: Any, other: Any) -> None:
    """Let a node come after another one that it does not read."""
    for name in other.get_buffer_names():
        node.add_fake_dep(WeakDep(name, mutating_buf=name, is_fake=True))
    node.ancestors |= other.ancestors | {other.get_name()}


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return tuple((name, _hashable(v)) for name, v in sorted(value.items()))
    return (type(value), value)  # 1 and 1.0 and True are not the same argument
