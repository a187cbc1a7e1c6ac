"""A kernel for an elementwise function: value, derivatives and products at every input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradref.autodiff.lookup import vjp
from gradref.check.call import Answer, Call
from gradref.check.evidence import Alternative, Evidence
from gradref.check.kernel import Kernel, Role
from gradref.check.options import ACCUMULATOR, LINK_POINTS, POINTS, Options
from gradref.check.sandbox import Runner
from gradref.declare.operation import Facts, operations
from gradref.formula.errorfree import two_product
from gradref.measure.elementwise import (
    ORDERS,
    backward_error,
    elementwise_truth,
    find_zeros,
    near_zeros,
    torch_jets,
)
from gradref.measure.inputs import HALVES, elementwise_inputs, rounded
from gradref.measure.ulp import to_floats
from gradref.measure.verdict import Case, Mask, number
from gradref.truth.jets import Balls, Floats

AROUND_ZERO = 0.75
"""How near an isolated zero, relative, the terms of a derivative cancel."""


@dataclass(frozen=True)
class Plan:
    """A quantity, and the function of a kernel that computes it."""

    quantity: str
    role: Role
    order: int
    result: int = 0

    @property
    def has_vector(self) -> bool:
        """Whether a random vector goes in; else a derivative is asked for with ones."""
        return self.quantity in ("vjp", "jvp")


PLANS = (
    Plan("value", "forward", 0),
    Plan("value", "value_and_gradient", 0),
    Plan("value", "function", 0),
    Plan("derivative", "derivative", 1),
    Plan("derivative", "backward", 1),
    Plan("derivative", "value_and_gradient", 1, result=1),
    Plan("derivative", "function", 1),
    Plan("vjp", "backward", 1),
    Plan("vjp", "function", 1),
    Plan("jvp", "jvp", 1),
    Plan("second_derivative", "second_derivative", 2),
    Plan("second_derivative", "function", 2),
)


def plans(kernel: Kernel) -> Iterator[Plan]:
    """What can be judged of a kernel."""
    return (plan for plan in PLANS if plan.role in kernel.functions)


@dataclass(frozen=True)
class ElementwiseCheck:
    """One kernel, one setting of the parameters, one dtype."""

    kernel: Kernel
    case: Case
    options: Options

    @property
    def _parameters(self) -> dict[str, Any]:
        return {**self.kernel.record.parameters, **self.case.parameters}

    @cached_property
    def _facts(self) -> Facts:
        facts = self.kernel.record.facts
        assert facts is not None  # an elementwise operation has facts
        return facts.at(**self._parameters)

    @cached_property
    def _zeros(self) -> dict[int, list[float]]:
        return find_zeros(self.kernel.record, self._facts, self._parameters)

    @cached_property
    def _x(self) -> Tensor:
        dtype, options = self.case.torch_dtype, self.options
        size = POINTS[options.mode].get(dtype, 0)
        x = elementwise_inputs(self._facts, self._zeros, dtype, size, options.seed)
        if dtype in HALVES and options.mode == "link":
            rng = np.random.default_rng(options.seed)
            some = torch.from_numpy(rng.choice(len(x), LINK_POINTS, replace=False))
            x = torch.cat([x[some], x[x.isinf()]])
        return x

    @cached_property
    def _vector(self) -> Tensor:
        rng = np.random.default_rng([self.options.seed, 1])
        return rounded(rng.normal(size=len(self._x)), self.case.torch_dtype)

    @cached_property
    def _jets(self) -> Balls:
        return elementwise_truth(
            self.kernel.record, self._facts, to_floats(self._x), self._parameters
        )

    @cached_property
    def _torch(self) -> list[Floats | None]:
        return torch_jets(self.kernel.record, self._x, self._parameters)

    def call(self, plan: Plan, keywords: dict[str, Any]) -> Call:
        """The call that a plan makes on all inputs."""
        vector = self._vector if plan.has_vector else torch.ones_like(self._x)
        return Call(
            self.kernel.name,
            plan.role,
            (self._x.to(self.case.device),),
            keywords,
            vector.to(self.case.device),
            wrt=(0,),
            order=plan.order,
        )

    def run(self, runner: Runner) -> Iterator[tuple[Plan, Answer, Evidence | None]]:
        """Every quantity that the kernel has: what it answered, and the evidence of it."""
        for plan in plans(self.kernel):
            keywords = self.kernel.keywords(plan.role, self._parameters)
            if keywords is None:
                reason = f"does not take {', '.join(self.case.parameters)}"
                yield plan, Answer(unsupported=reason), None
                continue
            answer = runner.ask(self.call(plan, keywords))
            if answer.problem or answer.unsupported:
                yield plan, answer, None
                continue
            result = answer.results[plan.result]
            problem = _malformed(result, self._x)
            if problem:
                yield plan, Answer(problem=problem), None
                continue
            assert result is not None  # malformed otherwise
            whole = self._evidence(plan, to_floats(result))
            special = self._special
            yield plan, answer, whole.part("", ~special)
            if special.any():
                yield plan, answer, whole.part(" [special]", special)

    @cached_property
    def _special(self) -> Mask:
        """Infinities, NaN and kinks, which have verdicts of their own."""
        points = to_floats(self._x)
        return ~np.isfinite(points) | np.isin(points, list(self._facts.kinks))

    def _evidence(self, plan: Plan, got: Floats) -> Evidence:
        dtype, points = self.case.torch_dtype, to_floats(self._x)
        truth, ours, theirs = self._jets[plan.order], self._ours(plan), self._torch[plan.order]
        if plan.has_vector:
            vector = to_floats(self._vector)
            truth = _times(truth, vector)
            if theirs is not None:
                theirs = to_floats(rounded(theirs, dtype) * self._vector)
        claim = self.options.bound(dtype)
        zeros = self._zeros.get(plan.order, [])
        near = backward_error(
            self._jets[plan.order], points, dtype, zeros, AROUND_ZERO, ACCUMULATOR[dtype]
        )
        if plan.has_vector:
            near *= 2  # an ulp of a product can be half of that of its factor
        allowed = np.where(np.isnan(truth.high) & ~self._special, np.nan, claim + near)
        return Evidence(
            kernel=self.kernel.name,
            case=self.case,
            quantity=plan.quantity,
            got=got,
            truth=truth,
            allowed=allowed,
            bound=f"{claim:g} ulp",
            ours=ours,
            witness=theirs,
            x=points,
            is_elementwise=True,
            branches=self._branches(plan, points),
            describe=lambda index: {"x": number(points[index], dtype)},
            alternatives=lambda: self._alternatives(plan),
            excused=self._excused(plan, points, got),
        )

    def _ours(self, plan: Plan) -> Floats:
        record = self.kernel.record
        if plan.has_vector:
            return to_floats(vjp(record.function)(self._x, self._vector, **self._parameters))
        name = ORDERS[plan.order]
        function = record.function if plan.order == 0 else record.derivatives[name]
        return to_floats(function(self._x, **self._parameters))

    def _branches(self, plan: Plan, points: Floats) -> dict[str, Mask]:
        truth = self._jets.high[plan.order]
        smallest = torch.finfo(self.case.torch_dtype).smallest_normal
        tiny = (np.abs(points) < smallest) & (points != 0)
        near = np.zeros(len(points), dtype=bool)
        for zero in self._zeros.get(plan.order, []):
            near |= near_zeros(points, [zero], 2.0**-8)
        return {
            "NaN": np.isnan(points),
            "infinity": np.isinf(points),
            "kink": np.isin(points, list(self._facts.kinks)),
            "near an isolated zero": near,
            "subnormal input": tiny,
            "subnormal result": (np.abs(truth) < smallest) & (truth != 0) & ~tiny,
            "left tail": (points < -3) & np.isfinite(points),
            "right tail": (points > 3) & np.isfinite(points),
            "centre": np.abs(points) <= 3,
        }

    def _excused(self, plan: Plan, points: Floats, got: Floats) -> Mask | None:
        """Derivatives at kinks that lie in the subdifferential, where that is asked for."""
        if self.options.kinks != "subdifferential" or plan.order == 0:
            return None
        excused = np.zeros(len(points), dtype=bool)
        slope = got / to_floats(self._vector) if plan.has_vector else got
        for at, kink in self._facts.kinks.items():
            sides = sorted((kink.left[plan.order], kink.right[plan.order]))
            excused |= (points == at) & (slope >= sides[0]) & (slope <= sides[1])
        return excused

    def _alternatives(self, plan: Plan) -> Iterator[Alternative]:
        """Mistakes that have a name, with the results that they give, in float64."""
        x, record = self._x.to(torch.float64), self.kernel.record
        vector = to_floats(self._vector)

        def of(order: int, operation: Any = record, **parameters: Any) -> Floats:
            known = operation.parameters
            given = {**known, **{k: v for k, v in parameters.items() if k in known}}
            declared = operation.derivatives
            function = operation.function if order == 0 else declared[ORDERS[order]]
            result = to_floats(function(x, **given))
            return result * vector if plan.has_vector else result

        own = self._parameters
        if plan.has_vector:
            slope = of(plan.order, **own) / vector
            name = "tangent" if plan.quantity == "jvp" else "grad_output"
            yield f"{name} is ignored", slope
            yield f"{name}[0] is used for every element", slope * vector[0]
            yield f"{name} is passed on: the derivative is missing", vector
        for name, default in record.parameters.items():
            if own[name] != default:
                words = f"{name} is ignored: these are the results for {name}={default!r}"
                yield words, of(plan.order, **{**own, name: default})
        for case in record.cases:
            other = {**record.parameters, **case}
            if other != own:
                setting = ", ".join(f"{k}={v!r}" for k, v in case.items()) or "the default"
                yield f"computes {record.name} with {setting}", of(plan.order, **other)
        if plan.order == 0:
            yield "returns its input", to_floats(x)
        if plan.order == 1:
            with np.errstate(all="ignore"):
                quotient = of(0, **own) / to_floats(x)
            yield "f(x)/x: the second term of the product rule is missing", quotient
        for order in range(3):
            if order != plan.order and not plan.has_vector:
                yield f"returns the {ORDERS[order].replace('_', ' ')}", of(order, **own)
        for operation in operations():
            if operation.kind == "elementwise" and operation.name != record.name:
                yield f"these are the results of {operation.name}", of(plan.order, operation)


def _times(truth: Balls, vector: Floats) -> Balls:
    """The product with exact numbers, to about 106 bits where they have few."""
    high, error = two_product(torch.from_numpy(truth.high), torch.from_numpy(vector))
    with np.errstate(invalid="ignore", over="ignore"):
        low = np.nan_to_num(truth.low * vector)
    return Balls(to_floats(high), to_floats(error) + low)


def _malformed(result: Tensor | None, like: Tensor) -> str:
    """What is wrong with the form of a result; empty if nothing."""
    if result is None:
        return "returns None"
    if result.shape != like.shape:
        return f"returns shape {tuple(result.shape)}, wants {tuple(like.shape)}"
    if result.dtype != like.dtype:
        return f"returns {result.dtype}, wants {like.dtype}".replace("torch.", "")
    return ""
