"""Inputs to try, derived from a declaration and a seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradref.declare.operation import Domain, Facts
from gradref.truth.jets import Floats

HALVES = (torch.float16, torch.bfloat16)

EVERYTHING = (-math.inf, math.inf)
"""The range of inputs where none is given."""


def rounded(values: Floats, dtype: torch.dtype) -> torch.Tensor:
    """Return arbitrary values as members of ``dtype``."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(dtype)


def shared_by_all(values: Floats) -> Floats:
    """Return the nearest numbers that every format holds."""
    largest = torch.finfo(torch.float16).max / 2
    short = torch.from_numpy(np.clip(values, -largest, largest)).to(torch.bfloat16)
    return np.asarray(short.to(torch.float16).to(torch.float64).numpy())


def elementwise_inputs(
    facts: Facts,
    zeros: Mapping[int, list[float]],
    dtype: torch.dtype,
    size: int,
    seed: int,
    parameters: Sequence[float] = (),
) -> torch.Tensor:
    """All 65,536 values of a 16-bit format, else about ``size`` distinct ones.

    A quarter each: every binade of the format, the bulk around 0, the linear range in which
    exponentials neither vanish nor saturate, and random bit patterns; around every kink and every
    zero of a derivative the neighbours, one ulp apart and further and further away; and the numbers
    that people write into branches, the ``parameters`` among them, each with its neighbours.
    """
    if dtype in HALVES:
        return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    rng = np.random.default_rng(seed)
    info = torch.finfo(dtype)
    quarter = size // 4 + 1
    exponents = rng.uniform(np.log2(info.tiny) - 20, np.log2(info.max), quarter)
    sign = rng.choice([-1.0, 1.0], quarter)
    edge = -np.log(info.tiny) * 1.1
    integer = {torch.float64: torch.int64, torch.float32: torch.int32}[dtype]
    bits = torch.from_numpy(rng.integers(-(2**63), 2**63, quarter)).to(integer)
    points = [0.0, *facts.kinks, *(zero for roots in zeros.values() for zero in roots)]
    around = np.array(
        [
            p + s * (abs(p) + (p == 0)) * 2.0**-k
            for p in points
            for k in range(1, 60)
            for s in (-1, 1)
        ]
    )
    edges = [info.tiny, info.smallest_normal, info.max, np.inf, np.nan, 1.0, edge]
    with np.errstate(over="ignore"):
        parts = [
            np.asarray(points),
            around,
            np.array([*edges, *(-e for e in edges), -0.0]),
            sign * np.exp2(exponents),
            rng.normal(0, 3, quarter),
            rng.uniform(-edge, edge, quarter),
        ]
    candidates = rounded(np.concatenate(parts), dtype)
    exact = rounded(np.asarray(points), dtype)
    steps = [exact]
    for direction in (-torch.inf, torch.inf):
        at = exact
        for _ in range(64):
            at = torch.nextafter(at, at.new_tensor(direction))
            steps.append(at)
    return torch.cat([candidates, bits.view(dtype), *steps, *_landmarks(dtype, parameters)])


def _landmarks(dtype: torch.dtype, others: Sequence[float]) -> tuple[torch.Tensor, ...]:
    """Integers and halves to ±128, powers of 2 and of 10, others, and what lies next to each."""
    halves = torch.arange(-256, 257, dtype=torch.float64) / 2
    twos, tens = torch.arange(-64.0, 65.0), torch.arange(-38.0, 39.0)
    powers = torch.cat([2.0 ** twos.double(), 10.0 ** tens.double()])
    more = torch.tensor([*others], dtype=torch.float64)
    at = torch.cat([halves, powers, -powers, more, -more]).to(dtype)
    infinity = at.new_tensor(torch.inf)
    return at, torch.nextafter(at, infinity), torch.nextafter(at, -infinity)


# --- rows ----------------------------------------------------------------------------------------


