"""What is asked of every contender: a quantity of an operation on a sample of inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradref.declare.operation import Domain, Operation
from gradref.judge.inputs import draw, draw_indices, rounded, shared_by_all
from gradref.judge.verdict import Case
from gradref.truth.hessians import Derivatives

CHUNK = 8
"""Rows that are reduced to one mean or sum."""

COLUMNS = 2
"""Where nothing is coupled a chunk has two dimensions: a mean and a batchmean differ."""

# --- samples -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Inputs: the arrays, the vectors of the products, the other arguments.

    Of an elementwise function there is one array, of rows there are rows of one length.
    """

    arrays: dict[str, Tensor]
    grad_output: Tensor
    tangent: Tensor
    parameters: dict[str, Any]
    columns: int = 1
    by_class: tuple[str, ...] = ()
    """The arrays with one number for each class: they belong to all rows."""
    is_one_chunk: bool = False
    """Whether a mean or a sum is taken of all rows, and not of groups of them."""

    def take(self, rows: Any) -> Sample:
        """Return some of the rows."""
        return replace(
            self,
            arrays={n: a if n in self.by_class else a[rows] for n, a in self.arrays.items()},
            grad_output=self.grad_output[rows],
            tangent=self.tangent[rows],
        )

    def chunks(self) -> list[Sample]:
        """Return the groups of rows that a mean or a sum is taken of."""
        if self.is_one_chunk:
            return [self]
        count = len(self.grad_output)
        chunks = [self.take(slice(i, i + CHUNK)) for i in range(0, count, CHUNK)]
        return [chunk._with_columns() for chunk in chunks] if self.columns > 1 else chunks

    def _with_columns(self) -> Sample:
        arrays = {name: a.reshape(-1, self.columns) for name, a in self.arrays.items()}
        tangent = self.tangent.reshape(-1, self.columns)
        return replace(self, arrays=arrays, tangent=tangent)

    def shaped(self, lead: tuple[int, ...], dim: int) -> Sample:
        """Return the rows spread over the dimensions ``lead``, their elements along ``dim``."""
        rows = len(self.grad_output)

        def spread(a: Tensor) -> Tensor:
            spread = a.reshape((*lead, *a.shape[1:]))
            return spread if a.dim() == 1 else spread.movedim(-1, dim).contiguous()

        def is_by_row(name: str, a: Tensor) -> bool:
            return name not in self.by_class and len(a) == rows

        parameters = dict(self.parameters)
        if "dim" in parameters:
            parameters["dim"] = dim
        return replace(
            self,
            arrays={n: spread(a) if is_by_row(n, a) else a for n, a in self.arrays.items()},
            grad_output=spread(self.grad_output),
            tangent=spread(self.tangent),
            parameters=parameters,
        )

    def having(self, **arrays: Tensor) -> Sample:
        """Return the same with other arrays in the place of some."""
        return replace(self, arrays={**self.arrays, **arrays})

    def joined(self, before: Sample, behind: Sample) -> Sample:
        """Return the rows between others."""
        arrays = {
            name: torch.cat([before.arrays[name], a, behind.arrays[name]])
            for name, a in self.arrays.items()
        }
        return replace(
            self,
            arrays=arrays,
            grad_output=torch.cat([before.grad_output, self.grad_output, behind.grad_output]),
            tangent=torch.cat([before.tangent, self.tangent, behind.tangent]),
        )

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Sample:
        """Return the same with every array and vector changed."""
        return replace(
            self,
            arrays={name: change(a) for name, a in self.arrays.items()},
            grad_output=change(self.grad_output),
            tangent=change(self.tangent),
        )

    def wide(self) -> Sample:
        """Return the same numbers in float64."""
        return self.mapped(lambda a: a.to(torch.float64) if a.is_floating_point() else a)

    def leaves(self, *names: str) -> Sample:
        """Return the same with the floating ones of some arrays as leaves of a fresh graph."""
        leaves = {n: self.arrays[n] for n in names if self.arrays[n].is_floating_point()}
        fresh = {name: a.clone().requires_grad_() for name, a in leaves.items()}
        return replace(self, arrays=self.arrays | fresh)


