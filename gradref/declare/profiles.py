"""Losses of one residual or one margin as profiles, and others by their partial derivatives.

A loss of the residual r = x − t, or of the margin m = yx, is a function φ of one number: its
profile. What is written by hand are φ, as the unreduced loss ℓ(x, t) = φ(x − t), and below it φ′
and φ″. From them come the loss with weights and reductions, its gradient in both arguments, its
Hessian product and its Hessian diagonal; and φ is an elementwise operation, ``operation.profile``,
that everything in the toolkit works on which works on activations.

A loss of several numbers that is no function of one is declared by ``@loss``; its first and second
partial derivatives are lifted in the same way, from functions of all its arguments.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, cast, get_args, overload

import numpy as np
import torch as _torch
from torch import Tensor

from gradref.arrays import reject
from gradref.declare.calls import elementwise_call, rows_call
from gradref.declare.chain import MARGIN, RESIDUAL, Chain
from gradref.declare.decorators import Rows
from gradref.declare.domains import REAL, SIGN, Domain, Domains
from gradref.declare.facts import Facts
from gradref.declare.operation import Operation
from gradref.formula.weighting import weighted
from gradref.truth.series import each

P = ParamSpec("P")
Array = TypeVar("Array")
Kind = TypeVar("Kind", Tensor, np.ndarray[Any, Any], float)
Evaluate = Callable[[Mapping[str, Any]], Tensor]
NotTensor = TypeVar("NotTensor", np.ndarray[Any, Any], float)

Argument = Literal["input", "target"]
"""What a loss of two arguments calls them, as torch does."""

FIRST, SECOND = get_args(Argument)


class Gradient(Protocol[P]):
    """The gradient or the Hessian diagonal of a loss: its arguments, ``wrt``, ``grad_output``."""

    operation: Operation
    __name__: str

    # A ParamSpec admits no further keyword: with one, the other parameters go unchecked.
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor: ...
    @overload
    def __call__(
        self, input: Kind, target: Kind, *args: Any, wrt: Argument, **kwargs: Any
    ) -> Kind: ...
    @overload
    def __call__(
        self, input: Tensor, target: Tensor, *args: Any, grad_output: Tensor | None, **kwargs: Any
    ) -> Tensor: ...
    @overload
    def __call__(
        self, first: NotTensor, /, *args: Any, wrt: Argument = ..., **kwargs: Any
    ) -> NotTensor: ...
    @overload
    def __call__(
        self, first: Array, /, *args: Any, wrt: Argument = ..., out: Array, **kwargs: Any
    ) -> Array: ...


class HessianProduct(Protocol):
    """The Hessian product of a loss; what stands behind ``tangent`` goes unchecked."""

    operation: Operation
    __name__: str

    def __call__(
        self,
        input: Kind,
        target: Kind,
        tangent: Kind,
        *args: Any,
        wrt: Argument = ...,
        along: Argument = ...,
        **kwargs: Any,
    ) -> Kind:
        """Return the product, of the kind of the arrays."""
        ...


# --- what is written -----------------------------------------------------------------------------


def residual_loss(
    *,
    torch: Callable[..., Tensor],
    truth: Callable[..., Any],
    facts: Facts,
    domains: Domains | None = None,
    mass: Callable[..., Tensor] | None = None,
    truth_mass: Callable[..., Any] | None = None,
    cases: Sequence[Mapping[str, Any]] = ({},),
    differs: Mapping[str, str] | None = None,
) -> Callable[[Callable[P, Tensor]], Rows[P]]:
    """Declare a loss φ(x − t) by its unreduced and unweighted values.

    ``truth`` and ``facts`` are those of φ, as functions of the residual and of the parameters. An
    array among the optional arguments is a weight, which the loss is multiplied by. The rest is as
    in :func:`~gradref.declare.loss`.
    """
    return functools.partial(
        _declare,
        RESIDUAL,
        truth,
        facts=facts,
        torch=torch,
        domains={FIRST: REAL, SECOND: REAL, **(domains or {})},
        mass=mass,
        truth_mass=truth_mass,
        cases=cases,
        differs=differs or {},
    )


def margin_loss(
    *,
    torch: Callable[..., Tensor],
    truth: Callable[..., Any],
    facts: Facts,
    domains: Domains | None = None,
    cases: Sequence[Mapping[str, Any]] = ({},),
    differs: Mapping[str, str] | None = None,
) -> Callable[[Callable[P, Tensor]], Rows[P]]:
    """Declare a loss φ(yx) for labels y of −1 and 1; as :func:`residual_loss`."""
    return functools.partial(
        _declare,
        MARGIN,
        truth,
        facts=facts,
        torch=torch,
        domains={FIRST: REAL, SECOND: SIGN, **(domains or {})},
        cases=cases,
        differs=differs or {},
    )


def profile_derivative(of: Rows[P]) -> Callable[[Callable[..., Tensor]], Gradient[P]]:
    """Attach the gradient of a loss of one number, by φ′.

    The function below the decorator is φ′ of the residual or the margin. It takes of the loss's
    parameters those that it names, and ``error`` if it names that: what rounding the residual has
    lost, for where φ′ jumps.
    """
    return cast(Callable[..., Gradient[P]], functools.partial(_attach_first, of.operation))


def profile_second_derivative(of: Rows[P]) -> Callable[[Callable[..., Tensor]], Gradient[P]]:
    """Attach the Hessian diagonal of a loss of one number, by φ″; as :func:`profile_derivative`."""
    return cast(Callable[..., Gradient[P]], functools.partial(_attach_second, of.operation))


def profile_hvp(of: Rows[...]) -> HessianProduct:
    """Return the Hessian product of a loss, by the second derivative that was attached before."""
    return cast(HessianProduct, _product(of.operation))


def partial_derivatives(of: Rows[...]) -> Callable[[Callable[..., Tensor]], Rows[...]]:
    """Attach the gradient of a loss of several numbers, by its partial derivatives.

    The function below the decorator is ∂ℓ by the argument ``wrt``. It takes the arrays and of the
    loss's parameters those that it names.
    """
    return cast(Callable[..., Rows[...]], functools.partial(_attach_first, of.operation))


def second_partial_derivatives(of: Rows[...]) -> Callable[[Callable[..., Tensor]], Rows[...]]:
    """Attach the Hessian diagonal of a loss of several numbers, by its second partial derivatives.

    As :func:`partial_derivatives`, by ``wrt`` and ``along``.
    """
    return cast(Callable[..., Rows[...]], functools.partial(_attach_second, of.operation))


def partial_hvp(of: Rows[...]) -> Rows[...]:
    """Return the Hessian product of a loss, by the second partial derivatives attached before."""
    return cast(Rows[...], _product(of.operation))


# --- what is made of it --------------------------------------------------------------------------


def _declare(
    chain: Chain,
    truth: Callable[..., Any],
    formula: Callable[P, Tensor],
    *,
    torch: Callable[..., Tensor],
    facts: Facts,
    **declared: Any,
) -> Rows[P]:
    """Make the record of a loss and that of its profile."""
    record = Operation(
        formula,
        kind="loss",
        truth=truth,
        torch=torch,
        chain=chain,
        **declared,
    )
    record.truth = _lifted_truth(record, truth)
    record.profile = _profile(record, truth, torch, facts)

    def value(given: Mapping[str, Any]) -> Tensor:
        return record.formula(**given)

    signature = inspect.signature(formula, eval_str=True)
    weighted_value = _weighted(value, _weights(record))
    evaluated = _formula(weighted_value, record, record.name, formula.__doc__, signature)
    record.function = rows_call(evaluated, record, "row")
    record.function.__dict__["__wrapped__"] = formula
    return cast(Rows[P], record.function)


class _Lifted:
    """A derivative by the inner number, or by both arguments, as a function of a loss's arguments.

    The signature is looked at once: a call is as quick as that of a formula.
    """

    def __init__(self, record: Operation, written: Callable[..., Tensor]) -> None:
        self.chain, self.arguments, self.written = record.chain, record.arguments, written
        self.asked = tuple(inspect.signature(written).parameters)[1 if self.chain else 0 :]

    def __call__(self, given: Mapping[str, Any], *by: str) -> Tensor:
        """Return the derivative by some of the loss's arguments, one after the other."""
        if self.chain is None:
            return self.written(**{name: given[name] for name in self.asked})
        x, t = (given[name] for name in self.arguments)
        more = {
            name: self.chain.error(x, t) if name == "error" else given[name] for name in self.asked
        }
        derivative = self.written(self.chain.inner(x, t), **more)
        for name in by:
            derivative = self.chain.pulls[self.arguments.index(name)](derivative, x, t)
        return derivative


