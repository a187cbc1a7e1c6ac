"""What a judgement says: one row per quantity, and the findings about torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gradref.declare.operation import Operation, called, operations
from gradref.measure.ulp import Errors, errors
from gradref.truth.jets import Balls, Floats

Mask = NDArray[np.bool_]

Grade = Literal["proved", "sampled (>=)"]

NOTABLE_ULP = 4.0
"""An error of torch up to it is never a finding: what float64 itself is held to."""


@dataclass(frozen=True)
class Case:
    """What is judged in one go: an operation with its parameters, at a dtype on a device.

    ``package`` is where the operation is declared; empty for a package of the entry points.
    """

    operation: str
    parameters: dict[str, Any]
    dtype: str
    device: str
    package: str = ""

    @property
    def record(self) -> Operation:
        """The declaration of the operation."""
        records = operations(self.package) if self.package else operations(self.operation)
        return next(record for record in records if record.name == self.operation)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch's object."""
        return getattr(torch, self.dtype)  # type: ignore[no-any-return]  # a dtype by its name

    @property
    def label(self) -> str:
        """The operation with what is not default."""
        return called(self.operation, self.parameters)


@dataclass(frozen=True)
class Finding:
    """Where torch is furthest from the truth, with everything needed to see it oneself."""

    label: str
    operation: str
    quantity: str
    dtype: str
    device: str
    region: str
    ulp: float
    count: int
    at: dict[str, str]
    truth: float
    torch: float
    ours: float


@dataclass(frozen=True)
class Row:
    """The verdict on one quantity in one region of its inputs."""

    label: str
    operation: str
    quantity: str
    dtype: str
    device: str
    region: str
    ours: Errors
    theirs: Errors | None
    agreement: float | None
    grade: Grade
    bound: str
    used: float
    undecided: int
    passed: bool
    regions: dict[str, Errors]
    findings: tuple[Finding, ...]
    failure: str


def agreement(ours: Floats, theirs: Floats) -> float:
    """The share of results that are the same number, or NaN both."""
    if not len(ours):
        return 1.0
    return float(np.mean((ours == theirs) | (np.isnan(ours) & np.isnan(theirs))))


@dataclass(frozen=True)
class Results:
    """Everything known of one quantity at every point, and how to write a point down."""

    case: Case
    quantity: str
    truth: Balls
    ours: Floats
    theirs: Floats | None
    describe: Callable[[int], dict[str, str]]

    def row(
        self,
        region: str,
        keep: Mask,
        ulp: Floats,
        *,
        used: Floats,
        notable: Floats,
        bound: str,
        grade: Grade,
        parts: dict[str, Mask],
    ) -> Row:
        """The verdict on the points in ``keep``; it passes where ``used`` is nowhere above 1.

        ``notable`` is the error in ulp beyond which torch is a finding; a zero, an infinity, a NaN
        or a wrong sign for an ordinary number is one from ``NOTABLE_ULP`` on.
        """
        undecided = keep & np.isnan(used)
        keep = keep & ~undecided
        ours = Errors.of(ulp, self.ours, self.truth.high, keep)
        theirs, share = None, None
        findings: list[Finding] = []
        if self.theirs is not None:
            their_ulp = errors(self.theirs, self.truth, self.case.torch_dtype)
            ordinary = keep & ~parts["special"] if "special" in parts else keep
            theirs = Errors.of(their_ulp, self.theirs, self.truth.high, ordinary)
            share = agreement(self.ours[keep], self.theirs[keep])
            lost = (np.sign(self.theirs) != np.sign(self.truth.high)) | ~np.isfinite(self.theirs)
            wrong = keep & (their_ulp > np.where(lost, NOTABLE_ULP, notable))
            for name, part in parts.items():
                findings += self._find(region or name, wrong & part, their_ulp)
        worst = int(np.argmax(np.where(keep, used, -1.0))) if keep.any() else -1
        most = float(used[worst]) if worst >= 0 else 0.0
        passed = most <= 1.0 and not (grade == "proved" and undecided.any())
        return Row(
            label=self.case.label,
            operation=self.case.operation,
            quantity=self.quantity,
            dtype=self.case.dtype,
            device=self.case.device,
            region=region,
            ours=ours,
            theirs=theirs,
            agreement=share,
            grade=grade,
            bound=bound,
            used=most,
            undecided=int(undecided.sum()),
            passed=passed,
            regions={
                name: Errors.of(ulp, self.ours, self.truth.high, keep & part)
                for name, part in parts.items()
            },
            findings=tuple(findings),
            failure="" if passed else self._failure(worst, ulp, bound),
        )

    def _find(self, region: str, notable: Mask, ulp: Floats) -> list[Finding]:
        """The worst of the points at which torch's error is notable, if there is one.

        Where nothing is left of many numbers, it is the one of the most ordinary size.
        """
        assert self.theirs is not None  # only asked for where torch has a result
        if not notable.any():
            return []
        loss = np.where(notable, relative_error(ulp, self.case.torch_dtype), -1.0)
        index = int(np.argmax(np.where(loss == loss.max(), ordinary(self.truth.high), -np.inf)))
        return [
            Finding(
                label=self.case.label,
                operation=self.case.operation,
                quantity=self.quantity,
                dtype=self.case.dtype,
                device=self.case.device,
                region=region,
                ulp=float(ulp[index]),
                count=int(notable.sum()),
                at=self.describe(index),
                truth=float(self.truth.high[index]),
                torch=float(self.theirs[index]),
                ours=float(self.ours[index]),
            )
        ]

    def _failure(self, index: int, ulp: Floats, bound: str) -> str:
        at = ", ".join(f"{name}={value}" for name, value in self.describe(index).items())
        return (
            f"{self.case.label} {self.quantity} {self.case.dtype} {self.case.device}: at {at} got "
            f"{float(self.ours[index])!r}, truth {float(self.truth.high[index])!r}, "
            f"{ulp[index]:.4g} ulp, "
            f"bound {bound}"
        )


def relative_error(ulp: Floats | float, dtype: torch.dtype) -> Floats:
    """The share of a number that is lost, at most all of it, to within the width of a binade."""
    return np.minimum(np.asarray(ulp) * torch.finfo(dtype).eps / 2, 0.5) * 2


def ordinary(value: Floats | float) -> Floats:
    """How near to 1 the size of a number is: 0 for 1, less for others, least for 0, inf and NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(np.log2(np.abs(value)))
    return np.asarray(-np.nan_to_num(distance, nan=1e4, posinf=1e4))


def number(value: float, dtype: torch.dtype) -> str:
    """A value in decimal and in hex, as both a person and a test can paste it."""
    if not np.isfinite(value):
        return str(value)
    digits = {torch.float64: 17, torch.float32: 9, torch.float16: 5, torch.bfloat16: 4}[dtype]
    return f"{value:.{digits}g} ({float(value).hex()})"
