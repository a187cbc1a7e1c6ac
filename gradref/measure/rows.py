"""The verdict on row-wise functions and losses: every product, gradient and reduction.

The gate on a result f of arguments x is half an ulp of the output format plus what a mixed
forward-backward stable algorithm of float64 may add for rows of n numbers,

    (n + 6) (u (|f| + sum_j |x_j| |df/dx_j|) + 2^-1074),    u = 2^-53

and for a second derivative, whose own condition would take a third, u (1 + max |x|) times the
magnitudes of its terms; those of a row-wise function, which exponentials make, cancel from the
magnitude of the Jacobian. Where the second part is below half an ulp the row is well conditioned
and the gate is at most 1 ulp.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from flint import arb, ctx
from numpy.typing import NDArray
from torch import Tensor

from gradref.declare.operation import Domain, Operation
from gradref.measure.inputs import draw, rounded
from gradref.measure.ulp import errors, spacing, to_floats
from gradref.measure.verdict import NOTABLE_ULP, Case, Results, Row, number
from gradref.truth.jets import Balls, Floats
from gradref.truth.rows import BITS, Derivatives, denominators, derivatives, to_balls

LENGTHS = {"smoke": (1, 3, 5), "quick": (1, 2, 3, 5, 7), "full": (1, 2, 3, 4, 5, 8, 13)}
ROWS = {"smoke": 60, "quick": 500, "full": 1500}
"""Rows of every length."""

CHUNK = 8
"""Rows that are reduced to one mean or sum."""

COLUMNS = 2
"""Where nothing is coupled a chunk has two dimensions: a mean and a batchmean differ."""

UNIT, UNDERFLOW = 2.0**-53, 2.0**-1074

# --- samples -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Rows of one length: the arrays, the vectors of the products, the other arguments."""

    arrays: dict[str, Tensor]
    grad_output: Tensor
    tangent: Tensor
    parameters: dict[str, Any]
    columns: int = 1

    def take(self, rows: Any) -> Sample:
        """Some of the rows; a weight per class belongs to all of them."""
        count = len(self.grad_output)
        return replace(
            self,
            arrays={n: a[rows] if len(a) == count else a for n, a in self.arrays.items()},
            grad_output=self.grad_output[rows],
            tangent=self.tangent[rows],
        )

    def chunks(self) -> list[Sample]:
        """The groups of rows that a mean or a sum is taken of."""
        count = len(self.grad_output)
        chunks = [self.take(slice(i, i + CHUNK)) for i in range(0, count, CHUNK)]
        return [chunk._with_columns() for chunk in chunks] if self.columns > 1 else chunks

    def _with_columns(self) -> Sample:
        arrays = {name: a.reshape(-1, self.columns) for name, a in self.arrays.items()}
        return replace(self, arrays=arrays)

    def wide(self) -> Sample:
        """The same numbers in float64."""

        def wide(a: Tensor) -> Tensor:
            return a.to(torch.float64) if a.is_floating_point() else a

        return replace(
            self,
            arrays={name: wide(a) for name, a in self.arrays.items()},
            grad_output=wide(self.grad_output),
            tangent=wide(self.tangent),
        )

    def leaves(self, *names: str) -> Sample:
        """The same with the floating ones of some arrays as leaves of a fresh graph."""
        leaves = {n: self.arrays[n] for n in names if self.arrays[n].is_floating_point()}
        fresh = {name: a.clone().requires_grad_() for name, a in leaves.items()}
        return replace(self, arrays=self.arrays | fresh)


