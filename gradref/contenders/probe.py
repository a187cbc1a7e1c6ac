"""A function of a kernel asked for one quantity, on inputs of any shape, however large.

The truth is then our formula in float64, and what may be lost follows from how far the results of
float64 move when the arguments do, by the roundoff of the arithmetic that kernels compute in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradref.contenders.call import Call, Returned
from gradref.contenders.candidate import Candidate
from gradref.contenders.kernel import Kernel, Role
from gradref.contenders.libraries import UnsupportedError
from gradref.contenders.ours import Ours
from gradref.contenders.sandbox import Runner
from gradref.declare.operation import Draw, Operation
from gradref.judge.gates import BACKWARD, DOUBLE, SMALLEST_FLOAT32, Gate, Kind, Mask
from gradref.judge.inputs import EVERYTHING, into_range, rounded
from gradref.judge.kinds import out_of_range
from gradref.judge.questions import Quantity, Question, Sample, draw_sample, quantities, real_arrays
from gradref.judge.ulp import errors, spacing, to_floats
from gradref.judge.verdict import Case
from gradref.truth.jets import Balls, Floats

NUDGE = 2.0**-30
"""By how much arguments are made smaller to see how far the results move, relative to them."""

NUDGES = 8

FEW, MOVED = 1 << 18, 1 << 21
"""Results of so many elements are moved less often, or not at all."""

ROUGH = 2.0**-5
"""What is let pass of a quantity that has failed already, relative to the result."""


SPREADS = (3.0, 3.0, 3.0, 60.0)
"""Of the inputs of elementwise functions: some lie where exponentials overflow."""

ORDINARY: dict[Draw, tuple[float, float]] = {
    "unit": (0.05, 0.95),
    "positive": (0.25, 4.0),
    "weight": (0.5, 1.5),
}
DISTRIBUTIONS: tuple[Draw, ...] = ("distribution", "log_probability")


def _ordinary(draw: Draw, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Return numbers of a domain that are neither large nor small."""
    if draw == "real":
        return 2.0 * rng.normal(size=shape)
    if draw in ORDINARY:
        return rng.uniform(*ORDINARY[draw], shape)
    shares = rng.uniform(0.1, 1.0, shape)
    shares = shares / shares.sum(-1, keepdims=True) if len(shape) > 1 else shares
    return np.log(shares) if draw == "log_probability" else shares


class NotTriedError(Exception):
    """Nothing of a test applies to a kernel, or to this way to ask it."""


@dataclass(frozen=True)
class Heard:
    """The results for a sample, or what prevented them, and what each call returned."""

    results: Floats | None
    problem: str
    calls: list[Returned]


@dataclass(frozen=True)
class Expected:
    """What is true, and how far off a result may be, in ulp: ``claim``, and what is ``lost``.

    That is computed only where a result is off by more than the claim.
    """

    truth: Floats
    claim: float
    dtype: torch.dtype
    lost: Callable[[], Floats]

    def wrong(self, got: Floats) -> Mask:
        """Return which results are further off; where the truth is no number anything will do."""
        truth = Balls(self.truth.reshape(-1), np.zeros(self.truth.size))
        ulp = errors(got.reshape(-1), truth, self.dtype).reshape(self.truth.shape)
        wrong = np.isfinite(self.truth) & (ulp > self.claim)
        return np.asarray(wrong & (ulp > self.claim + self.lost()) if wrong.any() else wrong)

    def scaled(self, factor: float) -> Expected:
        """Return what is true of ``factor`` times the results, and may be lost of them."""
        truth = self.truth * factor
        with np.errstate(over="ignore", invalid="ignore"):
            ulp = factor * spacing(self.truth, self.dtype) / spacing(truth, self.dtype)
        return Expected(truth, self.claim, self.dtype, lambda: self.lost() * ulp)


