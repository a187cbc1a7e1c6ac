"""The passes over the graph of a fused kernel: each expression once, no part of a row copied."""

from __future__ import annotations

import hashlib
import operator
from pathlib import Path
from typing import Any

import torch
import torch.fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

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


class SplitsOfJoinedParts(CommonSubexpressionElimination):
    """Take a part itself where parts are joined only to be split again."""

    def __call__(self, graph: torch.fx.Graph) -> None:
        """Replace a piece of what was joined by the part that it is, in the dtype of the piece."""
        for node in list(graph.nodes):
            part = _part(node)
            if part is None:
                continue
            dtype = node.meta["val"].dtype
            if part.meta["val"].dtype is not dtype:
                with graph.inserting_before(node):
                    convert: Any = torch.ops.prims.convert_element_type.default
                    converted = graph.call_function(convert, (part, dtype))
                converted.meta["val"] = node.meta["val"]
                part = converted
            node.replace_all_uses_with(part)
        graph.eliminate_dead_code()
        super().__call__(graph)


def _part(node: Any) -> Any:
    """Return the part that a piece of a concatenation is; None for any other node."""
    aten, prims = torch.ops.aten, torch.ops.prims
    if node.target is not operator.getitem or node.args[0].target is not aten.split.Tensor:
        return None
    split, place = node.args
    joined = split.args[0]
    if joined.target is prims.convert_element_type.default:
        joined = joined.args[0]
    if joined.target is not aten.cat.default or joined.args[1:] != split.args[2:]:
        return None
    parts = joined.args[0]
    shapes = [split.meta["val"][place].shape, *(part.meta["val"].shape for part in parts)]
    lengths = zip(*shapes, strict=True)
    are_equal = all(statically_known_true(a == b) for a, *others in lengths for b in others)
    return parts[place] if are_equal else None
