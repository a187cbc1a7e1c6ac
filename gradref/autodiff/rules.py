"""The rules of a declared function for ``torch.autograd``: value, pull back, push forward, curve.

Each line has a rule, and the rules that differentiate it in reverse and in forward mode::

    value(x)              backward g -> pull(g, x)                    jvp t -> push(t, x)
    pull(g, x)  = J^T g   backward v -> push(v, x), curve(g, v, x)    jvp   -> pull, curve
    push(t, x)  = J t     backward g -> pull(g, x), curve(g, t, x)
    curve(g, t, x) = d/dt (J^T g)     the last: a third derivative is not declared

Every rule takes all arguments of the function, in the order of its signature, so that torch sees
each tensor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.autograd import Function

from gradref.arrays import describe, is_differentiated, reject
from gradref.autodiff.lookup import AnyFunction, base, hvp, jvp, vjp
from gradref.declare.calls import bind
from gradref.declare.operation import Operation


class _Rule(Function):
    """A rule that keeps the arguments of its call, tensors by the means that torch provides."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        ctx.others = [None if isinstance(value, Tensor) else value for value in inputs]
        ctx.is_tensor = [isinstance(value, Tensor) for value in inputs]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)


def _kept(ctx: Any) -> list[Any]:
    """Return the arguments of the forward call, in their order."""
    tensors = iter(ctx.saved_tensors)
    return [
        next(tensors) if is_tensor else other
        for is_tensor, other in zip(ctx.is_tensor, ctx.others, strict=True)
    ]


@dataclass(frozen=True)
class Products:
    """The products of an operation with vectors, called with the values of all its arguments."""

    record: Operation
    vjp: Callable[..., Tensor]
    jvp: Callable[..., Tensor]
    hvp: Callable[..., Tensor]

    def pull(self, wrt: str, g: Tensor, values: Sequence[Any]) -> Tensor:
        """Return Jᵀg for the argument ``wrt``."""
        return self.vjp(**self._named(values), grad_output=g, **self._which(wrt=wrt))

    def push(self, along: str, t: Tensor, values: Sequence[Any]) -> Tensor:
        """Return Jt for the argument ``along``."""
        return self.jvp(**self._named(values), tangent=t, **self._which(along=along))

    def curve(self, wrt: str, along: str, g: Tensor, t: Tensor, values: Sequence[Any]) -> Tensor:
        """Return the derivative of Jᵀg for ``wrt``, as the argument ``along`` moves along t."""
        more = self._which(wrt=wrt, along=along)
        return self.hvp(**self._named(values), grad_output=g, tangent=t, **more)

    def _which(self, **names: str) -> dict[str, str]:
        """Return which arguments a product is of; of a function of one there is no choice."""
        has_choice = self.record.kind == "loss" or len(self.record.differentiable) > 1
        return names if has_choice else {}

    def _named(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.record.signature.parameters, values, strict=True))


