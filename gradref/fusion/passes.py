"""The pass over the graph of a fused kernel: common-subexpression elimination."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
import torch.fx

from gradref.fusion.private import GraphPass

SOURCES = tuple(Path(__file__).with_name(name) for name in ("passes.py", "codegen.py"))
"""What writes a kernel in inductor's cache, besides its graph and its settings."""


class CachedBySource:
    """A pass that inductor's cache knows by the source files of this package."""

    def uuid(self) -> bytes:
        """Return what a cached kernel depends on."""
        return hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).digest()


class CommonSubexpressionElimination(CachedBySource, GraphPass):  # type: ignore[misc]  # it is chosen at run time
    """Eliminate common subexpressions: a value and its gradient share the sums of their rows.

    And simplify what changes nothing: a product with 1, a quotient by it, a sign below a modulus.
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
    """Return the argument that a node is equal to, if it is; else simplify the node itself."""
    aten = torch.ops.aten
    if node.target is aten.abs.default and node.args[0].target is aten.neg.default:
        node.args = node.args[0].args
    if node.target not in (aten.mul.Tensor, aten.div.Tensor) or node.args[1] != 1:
        return None
    argument: torch.fx.Node = node.args[0]
    return argument if argument.meta["val"].dtype is node.meta["val"].dtype else None


def _key(node: torch.fx.Node) -> Any:
    return node.target, _hashable(node.args), _hashable(node.kwargs)


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return tuple((name, _hashable(v)) for name, v in sorted(value.items()))
    return (type(value), value)  # 1 and 1.0 and True are not the same argument
