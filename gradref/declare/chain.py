"""How a loss of two arguments depends on the one number that its profile is a function of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradref.formula.errorfree import two_sum

Pull = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A function of a derivative by the inner number, x and t: the derivative by one of the latter."""


@dataclass(frozen=True)
class Chain:
    """The inner function of a loss φ(r) with r = r(x, t), and its chain rule.

    ``inner`` is r, of tensors and of power series, and ``error`` what rounding it has lost. It is
    linear in every argument with a derivative, each of which has a ``Pull``, and it is x for
    t = ``neutral``. ``rules`` are docstrings of what is lifted, by role, and ``examples`` doctests.
    """

    inner: Callable[[Any, Any], Any]
    error: Callable[[Tensor, Tensor], Tensor]
    pulls: tuple[Pull, ...]
    neutral: float
    rules: dict[str, str]
    examples: dict[str, str]


RESIDUAL = Chain(
    inner=lambda x, t: x - t,
    error=lambda x, t: two_sum(x, -t)[1],
    pulls=(lambda d, x, t: d, lambda d, x, t: -d),
    neutral=0.0,
    rules={
        "gradient": r"""
:math:`\partial \ell / \partial x = {w}\varphi'(r) = -\partial \ell / \partial t` for the residual
r = x − t.""",
        "hessian_diagonal": r"""
:math:`\partial^2 \ell / \partial x^2 = \partial^2 \ell / \partial t^2 = {w}\varphi''(r)` for the
residual r = x − t.""",
        "hvp": r""":math:`\pm {w}\varphi''(x - t)\,v`, + where ``wrt`` is ``along``, else −.

The derivative of the gradient for ``wrt`` as ``along`` moves along v; the Hessian is diagonal.""",
    },
    examples={
        "gradient": '{name}_gradient(2.0, 0.5, wrt="{second}") == -{name}_gradient(2.0, 0.5)',
        "hessian_diagonal": (
            '{name}_hessian_diagonal(2.0, 0.5, wrt="{second}") == {name}_hessian_diagonal(2.0, 0.5)'
        ),
    },
)

MARGIN = Chain(
    inner=lambda x, y: y * x,
    error=lambda x, y: torch.zeros_like(x),  # y is −1 or 1
    pulls=(lambda d, x, y: y * d,),
    neutral=1.0,
    rules={
        "gradient": r"""
:math:`\partial \ell / \partial x = {w}y\,\varphi'(m)` for the margin m = yx.""",
        "hessian_diagonal": r"""
:math:`\partial^2 \ell / \partial x^2 = {w}\varphi''(m)` for the margin m = yx, as y² = 1.""",
        "hvp": r""":math:`{w}\varphi''(yx)\,v`: the derivative of the gradient as x moves along v.

The Hessian is diagonal.""",
    },
    examples={
        "gradient": "{name}_gradient(-0.5, -1.0) == -{name}_gradient(0.5, 1.0)",
        "hessian_diagonal": (
            "{name}_hessian_diagonal(-0.5, -1.0) == {name}_hessian_diagonal(0.5, 1.0)"
        ),
    },
)
