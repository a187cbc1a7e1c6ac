"""Elementwise functions: inputs, truths and evidence for value, first and second derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradref.declare.operation import Facts, Jet, Operation
from gradref.formula.errorfree import two_product
from gradref.judge.evidence import SPECIAL, Evidence
from gradref.judge.gates import NOTABLE, Gate, Mask, near_roots
from gradref.judge.inputs import EVERYTHING, HALVES, elementwise_inputs, rounded
from gradref.judge.questions import ELEMENTWISE, Quantity, Question, Sample, changed
from gradref.judge.table import jets_table
from gradref.judge.ulp import first_beyond, spacing, to_floats
from gradref.judge.verdict import Case, Place, number
from gradref.truth.jets import Balls, Floats, beyond_half

ORDERS = ("value", "derivative", "second_derivative")

NEAR_ROOT = 2.0**-8
"""How near a root of a derivative, relative to it, is summed up by itself."""


@dataclass(frozen=True)
class ElementwiseExam:
    """One operation with one setting of its parameters, in one dtype.

    ``dtypes`` are those of the same run: one table of truths serves them all, and float64, of which
    no input is certified, is also asked about the inputs of the others.
    """

    case: Case
    sizes: Mapping[torch.dtype, int]
    seed: int
    dtypes: tuple[str, ...]
    limit: int | None = None
    within: tuple[float, float] = EVERYTHING
    declared: Operation | None = None

    @cached_property
    def record(self) -> Operation:
        """The declaration: of the case, if no other is given."""
        return self.declared or self.case.record

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Every parameter of the operation."""
        return {**self.record.parameters, **self.case.parameters}

    @cached_property
    def facts(self) -> Facts:
        """What is declared for these parameters."""
        assert self.record.facts is not None  # an elementwise operation has facts
        return self.record.facts.at(**self.parameters)

    @cached_property
    def roots(self) -> dict[int, list[float]]:
        """The isolated roots of the derivatives, by order."""
        return self.facts.roots

    @cached_property
    def x(self) -> Tensor:
        """The inputs, on no device yet: those in the range, with NaN if it has every number."""
        low, high = self.within
        everything = self._of_every_size
        keep = (everything >= low) & (everything <= high)
        return everything[keep | (everything.isnan() & bool(np.isinf([low, high]).all()))]

    @cached_property
    def _of_every_size(self) -> Tensor:
        own = self._drawn(self.case.torch_dtype)
        if self.limit is not None and len(own) > self.limit:
            rng = np.random.default_rng(self.seed)
            some = torch.from_numpy(rng.choice(len(own), self.limit, replace=False))
            return torch.cat([own[some], own[own.isinf()]])
        if self.case.torch_dtype is not torch.float64:
            return own
        found = [own]
        for name in self.dtypes:
            if name == self.case.dtype:
                continue
            other = self._drawn(getattr(torch, name)).to(torch.float64)
            found.append(other[other.isfinite()])
        return torch.cat(found)

    def _drawn(self, dtype: torch.dtype) -> Tensor:
        size = self.sizes.get(dtype, 0)
        given = [value for value in self.parameters.values() if isinstance(value, float)]
        return elementwise_inputs(self.facts, self.roots, dtype, size, self.seed, given)

    @cached_property
    def points(self) -> Floats:
        """The inputs as float64."""
        return to_floats(self.x)

    @cached_property
    def sample(self) -> Sample:
        """The inputs with random vectors, on the device."""
        rng = np.random.default_rng([self.seed, 1])
        vector = rounded(rng.normal(size=len(self.x)), self.case.torch_dtype)
        moved = vector.to(self.case.device)
        return Sample({"x": self.x.to(self.case.device)}, moved, moved, self.parameters)

    def questions(self) -> Iterator[tuple[Quantity, list[Question]]]:
        """Yield every quantity with what is asked for it."""
        for quantity in ELEMENTWISE:
            yield quantity, [Question(self.record, self.case, quantity, self.sample)]

    @cached_property
    def jets(self) -> Balls:
        """The truth of all orders: Arb at ordinary points, the declaration elsewhere."""
        high, rest = np.full((3, len(self.points)), np.nan), np.zeros((3, len(self.points)))
        for at, jet in declared_jets(self.facts).items():
            high[:, self.points == at] = np.asarray(jet)[:, None]
        ordinary = np.isfinite(self.points) & ~self._is_kink
        drawn = [to_floats(self._drawn(getattr(torch, name))) for name in self.dtypes]
        among = np.concatenate(drawn)
        among = among[np.isfinite(among) & ~np.isin(among, list(self.facts.kinks))]
        known = jets_table(self.record, self.parameters, self.points[ordinary], among)
        high[:, ordinary], rest[:, ordinary] = known.high, known.rest
        return Balls(high, rest)

    @cached_property
    def _is_kink(self) -> Mask:
        return np.isin(self.points, list(self.facts.kinks))

    @cached_property
    def special(self) -> Mask:
        """Infinities, NaN and kinks, which have verdicts of their own."""
        return ~np.isfinite(self.points) | self._is_kink

    def evidence(
        self,
        quantity: Quantity,
        asked: list[Question],
        contender: str,
        got: list[Tensor],
        others: Mapping[str, list[Tensor]],
        gate: Gate,
    ) -> Evidence:
        """Return the evidence of a quantity at every input."""
        dtype, points, order = asked[0].dtype, self.points, quantity.order
        is_product = quantity.role in ("vjp", "jvp")
        truth, roots = self.jets[order], self.roots.get(order, [])
        if is_product:
            truth = times(truth, to_floats(self.sample.grad_output))
        allowed, notable = (
            g.of_elements(self.jets[order], points, dtype, roots, is_product)
            for g in (gate, NOTABLE)
        )
        if is_product and dtype is torch.float64:
            allowed = self.of_the_product(allowed, order, truth)
        if quantity.role == "derivative_from_output":
            allowed = allowed + self._lost_by_rounding_the_output(gate.claims[dtype])
        undecided = np.isnan(truth.high) & ~self.special
        results = to_floats(got[0])
        return Evidence(
            contender=contender,
            case=self.case,
            quantity=quantity.name,
            dtype=dtype,
            got=results,
            truth=truth,
            allowed=np.where(undecided, np.nan, allowed),
            notable=notable,
            bound=f"{gate.claims[dtype]:g} ulp",
            grade="proved" if self.case.torch_dtype in HALVES else "sampled (>=)",
            others={who: to_floats(values[0]) for who, values in others.items()},
            x=points,
            is_elementwise=True,
            regions=self.regions(order, truth, dtype),
            branches=self._branches(order),
            describe=lambda index: self._describe(quantity, index),
            zero_sign=self._zero_sign(order, truth, is_product),
            zero_signs_count=gate.zero_signs,
            as_torch=gate.as_torch,
            excused=self._excused(quantity, gate, results),
            settle=None if is_product else partial(self._settle_ties, order, results, dtype),
        )

    def _describe(self, quantity: Quantity, index: int) -> Place:
        dtype = self.case.torch_dtype
        at = {"x": number(self.points[index], dtype)}
        vector = {"vjp": "grad_output", "jvp": "tangent"}.get(quantity.role)
        if vector is not None:
            at[vector] = number(float(self.sample.grad_output[index]), dtype)
        return Place(at, parameters=changed(self.record, self.case.parameters))

    def of_the_product(self, allowed: Floats, order: int, truth: Balls) -> Floats:
        """Return what errors of f′ are worth in its product, to 2 times as many ulp, and rounding.

        In other dtypes the product is rounded once, from float64.
        """
        vector, dtype = np.abs(to_floats(self.sample.grad_output)), torch.float64
        with np.errstate(all="ignore"):
            worth = vector * spacing(self.jets[order].high, dtype) / spacing(truth.high, dtype)
            return np.maximum(allowed, np.nan_to_num(allowed * worth) + 0.5)

    def _lost_by_rounding_the_output(self, claim: float) -> Floats:
        """Return what ``claim`` ulp of y = f(x) are worth in f′, in ulp: |f″/f′| of them."""
        value, slope, bend = self.jets.high
        dtype = self.case.torch_dtype
        with np.errstate(all="ignore"):
            lost = np.abs(bend / slope) * claim * spacing(value, dtype) / spacing(slope, dtype)
        return np.where(np.isnan(lost), 0.0, lost)

    def regions(self, order: int, truth: Balls, dtype: torch.dtype) -> dict[str, Mask]:
        """Return what is summed up by itself: by the size of the result, and about the roots."""
        is_normal = np.abs(truth.high) >= torch.finfo(dtype).smallest_normal
        near = near_roots(self.points, self.roots.get(order, []), NEAR_ROOT) & ~self.special
        plain = ~self.special & ~near
        regions = {"normal": is_normal & plain, "subnormal": ~is_normal & plain}
        return {**regions, f"near a root of f{'′' * order}": near, SPECIAL: self.special}

    def _branches(self, order: int) -> dict[str, Mask]:
        points, truth = self.points, self.jets.high[order]
        smallest = torch.finfo(self.case.torch_dtype).smallest_normal
        tiny = (np.abs(points) < smallest) & (points != 0)
        return {
            "NaN": np.isnan(points),
            "infinity": np.isinf(points),
            "kink": self._is_kink,
            f"near a root of f{'′' * order}": near_roots(
                points, self.roots.get(order, []), NEAR_ROOT
            ),
            "subnormal input": tiny,
            "subnormal result": (np.abs(truth) < smallest) & (truth != 0) & ~tiny,
            "left tail": (points < -3) & np.isfinite(points),
            "right tail": (points > 3) & np.isfinite(points),
            "centre": np.abs(points) <= 3,
        }

    def _zero_sign(self, order: int, truth: Balls, is_product: bool) -> Floats:
        """Return the sign of a zero at every point: that of what is rounded to it.

        Where the truth is 0 it is the sign of the line through x = ±0, as far as that is known.
        """
        sign = np.nan_to_num(np.sign(truth.high))
        if order < 2 and not is_product:
            at_zero = (self.points == 0) & (truth.high == 0) & ~self.special
            slope = np.nan_to_num(np.sign(self.jets.high[order + 1]))
            sign = np.where(at_zero, np.copysign(1.0, self.points) * slope, sign)
        return sign

    def _excused(self, quantity: Quantity, gate: Gate, got: Floats) -> dict[str, Mask]:
        """Return derivatives at kinks that lie in the subdifferential, where that is asked for."""
        order = quantity.order
        if gate.kinks != "subdifferential" or order == 0:
            return {}
        excused = np.zeros(len(self.points), dtype=bool)
        is_product = quantity.role in ("vjp", "jvp")
        slope = got / to_floats(self.sample.grad_output) if is_product else got
        for at, kink in self.facts.kinks.items():
            sides = sorted((kink.left[order], kink.right[order]))
            excused |= (self.points == at) & (slope >= sides[0]) & (slope <= sides[1])
        return {"in the subdifferential at a kink": excused}

    def _settle_ties(
        self, order: int, got: Floats, dtype: torch.dtype, at: NDArray[np.intp], ulp: Floats
    ) -> None:
        """Decide errors of about half an ulp at the places ``at``."""
        truth = self.jets[order][at]
        if dtype in HALVES:
            x = self.points[at]
            settle_ties(ulp, self.record.truth, order, x, got[at], truth, dtype, self.parameters)


