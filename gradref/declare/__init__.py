"""The vocabulary: what a formula is declared with, and the record that comes of it."""

from gradref.declare.decorators import (
    Elementwise,
    Rows,
    derivative,
    derivative_from_output,
    elementwise,
    gradient,
    hessian_diagonal,
    hvp,
    jacobian,
    jacobian_diagonal,
    jacobian_from_output,
    jvp,
    loss,
    rowwise,
    second_derivative,
    vjp,
)

__all__ = [
    "Elementwise",
    "Rows",
    "derivative",
    "derivative_from_output",
    "elementwise",
    "gradient",
    "hessian_diagonal",
    "hvp",
    "jacobian",
    "jacobian_diagonal",
    "jacobian_from_output",
    "jvp",
    "loss",
    "rowwise",
    "second_derivative",
    "vjp",
]