def draw_sample(
    record: Operation, case: Case, length: int, rows: int, seed: int, shared: bool = False
) -> Sample:
    """Return arrays drawn from the domains, and vectors of random numbers.

    ``shared`` numbers are the same in every format, others are of the case's dtype.
    """
    rng = np.random.default_rng([seed, length, shared])
    largest = torch.finfo(torch.float16 if shared else case.torch_dtype).max
    optional = {name: v for name, v in case.parameters.items() if isinstance(v, Domain)}
    parameters = {**record.parameters, **case.parameters}
    if "dim" in parameters:
        parameters["dim"] = -1
    domains = {name: d[0] for name, d in record.array_domains(parameters).items()}
    domains = {name: d for name, d in domains.items() if name in record.arguments} | optional
    row = (rows,) if record.kind == "loss" else (rows, length)
    element = (rows,) if record.coupled is None else (rows, length * record.parts)
    shapes = {"element": element, "row": (rows,), "class": (length,)}

    def floating(values: NDArray[np.float64]) -> Tensor:
        kept = shared_by_all(values) if shared else values
        return rounded(kept, case.torch_dtype).to(case.device)

    def fill(domain: Domain, shape: tuple[int, ...]) -> Tensor:
        if domain.integer:
            return torch.from_numpy(draw_indices(domain, shape, length, rng)).to(case.device)
        return floating(draw(domain, shape, rng, largest))

    arrays = {name: fill(domain, shapes[domain.extent]) for name, domain in domains.items()}
    return Sample(
        arrays=arrays,
        grad_output=floating(rng.normal(size=row)),
        tangent=floating(rng.normal(size=element)),
        parameters={
            name: value
            for name, value in parameters.items()
            if name not in arrays and name != "reduction"
        },
        columns=1 if record.coupled else COLUMNS,
        by_class=tuple(name for name, domain in domains.items() if domain.extent == "class"),
    )


