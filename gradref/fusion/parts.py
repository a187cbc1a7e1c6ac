"""Kernels of gated units, compiled for the parts of a row and not for the whole row.

A formula splits its argument and joins the parts of its gradient. Inductor gives what is joined
memory of its own, and copies that into the buffer; and it does not fuse loops whose lengths it
cannot tell to be equal, as those of half a row and of a row halved. Here the parts come one by one,
all of one length.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradref.fusion.compiler import Compiled, GraphCall
from gradref.fusion.passes import SplitsOfJoinedParts
from gradref.fusion.replay import Replay


class InParts:
    """``evaluate``, of contiguous rows along the last dimension, compiled for ``count`` parts."""

    def __init__(
        self, evaluate: Callable[..., Sequence[Any]], settings: Mapping[str, Any], count: int
    ) -> None:
        self._evaluate, self._count = evaluate, count
        passes = {"post_grad_custom_pre_pass": SplitsOfJoinedParts()}
        self._compiled = Compiled(self._joined, {**settings, **passes})

    def __call__(
        self, tensors: Mapping[str, Tensor], buffers: Sequence[Any]
    ) -> tuple[list[Tensor | None], GraphCall | None]:
        """Write every result into its buffer; return what to call for other arrays."""
        arrays = {id(array): array for array in (*tensors.values(), *buffers)}
        parts = dict(zip(arrays, self._split(*arrays.values()), strict=True))
        _, call = self._compiled(
            {name: parts[id(tensor)] for name, tensor in tensors.items()},
            [parts[id(buffer)] for buffer in buffers],
        )
        known = list(itertools.chain(*parts.values()))
        replay = None if call is None else Replay.record(known, call, ())
        nothing: list[Tensor | None] = [None] * len(buffers)
        if replay is None:
            return nothing, None

        def again(*arrays: Tensor) -> list[Any]:
            return replay(list(itertools.chain(*self._split(*arrays))))

        return nothing, GraphCall(again, list(arrays.values()), ())

    def _split(self, *arrays: Tensor) -> list[Sequence[Tensor]]:
        """Return the parts of each array of whole rows; of any other, itself as its only part."""
        length = arrays[0].shape[-1]
        rows = [array.view(-1, array.shape[-1]) for array in arrays]
        return [row.chunk(self._count, -1) if row.shape[-1] == length else (row,) for row in rows]

    def _joined(
        self, parts: Mapping[str, Sequence[Tensor]], buffers: Sequence[Sequence[Tensor]]
    ) -> None:
        """Evaluate the formulas on what is joined, and split the results: a pass undoes both."""
        for several in parts.values():  # the compiler learns that they are of one length
            assert all(a.shape == b.shape for a, b in itertools.pairwise(several))
        whole = {name: torch.cat(list(several), -1) for name, several in parts.items()}
        results = self._evaluate(whole, [None] * len(buffers))
        for result, places in zip(results, buffers, strict=True):
            for part, place in zip(result.chunk(len(places), -1), places, strict=True):
                place.copy_(part)
