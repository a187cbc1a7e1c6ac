"""What a planted wrong kernel is, and the two casts that every kernel makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gradref.contenders.conditions import every_condition

Kernel = dict[str, Any]
"""An entry of a user's ``KERNELS``: the operation, functions by role, settings."""


@dataclass(frozen=True, eq=False)
class Mutant:
    """A mistake seen in the field, the kernel without it, and what a judge should say.

    ``words`` matches the cause that the judge names; ``mode`` is that of ``gradref check``
    that catches the mistake, and ``condition`` the hostile condition that shows it, if one alone
    does.
    ``shape`` and ``scale`` are those of the normal inputs of the usual gates, where the test that
    let the mistake through drew others than everybody draws.
    """

    number: int
    title: str
    kernel: Kernel
    correct: Kernel
    words: str
    dtypes: tuple[str, ...] = ("float32",)
    mode: Literal["quick", "full"] = "quick"
    condition: str = ""
    shape: tuple[int, ...] = (64, 128)
    scale: float = 1.0

    def __str__(self) -> str:
        return f"{self.number:02} {self.title}"


CONDITIONS = tuple(name for name in every_condition() if name != "more than 2^24 elements")
"""What mode full tries, but for what takes longest: a mutant that shows there alone names it."""


def wide(x: Tensor) -> Tensor:
    """As float64, in which a right kernel computes."""
    return x.to(torch.float64)


def narrow(y: Tensor, x: Tensor) -> Tensor:
    """A result in the dtype of the input: the one rounding of a right kernel."""
    return y.to(x.dtype)
