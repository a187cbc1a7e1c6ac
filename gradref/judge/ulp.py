"""Errors in units in the last place of the truth, in the output format."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gradref.truth.jets import Balls, Floats

HISTOGRAM_EDGES = (0.5, 0.5001, 1.0, 2.0, 4.0, 16.0, 256.0, 65536.0)


def spacing(value: Floats, dtype: torch.dtype) -> Floats:
    """Return one ulp of the binade of ``value``, that of a format's own where it has none."""
    info = torch.finfo(dtype)
    _, exponent = np.frexp(np.maximum(np.abs(value), info.smallest_normal))  # 0 has no exponent
    _, smallest = np.frexp(info.smallest_normal)
    _, largest = np.frexp(info.max)
    binade = np.ldexp(1.0, np.clip(exponent, smallest, largest) - 1)
    return np.asarray(binade * info.eps)


def to_floats(values: torch.Tensor) -> Floats:
    """The exact values of a tensor of any dtype, as float64."""
    return np.asarray(values.to(torch.float64).numpy(force=True))


def to_numpy(values: torch.Tensor) -> NDArray[Any]:
    """The exact values of a tensor: floats as float64, integers as they are."""
    return to_floats(values) if values.is_floating_point() else values.cpu().numpy()


def first_beyond(dtype: torch.dtype) -> float:
    """The first power of two that the format cannot hold, to which an overflow rounds."""
    _, exponent = np.frexp(torch.finfo(dtype).max)
    return math.inf if dtype is torch.float64 else math.ldexp(1.0, int(exponent))


def distance(got: Floats, truth: Balls, unit: Floats) -> Floats:
    """Return how far finite numbers are from finite truths, in units that are powers of 2."""
    with np.errstate(over="ignore", invalid="ignore"):
        rest = truth.rest * (spacing(truth.high, torch.float64) / unit)
        return np.asarray(np.abs((got - truth.high) / unit - rest))


def errors(got: Floats, truth: Balls, dtype: torch.dtype) -> Floats:
    """Return the distance of ``got`` from the truth in ulp; inf where only one is a finite number.

    An overflow counts as the first power of two beyond the format, and a truth further out as just
    there, so that rounding to infinity is an error of at most half an ulp where it is right. What
    would overflow as a number of ulp, as 1e-15 for a truth of 0 in float64, is the largest float.
    """
    beyond = first_beyond(dtype)
    with np.errstate(all="ignore"):
        overflow = np.isinf(got) & np.isfinite(truth.high)
        high = np.where(overflow, np.clip(truth.high, -beyond, beyond), truth.high)
        finite = np.where(overflow, np.copysign(beyond, got), got)
        rest = np.where(overflow, 0.0, truth.rest)
        ulp = distance(finite, Balls(high, rest), spacing(truth.high, dtype))
        same = (np.isnan(got) & np.isnan(truth.high)) | (np.isinf(got) & (got == truth.high))
        ulp = np.where(np.isfinite(got - truth.high), np.minimum(ulp, sys.float_info.max), ulp)
        return np.where(same, 0.0, np.where(np.isnan(ulp), np.inf, ulp))


@dataclass(frozen=True)
class Errors:
    """What a set of errors says, and where it is worst."""

    count: int
    worst: float
    worst_index: int
    median: float
    p99: float
    correctly_rounded: float
    histogram: tuple[int, ...]
    wrong_nonfinite: int
    lost_to_zero: int
    wrong_sign: int
    wrong_zero_sign: int = 0

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Errors:
        """What :func:`dataclasses.asdict` has made of one, after a file."""
        numbers = {name: float(content[name]) for name in ("worst", "median", "p99")}
        return cls(**{**content, **numbers, "histogram": tuple(content["histogram"])})

    @classmethod
    def of(
        cls,
        ulp: Floats,
        got: Floats,
        truth: Floats,
        keep: NDArray[np.bool_],
        zero_sign: Floats | None = None,
    ) -> Errors:
        """Summarise the errors of the points in ``keep``.

        ``zero_sign`` has the sign of the zero that a result may be, 0 where any will do.
        """
        index = np.flatnonzero(keep)
        if not len(index):
            return cls(0, 0.0, -1, 0.0, 0.0, 1.0, (0,) * (len(HISTOGRAM_EDGES) + 1), 0, 0, 0)
        kept, values, truths = ulp[index], got[index], truth[index]
        worst = int(np.argmax(kept))
        bins = np.searchsorted(HISTOGRAM_EDGES, kept, side="left")
        with np.errstate(invalid="ignore", over="ignore"):
            median = float(np.median(kept))
            sign = (np.sign(values) * np.sign(truths)) < 0
        zeros = 0 if zero_sign is None else int(wrong_zero_signs(values, zero_sign[index]).sum())
        return cls(
            count=len(index),
            worst=float(kept[worst]),
            worst_index=int(index[worst]),
            median=median,
            p99=float(np.quantile(kept, 0.99, method="higher")),
            correctly_rounded=float(np.mean(kept <= 0.5)),
            histogram=tuple(np.bincount(bins, minlength=len(HISTOGRAM_EDGES) + 1).tolist()),
            wrong_nonfinite=int((np.isfinite(values) != np.isfinite(truths)).sum()),
            lost_to_zero=int(((values == 0) & (truths != 0) & (kept > 1)).sum()),
            wrong_sign=int(sign.sum()),
            wrong_zero_sign=zeros,
        )


def wrong_zero_signs(got: Floats, zero_sign: Floats) -> NDArray[np.bool_]:
    """Return which results are a zero of the sign that it should not have."""
    return np.asarray((got == 0) & (np.copysign(1.0, got) * zero_sign < 0))
