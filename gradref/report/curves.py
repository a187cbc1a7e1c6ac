"""What the charts show: a function with its derivatives, and its errors over all of float32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradref.contenders.witness import torch_jets
from gradref.declare.facts import Facts
from gradref.declare.operation import REAL, Domain, Draw, Kink, Operation
from gradref.judge.elementwise import ORDERS
from gradref.judge.ulp import errors, to_floats
from gradref.report.drawing import Axis, Series
from gradref.truth.jets import Balls, Floats

SPAN = 5.0
POINTS = 161
PRIMES = ("f", "f′", "f″")

# --- the function --------------------------------------------------------------------------------


def curves(record: Operation, parameters: Mapping[str, Any]) -> tuple[str, list[Series]]:
    """f, f′ and f″, and along which line of its arguments."""
    if record.facts is not None:
        facts = record.facts.at(**parameters)
        span = _span(facts)
        functions = (record.function, *(record.derivatives[name] for name in ORDERS[1:]))
        drawn = [
            _with_jumps(
                PRIMES[order], functools.partial(function, **parameters), order, facts.kinks, span
            )
            for order, function in enumerate(functions)
        ]
        return "", drawn
    return _along_the_first(record, parameters)


def _span(facts: Facts) -> float:
    """How far to go from 0 to see where a function is bounded, as of softcap at 30 or relu6."""
    bounds = [abs(float(value)) for value, *_ in facts.limits.values()]
    return max([SPAN, *(2.5 * bound for bound in bounds if bound < np.inf)])


def _with_jumps(
    name: str,
    function: Callable[[Tensor], Tensor],
    order: int,
    kinks: Mapping[float, Kink],
    span: float,
) -> Series:
    """A line that is interrupted where it jumps, with a dot at the value that is chosen there."""
    jumps = {at: kink for at, kink in kinks.items() if kink.left[order] != kink.right[order]}
    x = np.unique(np.concatenate([np.linspace(-span, span, POINTS), list(jumps)]))
    y = to_floats(function(torch.from_numpy(x)))
    for at, kink in jumps.items():
        i = int(np.searchsorted(x, at))
        x = np.concatenate([x[:i], [at, at, at], x[i + 1 :]])
        y = np.concatenate([y[:i], [kink.left[order], np.nan, kink.right[order]], y[i + 1 :]])
    dots = [(at, kink.chosen[order]) for at, kink in jumps.items() if abs(at) <= span]
    return Series(name, x, y, dots)


# Where the first argument moves to, and what the others stay at, by what tests draw them from.
RANGES: Mapping[Draw, tuple[float, float]] = {
    "unit": (0.001, 0.999),
    "distribution": (0.001, 0.999),
    "log_probability": (-SPAN, 0.0),
    "positive": (0.05, SPAN),
}
FIXED: Mapping[Draw, float] = {
    "real": 0.0,
    "positive": 1.0,
    "unit": 0.7,
    "distribution": 0.7,
    "index": 0,
    "label": 1.0,
    "count": 2.0,
}

SHARED_NUMBER = 0.25
"""What an argument stays at that has one number for each class."""


def _along_the_first(record: Operation, parameters: Mapping[str, Any]) -> tuple[str, list[Series]]:
    """A function of several numbers, as the first of them moves and the others stay."""
    if record.draw is not None:
        return _in_a_call(record, record.draw, parameters)
    domains = {"x": (REAL,), **record.array_domains(parameters)}
    first, *others = record.arguments
    low, high = RANGES.get(domains[first][0].draw, (-SPAN, SPAN))
    x = torch.linspace(low, high, POINTS, dtype=torch.float64)
    moving, words = _moving(record, domains[first][0], x)
    described = [f"{first} = {words}"]
    arguments = [moving]
    for place, name in enumerate(others):
        fixed, words = _fixed(record, domains[name][0], place)
        is_shared = name in record.shared
        arguments.append(fixed if is_shared else fixed.expand(POINTS, *fixed.shape))
        described.append(f"{name} = {words}")
    options = {n: v for n, v in parameters.items() if v is not None}
    if "reduction" in options:
        options["reduction"] = "none"

    def drawn(name: str, function: Callable[..., Tensor], **more: Any) -> Series:
        result = function(*arguments, **options, **more)
        return Series(name, to_floats(x), to_floats(result.reshape(POINTS, -1)[:, 0]))

    slopes = record.derivatives
    if record.kind == "rowwise":
        slope = slopes.get("jacobian", slopes.get("jacobian_diagonal"))
        lines = [drawn("f₀", record.function)]
        lines += [] if slope is None else [drawn("∂f₀/∂x₀", slope)]
    else:
        lines = [
            drawn("ℓ", record.function),
            drawn("∂ℓ", slopes["gradient"], wrt=first),
            drawn("∂²ℓ", slopes["hessian_diagonal"], wrt=first),
        ]
    return ", ".join(described), lines


def _in_a_call(
    record: Operation, draw: Callable[..., dict[str, Any]], parameters: Mapping[str, Any]
) -> tuple[str, list[Series]]:
    """A loss of a batch, as the first number of its first array moves and the others stay."""
    arrays = {n: torch.from_numpy(a) for n, a in draw(np.random.default_rng(0), {}, False).items()}
    options = {n: v for n, v in parameters.items() if n not in arrays and v is not None}
    options["reduction"] = "sum"
    first, x = record.arguments[0], np.linspace(-SPAN, SPAN, POINTS)

    def drawn(name: str, function: Callable[..., Tensor], **more: Any) -> Series:
        y = np.empty(POINTS)
        for i in range(POINTS):
            moved = arrays[first].clone()
            moved.view(-1)[0] = x[i]
            y[i] = function(**arrays | {first: moved}, **options, **more).reshape(-1)[0]
        return Series(name, x, y)

    slopes = record.derivatives
    lines = [
        drawn("ℓ", record.function),
        drawn("∂ℓ", slopes["gradient"], wrt=first),
        drawn("∂²ℓ", slopes["hessian_diagonal"], wrt=first),
    ]
    return f"the first number of {first}, all others drawn", lines


def _moving(record: Operation, domain: Domain, x: Tensor) -> tuple[Tensor, str]:
    if record.coupled is None:
        return x, "x"
    if domain.draw == "distribution":
        return torch.stack([x, 1 - x], -1), "[x, 1 − x]"
    if record.parts > 1:
        return torch.stack([x, *[torch.ones_like(x)] * (record.parts - 1)], -1), "[x, 1]"
    return torch.stack([x, torch.ones_like(x), torch.zeros_like(x)], -1), "[x, 1, 0]"


def _fixed(record: Operation, domain: Domain, place: int) -> tuple[Tensor, str]:
    """What an argument stays at: real ones at different numbers, by their place."""
    value = SHARED_NUMBER if domain.extent == "class" else FIXED[domain.draw]
    value += place if domain.draw == "real" else 0
    if domain.draw == "index":
        is_list = domain.extent == "element"
        return torch.tensor([0, -1, -1] if is_list else 0), "[0, −1, −1]" if is_list else "0"
    if record.coupled is None or domain.extent == "row":
        return torch.tensor(value, dtype=torch.float64), f"{value:g}"
    row = [value, 1 - value] if domain.draw == "distribution" else [value] * 3
    if domain.draw == "real" and domain.extent == "element":
        row[1] += 1  # a vector of zeros has no direction
    return torch.tensor(row, dtype=torch.float64), f"[{', '.join(f'{v:g}' for v in row)}]"


# --- the errors ----------------------------------------------------------------------------------

COLUMNS = 400
PER_COLUMN = 256
LEAST, MOST = 1e-2, 1e10
"""The errors that a chart tells apart, in ulp."""

LARGEST = 0x7F7FFFFF
"""The bits of the largest float32; those of its negative are these with the sign bit."""


def line_of_float32() -> Tensor:
    """Numbers from the least to the largest, COLUMNS × PER_COLUMN, evenly spread over the bits."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.linspace(-LARGEST, LARGEST, COLUMNS + 1, dtype=torch.float64)
    within = torch.rand(COLUMNS, PER_COLUMN, generator=generator, dtype=torch.float64)
    ordinal = (edges[:-1, None] + within * edges.diff()[:, None]).long().sort(-1).values
    return ordinal.abs().int().view(torch.float32).copysign(ordinal)


