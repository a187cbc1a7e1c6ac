"""An operation of one's own, which every command of gradref takes: ``gradref verify smooth``."""

from math import inf

import torch.nn.functional as F
from torch import Tensor

from gradref.declare import Facts, derivative, elementwise, second_derivative


@elementwise(
    torch=F.softsign,
    truth=lambda x: x / (1 - x if x[0] < 0 else 1 + x),
    facts=Facts(
        limits={-inf: (-1.0, 0.0, 0.0), inf: (1.0, 0.0, 0.0)},
        kinks={0.0: ("left", "left", 0.0)},
    ),
)
def softsign(x: Tensor, /) -> Tensor:
    r"""Softsign: :math:`x / (1 + |x|)`, which saturates slowly."""
    return (x / (1 + x.abs())).where(~x.isinf(), x.sign())


@derivative(softsign)
def softsign_derivative(x: Tensor, /) -> Tensor:
    """:math:`r^2` with :math:`r = 1 / (1 + |x|)`."""
    return (1 / (1 + x.abs())).square()


@second_derivative(softsign)
def softsign_second_derivative(x: Tensor, /) -> Tensor:
    """:math:`-2 r^3`, and :math:`2 r^3` for :math:`x < 0`."""
    return -2 * x.sign() * (1 / (1 + x.abs())) ** 3