def draw_sample(record: Operation, case: Case, length: int, rows: int, seed: int) -> Sample:
    """Arrays drawn from the domains and rounded to the dtype; vectors of random numbers."""
    rng = np.random.default_rng([seed, length])
    info = torch.finfo(case.torch_dtype)
    optional = {name: v for name, v in case.parameters.items() if isinstance(v, Domain)}
    parameters = {**record.parameters, **case.parameters}
    if "dim" in parameters:
        parameters["dim"] = -1
    domains = {name: d[0] for name, d in record.array_domains(parameters).items()}
    domains = {name: d for name, d in domains.items() if name in record.arguments} | optional
    row = (rows,) if record.kind == "loss" else (rows, length)
    element = (rows,) if record.coupled is None else (rows, length)
    shapes = {"element": element, "row": (rows,), "class": (length,)}

    def fill(domain: Domain, shape: tuple[int, ...]) -> Tensor:
        if domain.integer:
            return torch.from_numpy(rng.integers(0, length, shape)).to(case.device)
        return rounded(draw(domain, shape, rng, info.max), case.torch_dtype).to(case.device)

    arrays = {name: fill(domain, shapes[domain.extent]) for name, domain in domains.items()}
    return Sample(
        arrays=arrays,
        grad_output=rounded(rng.normal(size=row), case.torch_dtype).to(case.device),
        tangent=rounded(rng.normal(size=element), case.torch_dtype).to(case.device),
        parameters={
            name: value
            for name, value in parameters.items()
            if name not in arrays and name != "reduction"
        },
        columns=1 if record.coupled else COLUMNS,
    )


# --- quantities ----------------------------------------------------------------------------------

Contraction = Callable[[Derivatives, NDArray[Any], NDArray[Any]], NDArray[Any]]
"""A quantity as a function of value, Jacobian, Hessian, grad_output (R, K) and tangent (R, D)."""


@dataclass(frozen=True)
class Quantity:
    """One thing to judge: how ours and torch compute it, and what of the derivatives it is.

    ``reduction`` is that of the chunks of a sample; their ``grad_output`` is that of the first row.

    The contraction is applied to the balls for the truth, and to magnitudes for the gate.
    """

    role: str
    ours: Callable[[Sample], Tensor]
    theirs: Callable[[Sample], Tensor]
    contract: Contraction
    wrt: str = ""
    along: str = ""
    reduction: str = "none"

    @property
    def name(self) -> str:
        """As it stands in a verdict: ``hvp(input, target)``, ``gradient(input) [mean]``."""
        arguments = dict.fromkeys(name for name in (self.wrt, self.along) if name)
        named = f"{self.role}({', '.join(arguments)})" if arguments else self.role
        return named if self.reduction == "none" else f"{named} [{self.reduction}]"


def quantities(record: Operation, one: Sample) -> Iterator[Quantity]:
    """Everything declared of an operation, for the arguments that a sample has."""
    ours, theirs = _Declared(record), _Witness(record)
    if record.kind == "rowwise":
        yield Quantity("value", ours.value, theirs.value, lambda d, g, t: d.value)
        yield Quantity("jacobian", ours.of("jacobian"), theirs.jacobian, lambda d, g, t: d.jacobian)
        yield Quantity("vjp", ours.of("vjp"), theirs.gradient("x"), _gradient("x"))
        yield Quantity("jvp", ours.of("jvp"), theirs.jvp, _jvp)
        yield Quantity("hvp", ours.of("hvp"), theirs.hvp("x", "x"), _hvp("x", "x"))
        return
    yield Quantity("value", ours.value, theirs.value, lambda d, g, t: d.value.sum(1))
    wrt = [name for name in record.differentiable if one.arrays[name].is_floating_point()]
    for a in wrt:
        yield Quantity("gradient", ours.gradient(a), theirs.gradient(a), _gradient(a), a)
        yield Quantity(
            "hessian_diagonal",
            ours.hessian_diagonal(a),
            theirs.hessian_diagonal(a),
            _hessian_diagonal(a),
            a,
        )
        for b in wrt:
            yield Quantity("hvp", ours.hvp(a, b), theirs.hvp(a, b), _hvp(a, b), a, b)
    for reduction in record.reductions:
        yield Quantity(
            "value",
            ours.reduced(reduction),
            theirs.reduced(reduction),
            lambda d, g, t: np.asarray((d.value * g).sum()).reshape(1),
            reduction=reduction,
        )
        yield Quantity(
            "gradient",
            ours.reduced_gradient(wrt[0], reduction),
            theirs.reduced_gradient(wrt[0], reduction),
            _gradient(wrt[0]),
            wrt[0],
            reduction=reduction,
        )