def _attach_first(record: Operation, written: Callable[..., Tensor]) -> Callable[..., Any]:
    derivative = _Lifted(record, written)

    def gradient(given: Mapping[str, Any]) -> Tensor:
        return derivative(given, given["wrt"])

    _add_to_profile(record, "derivative", written)
    return _attach(record, "gradient", gradient, written)


def _attach_second(record: Operation, written: Callable[..., Tensor]) -> Callable[..., Any]:
    derivative = _Lifted(record, written)

    def diagonal(given: Mapping[str, Any]) -> Tensor:
        wrt = given["wrt"]
        return derivative({**given, "along": wrt}, wrt, wrt)

    _add_to_profile(record, "second_derivative", written)
    return _attach(record, "hessian_diagonal", diagonal, written)


def _product(record: Operation) -> Callable[..., Any]:
    derivative = _Lifted(record, inspect.unwrap(record.derivatives["hessian_diagonal"]))

    def product(given: Mapping[str, Any]) -> Tensor:
        """The second derivative by ``wrt`` and ``along``, times the tangent."""
        tangent: Tensor = given["tangent"]
        return derivative(given, given["wrt"], given["along"]) * tangent

    return _attach(record, "hvp", product, product)


def _weights(record: Operation) -> tuple[str, ...]:
    """Return the arrays among the optional arguments of a loss of one number."""
    if record.chain is None:
        return ()
    return tuple(n for n in record.parameters if isinstance(record.domains.get(n), Domain))


