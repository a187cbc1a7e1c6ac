"""A kernel for a row-wise function or a loss: values, products and gradients, every reduction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradref.check.call import Answer, Call
from gradref.check.evidence import AT_THE_EDGE, Alternative, Evidence
from gradref.check.kernel import Kernel, Role
from gradref.check.options import ACCUMULATOR, ROWS, Options
from gradref.check.sandbox import Runner
from gradref.declare.operation import Operation, operations
from gradref.measure.rows import (
    UNIT,
    Proved,
    Quantity,
    Sample,
    attempt,
    draw_sample,
    quantities,
    row_of,
    show_values,
)
from gradref.measure.ulp import spacing, to_floats
from gradref.measure.verdict import Case, Mask
from gradref.truth.jets import Balls, Floats
from gradref.truth.rows import Derivatives

ROLE_OF: dict[str, tuple[Role, ...]] = {
    "value": ("forward", "value_and_gradient", "function"),
    "gradient": ("backward", "value_and_gradient", "function"),
    "vjp": ("backward", "function"),
    "jvp": ("jvp",),
}
"""The functions of a kernel that compute a quantity."""

SMALLEST_FLOAT32 = 2.0**-149


def calls(kernel: Kernel, role: Role, q: Quantity, s: Sample) -> list[Call] | None:
    """The calls for a quantity on a sample: one, or one for every chunk that is reduced.

    None where the function does not take what the sample has.
    """
    record = kernel.record
    samples = [s] if q.reduction == "none" else s.chunks()
    made = []
    for one in samples:
        given: dict[str, Any] = dict(one.parameters)
        if record.reductions:
            given["reduction"] = q.reduction
        given |= {name: a for name, a in one.arrays.items() if name not in record.arguments}
        keywords = kernel.keywords(role, given)
        if keywords is None:
            return None
        vector = one.tangent if q.role == "jvp" else one.grad_output
        made.append(
            Call(
                kernel.name,
                role,
                tuple(one.arrays[name] for name in record.arguments),
                keywords,
                vector if q.reduction == "none" else vector[0],
                wrt=(record.arguments.index(q.wrt) if q.wrt else 0,),
                order=0 if q.role == "value" else 1,
            )
        )
    return made


def evaluate(runner: Runner, made: list[Call], q: Quantity, s: Sample) -> Tensor | Answer:
    """The results of the calls together, or the first answer that is none."""
    samples = [s] if q.reduction == "none" else s.chunks()
    results = []
    for call, one in zip(made, samples, strict=True):
        answer = runner.ask(call)
        if answer.problem or answer.unsupported:
            return answer
        second = call.role == "value_and_gradient" and q.role != "value"
        result = answer.results[1 if second else 0]
        wants = _shape(q, one)
        if result is None:
            return Answer(unsupported=f"gives no gradient for {q.wrt}")
        if tuple(result.shape) != wants:
            return Answer(problem=f"returns shape {tuple(result.shape)}, wants {wants}")
        dtype = one.grad_output.dtype
        if result.dtype != dtype:
            words = f"returns {result.dtype}, wants {dtype}".replace("torch.", "")
            return Answer(problem=words)
        results.append(result)
    return results[0] if q.reduction == "none" else _joined(results)


def _joined(results: list[Tensor]) -> Tensor:
    return torch.cat([r if r.dim() else r.reshape(1) for r in results])


def _shape(q: Quantity, s: Sample) -> tuple[int, ...]:
    """The shape of a result."""
    if q.role == "value" and q.reduction != "none":
        return ()
    if q.role == "value":
        return tuple(s.grad_output.shape)
    if q.wrt:
        return tuple(s.arrays[q.wrt].shape)
    return tuple(s.arrays["x"].shape)


def roles(kernel: Kernel, q: Quantity) -> list[Role]:
    """The functions that compute a quantity; a fused one has the gradient of one argument."""
    first = q.wrt in ("", kernel.record.arguments[0])
    return [
        role
        for role in ROLE_OF.get(q.role, ())
        if role in kernel.functions and (first or role != "value_and_gradient")
    ]


def excluded(kernel: Kernel, role: Role, q: Quantity) -> bool:
    """Whether the kernel says that it is for another reduction."""
    if q.reduction == "none" and not kernel.record.reductions:
        return False
    if kernel.accepts(role, "reduction"):
        return False
    default = kernel.record.parameters.get("reduction", "none")
    return bool(kernel.settings.get("reduction", default) != q.reduction)


@dataclass(frozen=True)
class _Part:
    """One quantity on the rows of one length."""

    q: Quantity
    sample: Sample
    got: Floats
    truth: Balls
    scale: Floats
    ours: Floats
    torch: Floats | None


@dataclass(frozen=True)
class RowsCheck:
    """One kernel, one setting of the parameters, one dtype."""

    kernel: Kernel
    case: Case
    options: Options

    @cached_property
    def _samples(self) -> list[tuple[Sample, Proved]]:
        record = self.kernel.record
        lengths, rows = ROWS[self.options.mode]
        if not record.coupled:
            lengths, rows = (1,), rows * 8
        found = []
        for length in lengths:
            s = draw_sample(record, self.case, length, rows, self.options.seed)
            proved = Proved.of(record, self.case, s)
            if self.options.gate == "standard":
                proved = replace(proved, magnitudes=_with_usual_terms(record, proved, s))
            found.append((s, proved))
        return found

    def run(self, runner: Runner) -> Iterator[tuple[str, Answer, Evidence | None]]:
        """Every quantity that the kernel has: what it answered, and the evidence of it."""
        record = self.kernel.record
        for q in quantities(record, self._samples[0][0]):
            for role in roles(self.kernel, q):
                if not excluded(self.kernel, role, q):
                    yield self._judge(runner, q.name, role)

    def _judge(self, runner: Runner, name: str, role: Role) -> tuple[str, Answer, Evidence | None]:
        parts = []
        for sample, proved in self._samples:
            s, by = sample, proved
            (q,) = (q for q in quantities(self.kernel.record, s) if q.name == name)
            if q.reduction != "none":
                finite = by.finite_rows(q)
                s, by = s.take(finite), by.take(finite)
            if role == "value_and_gradient" and q.role == "gradient":
                s = replace(s, grad_output=torch.ones_like(s.grad_output))
                by = replace(by, grad_output=np.ones_like(by.grad_output))
            made = calls(self.kernel, role, q, s)
            if made is None:
                reason = f"does not take {', '.join(self.case.parameters)}"
                return name, Answer(unsupported=reason), None
            result = evaluate(runner, made, q, s)
            if isinstance(result, Answer):
                return name, result, None
            got = to_floats(result)
            truth, scale = by.quantity(q, got.shape)
            theirs = attempt(q, s)
            parts.append(_Part(q, s, got, truth, scale, to_floats(q.ours(s)), theirs))
        return name, Answer(), self._evidence(parts)

    def _evidence(self, parts: list[_Part]) -> Evidence:
        dtype = self.case.torch_dtype

        def joined(pick: Callable[[_Part], Floats]) -> Floats:
            return np.concatenate([pick(part).reshape(-1) for part in parts])

        q = parts[0].q
        truth = Balls(joined(lambda p: p.truth.high), joined(lambda p: p.truth.low))
        unit = ACCUMULATOR[dtype]
        underflow = SMALLEST_FLOAT32 if unit > UNIT else 0.0
        scale = joined(lambda p: p.scale) * (unit / UNIT) + 16 * underflow
        claim = self.options.bound(dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            allowed = claim + scale / spacing(truth.high, dtype)
        allowed = np.where(np.isnan(truth.high), np.nan, allowed)
        magnitude = joined(lambda p: _magnitudes(p.sample, p.q, p.got))
        torch_has_it = all(part.torch is not None for part in parts)
        return Evidence(
            kernel=self.kernel.name,
            case=self.case,
            quantity=q.name,
            got=joined(lambda p: p.got),
            truth=truth,
            allowed=allowed,
            bound=f"{claim:g} ulp + (n+6) u scale",
            ours=joined(lambda p: p.ours),
            witness=joined(_of_torch) if torch_has_it else None,
            x=magnitude,
            is_elementwise=False,
            branches={
                "large row": magnitude > 80,
                "well conditioned": allowed <= claim + 0.5,
                "ill conditioned": allowed > claim + 0.5,
                "the entry of the true class": np.concatenate([_at_target(p) for p in parts]),
                AT_THE_EDGE: joined(lambda p: _at_the_edge(p.sample, p.q, p.got)) > 0,
            },
            describe=lambda index: _describe(parts, index),
            alternatives=lambda: self._alternatives(parts),
        )

    def _alternatives(self, parts: list[_Part]) -> Iterator[Alternative]:
        """Mistakes that have a name, with the results that they give, in float64."""
        record = self.kernel.record
        for words, mistake in _mistakes(record, self.case, parts[0].q):
            try:
                predicted = [mistake(part.q, part.sample.wide()) for part in parts]
            except (ValueError, TypeError, IndexError, KeyError):
                continue  # the mistake is outside of the domain
            if all(p.size == part.got.size for p, part in zip(predicted, parts, strict=True)):
                yield words, np.concatenate([p.reshape(-1) for p in predicted])


def _with_usual_terms(record: Operation, proved: Proved, s: Sample) -> Derivatives:
    """The magnitudes, and those of terms that usual algorithms add and a stable one has not.

    Of an output f of softmax the products f g and f Σ f g; 1 where precision is absolute.
    """
    known, f = proved.magnitudes, np.abs(proved.balls.value.astype(float))
    if record.precision == "absolute":
        weights = (a for name, a in s.arrays.items() if name not in record.arguments)
        unit = max([1.0, *(float(a.max()) for a in weights)])
        return replace(known, value=known.value + unit, jacobian=known.jacobian + unit)
    if record.kind == "rowwise":
        products = f[:, :, None] * (np.eye(f.shape[1]) + f[:, None, :])
        return replace(known, jacobian=known.jacobian + products)
    return known


Mistake = Callable[[Quantity, Sample], Floats]


def _mistakes(record: Operation, case: Case, q: Quantity) -> Iterator[tuple[str, Mistake]]:
    """What goes wrong with gradients, parameters and denominators."""
    if q.role in ("gradient", "vjp"):
        yield "grad_output is ignored", lambda q, s: _ours(q, _with_grad(s, torch.ones_like))
        yield (
            "grad_output[0] is used for every row",
            lambda q, s: _ours(q, _with_grad(s, lambda g: g[:1].expand_as(g))),
        )
    if "label_smoothing" in case.parameters and "ignore_index" in case.parameters:
        yield "label smoothing counts the ignored rows", _smoothing_everywhere
    for name in case.parameters:
        if name in record.arguments:
            continue
        default = record.parameters[name]
        words = f"{name} is ignored: these are the results for {name}={default!r}"
        yield words, partial(_with_default, record, name)
    if q.reduction != "none":
        for other in ("none", *record.reductions):
            if other not in ("none", q.reduction):
                words = f"the reduction is {other!r}, not {q.reduction!r}"
                yield words, partial(_with_reduction, record, other)
        yield "mean divides by all rows, not by the non-ignored ones", _divided(record, _count)
        if record.mass is not None:
            yield (
                "mean divides by the number of rows that count, not by their weights",
                _divided(record, _counted),
            )
    form = (record.kind, record.coupled, record.arguments)
    for other_record in operations():
        same = (other_record.kind, other_record.coupled, other_record.arguments) == form
        if same and other_record.name != record.name:
            words = f"these are the results of {other_record.name}"
            yield words, partial(_of_another, record, other_record)


def _ours(q: Quantity, s: Sample) -> Floats:
    return to_floats(q.ours(s))


def _with_grad(s: Sample, change: Callable[[Tensor], Tensor]) -> Sample:
    return replace(s, grad_output=change(s.grad_output))


def _with_default(record: Operation, name: str, q: Quantity, s: Sample) -> Floats:
    """The results with a parameter at its default."""
    if name in s.arrays:
        arrays = {n: a for n, a in s.arrays.items() if n != name}
        return _ours(q, replace(s, arrays=arrays))
    other = replace(s, parameters={**s.parameters, name: record.parameters[name]})
    try:
        return _ours(q, other)
    except ValueError:  # what the default does to these arrays is outside of its domain
        return to_floats(q.theirs(other))


def _with_reduction(record: Operation, reduction: str, q: Quantity, s: Sample) -> Floats:
    return _ours(_reduced(record, q, s, reduction), s)


def _reduced(record: Operation, q: Quantity, s: Sample, reduction: str) -> Quantity:
    """The same quantity under another reduction."""
    known = {(o.role, o.wrt, o.reduction): o for o in quantities(record, s)}
    return known[q.role, q.wrt, reduction]


def _divided(record: Operation, denominator: Callable[[Operation, Sample], float]) -> Mistake:
    """A mean that divides the sum by something else."""

    def mistake(q: Quantity, s: Sample) -> Floats:
        total = _reduced(record, q, s, "sum")
        results = _ours(total, s)
        by_chunk = [denominator(record, chunk) for chunk in s.chunks()]
        divisors = np.repeat(by_chunk, results.size // len(by_chunk)).reshape(results.shape)
        quotient: Floats = results / divisors
        return quotient

    return mistake


def _count(record: Operation, s: Sample) -> float:
    return float(len(s.grad_output))


def _counted(record: Operation, s: Sample) -> float:
    """The rows that are not ignored."""
    ignored = s.parameters.get("ignore_index")
    target = s.arrays.get("target")
    if ignored is None or target is None or target.is_floating_point():
        return _count(record, s)
    return float((target != ignored).sum()) or math.nan


def _smoothing_everywhere(q: Quantity, s: Sample) -> Floats:
    """Ignored rows have the smoothed part of their loss."""
    everywhere = replace(s, parameters={**s.parameters, "ignore_index": -100})
    eps = s.parameters["label_smoothing"]
    hard = replace(everywhere, parameters={**everywhere.parameters, "label_smoothing": 0.0})
    smooth = _ours(q, everywhere) - (1 - eps) * _ours(q, hard)
    ignored = to_floats(s.arrays["target"]) == s.parameters["ignore_index"]
    own = _ours(q, s)
    if q.reduction != "none":
        return np.full_like(own, np.nan)
    return np.where(ignored.reshape(-1, *(1,) * (own.ndim - 1)), smooth, own)


def _of_another(record: Operation, other: Operation, q: Quantity, s: Sample) -> Floats:
    """Another operation on the same arrays, its numbers in the order of ours."""
    numbers = [v for v in s.parameters.values() if isinstance(v, float)]
    names = [n for n, v in other.parameters.items() if isinstance(v, float)]
    known = {n: v for n, v in s.parameters.items() if n in other.parameters}
    given = {**known, **dict(zip(names, numbers, strict=False))}
    arrays = {n: a for n, a in s.arrays.items() if n in (*other.arguments, *other.parameters)}
    sample = replace(s, arrays=arrays, parameters=given)
    return _ours(_reduced(other, q, sample, q.reduction), sample)


def _of_torch(part: _Part) -> Floats:
    assert part.torch is not None  # asked for only where every part has torch's result
    return part.torch


def _at_target(part: _Part) -> Mask:
    """Which results stand at the class that is the target of their row."""
    target, of = part.sample.arrays.get("target"), part.sample.arrays.get(part.q.wrt)
    if target is None or target.is_floating_point() or of is None or of.dim() != 2:
        return np.zeros(part.got.size, dtype=bool)
    classes = np.arange(of.shape[1])
    return np.asarray(to_floats(target)[:, None] == classes).reshape(-1)


def _magnitudes(s: Sample, q: Quantity, got: Floats) -> Floats:
    """For every result the largest magnitude in the first array of its row or chunk."""
    return _of_each(s, q, got, lambda o: float(next(iter(o.arrays.values())).abs().max()))


def _at_the_edge(s: Sample, q: Quantity, got: Floats) -> Floats:
    """1 for every result of which a row or chunk has an argument that is exactly 0 or 1."""

    def has(one: Sample) -> float:
        real = (a for a in one.arrays.values() if a.is_floating_point())
        return float(any(((a == 0) | (a == 1)).any() for a in real))

    return _of_each(s, q, got, has)


def _of_each(s: Sample, q: Quantity, got: Floats, fact: Callable[[Sample], float]) -> Floats:
    """A fact about the row, or the chunk that is reduced, of every result."""
    samples = s.chunks()
    if q.reduction == "none":
        samples = [s.take([row]) for row in range(len(s.grad_output))]
    return np.repeat([fact(one) for one in samples], got.size // len(samples))


def _describe(parts: list[_Part], index: int) -> dict[str, str]:
    """The row, or the chunk, that a result belongs to."""
    for part in parts:
        if index < part.got.size:
            one = row_of(part.sample, part.q, part.got, index)
            dtype = one.grad_output.dtype
            return {n: show_values(a, dtype) for n, a in one.arrays.items()}
        index -= part.got.size
    raise IndexError(index)


def cases_of(kernel: Kernel) -> Iterator[dict[str, Any]]:
    """The settings of the parameters to judge a kernel with: those that it takes or is for."""
    known = kernel.record.parameters
    settings = {k: v for k, v in kernel.settings.items() if k != "reduction" and v != known[k]}
    seen: list[dict[str, Any]] = []
    for case in kernel.record.cases:
        agrees = all(kernel.settings.get(name, value) == value for name, value in case.items())
        taken = {k: v for k, v in case.items() if kernel.takes(k)}
        chosen = {**taken, **settings}
        if agrees and chosen not in seen:
            seen.append(chosen)
            yield chosen
