"""Gates: how far off a result may be.

A claim in ulp holds where a result is well conditioned. Elsewhere the theory adds what an algorithm
may lose that is backward stable in the arithmetic it computes with: about an isolated root of a
derivative, where terms cancel, and in rows, whose sums are rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradref.judge.ulp import spacing
from gradref.truth.jets import Balls, Floats

Mask = NDArray[np.bool_]

DOUBLE, SINGLE = 2.0**-53, 2.0**-24
"""The unit roundoffs of float64 and float32."""

AROUND_ROOT = 0.75
"""How near an isolated root, relative to it, the terms of a derivative cancel."""

TIE = 2.0**-20
"""How near to half an ulp, in ulp, a float64 product does not tell on which side it lies."""

BACKWARD = 6.0
"""The backward error about a root, in unit roundoffs."""

SMALLEST_FLOAT32 = 2.0**-149
"""The least subnormal number of float32."""

Kinks = Literal["torch", "subdifferential"]

Kind = Literal["wrong", "range", "special", "zero's sign"]
"""Of a failing result, by its input: an ordinary one; where the truth or a number that it is
computed from leaves the normal range; infinity, NaN or a kink; a zero that has the wrong sign.
"""

Name = Literal["standard", "strict", "torch"]


@dataclass(frozen=True)
class Gate:
    """What a contender is held to.

    ``claims`` and ``row_claims`` are in ulp, ``unit`` is the unit roundoff that it is expected to
    compute with. ``usual_terms`` allows rows what the usual algorithms lose where a stable one
    would not; ``zero_signs`` makes a zero of the wrong sign a failure. Of failures ``as_torch`` a
    kernel passes with those that torch has too.
    """

    claims: Mapping[torch.dtype, float]
    row_claims: Mapping[torch.dtype, float]
    unit: Mapping[torch.dtype, float]
    kinks: Kinks = "torch"
    usual_terms: bool = False
    zero_signs: bool = False
    as_torch: Sequence[Kind] = ()
    grades: Mapping[torch.dtype, str] = field(default_factory=dict)

    def of_elements(
        self,
        truth: Balls,
        points: Floats,
        dtype: torch.dtype,
        roots: Sequence[float],
        is_product: bool,
    ) -> Floats:
        """Return what is allowed of an elementwise quantity, in ulp at every point.

        A claim of half an ulp is correct rounding: nothing is added to it about a root. Of a
        product with a number ties are not decided, and its ulp can be half of that of its factor.
        """
        claim = self.claims[dtype] + (TIE if is_product else 0.0)
        if self.claims[dtype] <= 0.5:
            return np.full(len(points), claim)
        backward = backward_error(truth, points, dtype, roots, self.unit[dtype])
        return np.maximum(claim, 0.5 + (2 if is_product else 1) * backward)

    def of_rows(self, truth: Balls, scale: Floats, dtype: torch.dtype) -> Floats:
        """Return what is allowed of rows, in ulp; ``scale`` is what float64 may lose of them."""
        with np.errstate(over="ignore", invalid="ignore"):
            lost = self.lost(scale, dtype) / spacing(truth.high, dtype)
        return np.asarray(self.row_claims[dtype] + lost)

    def lost(self, scale: Floats, dtype: torch.dtype) -> Floats:
        """Return what may be lost of rows besides the claim, as a number and not in ulp."""
        unit = self.unit[dtype]
        underflow = 16 * SMALLEST_FLOAT32 if unit > DOUBLE else 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(scale * (unit / DOUBLE) + underflow)


ALL = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

OURS = Gate(
    claims={
        torch.float64: 4.0,
        torch.float32: 0.5001,
        torch.float16: 0.5,
        torch.bfloat16: 0.5,
    },
    row_claims=dict.fromkeys(ALL, 0.5),
    unit=dict.fromkeys(ALL, DOUBLE),
)
"""What is promised of our own functions: evaluated in float64, rounded once."""

UNITS = {
    torch.float64: DOUBLE,
    torch.float32: SINGLE,
    torch.float16: SINGLE,
    torch.bfloat16: SINGLE,
}
"""What other people's kernels are expected to compute with."""

CLAIMS = {torch.float64: 4.0, torch.float32: 4.0, torch.float16: 1.0, torch.bfloat16: 1.0}
"""The error in ulp that a kernel may have where it claims nothing itself.

What careful code reaches that computes a 16-bit format in float32 and rounds once, and float32
or float64 in itself.
"""

NOTABLE = Gate(
    claims=dict.fromkeys(ALL, 4.0),
    row_claims=dict.fromkeys(ALL, 4.0),
    unit={dtype: torch.finfo(dtype).eps / 2 for dtype in ALL},
)
"""An error of torch beyond it is a finding: not even its own arithmetic excuses it."""


AS_TORCH: Mapping[Name, Sequence[Kind]] = {
    "strict": (),
    "standard": ("range", "special"),
    "torch": ("wrong", "range", "special"),
}
"""The kinds of failure that each gate lets pass where torch's results are no better."""


def of_kernel(claim: float | None, name: Name, kinks: Kinks) -> Gate:
    """Return the gate of somebody's kernel; a claim of None is the usual one of each dtype.

    The strict gate holds rows to what a stable algorithm keeps, others to what usual ones do, and
    it alone counts the sign of a zero.
    """
    claims = CLAIMS if claim is None else dict.fromkeys(ALL, claim)
    strict = name == "strict"
    return Gate(claims, claims, UNITS, kinks, not strict, strict, AS_TORCH[name])


def backward_error(
    truth: Balls, points: Floats, dtype: torch.dtype, roots: Sequence[float], unit: float
) -> Floats:
    """Return the error in ulp that a backward error of ``BACKWARD`` units is, about each root."""
    size = np.zeros(len(points))
    for root in roots:
        distance = np.abs(np.nan_to_num(points, nan=np.inf, posinf=np.inf) - root)
        secant = (distance > 1e-3 * abs(root)) & (distance < 1e-1 * abs(root))
        slope = np.median(np.abs(truth.high[secant]) / distance[secant]) if secant.any() else 0.0
        size[near_roots(points, [root], AROUND_ROOT)] = abs(root) * slope
    return np.asarray(BACKWARD * unit * size / spacing(truth.high, dtype))


def near_roots(points: Floats, roots: Sequence[float], width: float) -> Mask:
    """Return which points are within ``width``, relative, of a root."""
    near = np.zeros(len(points), dtype=bool)
    for root in roots:
        near |= (points >= root - width * abs(root)) & (points <= root + width * abs(root))
    return near


def apart_on_average(got: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Return whether results are other numbers: their errors add up to more than digits of them."""
    off, size = (got.double() - expected).abs().nansum(), expected.abs().nansum()
    return not bool(off <= 64 * torch.finfo(dtype).eps * size + expected.numel() ** 0.5 * 1e-6)
