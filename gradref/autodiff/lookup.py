"""Transforms of declared functions: derivatives, gradients, and products with vectors.

Nothing here differentiates: each transform looks up what is declared beside the formula, and
multiplies it with vectors at most.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gradref.arrays import describe, reject
from gradref.declare.calls import rows_call
from gradref.declare.operation import Operation, formula_of, operation

AnyFunction = Callable[..., Any]

# --- look-up -------------------------------------------------------------------------------------


def derivative(function: AnyFunction) -> AnyFunction:
    """Return f′ of an elementwise f, and f″ of an f′.

    >>> import activations
    >>> derivative(activations.tanh).__name__
    'tanh_derivative'
    """
    record = operation(function)
    if function is record.derivatives.get("derivative"):
        return _declared(record, "second_derivative")
    return _declared(record, "derivative", function)


def second_derivative(function: AnyFunction) -> AnyFunction:
    """Return f″ of an elementwise f.

    >>> import activations
    >>> second_derivative(activations.tanh).__name__
    'tanh_second_derivative'
    """
    return _declared(operation(function), "second_derivative", function)


def gradient(function: AnyFunction) -> AnyFunction:
    """Return the gradient of a loss, with respect to the argument that its ``wrt`` names.

    >>> import losses
    >>> gradient(losses.mse_loss).__name__
    'mse_loss_gradient'
    """
    return _declared(operation(function), "gradient", function)


def jacobian(function: AnyFunction) -> AnyFunction:
    """Return the Jacobian of a row-wise function.

    >>> import activations
    >>> jacobian(activations.softmax).__name__
    'softmax_jacobian'
    """
    return _declared(operation(function), "jacobian", function)


def value_and_derivative(function: AnyFunction) -> Callable[..., tuple[Any, Any]]:
    """Return a function that gives f and f′, or a loss and its gradient, as a pair.

    >>> import activations
    >>> value_and_derivative(activations.sigmoid)(0.0)
    (0.5, 0.25)
    """
    record = operation(function)
    slope = _declared(record, "gradient" if record.kind == "loss" else "derivative", function)

    def both(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if "out" in kwargs:
            reject("out", describe(kwargs["out"]), "no out: there are two results")
        backward = {name: kwargs.pop(name) for name in ("wrt", "grad_output") if name in kwargs}
        return function(*args, **kwargs), slope(*args, **kwargs, **backward)

    return both


def vjp(function: AnyFunction) -> AnyFunction:
    """Return the function from ``(x, grad_output, ...)`` to Jᵀg, rounded once.

    That of a loss is its gradient.

    >>> import activations
    >>> vjp(activations.sigmoid)(0.0, 2.0)
    0.5
    """
    record = base(function)
    if record.kind == "loss":
        return record.derivatives["gradient"]
    if record.kind == "rowwise":
        return record.derivatives["vjp"]
    return _product(record, "vjp", "derivative", "grad_output")


def jvp(function: AnyFunction) -> AnyFunction:
    """Return the function from ``(x, tangent, ...)`` to Jt, rounded once.

    That of a loss also takes ``along``, the name of the argument that the tangent belongs to.

    >>> import activations
    >>> jvp(activations.sigmoid)(0.0, 2.0)
    0.5
    """
    record = base(function)
    if record.kind == "loss":
        return _directional(record)
    if record.kind == "rowwise":
        return record.derivatives["jvp"]
    return _product(record, "jvp", "derivative", "tangent")


def hvp(function: AnyFunction) -> AnyFunction:
    """Return the function from ``(x, grad_output, tangent, ...)`` to d/dt (Jᵀg), rounded once.

    >>> import activations
    >>> hvp(activations.tanh)(0.0, 2.0, 1.0)
    -0.0
    """
    record = base(function)
    if record.kind == "elementwise":
        return _product(record, "hvp", "second_derivative", "grad_output", "tangent")
    return record.derivatives["hvp"]


def base(function: AnyFunction) -> Operation:
    """Return the operation of a declared function; reject one of its derivatives."""
    record = operation(function)
    if function is not record.function:
        reject("function", getattr(function, "__name__", function), f"{record.name} itself")
    return record


def _declared(record: Operation, role: str, function: AnyFunction | None = None) -> AnyFunction:
    if function is not None and function is not record.function:
        reject("function", getattr(function, "__name__", function), f"{record.name} itself")
    if role not in record.derivatives:
        known = ", ".join(record.derivatives)
        reject("function", f"{record.name}, which has no {role}", f"one of its own: {known}")
    return record.derivatives[role]


@functools.cache
def _product(record: Operation, name: str, role: str, *vectors: str) -> AnyFunction:
    """Return a derivative of an elementwise function times vectors, as one formula."""
    slope = formula_of(record.derivatives[role])

    def formula(x: Tensor, **rest: Any) -> Tensor:
        result: Tensor = functools.reduce(torch.mul, (rest.pop(name) for name in vectors))
        product: Tensor = result * slope(x, **rest)
        return product

    return rows_call(_sign(formula, record, name, *vectors), record, "argument")


@functools.cache
def _directional(record: Operation) -> AnyFunction:
    """Return the derivative of a loss along a tangent of one argument, reduced as the loss is."""
    slope = formula_of(record.derivatives["gradient"])
    along = record.differentiable[0]

    def formula(tangent: Tensor, along: str = along, **rest: Any) -> Tensor:
        terms: Tensor = slope(**rest, wrt=along) * tangent
        return terms if record.coupled is None else terms.sum(-1)

    signed = _sign(formula, record, "jvp", "tangent")
    keyword = inspect.Parameter("along", inspect.Parameter.KEYWORD_ONLY, default=along)
    signature = inspect.signature(signed)
    parameters = [*signature.parameters.values(), keyword]
    signed.__dict__["__signature__"] = signature.replace(parameters=parameters)
    return rows_call(signed, record, "row")


def _sign(formula: AnyFunction, record: Operation, name: str, *vectors: str) -> AnyFunction:
    """Give a composed formula a name and the operation's signature, vectors after the arrays."""
    formula.__name__ = formula.__qualname__ = f"{record.name}_{name}"
    formula.__doc__ = f"The {name} of {record.name}, composed of its declared derivatives."
    parameters = list(record.signature.parameters.values())
    arrays = [
        p.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
        for p in parameters
        if p.default is inspect.Parameter.empty
    ]
    extra = [arrays[0].replace(name=name) for name in vectors]
    rest = [p for p in parameters if p.default is not inspect.Parameter.empty]
    formula.__dict__["__signature__"] = inspect.Signature([*arrays, *extra, *rest])
    formula.__annotations__ = dict(inspect.get_annotations(record.formula))
    formula.__dict__["__wrapped__"] = record.formula  # whose module its annotations are read in
    return formula
