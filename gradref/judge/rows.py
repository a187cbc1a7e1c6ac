"""Row-wise functions and losses: samples, truths and evidence for every product and reduction.

What a mixed forward-backward stable algorithm of float64 may lose on rows of n numbers, beyond
rounding the result f of arguments x, is

    (n + 6) (u (|f| + sum_j |x_j| |df/dx_j|) + 2^-1074),    u = 2^-53

and for a second derivative, whose own condition would take a third, u (1 + max |x|) times the
magnitudes of its terms; those of a row-wise function, which exponentials make, cancel from the
magnitude of the Jacobian, those of an angle from that of the whole Hessian. It comes from the
problem, the balls of Jacobian and Hessian, and not from an algorithm: an unstable formula cannot
widen it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from flint import arb, ctx
from numpy.typing import NDArray
from torch import Tensor

from gradref.declare.operation import Operation, formula_of
from gradref.judge.evidence import AT_THE_EDGE, Evidence
from gradref.judge.gates import DOUBLE, NOTABLE, Gate
from gradref.judge.inputs import EVERYTHING, into_range
from gradref.judge.questions import (
    CHUNK,
    Quantity,
    Question,
    Sample,
    changed,
    draw_sample,
    quantities,
    real_arrays,
)
from gradref.judge.table import Table
from gradref.judge.ulp import spacing, to_floats, to_numpy
from gradref.judge.verdict import Case, Place, number
from gradref.truth.hessians import BITS, Derivatives, denominators, derivatives, rounded_to_balls
from gradref.truth.jets import Balls, Floats

UNDERFLOW = 2.0**-1074

MOST_CHUNKS = 5
"""Chunks of a sample that are reduced at most: every row is judged by itself."""


@dataclass(frozen=True)
class RowsExam:
    """One operation with one setting of its parameters, in one dtype, on rows of several lengths.

    Of every length there are ``rows`` of numbers that all formats hold, the same for every dtype,
    and ``own`` ones of the dtype. About ``chunks`` groups of them are reduced, one at least of each
    length, of the dtype's own where there are any.
    """

    case: Case
    lengths: tuple[int, ...]
    rows: int
    own: int
    seed: int
    chunks: int = 15
    within: tuple[float, float] = EVERYTHING
    declared: Operation | None = None

    @cached_property
    def record(self) -> Operation:
        """The declaration: of the case, if no other is given."""
        return self.declared or self.case.record

    @cached_property
    def samples(self) -> list[Sample]:
        """What is asked about; where nothing is coupled a row is one element."""
        is_coupled = self.record.coupled is not None
        lengths, times = (self.lengths, 1) if is_coupled else ((1,), 8)
        return [
            self._inside(
                draw_sample(self.record, self.case, length, count * times, self.seed, shared)
            )
            for length in lengths
            for count, shared in ((self.rows, True), (self.own, False))
            if count
        ]

    def _inside(self, s: Sample) -> Sample:
        """Return a sample with the arrays that may hold any number inside the range."""
        if self.within == EVERYTHING:
            return s
        real = real_arrays(self.record, s)
        return s.having(**{n: into_range(s.arrays[n], self.within, self.seed) for n in real})

    def questions(self) -> Iterator[tuple[Quantity, list[Question]]]:
        """Yield every quantity with what is asked for it, a question for each sample."""
        for quantity in quantities(self.record, self.samples[0]):
            samples = self.samples
            if quantity.reduction != "none":
                samples = [self._reduced(sample, quantity) for sample in self._own]
            yield quantity, [Question(self.record, self.case, quantity, s) for s in samples]
        for truth in _TRUTHS.values():
            truth.keep()

    @property
    def _own(self) -> list[Sample]:
        """The samples with numbers of the dtype; all, where they are of one kind."""
        kinds = bool(self.rows) + bool(self.own)
        return self.samples[kinds - 1 :: kinds]

    def _reduced(self, sample: Sample, quantity: Quantity) -> Sample:
        """Return the groups of rows of a sample that are reduced."""
        rows = self._truth(sample).finite_rows(quantity)
        return sample.take(rows[: max(1, self.chunks // len(self._own)) * CHUNK])

    def _truth(self, sample: Sample) -> RowTruth:
        return truth_of(self.record, sample)

    def evidence(
        self,
        quantity: Quantity,
        asked: list[Question],
        contender: str,
        got: list[Tensor],
        others: Mapping[str, list[Tensor]],
        gate: Gate,
    ) -> Evidence:
        """Return the evidence of a quantity over all samples."""
        samples = [question.sample for question in asked]
        known = [self._known(sample, quantity, gate) for sample in samples]
        if quantity.role.endswith("from_output"):
            lost = [self._lost_by_rounding_the_output(s, quantity.role, gate) for s in samples]
            known = [replace(k, rounding=by) for k, by in zip(known, lost, strict=True)]
        results = [to_floats(values) for values in got]
        facts = [_Facts(s, quantity, r.size) for s, r in zip(samples, results, strict=True)]
        found = evidence_of(self.case, quantity, asked[0].dtype, contender, results, known, gate)
        magnitude = joined(f.magnitude for f in facts)
        return replace(
            found,
            others={who: joined(map(to_floats, values)) for who, values in others.items()},
            x=magnitude,
            branches={
                "large row": magnitude > 80,
                **found.branches,
                "the entry of the true class": joined(f.is_at_target for f in facts) > 0,
                AT_THE_EDGE: joined(f.is_at_the_edge for f in facts) > 0,
            },
            describe=lambda index: _describe(asked, results, index),
        )

    def _lost_by_rounding_the_output(self, sample: Sample, role: str, gate: Gate) -> Floats:
        """Return what a derivative as a function of y changes where y is off as it may be.

        That is the sum over all outputs k of the error of y_k times its partial derivative by y_k.
        """
        dtype, value = self.case.torch_dtype, next(quantities(self.record, sample))
        known = self._known(sample, value, gate)
        y = known.truth.high
        error = gate.of_rows(known.truth, known.scale, dtype) * spacing(y, dtype)
        formula = partial(formula_of(self.record.derivatives[role]), **sample.parameters)
        rates = torch.func.vmap(torch.func.jacfwd(formula))(torch.from_numpy(y))
        return np.asarray((np.abs(to_floats(rates)) * error[:, None, None, :]).sum(-1))

    def _known(self, sample: Sample, quantity: Quantity, gate: Gate) -> Known:
        """Return the truth of a quantity with what float64, and a usual algorithm, may lose."""
        return self._truth(sample).quantity(quantity, gate.usual_terms)


@dataclass(frozen=True)
class Known:
    """The truth of a quantity, and what float64, a usual algorithm, and a rounded output lose."""

    truth: Balls
    scale: Floats
    usual: Floats
    rounding: Floats | float = 0.0

    @classmethod
    def of(cls, stacked: Floats) -> Known:
        """Return what :meth:`Expanded.quantity` has computed."""
        high, rest, scale, usual = stacked
        return cls(Balls(high, rest), scale, usual)


def evidence_of(
    case: Case,
    quantity: Quantity,
    dtype: torch.dtype,
    contender: str,
    results: Sequence[Floats],
    known: Sequence[Known],
    gate: Gate,
) -> Evidence:
    """Return the evidence of results that are sums of products, without what is said of inputs."""
    truth = Balls(joined(k.truth.high for k in known), joined(k.truth.rest for k in known))
    scale, usual = joined(k.scale for k in known), joined(k.usual for k in known)
    rounding = joined(np.broadcast_to(k.rounding, k.scale.shape) for k in known)
    lost = gate.lost(usual if gate.usual_terms else scale, dtype) + rounding
    claim, got = gate.row_claims[dtype], joined(results)
    ulp = spacing(truth.high, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        # The result of a rounded output may be beyond a power of 2, where an ulp is twice as large.
        allowed = claim * (spacing(np.abs(truth.high) + rounding, dtype) / ulp) + lost / ulp
        is_beyond = np.isinf(allowed) & (np.abs(got - truth.high) > lost)
    allowed[is_beyond] = claim  # of a truth of 0 neither the error nor the bound is a number of ulp
    conditioned = {
        "well conditioned": allowed <= claim + 0.5,
        "ill conditioned": allowed > claim + 0.5,
    }
    return Evidence(
        contender=contender,
        case=case,
        quantity=quantity.name,
        dtype=dtype,
        got=got,
        truth=truth,
        allowed=np.where(np.isnan(truth.high), np.nan, allowed),
        notable=NOTABLE.of_rows(truth, scale, dtype),
        bound=f"{claim:g} ulp + (n+6) u scale",
        grade="sampled (>=)",
        others={},
        x=np.zeros_like(got),
        is_elementwise=False,
        regions=conditioned,
        branches=conditioned,
        describe=lambda index: Place({}),
        zero_sign=np.where(truth.high == 0, 0.0, np.nan_to_num(np.sign(truth.high))),
        zero_signs_count=gate.zero_signs,
        as_torch=gate.as_torch,
    )


def joined(parts: Iterable[Any]) -> Floats:
    """Return arrays as one vector, one behind the other."""
    return np.concatenate([np.asarray(part).reshape(-1) for part in parts])


def _describe(asked: list[Question], results: list[Floats], index: int) -> Place:
    """Return the row, or the chunk, that a result belongs to, and its place in there."""
    for question, result in zip(asked, results, strict=True):
        q, sample = question.quantity, question.sample
        if index < result.size:
            one = replace(question, sample=row_of(sample, q, result.size, index))
            given = dict(one.sample.arrays)
            if q.has_grad_output:
                given["grad_output"] = one.grad_output
            if q.has_tangent:
                is_shared = q.along in question.record.shared
                given["tangent"] = question.tangent if is_shared else one.tangent
            at = {name: show_values(a, question.case.torch_dtype) for name, a in given.items()}
            rows = len(sample.grad_output) if q.reduction == "none" else len(sample.chunks())
            lead = () if len(result) == rows else (len(result) // rows,)
            shape = (*lead, *result.shape[1:])
            inside = np.unravel_index(index % (result.size // rows), shape) if shape else ()
            parameters = changed(question.record, sample.parameters)
            return Place(at, shape, tuple(map(int, inside)), parameters)
        index -= result.size
    raise IndexError(index)


def row_of(sample: Sample, q: Quantity, size: int, index: int) -> Sample:
    """Return the row, or the chunk, that one of ``size`` results belongs to."""
    if q.reduction == "none":
        return sample.take([index // (size // len(sample.grad_output))])
    chunks = sample.chunks()
    chunk = chunks[index // (size // len(chunks))]
    return replace(chunk, grad_output=chunk.grad_output[0])


def show_values(values: Tensor, dtype: torch.dtype) -> str:
    """Return an array as a person can paste it."""
    if not values.is_floating_point():
        return str(values.tolist())
    return _nested(to_floats(values).tolist(), dtype)


def _nested(values: Any, dtype: torch.dtype) -> str:
    if not isinstance(values, list):
        return number(values, dtype)
    return "[" + ", ".join(_nested(v, dtype) for v in values) + "]"


@dataclass(frozen=True)
class _Facts:
    """What is known of the row, or the chunk, that every one of ``size`` results belongs to."""

    sample: Sample
    q: Quantity
    size: int

    def _of_each(self, by_row: Tensor) -> Floats:
        """Return for every result the largest of a number of the rows that it belongs to."""
        found = to_floats(by_row.reshape(len(self.sample.grad_output), -1)).max(1, initial=0.0)
        if self.q.reduction != "none":
            found = (
                np.maximum.reduceat(found, np.arange(0, len(found), CHUNK)) if len(found) else found
            )
        return np.repeat(found, self.size // max(1, len(found)))

    @property
    def magnitude(self) -> Floats:
        """The largest magnitude in the first array."""
        return self._of_each(next(iter(self.sample.arrays.values())).abs())

    @property
    def is_at_the_edge(self) -> Floats:
        """1 where an argument is exactly 0 or 1."""
        rows = len(self.sample.grad_output)
        by_row = {n: a for n, a in self.sample.arrays.items() if n not in self.sample.by_class}
        real = [a for a in by_row.values() if a.is_floating_point()]
        edges = [((a == 0) | (a == 1)).reshape(rows, -1) for a in real]
        return self._of_each(torch.cat(edges, dim=1))

    @property
    def is_at_target(self) -> Floats:
        """1 for results that stand at the class which an array of indices has for their row."""
        indices = [a for a in self.sample.arrays.values() if not a.is_floating_point()]
        of = self.sample.arrays.get(self.q.wrt)
        if not indices or indices[0].dim() != 1 or of is None or of.dim() != 2:
            return np.zeros(self.size)
        classes = np.arange(of.shape[1])
        at = to_floats(indices[0])[:, None] == classes
        return at.astype(float) if at.size == self.size else np.zeros(self.size)


# --- the truth -----------------------------------------------------------------------------------


class RowTruth:
    """What is known of a sample: the quantities that were asked for, kept in a table.

    The balls of Jacobian and Hessian that they are made of are computed when one is not known.
    """

    def __init__(self, record: Operation, s: Sample) -> None:
        arrays = {**s.arrays, "grad_output": s.grad_output, "tangent": s.tangent}
        shapes = {name: tuple(a.shape) for name, a in arrays.items()}
        settings = f"{sorted(s.parameters.items())!r} {shapes} {s.columns} {CHUNK} {MOST_CHUNKS}"
        self._record, self._sample = record, s
        self._table = Table(record, settings, *(to_floats(a).tobytes() for a in arrays.values()))
        self.keep = self._table.keep

    @cached_property
    def _expanded(self) -> Expanded:
        return Expanded.of(self._record, self._sample)

    def finite_rows(self, q: Quantity) -> NDArray[np.intp]:
        """Return chunks of rows where what is reduced is finite: one other spoils a mean."""
        derivative = {"value": "value", "gradient": "jacobian"}.get(q.role, "hessian")
        return self._table.get(derivative, lambda: self._expanded.finite_rows(derivative))

    def quantity(self, q: Quantity, usual_terms: bool) -> Known:
        """Return the balls of a quantity, what float64 may lose, and what usual algorithms may."""

        def compute() -> Floats:
            rows = slice(None) if q.reduction == "none" else self.finite_rows(q)
            return self._expanded.take(rows).quantity(q, usual_terms)

        name = f"{q.name} {'usual' if usual_terms else ''}"
        return Known.of(self._table.get(name, compute))


@dataclass(frozen=True)
class Expanded:
    """The derivatives of a sample as balls, and as the magnitudes that gates are made of."""

    balls: Derivatives
    magnitudes: Derivatives
    usual: Derivatives
    grad_output: Floats
    tangent: Floats
    mean_weights: NDArray[np.object_]
    is_loss: bool
    length: int
    columns: int

    @classmethod
    def of(cls, record: Operation, s: Sample) -> Expanded:
        """Return everything about a sample up to second order."""
        arrays = {n: to_numpy(a) for n, a in s.arrays.items()}
        wrt = [name for name in record.differentiable if arrays[name].dtype.kind == "f"]
        parameters = {name: v for name, v in record.parameters.items() if name not in s.arrays}
        unseen = ("dim", "reduction")  # the truth sees rows, unreduced
        parameters = {k: s.parameters.get(k, v) for k, v in parameters.items() if k not in unseen}
        balls = derivatives(record.truth, arrays, wrt, parameters, s.by_class)
        rows = len(s.grad_output)
        columns = [_by_row(arrays[name], rows, name in s.by_class) for name in wrt]
        x = np.abs(np.concatenate(columns, axis=1))
        plain, usual = magnitudes(balls, x, record, s)
        return cls(
            balls=balls,
            magnitudes=plain,
            usual=usual,
            grad_output=to_floats(s.grad_output).reshape(len(s.grad_output), -1),
            tangent=to_floats(s.tangent).reshape(len(s.tangent), -1),
            mean_weights=denominators(record.truth_mass, arrays, parameters, rows),
            is_loss=record.kind == "loss",
            length=columns[0].shape[1],
            columns=s.columns,
        )

    def finite_rows(self, derivative: str) -> NDArray[np.intp]:
        """Return chunks of rows where a derivative is finite."""
        terms = getattr(self.balls, derivative)
        is_finite = np.isfinite(terms.astype(float)).reshape(len(terms), -1).all(1)
        rows = np.flatnonzero(is_finite)[: MOST_CHUNKS * CHUNK]
        return rows[: len(rows) // CHUNK * CHUNK]

    def take(self, rows: Any) -> Expanded:
        """Return some of the rows."""
        return replace(
            self,
            balls=self.balls.take(rows),
            magnitudes=self.magnitudes.take(rows),
            usual=self.usual.take(rows),
            grad_output=self.grad_output[rows],
            tangent=self.tangent[rows],
            mean_weights=self.mean_weights[rows],
        )

    def quantity(self, q: Quantity, usual_terms: bool) -> Floats:
        """Return a quantity of all rows in two, and what float64 and usual algorithms may lose."""
        with ctx.workprec(BITS):
            truth = rounded_to_balls(self._contracted(q, self.balls, exact=True))
            scale = self._contracted(q, self.magnitudes, exact=False)
            usual = self._contracted(q, self.usual, exact=False) if usual_terms else scale
        unknown = np.where(np.isfinite(truth.high) & self._overflows(q), np.nan, 0.0)
        return np.stack(
            [truth.high, truth.rest, self._lost(scale) + unknown, self._lost(usual) + unknown]
        )

    def _overflows(self, q: Quantity) -> NDArray[np.bool_]:
        """Return where float64 cannot hold a derivative that a small ``grad_output`` brings back.

        It is multiplied afterwards: these results are not judged. Only where nothing is summed.
        """
        if self.length > 1 or q.reduction != "none":
            return np.zeros(1, dtype=bool)
        with np.errstate(over="ignore", invalid="ignore"):
            ones = np.ones_like(self.grad_output), np.ones_like(self.tangent)
            return ~np.isfinite(q.contract(self.in_float64, *ones))

    @cached_property
    def in_float64(self) -> Derivatives:
        """The balls as floats, for all quantities that are made of them."""

        def rounded(objects: NDArray[Any]) -> NDArray[Any]:
            return objects.astype(np.float64)

        return replace(
            self.balls,
            value=rounded(self.balls.value),
            jacobian=rounded(self.balls.jacobian),
            hessian=rounded(self.balls.hessian),
        )

    def _lost(self, scale: NDArray[Any]) -> Floats:
        """Return what a backward stable algorithm of float64 may lose on rows of this length."""
        return np.asarray((self.length + 6) * (DOUBLE * scale + UNDERFLOW), dtype=np.float64)

    def _contracted(self, q: Quantity, d: Derivatives, exact: bool) -> NDArray[Any]:
        """Return a quantity of all rows, or of each chunk with the weight of a row in it."""
        size = (lambda v: v) if exact else np.abs
        if q.reduction == "none":
            return q.contract(d, size(self.grad_output), size(self.tangent))
        found = []
        for i in range(0, len(self.grad_output), CHUNK):
            rows = slice(i, i + CHUNK)
            weight = self._weight(q, rows)
            if not exact:
                weight = CHUNK * np.abs(weight.astype(float))
            found.append(q.contract(d.take(rows), weight, size(self.tangent[rows])))
        return np.concatenate(found) if found else np.zeros(0)

    def _weight(self, q: Quantity, rows: slice) -> NDArray[Any]:
        """Return what a row counts for in a reduced result, times its grad_output."""
        if not self.is_loss:
            return self.grad_output[rows]
        weights = self.mean_weights[rows]
        total = {
            "sum": 1,
            "mean": weights.sum(),
            "batchmean": len(weights) // self.columns,
        }[q.reduction]
        if total == 0:
            total = np.inf if q.has_grad_output else np.nan
        backward = float(self.grad_output[rows.start, 0]) if q.has_grad_output else 1.0
        return np.array([[backward / arb(total)]] * len(weights), dtype=object)


_TRUTHS: dict[tuple[Any, ...], RowTruth] = {}
_MOST_TRUTHS = 64


def truth_of(record: Operation, s: Sample) -> RowTruth:
    """Return the truth of a sample, which rows of other dtypes with the same numbers share."""
    arrays = {**s.arrays, "": s.grad_output, " ": s.tangent}
    numbers = tuple((n, a.shape, to_floats(a).tobytes()) for n, a in arrays.items())
    key = (record.name, id(record.truth), repr(sorted(s.parameters.items())), numbers)
    if key not in _TRUTHS:
        if len(_TRUTHS) >= _MOST_TRUTHS:
            _TRUTHS.pop(next(iter(_TRUTHS)))
        _TRUTHS[key] = RowTruth(record, s)
    return _TRUTHS[key]


def _by_row(a: Floats, rows: int, is_shared: bool) -> Floats:
    """Return the columns of an argument, for every row."""
    if is_shared:
        return np.broadcast_to(a, (rows, len(a)))
    return a if a.ndim == 2 else a[:, None]


def magnitudes(
    balls: Derivatives, x: Floats, record: Operation, s: Sample
) -> tuple[Derivatives, Derivatives]:
    """Return what float64 may lose of balls at ``x`` in its units, and usual algorithms may."""
    plain = _magnitudes(balls, x, record)
    return plain, _with_usual_terms(record, balls, plain, s)


def _magnitudes(balls: Derivatives, x: Floats, record: Operation) -> Derivatives:
    """Return value, Jacobian and Hessian as magnitudes, each with what perturbed arguments add."""

    def size(objects: NDArray[Any]) -> Floats:
        finite: Floats = np.nan_to_num(objects.astype(np.float64), posinf=0.0, neginf=0.0)
        return np.abs(finite)

    value, jacobian, hessian = size(balls.value), size(balls.jacobian), size(balls.hessian)
    terms = jacobian[:, :, :, None] if record.kind == "rowwise" else 0.0
    if "normwise" in record.precision:
        largest = _largest_in_blocks(hessian, list(balls.columns.values()))
        if record.kind == "batch":  # of what a loss does not depend on nothing is lost
            moves = (jacobian != 0) | (hessian != 0).any(-1)
            largest *= moves[:, :, :, None] & moves[:, :, None, :]
        terms = terms + largest
    with np.errstate(over="ignore", invalid="ignore"):
        return Derivatives(
            value=value + np.einsum("rm,rkm->rk", x, jacobian),
            jacobian=jacobian + np.einsum("rm,rkjm->rkj", x, hessian),
            hessian=(hessian + terms) * (1 + x.max(1))[:, None, None, None],
            columns=balls.columns,
        )


def _largest_in_blocks(hessian: Floats, columns: Sequence[slice]) -> Floats:
    """Return for every second derivative the largest of its block of two arguments.

    Of two different ones it is at least the geometric mean of those of each by itself: where the
    whole mixed block is small, as of vectors at right angles, its terms are not.
    """
    largest = np.zeros_like(hessian)
    own = [np.sqrt(hessian[:, :, c, c].max((2, 3), keepdims=True)) for c in columns]
    for (a, of_a), (b, of_b) in itertools.product(zip(columns, own, strict=True), repeat=2):
        block = hessian[:, :, a, b].max((2, 3), keepdims=True)
        largest[:, :, a, b] = np.maximum(block, of_a * of_b)
    return largest


def _with_usual_terms(
    record: Operation, balls: Derivatives, magnitudes: Derivatives, s: Sample
) -> Derivatives:
    """Return the magnitudes with terms that usual algorithms add and a stable one has not.

    Of an output f of a row-wise function the products f g and f Σ f g; 1 where precision is
    absolute.
    """
    f = np.abs(balls.value.astype(float))
    if "absolute" in record.precision:
        weights = (a for name, a in s.arrays.items() if name not in record.arguments)
        unit = max([1.0, *(float(a.max()) for a in weights)])
        return replace(
            magnitudes, value=magnitudes.value + unit, jacobian=magnitudes.jacobian + unit
        )
    if record.kind != "rowwise" or record.coupled != "dim":
        return magnitudes
    products = f[:, :, None] * (np.eye(f.shape[1]) + f[:, None, :])
    jacobian = magnitudes.jacobian.copy()
    for columns in balls.columns.values():
        if columns.stop - columns.start == f.shape[1]:
            jacobian[:, :, columns] += products
    return replace(magnitudes, jacobian=jacobian)
