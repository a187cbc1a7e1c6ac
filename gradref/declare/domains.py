"""The values that arguments may take: an interval for a parameter, a domain for an array.

A call checks them before it computes anything, and tests draw their inputs from them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradref.arrays import Extent

Draw = Literal[
    "real",
    "positive",
    "unit",
    "distribution",
    "log_probability",
    "index",
    "weight",
    "label",
    "count",
]
"""How tests fill an array."""


@dataclass(frozen=True)
class Interval:
    """The interval that a numeric parameter has to lie in; ``wants`` says it in an error."""

    wants: str
    low: float = -sys.float_info.max
    high: float = sys.float_info.max
    open_low: bool = False
    integer: bool = False

    def excludes(self, value: float) -> bool:
        """Return whether ``value`` lies outside."""
        below = value <= self.low if self.open_low else value < self.low
        return below or value > self.high


FINITE = Interval("a finite number")
NON_NEGATIVE = Interval("a finite number >= 0", low=0.0)
POSITIVE = Interval("a finite number > 0", low=0.0, open_low=True)
FROM_0_TO_1 = Interval("a number in [0, 1]", low=0.0, high=1.0)
BETWEEN_0_AND_1 = Interval("a number in (0, 1)", low=0.0, high=1 - 2.0**-53, open_low=True)
BETWEEN_1_AND_2 = Interval("a number in (1, 2)", low=1.0, high=2 - 2.0**-52, open_low=True)
OR_INFINITE = Interval("a number", low=-math.inf, high=math.inf)
INT64 = Interval("an int of 64 bits", low=-(2**63), high=2**63 - 1, integer=True)
ONE_OR_TWO = Interval("the int 1 or 2", low=1, high=2, integer=True)
NORM_DEGREE = Interval("a finite number >= 1", low=1.0)
LOGARITHM_BASE = Interval("a base > 1", low=1.0, open_low=True)


def at_least(name: str, low: float) -> Interval:
    """Return the interval of finite numbers from the value of another parameter on."""
    return Interval(f"a finite number >= {name}, here {low!r}", low=low)


@dataclass(frozen=True)
class Domain:
    """The values that an array may hold, and how far it reaches; ``wants`` says it in an error.

    The values are those from ``low``, which is one of them unless ``open_low``, to ``high``, or the
    finite set ``values``. ``extent`` is "element" for an array over every element of the input,
    "row" for one number a row, as a class index, and "class" for one a class, as a weight. An array
    that ``broadcasts`` may have a shape that broadcasts to that of the input. Class indices are
    ``integer``; ``ignored`` names the parameter with one more index that they may be.
    """

    wants: str
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    values: tuple[float, ...] = ()
    extent: Extent = "element"
    integer: bool = False
    ignored: str = ""
    broadcasts: bool = False
    draw: Draw = "real"

    @property
    def is_discrete(self) -> bool:
        """Return whether no value has another one near it, so that nothing has a derivative."""
        return self.integer or bool(self.values)

    @property
    def is_everything(self) -> bool:
        """Return whether nothing lies outside."""
        return self.low == -math.inf and self.high == math.inf and not self.values

    def excludes(self, array: Tensor) -> Tensor:
        """Return where ``array`` lies outside; a NaN lies nowhere outside."""
        if self.values:
            inside = torch.isin(array, array.new_tensor(self.values))
            return ~(inside | array.isnan())
        below = array <= self.low if self.open_low else array < self.low
        return below | (array > self.high)


def class_indices(ignored: str = "") -> Domain:
    """Return the domain of class indices, and of the index in the parameter ``ignored``."""
    return Domain(
        "class indices", low=0.0, extent="row", integer=True, ignored=ignored, draw="index"
    )


REAL = Domain("real numbers")
NON_NEGATIVE_REAL = Domain("numbers >= 0", low=0.0, draw="positive")
POSITIVE_REAL = Domain("numbers > 0", low=0.0, open_low=True, draw="positive")
UNIT_INTERVAL = Domain("probabilities in [0, 1]", 0.0, 1.0, draw="unit")
DISTRIBUTION = Domain("probabilities in [0, 1]", 0.0, 1.0, draw="distribution")
LOG_PROBABILITY = Domain("log-probabilities", draw="log_probability")
CLASS_LIST = Domain("class indices, and -1 to end a list", low=-1.0, integer=True, draw="index")
COUNT = Domain("counts >= 0", low=0.0, draw="count")
ZERO_OR_ONE = Domain("labels, each 0 or 1", values=(0.0, 1.0), draw="label")
SIGN = Domain("labels, each -1 or 1", values=(-1.0, 1.0), draw="label")
WEIGHT = Domain("weights >= 0", low=0.0, broadcasts=True, draw="weight")
SHARED = Domain("real numbers, one for each class or one", extent="class", broadcasts=True)
CLASS_WEIGHT = Domain("a weight >= 0 for each class", low=0.0, extent="class", draw="weight")

Resolved = Interval | Domain | tuple[Domain, Domain]
Domains = Mapping[str, Resolved | Callable[..., Interval | Domain]]
"""The domain of each argument: one; one of two, as the array's dtype picks (index or float); or a
function of the other arguments."""
