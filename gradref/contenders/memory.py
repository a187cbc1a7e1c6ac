"""The memory that a kernel is given: guarded, poisoned, and laid out in many ways."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

MemoryLayout = Literal[
    "contiguous",
    "transposed",
    "strided",
    "offset",
    "expanded",
    "broadcast",
    "one number",
    "channels last",
    "reversed",
]
"""How an array lies in memory: "expanded" is one row for all, "broadcast" one element for a row.

"one number" is the same for all elements, as the grad_output of a sum is; with "channels last"
dimension 1 is the innermost, as torch.channels_last has it.
"""

ZEROED = 1 << 16
"""Elements of the largest arrays like which memory is filled with zeros before a call."""

GUARD = 64
"""Elements on either side of an array that no kernel may write to."""


@dataclass(frozen=True)
class Guarded:
    """An array as the kernel sees it, the buffer with its guards, and a copy of that buffer."""

    tensor: Tensor
    buffer: Tensor
    before: Tensor

    @classmethod
    def of(cls, array: Tensor, layout: MemoryLayout) -> Guarded:
        """Return a copy of an array in a memory layout."""
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
    elif layout == "channels last" and array.dim() >= 3:
        view = inner.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1)
    else:
        view = inner.view(shape)
    view.copy_(array.flip(list(range(array.dim()))) if layout == "reversed" else array)
    if layout == "expanded" and array.dim() >= 1 and shape[0] > 1:
        view = view[:1].expand(shape)
    if layout == "one number" and array.dim() >= 1 and array.numel():
        view = view.reshape(-1)[:1].reshape((1,) * array.dim()).expand(shape)
    if layout == "broadcast" and array.dim() >= 1 and shape[-1] > 1:
        view = view[..., :1].expand(shape)
    return buffer, view


def free_zeros_like(arrays: Sequence[Tensor]) -> None:
    """Overwrite freed memory with zeros: else the next call may be given NaN of a poisoned one."""
    few = (array for array in arrays if array.numel() <= ZEROED)
    _ = [torch.zeros_like(array) for array in few for _ in range(64)]


class Poison:
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
