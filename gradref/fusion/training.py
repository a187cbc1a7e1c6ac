"""Fused kernels under ``torch.autograd``: forward keeps the derivative, backward multiplies it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from gradref.arrays import describe, is_differentiated, reject
from gradref.autodiff.rules import (
    apply_rule,
    as_autograd,
    checked,
    outside_graph,
    refuse_more_than_backward,
)
from gradref.declare.calls import bind
from gradref.declare.operation import Operation

Kernel = Callable[..., Any]
Make = Callable[..., Kernel]
"""Makes a kernel for the results that are named."""


def differentiable(record: Operation, fused: Make) -> Callable[..., Tensor]:
    """Return the function that torch differentiates once; ``fused`` makes kernels of it."""
    value = fused("value")
    rule = _pulled(record, value, fused) if record.kind == "rowwise" else _kept(record, fused)
    traced = as_autograd(record.function)
    active, constants = record.differentiable, set(record.signature.parameters)

    @functools.wraps(record.function)
    def call(*args: Any, **kwargs: Any) -> Tensor:
        if torch.compiler.is_compiling():
            plain: Tensor = traced(*args, **kwargs)
            return plain
        given = bind(record.signature, args, kwargs)
        needed = [n for n, v in given.items() if isinstance(v, Tensor) and is_differentiated(v)]
        for name in record.arguments:
            if not isinstance(given[name], Tensor):
                reject(name, describe(given[name]), "a tensor", TypeError)
        for name in needed:
            if name in constants - set(active):
                wants = f"{name}.detach(): it is a constant"
                reject(name, "a tensor that torch differentiates", wants)
        if not needed:
            result: Tensor = value(*given.values())
            return result
        found: Any = apply_rule(rule, needed[0], *given.values())
        on_graph: Tensor = found[0] if isinstance(found, tuple) else found
        return on_graph

    return call


def _kept(record: Operation, fused: Make) -> type[Function]:
    """Return the rule that keeps the derivative by one argument, and that of others if needed."""
    both = fused()
    is_loss = record.kind == "loss"
    gradient = fused("gradient") if is_loss else None

    class Kept(Function):
        @staticmethod
        def forward(wrt: str, *values: Any) -> tuple[Tensor, Tensor]:
            more = {"wrt": wrt} if is_loss else {}
            value, slope = both(*_detached(values), **more)
            return value, slope

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            wrt, *values = inputs
            _, slope = output
            ctx.mark_non_differentiable(slope)
            ctx.set_materialize_grads(False)
            ctx.wrt = wrt
            ctx.parameters = [None if isinstance(v, Tensor) else v for v in values]
            names = list(record.signature.parameters)
            alone = sum(ctx.needs_input_grad) == 1
            ctx.dim = _dimension(record, dict(zip(names, values, strict=True)), slope)
            tensors = [] if alone else [v for v in values if isinstance(v, Tensor)]
            ctx.is_tensor = [isinstance(v, Tensor) for v in values]
            ctx.save_for_backward(slope, *tensors)

        @staticmethod
        def backward(ctx: Any, *outputs: Any) -> Any:
            _refuse_a_graph(record)
            g = outputs[0]
            slope, *tensors = ctx.saved_tensors
            names = record.signature.parameters
            found: list[Tensor | None] = [None]
            for name, need in zip(names, ctx.needs_input_grad[1:], strict=True):
                if not need or g is None:
                    found.append(None)
                elif name == ctx.wrt:
                    found.append(_scaled(slope, g, ctx.dim))
                else:
                    assert gradient is not None  # only losses have several arguments
                    values = _again(ctx, tensors)
                    found.append(gradient(*values, grad_output=g, wrt=name))
            return tuple(found)

    return Kept


def _pulled(record: Operation, value: Kernel, fused: Make) -> type[Function]:
    """Return the rule of a row-wise function: it keeps the arguments, backward is one pass."""
    pull = fused("vjp")
    has_choice = len(record.differentiable) > 1

    class Pulled(Function):
        @staticmethod
        def forward(wrt: str, *values: Any) -> Tensor:
            result: Tensor = value(*_detached(values))
            return result

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            _, *values = inputs
            ctx.parameters = [None if isinstance(v, Tensor) else v for v in values]
            ctx.is_tensor = [isinstance(v, Tensor) for v in values]
            ctx.save_for_backward(*(v for v in values if isinstance(v, Tensor)))

        @staticmethod
        def backward(ctx: Any, *outputs: Any) -> Any:
            _refuse_a_graph(record)
            (g,) = outputs
            values = _again(ctx, ctx.saved_tensors)
            pairs = zip(record.signature.parameters, ctx.needs_input_grad[1:], strict=True)
            return None, *(
                pull(*values, grad_output=g, **({"wrt": name} if has_choice else {}))
                if need
                else None
                for name, need in pairs
            )

    return Pulled


def differentiable_batch(record: Operation, kernel: Kernel) -> Callable[..., Tensor]:
    """Return the function of a batch that torch differentiates once."""
    rule = outside_graph(_kept_of_batch(record, kernel))
    return checked(record.function, record, rule)


def _kept_of_batch(record: Operation, kernel: Kernel) -> type[Function]:
    """Return the rule that keeps the gradients of a reduced loss, else the arguments."""
    names = tuple(record.signature.parameters)

    class Kept(Function):
        @staticmethod
        def forward(ctx: Any, *values: Any) -> Tensor:
            ctx.needed = [n for n, need in zip(names, ctx.needs_input_grad, strict=True) if need]
            given = dict(zip(names, _detached(values), strict=True))
            ctx.is_reduced = given["reduction"] != "none"
            loss, *gradients = kernel(**given, wrt=ctx.needed if ctx.is_reduced else ())
            ctx.is_tensor = [isinstance(v, Tensor) for v in values]
            ctx.parameters = [None if isinstance(v, Tensor) else v for v in values]
            tensors = [v for v in values if isinstance(v, Tensor)]
            ctx.save_for_backward(*(gradients if ctx.is_reduced else tensors))
            return loss  # type: ignore[no-any-return]  # a tensor, for tensors

        @staticmethod
        def backward(ctx: Any, *outputs: Any) -> Any:
            if torch.is_grad_enabled():
                refuse_more_than_backward(record)
            (g,) = outputs
            if ctx.is_reduced:
                found = [gradient * g for gradient in ctx.saved_tensors]
            else:
                given = dict(zip(names, _again(ctx, ctx.saved_tensors), strict=True))
                _, *found = kernel(**given, grad_output=g, wrt=ctx.needed)
            return tuple(map(dict(zip(ctx.needed, found, strict=True)).get, names))

    return Kept


def _refuse_a_graph(record: Operation) -> None:
    """Raise where a backward is to be differentiated: what is kept would count as a constant."""
    if torch.is_grad_enabled():
        plain = f"gradref.as_autograd({record.package}.{record.name})"
        raise RuntimeError(
            f"{record.name}: got create_graph=True, or a transform of torch.func; wants {plain}:"
            " a fused kernel is differentiated once"
        )


def _detached(values: Sequence[Any]) -> list[Any]:
    return [v.detach() if isinstance(v, Tensor) else v for v in values]


def _again(ctx: Any, tensors: Sequence[Tensor]) -> list[Any]:
    """Return the arguments of the forward call, in their order."""
    left = iter(tensors)
    pairs = zip(ctx.is_tensor, ctx.parameters, strict=True)
    return [next(left).detach() if is_tensor else other for is_tensor, other in pairs]


def _dimension(record: Operation, given: Mapping[str, Any], slope: Tensor) -> int | None:
    """Return along which dimension of the slope all elements belong to one value of a loss."""
    if record.coupled is None or given.get("reduction", "none") != "none":
        return None
    known = {"dim": given.get("dim", -1), "class": min(1, slope.dim() - 1), "last": -1}
    return int(known[record.coupled])


def _scaled(slope: Tensor, g: Tensor, dim: int | None) -> Tensor:
    return slope * (g if dim is None else g.unsqueeze(dim))