def value_rule(products: Products) -> type[Function]:
    """Return the rule for the value of an operation; its derivatives are rules themselves."""
    record = products.record
    names = tuple(record.signature.parameters)
    active = record.differentiable

    def of_arguments(
        needed: Sequence[bool], one: Callable[[str], Tensor]
    ) -> tuple[Tensor | None, ...]:
        wanted = zip(names, needed, strict=True)
        return tuple(one(name) if need and name in active else None for name, need in wanted)

    def moving(tangents: Sequence[Tensor | None]) -> list[tuple[str, Tensor]]:
        """Return the tangents of active arguments, not the zeros torch makes up for others."""
        pairs = zip(names, tangents, strict=True)
        return [(n, t) for n, t in pairs if n in active and t is not None and t.is_floating_point()]

    class Curve(_Rule):
        @staticmethod
        def forward(wrt: str, along: str, g: Tensor, t: Tensor, *values: Any) -> Tensor:
            return products.curve(wrt, along, g, t, values)

        @staticmethod
        def backward(ctx: Any, *_: Any) -> Any:
            raise NotImplementedError(f"{record.name} declares no third derivative")

    class Push(_Rule):
        @staticmethod
        def forward(along: str, t: Tensor, *values: Any) -> Tensor:
            return products.push(along, t, values)

        @staticmethod
        def backward(ctx: Any, *outputs: Tensor) -> Any:
            (g,) = outputs
            along, t, *values = _kept(ctx)
            _, to_tangent, *needed = ctx.needs_input_grad
            pulled = apply_rule(Pull, along, g, *values) if to_tangent else None
            curved = of_arguments(
                needed, lambda name: apply_rule(Curve, name, along, g, t, *values)
            )
            return None, pulled, *curved

    class Pull(_Rule):
        @staticmethod
        def forward(wrt: str, g: Tensor, *values: Any) -> Tensor:
            return products.pull(wrt, g, values)

        @staticmethod
        def backward(ctx: Any, *outputs: Tensor) -> Any:
            (v,) = outputs
            wrt, g, *values = _kept(ctx)
            _, to_output, *needed = ctx.needs_input_grad
            pushed = apply_rule(Push, wrt, v, *values) if to_output else None
            curved = of_arguments(needed, lambda name: apply_rule(Curve, name, wrt, g, v, *values))
            return None, pushed, *curved

        @staticmethod
        def jvp(ctx: Any, *inputs: Any) -> Tensor:
            _, g_tangent, *tangents = inputs
            wrt, g, *values = _kept(ctx)
            curved = [apply_rule(Curve, wrt, name, g, t, *values) for name, t in moving(tangents)]
            return functools.reduce(torch.add, curved, apply_rule(Pull, wrt, g_tangent, *values))

    class Value(_Rule):
        @staticmethod
        def forward(*values: Any) -> Tensor:
            result: Tensor = record.function(*values)
            return result

        @staticmethod
        def backward(ctx: Any, *outputs: Tensor) -> Any:
            (g,) = outputs
            values = _kept(ctx)
            return of_arguments(
                ctx.needs_input_grad, lambda name: apply_rule(Pull, name, g, *values)
            )

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
            values = _kept(ctx)
            pushed = [apply_rule(Push, name, t, *values) for name, t in moving(tangents)]
            return functools.reduce(torch.add, pushed)

    return Value


def refuse_more_than_backward(record: Operation) -> NoReturn:
    """Raise where a loss of a batch is differentiated twice, in forward mode, or mapped."""
    raise RuntimeError(
        f"{record.name}: got create_graph=True, forward mode, or a transform of torch.func;"
        f" wants backward() alone, or {record.name}_gradient and _hvp: torch differentiates it once"
    )


def once_rule(record: Operation) -> type[Function]:
    """Return the rule for a loss of a batch, by its gradient alone."""
    names, gradient = tuple(record.signature.parameters), record.derivatives["gradient"]

    class Value(_Rule):
        generate_vmap_rule = False

        @staticmethod
        def forward(*values: Any) -> Tensor:
            result: Tensor = record.function(**dict(zip(names, values, strict=True)))
            return result

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            refuse_more_than_backward(record)

        @staticmethod
        def vmap(info: Any, in_dims: Any, *values: Any) -> Any:
            refuse_more_than_backward(record)

        @staticmethod
        def backward(ctx: Any, *outputs: Tensor) -> Any:
            if torch.is_grad_enabled():
                refuse_more_than_backward(record)
            given = dict(zip(names, _kept(ctx), strict=True))
            pairs = zip(names, ctx.needs_input_grad, strict=True)
            return tuple(
                gradient(**given, grad_output=outputs[0], wrt=name) if need else None
                for name, need in pairs
            )

    return Value


def apply_rule(rule: type[Function], *values: Any) -> Tensor:
    """Call a rule on the values of its arguments."""
    result: Tensor = rule.apply(*values)  # type: ignore[no-untyped-call]  # torch's is untyped
    return result