def _gradient(wrt: str) -> Contraction:
    return lambda d, g, t: (g[:, :, None] * d.jacobian[:, :, d.columns[wrt]]).sum(1)


def _jvp(d: Derivatives, g: NDArray[Any], t: NDArray[Any]) -> NDArray[Any]:
    return np.asarray((d.jacobian * t[:, None, :]).sum(2))


def _hvp(wrt: str, along: str) -> Contraction:
    return lambda d, g, t: (
        (d.hessian[:, :, d.columns[wrt], d.columns[along]] * t[:, None, None, :]).sum(3)
        * g[:, :, None]
    ).sum(1)


def _hessian_diagonal(wrt: str) -> Contraction:
    return lambda d, g, t: (
        np.diagonal(d.hessian[:, :, d.columns[wrt], d.columns[wrt]], axis1=2, axis2=3)
        * g[:, :, None]
    ).sum(1)


@dataclass(frozen=True)
class _Declared:
    """The declared functions, called on samples."""

    record: Operation

    def value(self, s: Sample) -> Tensor:
        return self._call(self.record.function, s)

    def of(self, role: str) -> Callable[[Sample], Tensor]:
        """A derivative of a row-wise function, with the vectors that its signature asks for."""
        vectors = {
            "jacobian": (),
            "vjp": ("grad_output",),
            "jvp": ("tangent",),
            "hvp": ("grad_output", "tangent"),
        }[role]
        function = self.record.derivatives[role]
        return lambda s: function(
            s.arrays["x"], *(getattr(s, name) for name in vectors), **s.parameters
        )

    def gradient(self, wrt: str) -> Callable[[Sample], Tensor]:
        return lambda s: self._derivative("gradient", s, wrt=wrt)

    def hessian_diagonal(self, wrt: str) -> Callable[[Sample], Tensor]:
        return lambda s: self._derivative("hessian_diagonal", s, wrt=wrt)

    def hvp(self, wrt: str, along: str) -> Callable[[Sample], Tensor]:
        return lambda s: self._derivative("hvp", s, tangent=s.tangent, wrt=wrt, along=along)

    def reduced(self, reduction: str) -> Callable[[Sample], Tensor]:
        return lambda s: torch.stack(
            [self._call(self.record.function, c, reduction=reduction) for c in s.chunks()]
        )

    def reduced_gradient(self, wrt: str, reduction: str) -> Callable[[Sample], Tensor]:
        function = self.record.derivatives["gradient"]
        return lambda s: torch.cat(
            [
                self._call(function, c, reduction=reduction, wrt=wrt, grad_output=c.grad_output[0])
                for c in s.chunks()
            ]
        )

    def _derivative(self, role: str, s: Sample, **more: Any) -> Tensor:
        return self._call(self.record.derivatives[role], s, grad_output=s.grad_output, **more)

    def _call(self, function: Callable[..., Any], s: Sample, **more: Any) -> Tensor:
        if self.record.reductions:
            more.setdefault("reduction", "none")
        result: Tensor = function(**s.arrays, **s.parameters, **more)
        return result