def _weighted(evaluate: Evaluate, weights: tuple[str, ...]) -> Evaluate:
    """Return a function of all arguments times those of the weights that are given."""

    def times_weights(given: Mapping[str, Any]) -> Tensor:
        values = evaluate(given)
        for name in weights:
            values = weighted(values, given[name])
        return values

    return times_weights if weights else evaluate


def _lifted_truth(record: Operation, truth: Callable[..., Any]) -> Callable[..., Any]:
    """Return the truth of a loss, of that of its profile."""
    assert record.chain is not None  # only losses of one number are declared so
    inner, (first, second), weights = record.chain.inner, record.arguments, _weights(record)

    def lifted(**given: Any) -> Any:
        number = inner(given.pop(first), given.pop(second))
        factors = [weight for name in weights if (weight := given.pop(name)) is not None]
        profile = each(functools.partial(truth, **given), number)
        return functools.reduce(operator.mul, factors, profile)

    return lifted


def _attach(
    record: Operation,
    role: str,
    evaluate: Evaluate,
    written: Callable[..., Any],
) -> Callable[..., Any]:
    """Declare a lifted derivative, with the name, documentation and arguments of its role."""
    name, is_product = f"{record.name}_{role}", role == "hvp"
    if record.coupled is not None:
        reject("of", record.name, "a loss of which every value depends on one pair")
    if not is_product and written.__name__ != name:
        reject("function", f"the name {written.__name__}", name)
    documentation = _documentation(record, role, None if is_product else written.__doc__)
    written.__name__, written.__doc__ = name, documentation
    keywords = ("wrt", "along") if is_product else ("wrt",)
    signature = _with_keywords(record, ("tangent",) if is_product else (), keywords)
    weighted_role = _weighted(evaluate, _weights(record))
    formula = _formula(weighted_role, record, name, documentation, signature)
    call = rows_call(formula, record, "argument")
    call.__dict__["__wrapped__"] = written
    record.derivatives[role] = call
    return call


def _documentation(record: Operation, role: str, written: str | None) -> str:
    """Return what is written of a derivative, the chain rule, and an example if there is none."""
    text, _, example = inspect.cleandoc(written or "").partition(">>> ")
    if record.chain is not None:
        weight = "w" + r"\," if _weights(record) else ""
        text = f"{text.rstrip()}\n{record.chain.rules[role].replace('{w}', weight)}".strip()
    elif not text:
        text = r":math:`\partial^2 \ell\,v`, by ``wrt`` and ``along``; the Hessian is diagonal."
    if not example:
        arrays = ", ".join(["2.0", *("1.0" for _ in record.arguments[1:])])
        product = f"{{name}}_hvp({arrays}, 3.0) == 3.0 * {{name}}_hessian_diagonal({arrays})"
        known = record.chain.examples if record.chain is not None else {}
        example = known.get(role, product).replace("{name}", record.name)
        example = example.replace("{second}", record.arguments[-1]) + "\nTrue"
    return f"{text.rstrip()}\n\n>>> {example}\n"