def changed(record: Operation, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that are no arrays and not default, and the dimension of rows."""
    defaults = record.parameters
    return {
        name: value
        for name, value in parameters.items()
        if not isinstance(value, Domain) and (name == "dim" or value != defaults.get(name))
    }


def real_arrays(record: Operation, s: Sample) -> set[str]:
    """Return the arrays of a sample that may hold any real number."""
    if record.kind == "elementwise":
        return {"x"}
    domains = record.array_domains({**s.parameters, **s.arrays}).items()
    return {name for name, found in domains if name in s.arrays and found[0].draw == "real"}


# --- quantities ----------------------------------------------------------------------------------

Objects = NDArray[Any]
Contraction = Callable[[Derivatives, Objects, Objects], Objects]
"""A quantity as a function of value, Jacobian, Hessian, grad_output (R, K) and tangent (R, D)."""


@dataclass(frozen=True)
class Quantity:
    """One thing to judge: what is computed, and what of the derivatives it is.

    ``role`` is that of the declared function, ``wrt`` and ``along`` are the arguments of a
    derivative. ``reduction`` is that of the chunks of a sample, whose ``grad_output`` is that of
    their first row. ``order`` says which derivative it is of an elementwise function. The
    contraction is applied to the balls for the truth, and to magnitudes for the gate.
    """

    role: str
    wrt: str = ""
    along: str = ""
    reduction: str = "none"
    order: int = 0
    contract: Contraction = field(default=lambda d, g, t: d.value, compare=False, repr=False)

    @property
    def name(self) -> str:
        """As it stands in a verdict: ``hvp(input, target)``, ``gradient(input) [mean]``."""
        arguments = dict.fromkeys(name for name in (self.wrt, self.along) if name)
        named = f"{self.role}({', '.join(arguments)})" if arguments else self.role
        return named if self.reduction == "none" else f"{named} [{self.reduction}]"

    @property
    def has_grad_output(self) -> bool:
        """Whether a vector is pulled back."""
        return self.role in ("vjp", "gradient", "hvp", "hessian_diagonal")

    @property
    def has_tangent(self) -> bool:
        """Whether a vector is pushed forward."""
        return self.role in ("jvp", "hvp")


@dataclass(frozen=True)
class Question:
    """A quantity of an operation in a case, on a sample."""

    record: Operation
    case: Case
    quantity: Quantity
    sample: Sample
    result_dtype: torch.dtype | None = None

    @property
    def dtype(self) -> torch.dtype:
        """What the result should be: where nothing else is declared, the dtype of the case."""
        return self.result_dtype or self.case.torch_dtype

    @property
    def grad_output(self) -> Tensor:
        """What is pulled back: of a loss that is reduced, one number for all."""
        is_one = self.record.kind in ("loss", "batch") and self.quantity.reduction != "none"
        return self.sample.grad_output.reshape(-1)[0] if is_one else self.sample.grad_output

    @property
    def tangent(self) -> Tensor:
        """What is pushed forward: along an argument that rows share, the vector of the first."""
        along = self.quantity.along
        is_shared = along in self.record.shared
        tangent = self.sample.tangent
        if self.record.kind == "batch":
            moving = self.sample.arrays[along]
            return tangent[: moving.numel()].reshape(moving.shape)
        return tangent[0, : len(self.sample.arrays[along])] if is_shared else tangent


def of_chunks(quantity: Quantity, results: Sequence[Tensor]) -> Tensor:
    """Return the results of the chunks of a sample together: of values, or of derivatives."""
    if quantity.role == "value":
        return torch.stack(list(results))
    return results[0] if len(results) == 1 else torch.cat(list(results))


@dataclass(frozen=True)
class Answer:
    """What came back: a result, or why there is none."""

    result: Tensor | None = None
    problem: str = ""
    unsupported: str = ""


class Contender(Protocol):
    """Who answers questions. There may be several ways to ask: a kernel has several functions."""

    @property
    def name(self) -> str:
        """What its verdicts are headed by."""
        ...

    def ways(self, record: Operation, quantity: Quantity) -> tuple[str, ...]:
        """Return the ways to ask for a quantity; none where it is not offered."""
        ...

    def as_asked(self, question: Question, way: str) -> Question:
        """Return the question as this way can answer it: some take no vector."""
        return question

    def answer(self, question: Question, way: str) -> Answer:
        """Return the result for every row, or for every chunk that is reduced."""
        ...


ELEMENTWISE = (
    Quantity("value"),
    Quantity("derivative", order=1),
    Quantity("vjp", order=1),
    Quantity("jvp", order=1),
    Quantity("derivative_from_output", order=1),
    Quantity("second_derivative", order=2),
)


def quantities(record: Operation, given: Sample) -> Iterator[Quantity]:
    """Yield every quantity of an operation, for the arguments that a sample has."""
    if record.kind == "elementwise":
        yield from ELEMENTWISE
    elif record.kind == "rowwise":
        yield from _of_rows(record)
    else:
        arrays = given.arrays
        wrt = [n for n in record.differentiable if n in arrays and arrays[n].is_floating_point()]
        for reduction in ("none", *record.reductions):
            yield from _of_a_loss(wrt, reduction, record.kind == "batch")


def _of_rows(record: Operation) -> Iterator[Quantity]:
    """Yield the quantities of a row-wise function; one argument goes without its name.

    A derivative by an argument that rows share is a sum over the rows of a chunk.
    """
    first, *others = record.differentiable
    yield Quantity("value")
    for role in ("jacobian", "jacobian_from_output"):
        yield Quantity(role, contract=lambda d, g, t: d.jacobian[:, :, d.columns[first]])
    yield Quantity("jacobian_diagonal", contract=_jacobian_diagonal(first))
    for a in record.differentiable:
        wrt = a if others else ""
        is_shared = a in record.shared
        reduction = "sum" if is_shared else "none"
        yield Quantity("vjp", wrt, "", reduction, contract=_summed(_gradient(a), is_shared))
        yield Quantity("jvp", "", wrt, contract=_jvp(a, is_shared))
        for b in record.differentiable:
            along = b if others else ""
            contract = _summed(_hvp(a, b, b in record.shared), is_shared)
            yield Quantity("hvp", wrt, along, reduction, contract=contract)


def _of_a_loss(wrt: list[str], reduction: str, is_batch: bool) -> Iterator[Quantity]:
    """Yield the quantities of a loss; the losses of a batch share all that they depend on."""
    yield Quantity("value", "", "", reduction, contract=_loss if reduction == "none" else _total)
    for a in wrt:
        slope, diagonal = _summed(_gradient(a), is_batch), _summed(_hessian_diagonal(a), is_batch)
        yield Quantity("gradient", a, "", reduction, contract=slope)
        yield Quantity("hessian_diagonal", a, "", reduction, contract=diagonal)
        for b in wrt:
            bend = _summed(_hvp(a, b, is_batch), is_batch)
            yield Quantity("hvp", a, b, reduction, contract=bend)


def _loss(d: Derivatives, g: Objects, t: Objects) -> Objects:
    return np.asarray(d.value.sum(1))


def _total(d: Derivatives, g: Objects, t: Objects) -> Objects:
    return np.asarray((d.value * g).sum()).reshape(1)


def _gradient(wrt: str) -> Contraction:
    return lambda d, g, t: (g[:, :, None] * d.jacobian[:, :, d.columns[wrt]]).sum(1)


def _summed(contract: Contraction, is_shared: bool) -> Contraction:
    """Return a contraction by an argument; by one that rows share, summed over them."""
    return (lambda d, g, t: contract(d, g, t).sum(0)) if is_shared else contract


def _vector(d: Derivatives, t: Objects, along: str, is_shared: bool) -> Objects:
    """Return the tangent of an argument; of one that rows share, that of their first."""
    columns = d.columns[along]
    return t[:1, : columns.stop - columns.start] if is_shared else t


def _jvp(along: str, is_shared: bool) -> Contraction:
    return lambda d, g, t: (
        d.jacobian[:, :, d.columns[along]] * _vector(d, t, along, is_shared)[:, None, :]
    ).sum(2)


def _jacobian_diagonal(wrt: str) -> Contraction:
    return lambda d, g, t: np.diagonal(d.jacobian[:, :, d.columns[wrt]], axis1=1, axis2=2)


def _hvp(wrt: str, along: str, is_shared: bool = False) -> Contraction:
    return lambda d, g, t: (
        (
            d.hessian[:, :, d.columns[wrt], d.columns[along]]
            * _vector(d, t, along, is_shared)[:, None, None, :]
        ).sum(3)
        * g[:, :, None]
    ).sum(1)


def _hessian_diagonal(wrt: str) -> Contraction:
    return lambda d, g, t: (
        np.diagonal(d.hessian[:, :, d.columns[wrt], d.columns[wrt]], axis1=2, axis2=3)
        * g[:, :, None]
    ).sum(1)
