"""What a judgement says: one verdict for each quantity, with the findings about torch."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from gradref.declare.operation import Operation, called
from gradref.declare.registry import operations
from gradref.judge.gates import Kind
from gradref.judge.ulp import Errors
from gradref.truth.jets import Floats

DTYPES = ("float64", "float32", "float16", "bfloat16")

OURS, TORCH = "gradref", "torch"
"""The names of the contenders that everybody else is seen beside."""

Status = Literal["pass", "fail", "unsupported", "expected failure", "unexpected pass"]

FAILURES: tuple[Status, ...] = ("fail", "unexpected pass")

ORDER_OF = {
    "value": 0,
    "derivative": 1,
    "derivative_from_output": 1,
    "gradient": 1,
    "jacobian": 1,
    "jacobian_diagonal": 1,
    "jacobian_from_output": 1,
    "vjp": 1,
    "jvp": 1,
    "second_derivative": 2,
    "hvp": 2,
    "hessian_diagonal": 2,
}
"""How often a quantity is differentiated."""


def order_of(quantity: str) -> int | None:
    """Return the order of a quantity by its name in a verdict, like ``gradient(input) [mean]``.

    None for what is no quantity: a condition under which a kernel was tried.
    """
    return ORDER_OF.get(quantity.split("(")[0].split(" ")[0])


@dataclass(frozen=True)
class Case:
    """What is judged in one go: an operation with its parameters, at a dtype on a device."""

    operation: str
    parameters: dict[str, Any]
    dtype: str
    device: str

    @property
    def record(self) -> Operation:
        """The declaration of the operation."""
        return _record(self.operation)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch's object."""
        return getattr(torch, self.dtype)  # type: ignore[no-any-return]  # a dtype by its name

    @property
    def label(self) -> str:
        """The operation with what is not default."""
        return called(self.operation, self.parameters)


@functools.lru_cache(maxsize=128)
def _record(name: str) -> Operation:
    (record,) = operations(name)
    return record


