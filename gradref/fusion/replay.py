"""The replay cache: what a call has run, run again for other arrays of the same form.

To bind arguments, to check arrays and to evaluate a compiler's guards takes longer than to compute
a small array. The outcome depends on the form of a call alone: on the shapes, strides, dtypes and
devices of its arrays, on which of them share memory, and on its other arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gradref.arrays import is_same_view, memory_range, overlap

if TYPE_CHECKING:
    from gradref.fusion.compiler import GraphCall

PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class CallForm:
    """The tensors of a call, the buffers last, and what is the same for all calls of its form."""

    tensors: Sequence[Tensor]
    key: Hashable

    @classmethod
    def of(cls, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> CallForm | None:
        """Return the form of a call; None for arrays of other libraries, or where torch traces."""
        if torch.compiler.is_compiling() or forward_ad._current_level >= 0:
            return None
        buffers = out if isinstance(out, tuple) else (out,)
        tensors: list[Tensor] = []
        forms: list[Any] = [len(args), tuple(kwargs), len(buffers), torch.get_num_threads()]
        for value in (*args, *kwargs.values(), *buffers):
            if type(value) is Tensor:
                if value.requires_grad or value.layout is not torch.strided:
                    return None
                tensors.append(value)
                forms.append((value.shape, value.stride(), value.dtype, value.device))
            elif type(value) in PLAIN:
                forms.append((type(value), value))
            else:
                return None
        shared = _shared(tensors, len(tensors) - sum(b is not None for b in buffers))
        return None if shared is None else cls(tensors, (*forms, shared))


def _shared(tensors: Sequence[Tensor], inputs: int) -> Hashable | None:
    """Return which tensors are one, and which buffers are the same view of memory as another one.

    None where a buffer overlaps another tensor in part.
    """
    extents = [memory_range(tensor) for tensor in tensors]
    pairs = []
    for j, place in enumerate(extents):
        for i in range(j):
            if tensors[i] is tensors[j]:
                pairs.append((i, j))
            elif j >= inputs and overlap(extents[i], place):
                if not is_same_view(tensors[i], tensors[j]):
                    return None
                pairs.append((i, j))
    return tuple(pairs)


@dataclass(frozen=True)
class Replay:
    """A compiled graph, with where its arguments and results stand among the tensors of a call."""

    graph: Callable[..., Sequence[Any]]
    arguments: Sequence[tuple[bool, Any]]
    results: Sequence[tuple[bool, int]]

    @classmethod
    def record(
        cls, tensors: Sequence[Tensor], graph_call: GraphCall, results: Sequence[Any]
    ) -> Replay | None:
        """Record the call of a graph; None if it was not of these tensors."""
        places = {id(tensor): i for i, tensor in enumerate(tensors)}
        fresh = {id(result): i for i, result in enumerate(graph_call.results)}
        if any(isinstance(a, Tensor) and id(a) not in places for a in graph_call.arguments):
            return None
        if any(id(result) not in places and id(result) not in fresh for result in results):
            return None
        return cls(
            graph_call.graph,
            [(id(a) in places, places.get(id(a), a)) for a in graph_call.arguments],
            [(id(r) in places, places.get(id(r), fresh.get(id(r), 0))) for r in results],
        )

    def __call__(self, tensors: Sequence[Tensor]) -> list[Any]:
        """Return the results for the tensors of another call of the form."""
        found = self.graph(*[tensors[a] if is_one else a for is_one, a in self.arguments])
        return [tensors[i] if is_one else found[i] for is_one, i in self.results]