def draw(
    domain: Domain, shape: tuple[int, ...], rng: np.random.Generator, largest: float
) -> Floats:
    """Values of a domain, every row in a style of its own; ``largest`` is the format's."""
    if domain.draw == "real":
        return _real(shape, rng, largest)
    if domain.draw == "unit":
        return _unit(shape, rng)
    if domain.draw == "label":
        return rng.choice(np.asarray(domain.values), shape)
    if domain.draw == "positive":
        return np.exp2(rng.uniform(-20, 12, shape))
    if domain.draw == "count":
        return rng.choice([0.0, 2.0**-20, 0.5, 1.0, 2.0, 3.0, 40.0, 1000.0], shape)
    if domain.draw == "weight":
        plain = rng.choice([0.0, 2.0**-20, 1.0, 2.5], shape)
        return np.asarray(plain * rng.choice([1.0, 0.7], shape))
    distribution = _distribution(shape, rng)
    return distribution if domain.draw == "distribution" else np.log(distribution + 1e-3)


MOST_LISTED = 8
"""Classes in a list of them."""


def draw_indices(
    domain: Domain, shape: tuple[int, ...], classes: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Class indices; in a list of them one place ends it, and others stand behind that."""
    indices = rng.integers(0, classes, shape)
    if domain.extent == "element":
        ends = rng.integers(0, min(classes, MOST_LISTED) + 1, (shape[0], 1))
        indices[np.arange(classes) == ends] = domain.low
    return indices


def into_range(values: Tensor, within: tuple[float, float], seed: int) -> Tensor:
    """Return numbers with those outside a range replaced by random ones inside."""
    low, high = (min(max(end, -1e4), 1e4) for end in within)
    rng = np.random.default_rng([seed, values.numel()])
    inside = rounded(rng.uniform(low, high, tuple(values.shape)), values.dtype).to(values.device)
    inside = inside.clamp(*within)
    return torch.where((values >= within[0]) & (values <= within[1]), values, inside)


def _real(shape: tuple[int, ...], rng: np.random.Generator, largest: float) -> Floats:
    """Normal at many scales, ties, and rows that one element leads by a gap of up to 90."""
    rows = (shape[0],) + (1,) * (len(shape) - 1)
    x: Floats = rng.normal(size=shape) * rng.choice([1e-6, 0.1, 1.0, 5.0, 50.0], size=rows)
    style = rng.integers(0, 8, shape[0])
    if len(shape) == 2:
        x[style == 0] = x[style == 0, :1]
        led = np.flatnonzero((style == 1) | (style == 2))
        x[led] *= 1e-2
        x[led, rng.integers(0, shape[1], len(led))] += rng.uniform(4, 90, len(led))
        x[style == 3] = np.round(x[style == 3] * 2) / 2 + 10.0
    else:
        x[style == 0] = 0.0
    wide = style == 4
    x[wide] = rng.uniform(-1, 1, x[wide].shape) * min(largest / 8, 1e4)
    return x


def _unit(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Uniform, close to 0, close to 1, close to a half, and exactly 0 or 1."""
    style = rng.integers(0, 6, shape)
    p: Floats = rng.uniform(0, 1, shape)
    p = np.where(style == 0, np.exp2(-rng.uniform(1, 60, shape)), p)
    p = np.where(style == 1, 1 - np.exp2(-rng.uniform(1, 24, shape)), p)
    p = np.where(style == 2, 0.5 + rng.uniform(-1, 1, shape) * 2**-8, p)
    return np.where(style == 3, rng.integers(0, 2, shape).astype(float), p)


def _distribution(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Concentrated, uniform or even, some with a zero, some one-hot; a row of two for a vector."""
    matrix = shape if len(shape) == 2 else (*shape, 2)
    gamma = rng.gamma(rng.choice([0.3, 1.0, 20.0], size=(shape[0], 1)), 1.0, matrix) + 1e-30
    p: Floats = gamma / gamma.sum(-1, keepdims=True)
    style = rng.integers(0, 20, shape[0])
    p[style == 0, 0] = 0.0
    certain = np.flatnonzero(style == 1)
    p[certain] = 0.0
    p[certain, rng.integers(0, matrix[1], len(certain))] = 1.0
    return p if len(shape) == 2 else p[:, 0]
