"""What a sweep over every input says of one function, in one dtype, on one device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gradref.declare.operation import called
from gradref.judge.ulp import HISTOGRAM_EDGES
from gradref.judge.verdict import Verdict
from gradref.sweep.tally import Tally

FORMAT = 1


@dataclass(frozen=True)
class Float64Error:
    """How wrong the float64 values are that a sweep compares with, in ulp of the output format.

    Measured against Arb at ``points`` inputs, with more around the worst; ``margin`` is the k of
    the grade: twice the worst.
    """

    worst: float
    at: str
    points: int
    margin: float


@dataclass(frozen=True)
class Region:
    """The inputs that share a bound."""

    bound: float
    tally: Tally

    @property
    def passed(self) -> bool:
        """Whether every input is decided and within the bound."""
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
        """Whether every region passed."""
        return all(region.passed for region in self.regions.values())

    @property
    def total(self) -> Tally:
        """All regions together."""
        return sum((region.tally for region in self.regions.values()), Tally())

    def verdict(self, quantity: str) -> Verdict:
        """Return the judgement, as it is said of what is not swept; ``quantity`` is its name."""
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
            undecided=self.total.undecided,
            errors=self.total.summary(),
            regions={name: region.tally.summary() for name, region in self.regions.items()},
            words=words,
        )

    @property
    def label(self) -> str:
        """What it is about, as a person writes it."""
        of = f" of {called(self.operation, self.parameters)}" if self.parameters else ""
        return f"{self.quantity.replace('_', ' ')}{of}"

    @property
    def name(self) -> str:
        """What a file with the certificate is called, without its suffix."""
        return file_name(
            self.subject, self.operation, self.parameters, self.quantity, self.dtype, self.device
        )

    def write(self, folder: Path) -> Path:
        """Write the certificate as JSON."""
        path = folder / f"{self.name}.json"
        content = {
            "format": FORMAT,
            **asdict(self),
            "inputs": input_set(self.dtype),
            "histogram_edges_ulp": HISTOGRAM_EDGES,
            "passed": self.passed,
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return path

    @classmethod
    def read(cls, path: Path) -> Certificate:
        """The certificate in a file."""
        content = json.loads(path.read_text())
        if content.pop("format") != FORMAT:
            raise ValueError(f"{path}: got another format, wants {FORMAT}")
        for derived in ("inputs", "histogram_edges_ulp", "passed"):
            del content[derived]
        regions = {
            name: Region(region["bound"], tally_of(region["tally"]))
            for name, region in content.pop("regions").items()
        }
        float64 = content.pop("float64")
        return cls(
            **content,
            regions=regions,
            float64=None if float64 is None else Float64Error(**float64),
        )


def tally_of(content: Mapping[str, Any]) -> Tally:
    """A tally out of JSON."""
    return Tally(**{**content, "histogram": tuple(content["histogram"])})


def input_set(dtype: str) -> dict[str, str]:
    """What the inputs were, in words, and the digest of those words."""
    bits = 32 if dtype == "float32" else 16
    words = f"all 2^{bits} bit patterns of {dtype}, NaNs included, in the order of their bits"
    return {"set": words, "sha256": hashlib.sha256(words.encode()).hexdigest()}


def file_name(
    subject: str,
    operation: str,
    parameters: Mapping[str, Any],
    quantity: str,
    dtype: str,
    device: str,
) -> str:
    """One name for a certificate and for what is kept while it is in the making."""
    setting = "".join(f"-{name}={value}" for name, value in parameters.items())
    prefix = "" if subject == "gradref" else f"{subject}."
    return f"{prefix}{operation}{setting}.{quantity}.{dtype}.{device}".replace("/", "_")
