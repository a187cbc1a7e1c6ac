"""The building blocks that keep digits: exact in rational arithmetic, and on the right side."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from gradref.arrays import round_once
from gradref.errorfree import sticky_sum, two_product, two_sum


def wide(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_sums_and_products_are_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale = 2.0 ** rng.integers(-30, 30, (2, 200))
    a, b = torch.from_numpy(rng.normal(size=(2, 200)) * scale)
    for x, y, s, e, p, f in zip(
        a.tolist(),
        b.tolist(),
        *(part.tolist() for part in (*two_sum(a, b), *two_product(a, b))),
        strict=True,
    ):
        assert Fraction(s) + Fraction(e) == Fraction(x) + Fraction(y)
        assert Fraction(p) + Fraction(f) == Fraction(x) * Fraction(y)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_rounded_away_decides_a_tie(kind: torch.dtype) -> None:
    eps = torch.finfo(kind).eps
    above, below = sticky_sum(wide(1 + eps / 2, 1 + eps / 2), wide(2.0**-60, -(2.0**-60)))
    assert round_once(above, kind) == 1 + eps
    assert round_once(below, kind) == 1


@pytest.mark.parametrize("bits", [25, 26, 27, 40, 52])
def test_where_nothing_can_tie_a_sum_is_the_nearest(bits: int) -> None:
    high = wide(1 + 2.0**-bits, 1 + 2.0**-bits)
    low = wide(2.0**-60, -(2.0**-60))
    assert (sticky_sum(high, low) == high).all()
    assert (sticky_sum(high, wide(0.0, 0.0)) == high).all()