@dataclass(frozen=True)
class Place:
    """Where a result is from: the arguments of a call, and which element of its result it is.

    ``parameters`` are those that are not arrays, and not default.
    """

    at: Mapping[str, str]
    shape: tuple[int, ...] = ()
    index: tuple[int, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Place:
        """Return what a file has of one."""
        shape, index = tuple(content["shape"]), tuple(content["index"])
        return cls(content["at"], shape, index, content["parameters"])


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
    place: Place
    truth: float
    torch: float
    ours: float

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Finding:
        """Return what a file has of one."""
        numbers = {name: float(content[name]) for name in ("ulp", "truth", "torch", "ours")}
        given = {k: v for k, v in content.items() if k != "snippet"}
        return cls(**{**given, **numbers, "place": Place.of_json(content["place"])})


@dataclass(frozen=True)
class Point:
    """One result: where it is from, how far off it is and may be, in ulp.

    ``where`` names the branches of the function that it lies in.
    """

    place: Place
    got: float
    truth: float
    ulp: float
    allowed: float
    where: str

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Point:
        """Return what a file has of one."""
        numbers = {name: float(content[name]) for name in ("got", "truth", "ulp", "allowed")}
        return cls(Place.of_json(content["place"]), **numbers, where=content["where"])


@dataclass(frozen=True)
class Tolerated:
    """Failures of a kind that a gate lets pass: how many, and the worst one."""

    kind: Kind
    count: int
    point: Point

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Tolerated:
        """Return what a file has of one."""
        return cls(content["kind"], content["count"], Point.of_json(content["point"]))


@dataclass(frozen=True)
class Verdict:
    """The judgement on one quantity of a contender, or on its behaviour under one condition.

    It rests on ``point``, where the largest share of the bound is ``used``, out of all that were
    ``judged``; the others were ``undecided``, as the truth is not known, or ``excluded``, as
    ``notes`` say. ``errors`` are those of the contender where the bound is narrow, ``others`` those
    of the witnesses at the same inputs; ``worst`` has the largest error in every class of inputs.
    A failure there is of a ``kind``; ``tolerated`` ones do not count. ``words`` say what is
    probably wrong, likeliest first, ``declared`` is the contract of the contender.
    """

    contender: str
    label: str
    operation: str
    quantity: str
    dtype: str
    device: str
    status: Status
    bound: str = ""
    grade: str = ""
    used: float = 0.0
    judged: int = 0
    undecided: int = 0
    excluded: int = 0
    errors: Errors | None = None
    others: Mapping[str, Errors] = field(default_factory=dict)
    agreement: float | None = None
    regions: Mapping[str, Errors] = field(default_factory=dict)
    worst: Mapping[str, float] = field(default_factory=dict)
    point: Point | None = None
    kind: Kind | None = None
    tolerated: tuple[Tolerated, ...] = ()
    words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    declared: tuple[str, ...] = ()

    @classmethod
    def without_result(
        cls, contender: str, case: Case, quantity: str, status: Status, *words: str
    ) -> Verdict:
        """Return the verdict on what gave no result, or none that could be measured."""
        where = (case.operation, quantity, case.dtype, case.device)
        return cls(contender, case.label, *where, status, words=words)

    @property
    def name(self) -> str:
        """What an xfails file calls it: ``gelu.derivative.float32.cpu``."""
        return f"{self.label}.{self.quantity}.{self.dtype}.{self.device}".replace(" ", "_")

    @property
    def passed(self) -> bool:
        """Whether nothing here counts against the contender."""
        return self.status not in FAILURES

    @property
    def points(self) -> int:
        """How many results were measured."""
        return self.errors.count if self.errors is not None else 0

    def expected_to_fail(self) -> Verdict:
        """Return the verdict where a failure was announced: a pass is then the surprise."""
        if self.status == "fail":
            return replace(self, status="expected failure")
        if self.status == "pass":
            words = ("passes, but is listed as an expected failure: take it off the list",)
            return replace(self, status="unexpected pass", words=words)
        return self

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Verdict:
        """Return what :func:`dataclasses.asdict` has made of one, after a file."""
        errors, point = content["errors"], content["point"]
        read = {
            "used": float(content["used"]),
            "errors": None if errors is None else Errors.of_json(errors),
            "others": {name: Errors.of_json(e) for name, e in content["others"].items()},
            "regions": {name: Errors.of_json(e) for name, e in content["regions"].items()},
            "worst": {name: float(ulp) for name, ulp in content["worst"].items()},
            "point": None if point is None else Point.of_json(point),
            "findings": tuple(Finding.of_json(finding) for finding in content["findings"]),
            "tolerated": tuple(Tolerated.of_json(part) for part in content["tolerated"]),
            "words": tuple(content["words"]),
            "notes": tuple(content["notes"]),
            "declared": tuple(content["declared"]),
        }
        made = {"name", "snippet"}
        return cls(**{k: v for k, v in {**content, **read}.items() if k not in made})


def number(value: float, dtype: torch.dtype) -> str:
    """Return a value in decimal and in hex, as both a person and a test can paste it."""
    if not np.isfinite(value):
        return str(value)
    digits = {torch.float64: 17, torch.float32: 9, torch.float16: 5, torch.bfloat16: 4}[dtype]
    return f"{value:.{digits}g} ({float(value).hex()})"


def relative_error(ulp: Floats | float, dtype: torch.dtype) -> Floats:
    """Return the share of a number that is lost, at most all of it, to within a factor of 2."""
    return np.minimum(np.asarray(ulp) * torch.finfo(dtype).eps / 2, 0.5) * 2


def ordinariness(value: Floats | float) -> Floats:
    """Return how near to 1 the size of a number is: 0 for 1, least for 0, inf and NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(np.log2(np.abs(value)))
    return np.asarray(-np.nan_to_num(distance, nan=1e4, posinf=1e4))