def error_lines(record: Operation, parameters: Mapping[str, Any]) -> dict[str, list[Series]]:
    """The worst error of ours and of torch's in every column, by order.

    Measured against the formula in float64, which is within a few thousandths of an ulp of float32.
    """
    x = line_of_float32().reshape(-1)
    theirs = torch_jets(record, x, dict(parameters))
    found = {}
    for order, name in enumerate(ORDERS):
        function = record.function if order == 0 else record.derivatives[name]
        truth = to_floats(function(x.double(), **parameters))
        balls = Balls.exactly(truth)
        lines = [Series("ours", *_worst(to_floats(function(x, **parameters)), balls))]
        witness = theirs[order]
        if witness is not None:
            lines.append(Series("torch", *_worst(witness, balls)))
        found[PRIMES[order]] = lines
    return found


def _worst(got: Floats, truth: Balls) -> tuple[Floats, Floats]:
    """The centre of every column, from −1 to 1, and the logarithm of the worst error in it."""
    worst = errors(got, truth, torch.float32).reshape(COLUMNS, PER_COLUMN).max(-1)
    at = (np.arange(COLUMNS) + 0.5) / COLUMNS * 2 - 1
    return at, np.log10(np.clip(worst, LEAST, MOST))


def float32_axis() -> Axis:
    """The line of float32, on which equally many numbers lie in equal lengths."""
    marks = {"−10²⁰": -1e20, "−1": -1.0, "−10⁻²⁰": -1e-20}
    marks |= {"0": 0.0, "10⁻²⁰": 1e-20, "1": 1.0, "10²⁰": 1e20}
    bits = torch.tensor(list(marks.values())).abs().view(torch.int32).double() / LARGEST
    places = bits.copysign(torch.tensor(list(marks.values()))).tolist()
    return Axis(-1.0, 1.0, list(zip(places, marks, strict=True)))


def ulp_axis() -> Axis:
    """Errors from a hundredth of an ulp to a number that is wrong altogether."""
    ticks = {"½": 0.5, "10²": 1e2, "10⁴": 1e4, "10⁶": 1e6, "10⁸": 1e8, "∞": MOST}
    low, high = float(np.log10(LEAST)), float(np.log10(MOST))
    return Axis(low, high, [(float(np.log10(v)), text) for text, v in ticks.items()])