@dataclass(frozen=True)
class _Witness:
    """torch's counterpart and its derivatives by autograd."""

    record: Operation

    def call(self, s: Sample, reduction: str = "none") -> Tensor:
        assert self.record.torch is not None  # every row-wise function and loss has one
        arrays, more = dict(s.arrays), dict(s.parameters)
        if self.record.reductions:
            more["reduction"] = reduction
        if self.record.kind == "rowwise":
            return self.record.torch(arrays["x"], **more)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # kl_div's "mean" warns that it is not batchmean
            return self.record.torch(**arrays, **more)

    def value(self, s: Sample) -> Tensor:
        return self.call(s)

    def gradient(self, wrt: str) -> Callable[[Sample], Tensor]:
        def run(s: Sample) -> Tensor:
            leaves = s.leaves(*self.record.differentiable)
            return _grad(self.call(leaves), leaves.arrays[wrt], s.grad_output)

        return run

    def jacobian(self, s: Sample) -> Tensor:
        leaves = s.leaves(*self.record.differentiable)
        y, x = self.call(leaves), leaves.arrays["x"]
        units = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        return torch.stack([_grad(y, x, unit.expand_as(x)) for unit in units], dim=1)

    def jvp(self, s: Sample) -> Tensor:
        def f(x: Tensor) -> Tensor:
            return self.call(replace(s, arrays={"x": x}))

        result: Tensor = torch.func.jvp(f, (s.arrays["x"],), (s.tangent,))[1]
        return result

    def hvp(self, wrt: str, along: str) -> Callable[[Sample], Tensor]:
        def run(s: Sample) -> Tensor:
            leaves = s.leaves(*self.record.differentiable)
            first = _grad(self.call(leaves), leaves.arrays[along], s.grad_output)
            return _grad(first, leaves.arrays[wrt], s.tangent)

        return run

    def hessian_diagonal(self, wrt: str) -> Callable[[Sample], Tensor]:
        def run(s: Sample) -> Tensor:
            leaves = s.leaves(*self.record.differentiable)
            x = leaves.arrays[wrt]
            first = _grad(self.call(leaves), x, s.grad_output)
            if x.dim() == 1:
                return _grad(first, x, torch.ones_like(x))
            units = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
            columns = [_grad(first, x, unit.expand_as(x))[:, j] for j, unit in enumerate(units)]
            return torch.stack(columns, dim=1)

        return run

    def reduced(self, reduction: str) -> Callable[[Sample], Tensor]:
        return lambda s: torch.stack([self.call(c, reduction) for c in s.chunks()])

    def reduced_gradient(self, wrt: str, reduction: str) -> Callable[[Sample], Tensor]:
        def one(s: Sample) -> Tensor:
            leaves = s.leaves(*self.record.differentiable)
            y = self.call(leaves, reduction)
            return _grad(y, leaves.arrays[wrt], s.grad_output[0])

        return lambda s: torch.cat([one(c) for c in s.chunks()])


def _grad(y: Tensor, x: Tensor, vector: Tensor) -> Tensor:
    """vᵀ∂y/∂x, on a graph of its own; zero where y does not depend on x."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (result,) = torch.autograd.grad(y, x, vector, create_graph=True, materialize_grads=True)
    return result


# --- the verdict ---------------------------------------------------------------------------------


def judge_rows(record: Operation, case: Case, mode: str, seed: int) -> list[Row]:
    """A row for every quantity of the operation, over rows of several lengths."""
    lengths = LENGTHS[mode] if record.coupled else (1,)
    count = ROWS[mode] * (1 if record.coupled else 8)
    parts: dict[str, list[_Part]] = {}
    for length in lengths:
        s = draw_sample(record, case, length, count, seed)
        proved = Proved.of(record, case, s)
        for q in quantities(record, s):
            of, by = s, proved
            if q.reduction != "none":
                finite = proved.finite_rows(q)
                of, by = s.take(finite), proved.take(finite)
            ours = to_floats(q.ours(of))
            truth, allowed = by.quantity(q, ours.shape)
            parts.setdefault(q.name, []).append(_Part(q, of, ours, attempt(q, of), truth, allowed))
    return [_row(case, name, found) for name, found in parts.items()]


@dataclass(frozen=True)
class _Part:
    """One quantity on one sample; ``scale`` is what float64 may add, absolutely."""

    q: Quantity
    sample: Sample
    ours: Floats
    theirs: Floats | None
    truth: Balls
    scale: Floats


def row_of(s: Sample, q: Quantity, results: Floats, index: int) -> Sample:
    """The row, or the chunk, that a result belongs to."""
    if q.reduction == "none":
        return s.take([index // (results.size // len(s.grad_output))])
    chunks = s.chunks()
    return chunks[index // (results.size // len(chunks))]


def attempt(q: Quantity, s: Sample) -> Floats | None:
    """torch's result, or None where it has no such derivative."""
    try:
        return to_floats(q.theirs(s))
    except (RuntimeError, NotImplementedError) as error:
        if "not implemented" not in str(error):
            raise
        return None