def _with_keywords(
    record: Operation, vectors: Iterable[str], roles: Iterable[str]
) -> inspect.Signature:
    """Return the signature of a loss with vectors behind its arrays, and what to derive by."""
    signature = inspect.signature(record.formula, eval_str=True)
    known = list(signature.parameters.values())
    arrays = [p for p in known if p.default is p.empty]
    active = tuple(
        name
        for name in record.arguments
        if not any(domain.is_discrete for domain in record.array_domains(record.parameters)[name])
    )
    only = inspect.Parameter.KEYWORD_ONLY
    return signature.replace(
        parameters=[
            *arrays,
            *(arrays[0].replace(name=name) for name in vectors),
            *known[len(arrays) :],
            *(
                inspect.Parameter(role, only, default=active[0], annotation=Literal[active])
                for role in roles
            ),
            inspect.Parameter("grad_output", only, default=None, annotation=Tensor | None),
        ]
    )


def _formula(
    evaluate: Evaluate,
    record: Operation,
    name: str,
    documentation: str | None,
    signature: inspect.Signature,
) -> Callable[..., Tensor]:
    """Return what evaluates all arguments by name as if it were written beside the operation."""
    names = tuple(signature.parameters)
    defaults = {
        name: p.default for name, p in signature.parameters.items() if p.default is not p.empty
    }

    def formula(*args: Any, **kwargs: Any) -> Tensor:
        return evaluate({**defaults, **dict(zip(names, args, strict=False)), **kwargs})

    formula.__name__ = formula.__qualname__ = name
    formula.__module__, formula.__doc__ = record.formula.__module__, documentation
    annotations = {n: p.annotation for n, p in signature.parameters.items()}
    formula.__annotations__ = {**annotations, "return": signature.return_annotation}
    formula.__dict__["__signature__"] = signature
    return formula


# --- the profile as an operation -----------------------------------------------------------------


def _profile(
    record: Operation, truth: Callable[..., Any], torch: Callable[..., Tensor], facts: Facts
) -> Operation:
    """Return φ as an elementwise operation: the loss for a neutral second argument."""
    assert record.chain is not None  # only losses of one number are declared so
    neutral, (first, second) = record.chain.neutral, record.arguments
    signature = inspect.signature(record.formula, eval_str=True)
    names = set(record.parameters) - {*_weights(record), "reduction"}
    x = inspect.Parameter("x", inspect.Parameter.POSITIONAL_ONLY, annotation=Tensor)
    rest = [p for p in signature.parameters.values() if p.name in names]
    signature = signature.replace(parameters=[x, *rest])

    def value(given: Mapping[str, Any]) -> Tensor:
        x, parameters = given["x"], {name: given[name] for name in names}
        return record.formula(**{first: x, second: _torch.full_like(x, neutral)}, **parameters)

    def witness(x: Tensor, **parameters: Any) -> Tensor:
        return torch(x, _torch.full_like(x, neutral), reduction="none", **parameters)

    formula = _formula(value, record, f"{record.name}_profile", None, signature)
    cases = [{n: v for n, v in case.items() if n in names} for case in record.cases]
    profile = Operation(
        formula,
        kind="elementwise",
        truth=truth,
        torch=witness,
        facts=facts,
        domains={n: d for n, d in record.domains.items() if n in names},
        cases=[case for i, case in enumerate(cases) if case not in cases[:i]],
    )
    profile.function = elementwise_call(formula, profile)
    return profile


def _add_to_profile(record: Operation, role: str, written: Callable[..., Tensor]) -> None:
    """Attach φ′ or φ″ to the profile of a loss, if it has one."""
    profile = record.profile
    if profile is None:
        return
    asked = tuple(inspect.signature(written).parameters)[1:]

    def derivative(given: Mapping[str, Any]) -> Tensor:
        known = {"error": _torch.zeros_like(given["x"]), **given}
        return written(given["x"], **{name: known[name] for name in asked})

    name = f"{profile.name}_{role}"
    formula = _formula(derivative, record, name, None, inspect.signature(profile.formula))
    profile.derivatives[role] = elementwise_call(formula, profile)
