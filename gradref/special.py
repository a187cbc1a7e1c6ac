"""Special functions that torch compiles to scalar calls, in float32 as polynomials.

The coefficients are those that ``docs/coefficients.py`` prints, with the errors it has measured.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradref.errorfree import Exponential

SMALL = 0.5
"""Up to it tanh is a polynomial: further out nothing cancels."""

TANH = (
    -0.006943049840629101,
    0.02147073671221733,
    -0.05393347889184952,
    0.1333322525024414,
    -0.3333333134651184,
)
"""(tanh(x)/x − 1)/x² as a polynomial in x² for abs(x) ≤ SMALL, highest power first."""

MIDDLE, FAR = 2.0, 15.0
MILLS = (
    -0.0001984673144761473,
    6.68595966999419e-05,
    0.0018218151526525617,
    0.0022290206979960203,
    -0.004740532953292131,
    -0.01692889630794525,
    -0.001211299910210073,
    0.09204819053411484,
    0.0721869021654129,
    -0.8307080864906311,
    1.6854768991470337,
)
"""(z + MIDDLE) times Mills' ratio as a polynomial in s = (z − MIDDLE)/(z + MIDDLE), 0 ≤ z ≤ FAR."""


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent; in float32 from one exponential, which tanh′ shares."""
    if x.dtype is torch.float64:
        return torch.tanh(x)
    e = Exponential.of(-2 * x.abs()).value
    far = (1 - e) * (1 / (1 + e))
    near = x + x * (x.square() * _polynomial(TANH, x.square()))
    return torch.where(x.abs() < SMALL, near, torch.where(x < 0, -far, far))


def mills(z: Tensor) -> Tensor:
    """Mills' ratio Φ(−z)/φ(z) for z ≥ 0, in float32."""
    w = 1 / (z + MIDDLE)
    return w * _polynomial(MILLS, (z - MIDDLE) * w)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Horner's rule."""
    result = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + coefficient
    return result
