"""Results of a kernel with all that is needed to judge them and to explain them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from gradref.check.verdict import Verdict
from gradref.measure.ulp import Errors, errors
from gradref.measure.verdict import Case, Mask
from gradref.truth.jets import Balls, Floats

AT_THE_EDGE = "an argument of 0 or 1"
"""The branch in which probabilities have a logarithm of 0."""

Alternative = tuple[str, Floats]
"""A mistake in words, and the results of a kernel that makes it."""


@dataclass(frozen=True)
class Evidence:
    """One quantity at every point: what came back, what is true, and how far off it may be.

    ``witness`` is what torch gives. ``branches`` names parts of the inputs; ``x`` is the input of
    an elementwise function, else the largest magnitude in the row that a result belongs to.
    """

    kernel: str
    case: Case
    quantity: str
    got: Floats
    truth: Balls
    allowed: Floats
    bound: str
    ours: Floats
    witness: Floats | None
    x: Floats
    is_elementwise: bool
    branches: Mapping[str, Mask]
    describe: Callable[[int], dict[str, str]]
    alternatives: Callable[[], Iterable[Alternative]]
    excused: Mask | None = None

    def part(self, name: str, keep: Mask) -> Evidence:
        """The evidence of some of the points, as a quantity of its own."""
        index = np.flatnonzero(keep)
        return replace(
            self,
            quantity=self.quantity + name,
            got=self.got[keep],
            truth=self.truth[keep],
            allowed=self.allowed[keep],
            ours=self.ours[keep],
            witness=None if self.witness is None else self.witness[keep],
            x=self.x[keep],
            branches={branch: part[keep] for branch, part in self.branches.items()},
            describe=lambda i: self.describe(int(index[i])),
            alternatives=lambda: ((words, p[keep]) for words, p in self.alternatives()),
            excused=None if self.excused is None else self.excused[keep],
        )

    def verdict(self, explain: Callable[[Evidence, Floats, Mask], tuple[str, ...]]) -> Verdict:
        """The judgement; a failure with its worst input, branch and probable cause."""
        dtype = self.case.torch_dtype
        ulp = errors(self.got, self.truth, dtype)
        if self.excused is not None:
            ulp[self.excused] = 0.0
        decided = ~np.isnan(self.allowed)
        wrong = decided & ((ulp > self.allowed) | np.isinf(ulp))
        # Where the bound is wide, an error in ulp says little: such points are judged, not shown.
        plain = decided & (self.allowed <= 4 * np.min(self.allowed[decided], initial=np.inf))
        summary = {
            name: Errors.of(errors(values, self.truth, dtype), values, self.truth.high, plain)
            for name, values in (("ours", self.ours), ("torch", self.witness))
            if values is not None
        }
        own = Errors.of(ulp, self.got, self.truth.high, plain)
        share = np.divide(ulp, self.allowed, out=np.full_like(ulp, np.inf), where=np.isfinite(ulp))
        used = np.where(decided, share, -1.0)
        worst = int(np.argmax(used)) if len(used) else -1
        failed = bool(wrong.any())
        return Verdict(
            kernel=self.kernel,
            label=self.case.label,
            quantity=self.quantity,
            dtype=self.case.dtype,
            device=self.case.device,
            status="fail" if failed else "pass",
            bound=self.bound,
            used=float(used[worst]) if worst >= 0 else 0.0,
            errors=own,
            ours=summary.get("ours"),
            torch=summary.get("torch"),
            at=self.describe(worst) if worst >= 0 else None,
            got=float(self.got[worst]) if worst >= 0 else None,
            truth=float(self.truth.high[worst]) if worst >= 0 else None,
            where=", ".join(name for name, part in self.branches.items() if part[worst])
            if worst >= 0
            else "",
            words=explain(self, ulp, wrong) if failed else (),
        )