@dataclass(frozen=True)
class Probe:
    """One way to ask a kernel for one quantity."""

    kernel: Kernel
    case: Case
    role: Role
    quantity: Quantity
    gate: Gate
    seed: int
    fails: bool = False
    """Whether the quantity has failed already, at the inputs that accuracy is judged at."""
    underflows: bool = False
    """Whether failures beyond the normal range are let pass there."""

    @property
    def record(self) -> Operation:
        """The declaration of the operation."""
        return self.kernel.record

    @property
    def name(self) -> str:
        """The function, and what of it is asked for."""
        return f"{self.role}, {self.quantity.name}"

    @property
    def has_vector(self) -> bool:
        """Whether the quantity is a product with grad_output or with a tangent."""
        return self.quantity.role in ("vjp", "jvp", "gradient")

    @property
    def is_reduced(self) -> bool:
        """Whether a loss is reduced to one number."""
        return self.record.kind == "loss" and self.quantity.reduction != "none"

    # --- samples ---------------------------------------------------------------------------------

    def sample(self, length: int, rows: int) -> Sample:
        """Return rows of ordinary inputs: no infinities, no overflow.

        Where nothing is coupled there are ``rows * length`` elements, in one dimension but for
        elementwise functions.
        """
        record, dtype = self.record, self.case.torch_dtype
        if record.kind != "elementwise":
            coupled = record.coupled is not None
            size = (length, rows) if coupled else (1, rows * length)
            s = draw_sample(record, self.case, *size, self.seed)
            s = replace(s.having(**self.ordinary(s)), columns=1)
            return replace(s, is_one_chunk=self.quantity.reduction != "none")
        rng = np.random.default_rng([self.seed, rows, length])
        shape = (rows, length)
        spreads = (3.0 if self.fails else rng.choice(SPREADS, shape), 1.0, 1.0)
        x, vector, tangent = (
            rounded(spread * rng.normal(size=shape), dtype).to(self.case.device)
            for spread in spreads
        )
        parameters = {**record.parameters, **self.case.parameters}
        return Sample({"x": self._inside(x)}, vector, tangent, parameters)

    def _inside(self, values: Tensor) -> Tensor:
        """Return numbers in the range that the kernel is for."""
        within = self.kernel.contract.range
        return values if within == EVERYTHING else into_range(values, within, self.seed)

    def ordinary(self, s: Sample) -> dict[str, Tensor]:
        """Return the arrays without the extremes that accuracy is judged at."""
        rng = np.random.default_rng([self.seed, s.grad_output.numel(), 2])
        domains = self.record.array_domains({**s.parameters, **s.arrays})
        drawn = {
            name: rounded(_ordinary(domains[name][0].draw, tuple(a.shape), rng), a.dtype).to(
                a.device
            )
            for name, a in s.arrays.items()
            if domains[name][0].draw in ("real", *ORDINARY, *DISTRIBUTIONS)
        }
        return drawn | {name: self._inside(drawn[name]) for name in self.real(s)}

    def real(self, s: Sample) -> set[str]:
        """Return the arrays of rows that may hold any real number."""
        return set() if self.record.kind == "elementwise" else real_arrays(self.record, s)

    def discrete(self, s: Sample) -> set[str]:
        """Return the arrays of which no number has another one near it."""
        domains = self.record.array_domains({**s.parameters, **s.arrays}).items()
        return {name for name, found in domains if found[0].is_discrete}

    def with_parameters(self, parameters: Mapping[str, Any]) -> Probe:
        """Return the same way to ask with other parameters."""
        return replace(self, case=replace(self.case, parameters=dict(parameters)))

    def ignored_index(self, s: Sample, name: str) -> int | None:
        """Return the class index that does not count, if the kernel takes one."""
        domain = self.record.array_domains(dict(s.parameters))[name][0]
        ignored = s.parameters.get(domain.ignored)
        return None if ignored is None or not self.kernel.takes(domain.ignored) else int(ignored)

    def with_some_ignored(self, s: Sample) -> Sample:
        """Return a sample of which every third class index is one that does not count."""
        targets = {}
        for name, target in s.arrays.items():
            ignored = None if target.is_floating_point() else self.ignored_index(s, name)
            if ignored is not None:
                targets[name] = target.clone()
                targets[name][::3] = ignored
        return s.having(**targets)

    # --- questions -------------------------------------------------------------------------------

    def question(self, s: Sample) -> Question:
        """Return the question that is asked of a sample."""
        asked = Question(self.record, self.case, self.quantity, s)
        return self.candidate.as_asked(asked, self.role)

    @property
    def candidate(self) -> Candidate:
        """The kernel, with nobody to call it."""
        return Candidate(self.kernel, _Nobody())

    def fitted(self, s: Sample) -> Sample:
        """Return a sample in a rank that the kernel takes."""
        return self.candidate.fitted(s) or s

    def is_taken(self, s: Sample) -> bool:
        """Return whether the function takes what a sample has."""
        contract = self.kernel.contract
        if not all(contract.covers(s.arrays[name]) for name in real_arrays(self.record, s)):
            return False
        return self.candidate.calls(self.question(s), self.role) is not None

    def ask(
        self, runner: Runner, s: Sample, change: Callable[[Call], Call] = lambda call: call
    ) -> Heard:
        """Ask for a sample.

        Raise NotTriedError where the function does not compute the quantity, and UnsupportedError
        where it does not offer it for this sample.
        """
        heard: list[Returned] = []

        class Listening:
            def ask(self, call: Call) -> Returned:
                heard.append(runner.ask(change(call)))
                if heard[-1].unsupported:
                    raise UnsupportedError(heard[-1].unsupported)
                return heard[-1]

        found = Candidate(self.kernel, Listening()).answer(self.question(s), self.role)
        if found.unsupported:
            raise NotTriedError
        if found.result is None:
            return Heard(None, found.problem, heard)
        return Heard(to_floats(found.result), "", heard)

    # --- truth -----------------------------------------------------------------------------------

    def wide(self, s: Sample) -> Floats:
        """Return the results of our float64 formula."""
        found = Ours().answer(self.question(s.wide()), "")
        assert found.result is not None  # ours has what is asked for
        return to_floats(found.result)

    def expected(self, s: Sample) -> Expected:
        """Return the results of our formula, with what the arithmetic of a kernel may lose."""
        truth, dtype = self.wide(s), self.question(s).dtype
        if self.fails:
            return Expected(truth, 1.0, dtype, lambda: _roughly(truth, dtype))
        unit = self.gate.unit[dtype]
        claim = self.gate.claims[dtype] * (2 if unit == DOUBLE else 1)  # ours is float64 as well

        def lost() -> Floats:
            with np.errstate(over="ignore", invalid="ignore"):
                size = self._growth(s) * unit * self._condition(s, truth) + self._underflow(s)
                lost = np.asarray(np.nan_to_num(size / spacing(truth, dtype), nan=0.0))
            if self.underflows and self.record.kind == "elementwise":
                lost[out_of_range(to_floats(s.arrays["x"]), truth, dtype)] = np.inf
            return lost

        return Expected(truth, claim, dtype, lost)

    def _growth(self, s: Sample) -> float:
        """Return by how much the roundoffs of one number grow in a sum of random ones."""
        if self.record.kind == "elementwise":
            return BACKWARD
        terms = max(a.numel() for a in s.arrays.values())
        rows = 1 if self.is_reduced else max(1, s.grad_output.numel())
        return BACKWARD + 4.0 * float(np.sqrt(max(1.0, terms / rows)))

    def _underflow(self, s: Sample) -> float:
        """Return what is lost where a factor of a product is subnormal, or is flushed to 0."""
        if self.gate.unit[self.case.torch_dtype] == DOUBLE:
            return 0.0
        vector = s.tangent if self.quantity.role == "jvp" else s.grad_output
        size = float(vector.abs().nan_to_num(0.0).max()) if vector.numel() else 1.0
        flushes = self.kernel.contract.subnormals == "flush"
        least = torch.finfo(self.case.torch_dtype).smallest_normal if flushes else SMALLEST_FLOAT32
        return 16 * least * max(1.0, size)

    def _condition(self, s: Sample, truth: Floats) -> Floats:
        """Return how far results move by a relative change of the arguments, per unit of it."""
        moved = np.zeros(truth.shape)
        with np.errstate(invalid="ignore"):
            if not (self.kernel.is_coupled or self.is_reduced):
                for name in (*s.arrays, "grad_output", "tangent"):
                    nudged = self._nudged(s, partial(_all_of, name))
                    moved += np.nan_to_num(np.abs(self.wide(nudged) - truth))
            elif truth.size <= MOVED:
                half = partial(_half, np.random.default_rng(self.seed))
                for _ in range(NUDGES if truth.size <= FEW else NUDGES // 2):
                    moved = np.fmax(moved, np.abs(self.wide(self._nudged(s, half)) - truth))
        moved *= 2 / NUDGE
        if self.record.kind == "elementwise":
            return moved
        floating = (a for a in s.arrays.values() if a.is_floating_point())
        numbers = np.concatenate([np.abs(to_floats(a)).reshape(-1) for a in floating])
        size = float(np.max(numbers[np.isfinite(numbers)], initial=0.0))
        usual = self._usual(s) if self.gate.usual_terms else 0.0
        return moved + (1 + min(size, 128.0)) * (np.abs(truth) + usual)

    def _usual(self, s: Sample) -> Floats | float:
        """Return what usual algorithms add, and a stable one does not.

        Of an output f of a row-wise function the products f g and f Σ f g; where precision is
        absolute a unit of every row.
        """
        q = self.quantity
        is_shared = {q.wrt, q.along} & set(self.record.shared)
        if self.record.kind == "rowwise" and q.role in ("vjp", "jvp") and not is_shared:
            value = replace(self, role="forward", quantity=Quantity("value")).wide(s)
            if value.shape != s.tangent.shape:
                return 0.0
            f = np.abs(np.nan_to_num(value, posinf=0.0, neginf=0.0))
            vector = s.grad_output if q.role == "vjp" else s.tangent
            products = f * np.abs(to_floats(vector)) if vector.shape == f.shape else f
            along = s.parameters.get("dim", -1)
            return np.asarray(products + f * products.sum(along, keepdims=True))
        if "absolute" not in self.record.precision:
            return 0.0
        weights = (a for name, a in s.arrays.items() if name not in self.record.arguments)
        unit = max([1.0, *(float(a.max()) for a in weights if a.numel())])
        rows = s.grad_output.numel()
        if not rows:
            return 0.0
        if q.role == "value":
            return unit * (rows if q.reduction == "sum" else 1)
        return unit * float(s.grad_output.abs().nan_to_num(0.0).max()) / self._mass(s)

    def _mass(self, s: Sample) -> float:
        """Return what a mean divides by."""
        if self.quantity.reduction != "mean":
            return 1.0
        total, mean = (
            float(
                replace(self, role="forward", quantity=Quantity("value", reduction=r)).wide(s).sum()
            )
            for r in ("sum", "mean")
        )
        return abs(total / mean) if np.isfinite(total) and total and mean else 1.0

    def _nudged(self, s: Sample, chosen: Callable[[str, Tensor], Tensor]) -> Sample:
        """Return a sample in float64 with chosen numbers made smaller: no domain forbids it."""
        wide, discrete = s.wide(), self.discrete(s)

        def nudge(name: str, a: Tensor) -> Tensor:
            if not a.is_floating_point() or name in discrete:
                return a
            return a * (1 - NUDGE * chosen(name, a).to(a))

        return replace(
            wide,
            arrays={name: nudge(name, a) for name, a in wide.arrays.items()},
            grad_output=nudge("grad_output", wide.grad_output),
            tangent=nudge("tangent", wide.tangent),
        )


def _all_of(which: str, name: str, a: Tensor) -> Tensor:
    """Return 1 for the numbers of one array, for all others 0."""
    return torch.full_like(a, name == which)


def _half(rng: np.random.Generator, name: str, a: Tensor) -> Tensor:
    """Return 1 for about half of the numbers, and 0 for the others."""
    return torch.from_numpy(rng.integers(0, 2, tuple(a.shape)))


def _roughly(truth: Floats, dtype: torch.dtype) -> Floats:
    """Return what is let pass of a quantity that has failed already, in ulp."""
    size = np.abs(np.nan_to_num(truth, posinf=0.0, neginf=0.0))
    share = max(ROUGH, 32 * torch.finfo(dtype).eps)
    rough = share * size + share**2 * np.max(size, initial=0.0)
    with np.errstate(over="ignore"):
        return np.asarray(rough / spacing(truth, dtype))


class _Nobody:
    """A runner that makes no calls, for a candidate that is only asked which it would make."""

    def ask(self, call: Call) -> Returned:
        raise NotImplementedError


def probes(
    kernel: Kernel, case: Case, gate: Gate, seed: int, known: Mapping[str, Kind]
) -> Iterator[Probe]:
    """Yield every way to ask a kernel for a quantity: a derivative with a vector if it takes one.

    ``known`` has the gravest kind of failure of those quantities that have any already.
    """
    candidate = Candidate(kernel, _Nobody())
    small = draw_sample(kernel.record, case, 3, 2, seed)
    asked: list[tuple[Role, Quantity]] = [
        (role, quantity)
        for quantity in quantities(kernel.record, small)
        for role in candidate.ways(kernel.record, quantity)
    ]
    roles_with_vector = {role for role, quantity in asked if quantity.role == "vjp"}
    for role, quantity in asked:
        worst = known.get(quantity.name)
        state = {"fails": worst == "wrong", "underflows": worst == "range"}
        probe = Probe(kernel, case, role, quantity, gate, seed, **state)
        is_covered = quantity.role == "derivative" and role in roles_with_vector
        if not is_covered and probe.is_taken(probe.sample(3, 2)):
            yield probe
