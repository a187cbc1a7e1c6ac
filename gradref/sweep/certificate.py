"""A certificate: the errors of one function at every input of a dtype, on one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradref.declare.operation import called
from gradref.judge.verdict import Verdict
from gradref.sweep.tally import Tally

OURS = "gradref"
"""The subject of a certificate of our own formulas; kernels go by their names."""


@dataclass(frozen=True)
class Float64Error:
    """The error of the float64 formula that a sweep compares with, in ulp of the output format.

    Measured against Arb at ``points`` inputs, with more around the worst. ``margin`` is twice the
    worst: the k of the grade *exhaustive ±k*.
    """

    worst: float
    at: str
    points: int
    margin: float


@dataclass(frozen=True)
class Region:
    """Inputs that share an error bound."""

    bound: float
    tally: Tally

    @property
    def passed(self) -> bool:
        """Return whether every input is decided and within the bound."""
        return self.tally.undecided == 0 and self.tally.worst <= self.bound


@dataclass(frozen=True)
class Certificate:
    """The errors of one function at every input of a dtype, and all that they depend on."""

    subject: str
    operation: str
    parameters: Mapping[str, Any]
    quantity: str
    dtype: str
    device: str
    source: str
    environment: Mapping[str, str]
    grade: str
    float64: Float64Error | None
    regions: Mapping[str, Region]
    worst_inputs: Mapping[str, str]

    @property
    def passed(self) -> bool:
        """Return whether every region passed."""
        return all(region.passed for region in self.regions.values())

    @property
    def total(self) -> Tally:
        """Return the tally of all regions together."""
        return sum((region.tally for region in self.regions.values()), Tally())

    def verdict(self, quantity: str) -> Verdict:
        """Return the verdict, in the form of all verdicts; ``quantity`` is the name to show."""
        words = tuple(
            f"{name}: worst {region.tally.worst:.4g} ulp at {self.worst_inputs.get(name, '-')},"
            f" {region.tally.incorrectly_rounded:,} inputs not correctly rounded"
            for name, region in self.regions.items()
            if not region.passed
        )
        return Verdict(
            self.subject,
            called(self.operation, self.parameters),
            self.operation,
            quantity,
            self.dtype,
            self.device,
            "pass" if self.passed else "fail",
            bound=", ".join(f"{region.bound:g} ulp" for region in self.regions.values()),
            grade=self.grade,
            used=max(r.tally.worst / r.bound for r in self.regions.values()),
            judged=self.total.inputs - self.total.undecided,
            undecided=self.total.undecided,
            errors=self.total.summary(),
            regions={name: region.tally.summary() for name, region in self.regions.items()},
            words=words,
        )

    @property
    def bounds(self) -> dict[str, float]:
        """Return the error bound of each region, in ulp."""
        return {name: region.bound for name, region in self.regions.items()}

    @property
    def label(self) -> str:
        """Return the quantity, its setting and its subject, in words."""
        of = f" of {called(self.operation, self.parameters)}" if self.parameters else ""
        by = "" if self.subject == OURS else f" by {self.subject}"
        return f"{self.quantity.replace('_', ' ')}{of}{by}"

    @property
    def name(self) -> str:
        """Return a name that no other certificate has."""
        return unique_name(
            self.subject, self.operation, self.parameters, self.quantity, self.dtype, self.device
        )


def unique_name(
    subject: str,
    operation: str,
    parameters: Mapping[str, Any],
    quantity: str,
    dtype: str,
    device: str,
) -> str:
    """Return the name of a certificate and of its journals, fit for a file."""
    setting = "".join(f"-{name}={value}" for name, value in parameters.items())
    prefix = "" if subject == OURS else f"{subject}."
    return f"{prefix}{operation}{setting}.{quantity}.{dtype}.{device}".replace("/", "_")
