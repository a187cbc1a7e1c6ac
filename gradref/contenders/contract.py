"""What a kernel declares of its arguments and results, besides the operation that it computes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from gradref.arrays import reject
from gradref.declare.operation import Operation
from gradref.judge.inputs import EVERYTHING
from gradref.judge.verdict import DTYPES

Subnormals = Literal["keep", "flush"]
"""What a kernel does with subnormal numbers; those that it flushes are recorded, not failed."""

Special = Literal["truth", "torch", "any"]
"""What a kernel gives at NaN or at infinities: the truth, or else what torch does, or anything."""


@dataclass(frozen=True)
class Contract:
    """What a kernel asks of its arguments, and in what its results differ from the usual.

    ``result_dtype`` is that of its values, empty for the dtype of the arguments; ``ranks`` are
    those it takes, none for all; ``contiguous`` says that it takes no other layout, ``in_place``
    into which arguments it may write. Arguments that may be any real number are in ``range``.
    ``accepts`` names the parameters that it takes by name, None
    for those of its signature.
    """

    result_dtype: str = ""
    ranks: tuple[int, ...] = ()
    contiguous: bool = False
    in_place: tuple[str, ...] = ()
    subnormals: Subnormals = "keep"
    nan: Special = "truth"
    inf: Special = "truth"
    range: tuple[float, float] = EVERYTHING
    accepts: tuple[str, ...] | None = None

    @classmethod
    def of(cls, kernel: str, entry: Mapping[str, Any], record: Operation) -> Contract:
        """Return what an entry of ``KERNELS`` declares; raise where it is none of what can be."""
        found: dict[str, Any] = {}
        arguments = (*record.arguments, "grad_output", "tangent")
        for key in KEYS:
            if key not in entry:
                continue
            value = entry[key]
            wants = _problem(key, value, arguments, record.parameters)
            if wants:
                reject(f"KERNELS[{kernel!r}][{key!r}]", repr(value), wants)
            found[key] = tuple(value) if isinstance(value, (list, tuple)) else value
        return cls(**found)

    @property
    def words(self) -> tuple[str, ...]:
        """What is declared, as a verdict lists it."""
        plain = Contract()
        said = ((f.name, getattr(self, f.name)) for f in fields(self))
        return tuple(
            f"{name}: {', '.join(map(str, value)) if isinstance(value, tuple) else value}"
            for name, value in said
            if value != getattr(plain, name)
        )

    def dtype_of_values(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype of values for arguments of some dtype."""
        return getattr(torch, self.result_dtype) if self.result_dtype else dtype

    def allows_any_at(self, value: float) -> bool:
        """Return whether anything is right where an argument has some value."""
        declared = self.nan if math.isnan(value) else self.inf if math.isinf(value) else "truth"
        return declared == "any"

    def covers(self, values: Tensor) -> bool:
        """Return whether numbers are in the range; NaN is only in one of all numbers."""
        low, high = self.range
        return self.range == EVERYTHING or bool(((values >= low) & (values <= high)).all())

    def takes_rank(self, rank: int) -> bool:
        """Return whether the kernel takes arrays of a rank."""
        return not self.ranks or rank in self.ranks


def is_range(value: Any) -> bool:
    """Return whether something is a lower and a higher number."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    return all(isinstance(v, int | float) for v in value) and bool(value[0] < value[1])


KEYS = tuple(f.name for f in fields(Contract))


def _problem(key: str, value: Any, arguments: Collection[str], parameters: Collection[str]) -> str:
    """Return what is wanted of a key where the value is something else."""
    choices: dict[str, Sequence[Any]] = {
        "result_dtype": DTYPES,
        "contiguous": (True, False),
        "subnormals": get_args(Subnormals),
        "nan": get_args(Special),
        "inf": get_args(Special),
    }
    if key in choices:
        is_one = isinstance(value, bool | str) and value in choices[key]
        return "" if is_one else f"one of {', '.join(map(str, choices[key]))}"
    if key == "range":
        return "" if is_range(value) else "two numbers, the lower one first"
    lists: dict[str, Collection[Any]] = {
        "ranks": range(1, 9),
        "in_place": arguments,
        "accepts": parameters,
    }
    known = lists[key]
    is_list = isinstance(value, (list, tuple)) and all(
        v in known and not isinstance(v, (bool, float)) for v in value
    )
    return "" if is_list else f"a list of {', '.join(map(str, known))}"
