"""An operation of one's own, which every command of gradref takes: ``gradref verify smooth``."""

from math import inf

import torch
from torch import Tensor

from gradref.declare import Facts, derivative, elementwise, second_derivative


@elementwise(
    torch=lambda x: 0.5 + 0.5 * torch.nn.functional.softsign(x),
    truth=lambda x: 0.5 / (1 - x) if x[0] < 0 else 1 - 0.5 / (1 + x),
    facts=Facts(
        limits={-inf: (0.0, 0.0, 0.0), inf: (1.0, 0.0, 0.0)},
        kinks={0.0: ("left", "left", 0.0)},
    ),
)
def elliott(x: Tensor, /) -> Tensor:
    r"""Elliott's sigmoid: :math:`\tfrac{1}{2} + \tfrac{x}{2 (1 + |x|)}`, which saturates slowly."""
    r = 1 / (1 + x.abs())
    return torch.where(x < 0, r / 2, 1 - r / 2)


@derivative(elliott)
def elliott_derivative(x: Tensor, /) -> Tensor:
    """:math:`r^2 / 2` with :math:`r = 1 / (1 + |x|)`."""
    return (1 / (1 + x.abs())).square() / 2


@second_derivative(elliott)
def elliott_second_derivative(x: Tensor, /) -> Tensor:
    """:math:`-r^3`, and :math:`r^3` for :math:`x < 0`."""
    return -x.sign() * (1 / (1 + x.abs())) ** 3