def as_autograd(function: AnyFunction) -> AnyFunction:
    """Return a declared function that torch differentiates by the declared derivatives.

    It takes tensors where the function takes arrays, and supports ``backward``, double backward,
    forward mode, forward over reverse and reverse over forward, ``torch.func`` with ``vmap``, and
    ``torch.compile(fullgraph=True)``. A third derivative is not declared and raises. While torch
    traces or maps, values are not checked against their domain (class indices, probabilities).
    Call ``as_autograd`` outside of what is compiled.

    The losses of a batch, ``ctc_loss``, ``linear_cross_entropy`` and
    ``triplet_margin_with_distance_loss``, support one ``backward`` of all this, and
    ``torch.compile`` breaks its graph at them.

    Of a kernel that ``fuse`` has made, forward computes value and derivative in one pass and keeps
    the derivative, which backward multiplies: see ``Fused.as_autograd``. What is returned can be
    pickled, and copied with a module that holds it.

    >>> import activations
    >>> x = torch.tensor(0.0, requires_grad=True)
    >>> as_autograd(activations.sigmoid)(x).backward()
    >>> x.grad
    tensor(0.2500)
    """
    if isinstance(function, MakesItself):
        return Differentiable(function, function.as_autograd())
    record = getattr(function, "operation", None)
    if isinstance(record, Operation) and record.kind == "batch" and function is record.function:
        applied = outside_graph(once_rule(record))
    else:
        record = base(function)
        products = Products(record, vjp(function), jvp(function), hvp(function))
        applied = _in_graph(record.name, value_rule(products))
    return Differentiable(function, checked(function, record, applied))


def checked(
    function: AnyFunction, record: Operation, applied: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    """Return what checks the arguments of a function, and applies a rule to all their values."""
    arrays = record.differentiable if record.kind == "batch" else record.arguments
    constants = set(record.signature.parameters) - set(record.differentiable)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Tensor:
        given = bind(record.signature, args, kwargs)
        for name, value in given.items():
            is_left_out = value is None and record.signature.parameters[name].default is None
            if name in arrays and not isinstance(value, Tensor) and not is_left_out:
                reject(name, describe(value), "a tensor", TypeError)
            if name in constants and isinstance(value, Tensor) and is_differentiated(value):
                wants = f"{name}.detach(): it is a constant"
                reject(name, "a tensor that torch differentiates", wants)
        return applied(*given.values())

    return call


def outside_graph(rule: type[Function]) -> Callable[..., Tensor]:
    """Return what applies a rule, which torch.compile calls between two graphs."""
    apply: Callable[..., Tensor] = torch.compiler.disable(  # type: ignore[no-untyped-call]  # torch's is untyped
        functools.partial(apply_rule, rule)
    )
    return apply


def _in_graph(name: str, rule: type[Function]) -> Callable[..., Tensor]:
    """Return what applies a rule, which torch.compile takes as it is."""

    def apply(*values: Any) -> Tensor:
        return apply_rule(rule, *values)

    # Dynamo guards a function by its code object, which all of these would share: a model compiled
    # with one activation would answer for the same model with another.
    apply.__code__ = apply.__code__.replace(co_name=name)
    # Dynamo does not look inside, and AOTAutograd traces the rules.
    in_graph: Callable[..., Tensor] = torch.compiler.allow_in_graph(  # type: ignore[no-untyped-call]  # torch's is untyped
        apply
    )
    return in_graph


@runtime_checkable
class MakesItself(Protocol):
    """A kernel that knows how torch differentiates it."""

    def as_autograd(self) -> AnyFunction:
        """Return the function that torch differentiates."""
        ...


class Differentiable:
    """A function that torch differentiates, which can be pickled and copied."""

    def __init__(self, function: Any, call: AnyFunction) -> None:
        functools.update_wrapper(self, call)
        self._made_of, self._call = function, call

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the value, on torch's graph."""
        result: Tensor = self._call(*args, **kwargs)
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return as_autograd, (self._made_of,)
