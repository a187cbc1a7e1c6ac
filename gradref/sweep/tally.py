"""Error counts over a set of inputs; sets add up in any order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from gradref.judge.gates import Mask
from gradref.judge.ulp import HISTOGRAM_EDGES, Errors
from gradref.truth.jets import Floats


@dataclass(frozen=True)
class Tally:
    """Counts over some inputs, and the worst error with the bit pattern of its input.

    Of several inputs with the worst error ``worst_bits`` is the lowest; -1 where it was not
    looked up, because every result is correctly rounded.
    """

    inputs: int = 0
    histogram: tuple[int, ...] = (0,) * (len(HISTOGRAM_EDGES) + 1)
    worst: float = 0.0
    worst_bits: int = -1
    undecided: int = 0
    by_expansion: int = 0
    by_arb: int = 0
    wrong_nonfinite: int = 0
    lost_to_zero: int = 0
    wrong_sign: int = 0

    @property
    def incorrectly_rounded(self) -> int:
        """Return how many inputs have an error above half an ulp."""
        return sum(self.histogram[1:])

    def quantile(self, share: float) -> float:
        """Return the histogram edge that a share of the errors does not exceed."""
        below = np.cumsum(self.histogram)
        bin_ = int(np.searchsorted(below, share * self.inputs))
        return HISTOGRAM_EDGES[bin_] if bin_ < len(HISTOGRAM_EDGES) else self.worst

    def summary(self) -> Errors:
        """Return what a verdict shows; the quantiles are the edges that hold them."""
        return Errors(
            count=self.inputs,
            worst=self.worst,
            worst_index=self.worst_bits,
            median=self.quantile(0.5),
            p99=self.quantile(0.99),
            correctly_rounded=1 - self.incorrectly_rounded / max(1, self.inputs),
            histogram=self.histogram,
            wrong_nonfinite=self.wrong_nonfinite,
            lost_to_zero=self.lost_to_zero,
            wrong_sign=self.wrong_sign,
        )

    @classmethod
    def all_correct(cls, inputs: int) -> Tally:
        """Return the tally of inputs without an error above half an ulp."""
        return cls(inputs, (inputs, *(0 for _ in HISTOGRAM_EDGES)))

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Tally:
        """Return the tally that was written as JSON."""
        return cls(**{**content, "histogram": tuple(content["histogram"])})

    @classmethod
    def of(
        cls, ulp: Floats, got: Floats, truth: Floats, bits: Any, keep: Mask, **settled: int
    ) -> Tally:
        """Return the tally of the inputs in ``keep``; an error of NaN counts as undecided."""
        known = keep & ~np.isnan(ulp)
        errors = Errors.of(ulp, got, truth, known)
        return cls(
            inputs=int(keep.sum()),
            histogram=errors.histogram,
            worst=errors.worst,
            worst_bits=int(bits[errors.worst_index]) if errors.count else -1,
            undecided=int((keep & ~known).sum()),
            wrong_nonfinite=errors.wrong_nonfinite,
            lost_to_zero=errors.lost_to_zero,
            wrong_sign=errors.wrong_sign,
            **settled,
        )

    def __add__(self, other: Tally) -> Tally:
        worst = min((self, other), key=lambda t: (-t.worst, t.worst_bits))
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
            if field.name not in ("histogram", "worst", "worst_bits")
        }
        return Tally(
            histogram=tuple(a + b for a, b in zip(self.histogram, other.histogram, strict=True)),
            worst=worst.worst,
            worst_bits=worst.worst_bits,
            **sums,
        )
