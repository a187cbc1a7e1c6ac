"""What a check says of a kernel: one verdict for each quantity and each condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from gradref.measure.ulp import Errors

Status = Literal["pass", "fail", "unsupported", "expected failure", "unexpected pass"]

FAILURES: tuple[Status, ...] = ("fail", "unexpected pass")


@dataclass(frozen=True)
class Verdict:
    """The judgement on one quantity of a kernel, or on its behaviour under one condition.

    ``where`` is the branch of the function at which it is worst, ``words`` say what is probably
    wrong, likeliest first. ``used`` is the share of the bound that is used up; ``errors``, ``ours``
    and ``torch`` are of the same inputs, those at which the bound is narrow.
    """

    kernel: str
    label: str
    quantity: str
    dtype: str
    device: str
    status: Status
    bound: str = ""
    used: float = 0.0
    errors: Errors | None = None
    ours: Errors | None = None
    torch: Errors | None = None
    at: Mapping[str, str] | None = None
    got: float | None = None
    truth: float | None = None
    where: str = ""
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What an xfails file calls it: ``gelu.derivative.float32.cpu``."""
        return f"{self.label}.{self.quantity}.{self.dtype}.{self.device}".replace(" ", "_")

    @property
    def passed(self) -> bool:
        """Whether nothing here counts against the kernel."""
        return self.status not in FAILURES

    def expected_to_fail(self) -> Verdict:
        """The verdict where a failure was announced: a pass is then the surprise."""
        if self.status == "fail":
            return replace(self, status="expected failure")
        if self.status == "pass":
            words = ("passes, but is listed as an expected failure: take it off the list",)
            return replace(self, status="unexpected pass", words=words)
        return self
