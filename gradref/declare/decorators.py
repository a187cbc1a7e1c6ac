"""The vocabulary: decorators that turn a plain formula into an :class:`Operation`.

A formula is a function of float64 tensors. ``@elementwise``, ``@rowwise`` and ``@loss`` declare
a function with everything known about it; ``@derivative(f)`` and its kin attach a derivative to
it. What the decorators return is called like the formula, on any array library, any floating
dtype and with ``out=``; its ``operation`` attribute is the record that the toolkit works on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

import numpy as np
import torch
from torch import Tensor

from gradref.declare.calls import ResultExtent, elementwise_call, rows_call
from gradref.declare.domains import REAL, Domains
from gradref.declare.facts import Facts
from gradref.declare.operation import Coupled, Operation, Precision

P = ParamSpec("P")
Q = ParamSpec("Q")
Array = TypeVar("Array")


# --- elementwise ---------------------------------------------------------------------------------


class Elementwise(Protocol[P]):
    """A declared elementwise function: arrays, tensors and floats in, the same kind out."""

    operation: Operation
    __name__: str

    @overload
    def __call__(self, x: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> Tensor: ...
    @overload
    def __call__(
        self, x: np.ndarray[Any, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> np.ndarray[Any, Any]: ...
    @overload
    def __call__(self, x: float, /, *args: P.args, **kwargs: P.kwargs) -> float: ...
    # A ParamSpec admits no further keyword: with out= the parameters go unchecked.
    @overload
    def __call__(self, x: Array, /, *args: Any, out: Array, **kwargs: Any) -> Array: ...


ElementFormula = Callable[Concatenate[Tensor, P], Tensor]


def elementwise(
    *,
    torch: Callable[..., Tensor] | None,
    truth: Callable[..., Any],
    facts: Facts,
    domains: Domains | None = None,
    cases: Sequence[Mapping[str, Any]] = ({},),
    differs: Mapping[str, str] | None = None,
) -> Callable[[ElementFormula[P]], Elementwise[P]]:
    """Declare a function that acts on every element by itself."""

    def declare(formula: ElementFormula[P]) -> Elementwise[P]:
        record = Operation(
            formula,
            kind="elementwise",
            truth=truth,
            torch=torch,
            facts=facts,
            domains=domains or {},
            cases=cases,
            differs=differs or {},
        )
        record.function = elementwise_call(formula, record)
        return cast(Elementwise[P], record.function)

    return declare


def derivative(of: Elementwise[P]) -> Callable[[ElementFormula[P]], Elementwise[P]]:
    """Attach f′, which takes the parameters of f."""
    return _attach_elementwise(of, "derivative")


def second_derivative(of: Elementwise[P]) -> Callable[[ElementFormula[P]], Elementwise[P]]:
    """Attach f″, which takes the parameters of f."""
    return _attach_elementwise(of, "second_derivative")


def zero_second_derivative(of: Elementwise[P]) -> Elementwise[P]:
    """Attach f″ = 0, of a function of straight pieces; at the kinks it is 0 as well, as in torch.

    NaN gives NaN.
    """

    def formula(x: Tensor, /, **_: Any) -> Tensor:
        return torch.where(x.isnan(), x, 0.0)

    record = of.operation
    formula.__name__ = formula.__qualname__ = f"{record.name}_second_derivative"
    formula.__module__ = record.module
    formula.__dict__["__signature__"] = record.signature
    formula.__doc__ = (
        ":math:`0`, also at the kinks, where f″ does not exist.\n\n"
        f">>> {formula.__name__}(torch.tensor([-1.0, 2.0]))\ntensor([0., 0.])\n"
    )
    return second_derivative(of)(cast(ElementFormula[P], formula))


def derivative_from_output(of: Elementwise[P]) -> Callable[[ElementFormula[P]], Elementwise[P]]:
    """Attach f′ as a function of y = f(x), the form that keeps no input for the backward pass."""
    return _attach_elementwise(of, "derivative_from_output")


def _attach_elementwise(
    of: Elementwise[P], role: str
) -> Callable[[ElementFormula[P]], Elementwise[P]]:
    def attach(formula: ElementFormula[P]) -> Elementwise[P]:
        call = elementwise_call(formula, of.operation)
        of.operation.derivatives[role] = call
        return cast(Elementwise[P], call)

    return attach


# --- row-wise functions and losses ---------------------------------------------------------------


class Rows(Protocol[P]):
    """A declared row-wise function, a loss, or a derivative of one."""

    operation: Operation
    __name__: str

    # mypy cannot see that the first argument of every P is a Tensor.
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, first: np.ndarray[Any, Any], /, *args: Any, **kwargs: Any
    ) -> np.ndarray[Any, Any]: ...
    @overload
    def __call__(self, first: float, /, *args: Any, **kwargs: Any) -> float: ...
    # A ParamSpec admits no further keyword: with out= the other arguments go unchecked.
    @overload
    def __call__(self, first: Array, /, *args: Any, out: Array, **kwargs: Any) -> Array: ...


def rowwise(
    *,
    torch: Callable[..., Tensor],
    truth: Callable[..., Any],
    domains: Domains | None = None,
    coupled: Coupled = "dim",
    parts: int = 1,
    precision: Precision = "relative",
    cases: Sequence[Mapping[str, Any]] = ({},),
    differs: Mapping[str, str] | None = None,
    mistakes: Mapping[str, Callable[..., Tensor]] | None = None,
) -> Callable[[Callable[P, Tensor]], Rows[P]]:
    """Declare a function of the vectors along a dimension, which its formula sees as the last.

    A row may have several ``parts``; it has as many outputs as one of them. An argument whose
    domain has the extent "class" is shared by all rows, and so a derivative by it is their sum.
    ``mistakes`` are as those of :func:`loss`.
    """

    def declare(formula: Callable[P, Tensor]) -> Rows[P]:
        record = Operation(
            formula,
            kind="rowwise",
            truth=truth,
            torch=torch,
            domains={"x": REAL, **(domains or {})},
            cases=cases,
            differs=differs or {},
            coupled=coupled,
            parts=parts,
            precision=precision,
            mistakes=mistakes or {},
        )
        record.function = rows_call(formula, record, "output")
        return cast(Rows[P], record.function)

    return declare


def loss(
    *,
    torch: Callable[..., Tensor] | None,
    truth: Callable[..., Any],
    domains: Domains,
    coupled: Coupled | None = None,
    precision: Precision = "relative",
    mass: Callable[..., Tensor] | None = None,
    truth_mass: Callable[..., Any] | None = None,
    cases: Sequence[Mapping[str, Any]] = ({},),
    differs: Mapping[str, str] | None = None,
    mistakes: Mapping[str, Callable[..., Tensor]] | None = None,
) -> Callable[[Callable[P, Tensor]], Rows[P]]:
    """Declare a loss; its formula is the unreduced loss, and ``reduction`` is applied to that.

    A coupled loss has one value per row: along ``dim``, or along the dimension of the classes.
    ``truth`` gives the loss of every row, or the summands of it as columns.
    ``precision`` says what the usual algorithms keep, which other people's kernels are held to; a
    "normwise" one holds for ours as well.
    ``mass`` is what each value counts for in a mean, 1 without one and where an argument that it
    needs is not given; ``truth_mass`` is the same for Arb. ``mistakes`` are functions of torch with
    the arguments of the loss, each by the words that a kernel which computes it is told.
    """

    def declare(formula: Callable[P, Tensor]) -> Rows[P]:
        record = Operation(
            formula,
            kind="loss",
            truth=truth,
            torch=torch,
            domains=domains,
            cases=cases,
            differs=differs or {},
            coupled=coupled,
            precision=precision,
            mass=mass,
            truth_mass=truth_mass,
            mistakes=mistakes or {},
        )
        record.function = rows_call(formula, record, "row")
        return cast(Rows[P], record.function)

    return declare


def batch_loss(
    *,
    torch: Callable[..., Tensor],
    truth: Callable[..., Any],
    draw: Callable[..., dict[str, Any]],
    shares: Callable[..., Any],
    precision: Precision = "relative",
    domains: Domains | None = None,
    cases: Sequence[Mapping[str, Any]] = ({},),
    differs: Mapping[str, str] | None = None,
    mistakes: Mapping[str, Callable[..., Tensor]] | None = None,
) -> Callable[[Callable[P, Tensor]], Rows[P]]:
    """Declare a loss of a batch: rows share a matrix, or arrays differ in their dimensions.

    It checks its arguments and reduces by itself, and so do the functions under ``@gradient(f)``,
    ``@hvp(f)`` and ``@hessian_diagonal(f)``: they are called as they are written. ``truth`` takes
    the arrays and gives the unreduced losses, ``shares`` what each counts for in a mean; ``draw``
    takes a random generator, one of the ``cases``, and whether the call is large, and gives all its
    arrays by name.
    """

    def declare(function: Callable[P, Tensor]) -> Rows[P]:
        record = Operation(
            function,
            kind="batch",
            truth=truth,
            torch=torch,
            domains=domains or {},
            cases=cases,
            precision=precision,
            differs=differs or {},
            mistakes=mistakes or {},
            draw=draw,
            shares=shares,
        )
        record.function = function
        return _as_written(function, record)

    return declare


def _as_written(function: Callable[Q, Tensor], record: Operation) -> Rows[Q]:
    """Return a function itself, with what the toolkit asks of a declared one."""
    function.__dict__.update(operation=record, formula=function)
    return cast(Rows[Q], function)


def _attach(
    of: Rows[...], role: str, extent: ResultExtent = "argument"
) -> Callable[[Callable[Q, Tensor]], Rows[Q]]:
    def attach(formula: Callable[Q, Tensor]) -> Rows[Q]:
        record = of.operation
        is_batch = record.kind == "batch"
        call = _as_written(formula, record) if is_batch else rows_call(formula, record, extent)
        record.derivatives[role] = call
        return cast(Rows[Q], call)

    return attach


def value_and_gradients(
    of: Rows[...],
) -> Callable[[Callable[Q, tuple[Any, ...]]], Callable[Q, tuple[Any, ...]]]:
    """Attach the value with its gradients by the arguments ``wrt``: of a batch they share work.

    ``gradref.fuse`` evaluates it in float32.
    """

    def attach(function: Callable[Q, tuple[Any, ...]]) -> Callable[Q, tuple[Any, ...]]:
        of.operation.value_and_gradients = function
        return function

    return attach


def jacobian(of: Rows[...]) -> Callable[[Callable[Q, Tensor]], Rows[Q]]:
    """Attach the matrix ∂f_i/∂x_j of every row, as the last two dimensions of the result."""
    return _attach(of, "jacobian", "jacobian")


def jacobian_diagonal(of: Rows[...]) -> Callable[[Callable[Q, Tensor]], Rows[Q]]:
    """Attach ∂f_i/∂x_i of every row."""
    return _attach(of, "jacobian_diagonal", "output")


def jacobian_from_output(of: Rows[...]) -> Callable[[Callable[Q, Tensor]], Rows[Q]]:
    """Attach the Jacobian as a function of y = f(x)."""
    return _attach(of, "jacobian_from_output", "jacobian")


def vjp(of: Rows[...]) -> Callable[[Callable[Q, Tensor]], Rows[Q]]:
    """Attach Jᵀg, what a backward pass computes."""
    return _attach(of, "vjp")


def jvp(of: Rows[...]) -> Callable[[Callable[Q, Tensor]], Rows[Q]]:
    """Attach Jt, what forward mode computes."""
    return _attach(of, "jvp", "output")


def hvp(of: Rows[...]) -> Callable[[Callable[Q, Tensor]], Rows[Q]]:
    """Attach the derivative, along ``tangent``, of the vector-Jacobian product or the gradient."""
    return _attach(of, "hvp")


def gradient(of: Rows[...]) -> Callable[[Callable[Q, Tensor]], Rows[Q]]:
    """Attach the derivative of the unreduced loss with respect to the argument ``wrt``."""
    return _attach(of, "gradient")


def hessian_diagonal(of: Rows[...]) -> Callable[[Callable[Q, Tensor]], Rows[Q]]:
    """Attach the diagonal of the second derivative; of the diagonal, not a bound on it."""
    return _attach(of, "hessian_diagonal")