def settle_ties(
    ulp: Floats,
    truth: Callable[..., Any],
    order: int,
    points: Floats,
    got: Floats,
    balls: Balls,
    dtype: torch.dtype,
    parameters: dict[str, Any],
) -> None:
    """Replace errors that twice float64 cannot tell from half an ulp by proved ones."""
    limit = first_beyond(dtype)
    for i in np.flatnonzero(np.abs(ulp - 0.5) < 2.0**-20):
        half = 0.5 * float(spacing(balls.high[i], dtype))
        finite = float(np.clip(got[i], -limit, limit))
        beyond = beyond_half(truth, points[i], order, finite, half, **parameters)
        ulp[i] = np.nextafter(0.5, 1.0) if beyond else 0.5


def declared_jets(facts: Facts) -> dict[float, Jet]:
    """Return the jets at infinities and kinks, which are declared and not computed."""
    return {**facts.limits, **{at: kink.chosen for at, kink in facts.kinks.items()}}


def times(truth: Balls, vector: Floats) -> Balls:
    """Return the products with exact numbers, to about 106 bits."""
    product, error = two_product(torch.from_numpy(truth.high), torch.from_numpy(vector))
    high = to_floats(product)
    with np.errstate(all="ignore"):
        ulp = spacing(high, torch.float64)
        rest = truth.rest * vector * (spacing(truth.high, torch.float64) / ulp)
        rest = np.nan_to_num(to_floats(error) / ulp + rest, posinf=0.0, neginf=0.0)
    return Balls(high, rest)