@dataclass(frozen=True)
class Proved:
    """The derivatives of a sample as balls, and as the magnitudes that gates are made of."""

    case: Case
    balls: Derivatives
    magnitudes: Derivatives
    grad_output: Floats
    tangent: Floats
    masses: NDArray[np.object_]
    length: int
    columns: int

    @classmethod
    def of(cls, record: Operation, case: Case, s: Sample) -> Proved:
        """Everything about a sample up to second order."""
        arrays = {name: _numpy(a) for name, a in s.arrays.items()}
        wrt = [name for name in record.differentiable if arrays[name].dtype.kind == "f"]
        bits = BITS[case.dtype]
        parameters = {name: v for name, v in record.parameters.items() if name not in s.arrays}
        unseen = ("dim", "reduction")  # the truth sees rows, unreduced
        parameters = {k: s.parameters.get(k, v) for k, v in parameters.items() if k not in unseen}
        balls = derivatives(record.truth, arrays, wrt, parameters, bits)
        columns = [a if a.ndim == 2 else a[:, None] for a in (arrays[name] for name in wrt)]
        return cls(
            case=case,
            balls=balls,
            magnitudes=_magnitudes(
                balls, np.abs(np.concatenate(columns, axis=1)), record.kind == "rowwise"
            ),
            grad_output=to_floats(s.grad_output).reshape(len(s.grad_output), -1),
            tangent=to_floats(s.tangent).reshape(len(s.tangent), -1),
            masses=denominators(record.truth_mass, arrays, parameters, len(s.grad_output)),
            length=columns[0].shape[1],
            columns=s.columns,
        )

    def finite_rows(self, q: Quantity) -> NDArray[np.intp]:
        """Chunks of rows where what is reduced is finite: one other makes a mean infinite."""
        terms = self.balls.value if q.role == "value" else self.balls.jacobian
        sums = terms.astype(float).reshape(len(terms), -1).sum(1)
        finite = np.flatnonzero(np.isfinite(sums))
        return finite[: len(finite) // CHUNK * CHUNK]

    def take(self, rows: Any) -> Proved:
        """Some of the rows."""
        return replace(
            self,
            balls=_rows_of(self.balls, rows),
            magnitudes=_rows_of(self.magnitudes, rows),
            grad_output=self.grad_output[rows],
            tangent=self.tangent[rows],
            masses=self.masses[rows],
        )

    def quantity(self, q: Quantity, shape: tuple[int, ...]) -> tuple[Balls, Floats]:
        """The balls of a quantity in the shape of a result, and its scale."""
        with ctx.workprec(BITS[self.case.dtype]):
            if q.reduction == "none":
                truth = q.contract(self.balls, self.grad_output, self.tangent)
                scale = q.contract(self.magnitudes, np.abs(self.grad_output), np.abs(self.tangent))
            else:
                truth, scale = self._reduced(q)
        invisible = arb(torch.finfo(self.case.torch_dtype).tiny) * arb(2) ** -80
        allowed = (self.length + 6) * (UNIT * scale + UNDERFLOW)
        return to_balls(truth.reshape(shape), invisible), allowed.reshape(shape)

    def _reduced(self, q: Quantity) -> tuple[NDArray[Any], NDArray[Any]]:
        """One chunk after the other, with the weight of a row in it as grad_output."""
        truths, scales = [], []
        for i in range(0, len(self.grad_output), CHUNK):
            rows = slice(i, i + CHUNK)
            masses = self.masses[rows]
            total = {
                "sum": 1,
                "mean": masses.sum(),
                "batchmean": len(masses) // self.columns,
            }[q.reduction]
            backward = float(self.grad_output[i, 0]) if q.role == "gradient" else 1.0
            if total == 0:
                total = np.inf if q.role == "gradient" else np.nan
            weight = np.array([[backward / arb(total)]] * len(masses), dtype=object)
            truths.append(q.contract(_rows_of(self.balls, rows), weight, self.tangent[rows]))
            size = CHUNK * np.abs(weight.astype(float))
            scales.append(q.contract(_rows_of(self.magnitudes, rows), size, self.tangent[rows]))
        return np.concatenate(truths), np.concatenate(scales)


def _numpy(a: Tensor) -> NDArray[Any]:
    return to_floats(a) if a.is_floating_point() else a.cpu().numpy()


def _rows_of(d: Derivatives, rows: Any) -> Derivatives:
    return Derivatives(d.value[rows], d.jacobian[rows], d.hessian[rows], d.columns)


def _magnitudes(balls: Derivatives, x: Floats, rowwise: bool) -> Derivatives:
    """Value, Jacobian and Hessian as magnitudes, each with what perturbed arguments do to it."""

    def size(objects: NDArray[Any]) -> Floats:
        finite: Floats = np.nan_to_num(objects.astype(np.float64), posinf=0.0, neginf=0.0)
        return np.abs(finite)

    value, jacobian, hessian = size(balls.value), size(balls.jacobian), size(balls.hessian)
    terms = jacobian[:, :, :, None] if rowwise else 0.0
    return Derivatives(
        value=value + np.einsum("rm,rkm->rk", x, jacobian),
        jacobian=jacobian + np.einsum("rm,rkjm->rkj", x, hessian),
        hessian=(hessian + terms) * (1 + x.max(1))[:, None, None, None],
        columns=balls.columns,
    )


def _row(case: Case, name: str, parts: list[_Part]) -> Row:
    """The verdict on one quantity over all its samples."""

    def joined(pick: Callable[[_Part], Floats]) -> Floats:
        return np.concatenate([pick(part).reshape(-1) for part in parts])

    dtype = case.torch_dtype
    truth = Balls(joined(lambda p: p.truth.high), joined(lambda p: p.truth.low))
    torch_has_it = all(part.theirs is not None for part in parts)
    ends = np.cumsum([part.ours.size for part in parts])

    def describe(index: int) -> dict[str, str]:
        which = int(np.searchsorted(ends, index, side="right"))
        part = parts[which]
        inside = index - int(ends[which]) + part.ours.size
        of = row_of(part.sample, part.q, part.ours, inside)
        return {n: show_values(a, dtype) for n, a in of.arrays.items()}

    results = Results(
        case=case,
        quantity=name,
        truth=truth,
        ours=joined(lambda p: p.ours),
        theirs=joined(lambda p: _known(p.theirs)) if torch_has_it else None,
        describe=describe,
    )
    ulp = errors(results.ours, truth, dtype)
    with np.errstate(over="ignore"):
        in_ulp = joined(lambda p: p.scale) / spacing(truth.high, dtype)
    allowed = 0.5 + in_ulp
    with np.errstate(invalid="ignore"):
        used = np.where(np.isnan(truth.high), np.nan, ulp / allowed)
    everywhere = np.ones(len(ulp), dtype=bool)
    return results.row(
        "",
        everywhere,
        ulp,
        used=used,
        notable=NOTABLE_ULP + in_ulp * (torch.finfo(dtype).eps / 2 / UNIT),
        bound="1/2 ulp + (n+6) u scale",
        grade="sampled (>=)",
        parts={"well conditioned": allowed <= 1.0, "ill conditioned": allowed > 1.0},
    )


def _known(values: Floats | None) -> Floats:
    assert values is not None  # asked for only where every part has torch's result
    return values


def show_values(values: Tensor, dtype: torch.dtype) -> str:
    """An array as a person can paste it."""
    if not values.is_floating_point():
        return str(values.tolist())
    flat = to_floats(values).reshape(-1)
    return "[" + ", ".join(number(v, dtype) for v in flat.tolist()) + "]"
