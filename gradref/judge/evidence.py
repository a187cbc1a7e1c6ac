"""Results with all that is needed to judge them, and the one comparison that does it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from gradref.judge.gates import Kind, Mask
from gradref.judge.kinds import any_of, kinds, no_worse, out_of_range
from gradref.judge.ulp import Errors, errors, wrong_zero_signs
from gradref.judge.verdict import (
    OURS,
    TORCH,
    Case,
    Finding,
    Place,
    Point,
    Status,
    Tolerated,
    Verdict,
    ordinariness,
    relative_error,
)
from gradref.truth.jets import Balls, Floats

AT_THE_EDGE = "an argument of 0 or 1"
"""The branch in which probabilities have a logarithm of 0."""

SPECIAL = "special"
"""The region of infinities, NaN and kinks, which has a verdict of its own."""

NORMAL, SUBNORMAL = "normal truth", "subnormal truth"
"""Classes of inputs by what is true there; 0 counts as subnormal."""

LOST_ULP = 4.0
"""From here on a zero, an infinity, a NaN or a wrong sign of torch is a finding."""

PLAIN = 4.0
"""A bound of so many times the narrowest is wide: an error in ulp says little there."""

Mistake = tuple[str, Floats]
"""A mistake in words, and the results of a kernel that makes it."""

Settle = Callable[[NDArray[np.intp], Floats], None]
"""Replaces errors, of the results at some places, that a comparison of floats cannot tell."""

Explain = Callable[["Evidence", Floats, Mask], tuple[str, ...]]


@dataclass(frozen=True)
class Evidence:
    """One quantity at every point: what came back, what is true, and how far off it may be.

    ``dtype`` is that of the results, in whose ulp errors are measured.
    ``allowed`` is in ulp, NaN where the truth is undecided; ``notable`` likewise for torch, whose
    results are among those of the ``others``. ``branches`` name parts of the inputs, ``regions``
    those that are summed up by themselves. ``x`` is the input of an elementwise function, else the
    largest magnitude in the row that a result belongs to. ``excused`` does not count, for the
    reason noted.
    """

    contender: str
    case: Case
    quantity: str
    dtype: torch.dtype
    got: Floats
    truth: Balls
    allowed: Floats
    notable: Floats
    bound: str
    grade: str
    others: Mapping[str, Floats]
    x: Floats
    is_elementwise: bool
    regions: Mapping[str, Mask]
    branches: Mapping[str, Mask]
    describe: Callable[[int], Place]
    zero_sign: Floats
    zero_signs_count: bool = False
    as_torch: Collection[Kind] = ()
    mistakes: Callable[[], Iterable[Mistake]] = tuple
    excused: Mapping[str, Mask] = field(default_factory=dict)
    settle: Settle | None = None

    def part(self, name: str, keep: Mask) -> Evidence:
        """Return the evidence of some of the points, as a quantity of its own."""
        index, settle = np.flatnonzero(keep), self.settle
        return replace(
            self,
            quantity=self.quantity + name,
            got=self.got[keep],
            truth=self.truth[keep],
            allowed=self.allowed[keep],
            notable=self.notable[keep],
            others={who: values[keep] for who, values in self.others.items()},
            x=self.x[keep],
            regions={region: part[keep] for region, part in self.regions.items()},
            branches={branch: part[keep] for branch, part in self.branches.items()},
            describe=lambda i: self.describe(int(index[i])),
            zero_sign=self.zero_sign[keep],
            mistakes=lambda: ((words, p[keep]) for words, p in self.mistakes()),
            excused={why: part[keep] for why, part in self.excused.items()},
            settle=None if settle is None else lambda at, ulp: settle(index[at], ulp),
        )

    def parts(self) -> Iterator[Evidence]:
        """Yield the evidence of ordinary points, and that of special ones if there are any."""
        yield self.part("", ~self._special)
        if self._special.any():
            yield self.part(f" [{SPECIAL}]", self._special)

    def verdict(self, explain: Explain | None = None) -> Verdict:
        """Return the judgement; a failure with its worst input, branch and probable cause."""
        ulp = errors(self.got, self.truth, self.dtype)
        if self.settle is not None:
            self.settle(np.arange(len(ulp)), ulp)
        excused = any_of(self.excused.values(), ulp)
        ulp[excused] = 0.0
        decided = ~np.isnan(self.allowed)
        theirs = {who: errors(v, self.truth, self.dtype) for who, v in self.others.items()}
        failed_as = self._kinds(ulp, decided & ~excused)
        tolerated = self._tolerated(ulp, failed_as, theirs)
        let_pass = any_of(tolerated.values(), ulp)
        wrong = any_of(failed_as.values(), ulp) & ~let_pass
        counts = decided & ~(let_pass & ~failed_as["zero's sign"])
        plain = counts & (self.allowed <= PLAIN * np.min(self.allowed[decided], initial=np.inf))
        share = self._share(ulp)
        used = np.where(counts, np.where(wrong, np.maximum(share, np.nextafter(1, 2)), share), -1)
        worst = int(np.argmax(used)) if len(used) else -1
        undecided = int((~decided).sum())
        failed = bool(wrong.any()) or (undecided > 0 and self.grade == "proved")
        status: Status = "fail" if failed else "pass"
        verdict = Verdict(
            contender=self.contender,
            label=self.case.label,
            operation=self.case.operation,
            quantity=self.quantity,
            dtype=self.case.dtype,
            device=self.case.device,
            status=status,
            bound=self.bound,
            grade=self.grade,
            used=max(float(used[worst]), 0.0) if worst >= 0 else 0.0,
            judged=int((decided & ~excused).sum()),
            undecided=undecided,
            excluded=int((decided & excused).sum()),
            errors=Errors.of(ulp, self.got, self.truth.high, plain, self.zero_sign),
            others={
                who: Errors.of(their_ulp, self.others[who], self.truth.high, plain, self.zero_sign)
                for who, their_ulp in theirs.items()
            },
            agreement=self._agreement(decided),
            regions={
                name: Errors.of(ulp, self.got, self.truth.high, counts & part, self.zero_sign)
                for name, part in self.regions.items()
                if part.any()
            },
            worst=self._worst(ulp, counts),
            tolerated=tuple(
                Tolerated(kind, int(part.sum()), self._worst_of(ulp, part))
                for kind, part in tolerated.items()
                if part.any()
            ),
            notes=tuple(
                f"{why}: {part.sum():,}" for why, part in self.excused.items() if part.any()
            ),
            findings=tuple(self._findings(theirs, decided)),
        )
        if worst < 0:
            return verdict
        return replace(
            verdict,
            point=self._point(ulp, worst),
            kind=next((kind for kind, part in failed_as.items() if failed and part[worst]), None),
            words=self._words(explain, ulp, wrong, worst) if failed else (),
        )

    def _kinds(self, ulp: Floats, counted: Mask) -> dict[Kind, Mask]:
        """Return the results that are off by more than is allowed, by the kind of failure."""
        exceeds = counted & ((ulp > self.allowed) | np.isinf(ulp))
        signs = counted & wrong_zero_signs(self.got, self.zero_sign)
        outside = out_of_range(self.x, self.truth.high, self.dtype)
        return kinds(exceeds, signs, self._special, outside)

    def _tolerated(
        self, ulp: Floats, failed_as: Mapping[Kind, Mask], theirs: Mapping[str, Floats]
    ) -> dict[Kind, Mask]:
        """Return the failures that are let pass, as a zero's sign does not count or as torch's."""
        found: dict[Kind, Mask] = {}
        if not self.zero_signs_count:
            found["zero's sign"] = failed_as["zero's sign"]
        if TORCH in theirs:
            failing = np.where(theirs[TORCH] > self.allowed, theirs[TORCH], 0.0)
            near = no_worse(ulp, failing, self.x, self._special | (not self.is_elementwise))
            found |= {kind: failed_as[kind] & near for kind in self.as_torch}
        return found

    @property
    def _special(self) -> Mask:
        return self.regions.get(SPECIAL, np.zeros(len(self.got), dtype=bool))

    def _share(self, ulp: Floats) -> Floats:
        """Return the share of what is allowed that is used up."""
        out = np.full_like(ulp, np.inf)
        return np.divide(ulp, self.allowed, out=out, where=np.isfinite(ulp))

    def _worst_of(self, ulp: Floats, part: Mask) -> Point:
        return self._point(ulp, int(np.argmax(np.where(part, ulp, -1.0))))

    def _point(self, ulp: Floats, at: int) -> Point:
        return Point(
            self.describe(at),
            float(self.got[at]),
            float(self.truth.high[at]),
            float(ulp[at]),
            float(self.allowed[at]),
            ", ".join(name for name, part in self.branches.items() if part[at]),
        )

    def _worst(self, ulp: Floats, decided: Mask) -> dict[str, float]:
        """Return the largest error in every class of inputs, and by the size of the truth."""
        smallest = torch.finfo(self.dtype).smallest_normal
        is_subnormal = np.abs(self.truth.high) < smallest
        sizes = {NORMAL: ~is_subnormal, SUBNORMAL: is_subnormal}
        parts = {n: part & decided for n, part in {**sizes, **self.branches}.items()}
        return {name: float(np.max(ulp[part])) for name, part in parts.items() if part.any()}

    def _words(
        self, explain: Explain | None, ulp: Floats, wrong: Mask, worst: int
    ) -> tuple[str, ...]:
        if not wrong.any():
            return ("undecided at the cap of bits",)
        if explain is not None:
            return explain(self, ulp, wrong)
        return (f"{ulp[worst]:.4g} ulp off, bound {self.allowed[worst]:.4g}",)

    def _agreement(self, decided: Mask) -> float | None:
        """Return the share of torch's results that are the same number, or NaN both."""
        if TORCH not in self.others or not decided.any():
            return None
        a, b = self.got[decided], self.others[TORCH][decided]
        return float(np.mean((a == b) | (np.isnan(a) & np.isnan(b))))

    def _findings(self, theirs: Mapping[str, Floats], decided: Mask) -> Iterable[Finding]:
        """Yield for each region the worst of the points at which torch's error is notable.

        Where nothing is left of many numbers, it is the one of the most ordinary size.
        """
        if TORCH not in theirs or self.contender != OURS:
            return
        ulp, got, truth = theirs[TORCH], self.others[TORCH], self.truth.high
        lost = (np.sign(got) != np.sign(truth)) | ~np.isfinite(got)
        notable = decided & (ulp > np.where(lost, LOST_ULP, self.notable))
        for region, part in self.regions.items():
            here = notable & part
            if not here.any():
                continue
            loss = np.where(here, relative_error(ulp, self.dtype), -1.0)
            ranked = np.where(loss == loss.max(), ordinariness(truth), -np.inf)
            index = int(np.argmax(ranked))
            yield Finding(
                label=self.case.label,
                operation=self.case.operation,
                quantity=self.quantity,
                dtype=self.case.dtype,
                device=self.case.device,
                region=region,
                ulp=float(ulp[index]),
                count=int(here.sum()),
                place=self.describe(index),
                truth=float(truth[index]),
                torch=float(got[index]),
                ours=float(self.got[index]),
            )
