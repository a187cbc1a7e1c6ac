"""Right values and gradients that fail by what is done with torch's graph of a call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import elementwise
from ._mutant import Kernel, Mutant, narrow, wide

# --- right kernels -------------------------------------------------------------------------------


def slope(x: Tensor) -> Tensor:
    """Right: silu′ = σ + x σ (1 − σ), in float64, which torch differentiates."""
    t = wide(x).clamp(-1000, 1000)
    s = torch.sigmoid(t)
    return s + t * s * torch.sigmoid(-t)


def bend(x: Tensor) -> Tensor:
    """Right: silu″ = σ (1 − σ) (2 + x (1 − 2 σ)), in float64."""
    t = wide(x).clamp(-1000, 1000)
    s = torch.sigmoid(t)
    return s * torch.sigmoid(-t) * (2 - t * torch.tanh(t / 2))


class Slope(torch.autograd.Function):
    """The product with silu′, whose derivative is written by hand."""

    @staticmethod
    def forward(ctx: Any, grad_output: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad_output, x)
        return narrow(wide(grad_output) * slope(x), x)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        g, x = ctx.saved_tensors
        return narrow(wide(outer) * slope(x), x), narrow(wide(outer) * wide(g) * bend(x), x)


class WithoutGradOutput(Slope):
    """The derivative of the product leaves out its other factor."""

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        _, x = ctx.saved_tensors
        return narrow(wide(outer) * slope(x), x), narrow(wide(outer) * bend(x), x)


class WithoutSlope(Slope):
    """The derivative by the incoming gradient is taken for 1."""

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        g, x = ctx.saved_tensors
        return outer, narrow(wide(outer) * wide(g) * bend(x), x)


class Silu(torch.autograd.Function):
    """Right, twice."""

    product = Slope

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return elementwise.silu(x)

    @classmethod
    def backward(cls, ctx: Any, grad_output: Tensor) -> Tensor:  # type: ignore[override]
        return Slope.apply(grad_output, *ctx.saved_tensors)


class SiluWithoutGradOutput(Silu):
    """Differentiated twice it leaves out the incoming gradient."""

    @classmethod
    def backward(cls, ctx: Any, grad_output: Tensor) -> Tensor:  # type: ignore[override]
        return WithoutGradOutput.apply(grad_output, *ctx.saved_tensors)


class SiluWithoutSlope(Silu):
    """Differentiated by the incoming gradient it is the identity."""

    @classmethod
    def backward(cls, ctx: Any, grad_output: Tensor) -> Tensor:  # type: ignore[override]
        return WithoutSlope.apply(grad_output, *ctx.saved_tensors)


class SiluOfTheGraph(Silu):
    """Another value where a gradient is needed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        result: Tensor = Silu.forward(ctx, x)
        return 2 * result if ctx.needs_input_grad[0] else result


class SiluOfOneBackward(Silu):
    """The slope that is kept becomes the gradient: a second backward multiplies again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.slope = narrow(slope(x), x)
        return elementwise.silu(x)

    @classmethod
    def backward(cls, ctx: Any, grad_output: Tensor) -> Tensor:  # type: ignore[override]
        return ctx.slope.mul_(grad_output).clone()


class SiluOfAnAttribute(Silu):
    """The argument is kept beside torch, which does not see that it has changed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.x = x
        return elementwise.silu(x)

    @classmethod
    def backward(cls, ctx: Any, grad_output: Tensor) -> Tensor:  # type: ignore[override]
        return Slope.apply(grad_output, ctx.x)


class Sigmoid(torch.autograd.Function):
    """Right: g y (1 − y), of the output that torch keeps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return elementwise.sigmoid(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        y = torch.sigmoid(wide(x))
        return narrow(wide(grad_output) * y * torch.sigmoid(-wide(x)), x)


class SigmoidOfAnAttribute(Sigmoid):
    """The output is kept beside torch, which does not see that it has changed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.y = elementwise.sigmoid(x)
        return ctx.y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        right = Sigmoid.backward(ctx, grad_output)
        return torch.where(ctx.y == 0, 0 * x, right)


class Square(torch.autograd.Function):
    """Right: (x − t)²; the gradients are opposite."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(input, target)
        return narrow((wide(input) - wide(target)).square(), input)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        input, target = ctx.saved_tensors
        gradient = narrow(2 * wide(grad_output) * (wide(input) - wide(target)), input)
        return gradient, -gradient


class SquareOfOneSign(Square):
    """Where both arguments need a gradient they get the same."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        gradient, opposite = Square.backward(ctx, grad_output)
        return gradient, gradient if all(ctx.needs_input_grad) else opposite


class SquareOnce(Square):
    """One of two places where the argument stands is cut from the graph."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        input, target = ctx.saved_tensors
        moving = (wide(input) + wide(input.detach())) / 2
        gradient = narrow(2 * wide(grad_output) * (moving - wide(target)), input)
        return gradient, -gradient


# --- planted -------------------------------------------------------------------------------------


def entry(operation: str, function: Any) -> Kernel:
    """Without reduction, where there is one."""
    reduction = {"reduction": "none"} if operation == "mse_loss" else {}
    return {"operation": operation, "function": function, **reduction}


PLANTED = (
    (111, "graph", "a second backward", "silu", Silu, SiluOfOneBackward, "used twice"),
    (112, "graph", "an argument that changes", "silu", Silu, SiluOfAnAttribute, "arguments over"),
    (113, "graph", "a value that changes", "sigmoid", Sigmoid, SigmoidOfAnAttribute, "value over"),
    (114, "", "double backward without grad_output", "silu", Silu, SiluWithoutGradOutput, "."),
    (115, "graph", "∂ of the gradient by grad_output", "silu", Silu, SiluWithoutSlope, "grad_out"),
    (
        *(116, "graph", "gradients of both arguments", "mse_loss"),
        *(Square, SquareOfOneSign, "of all arguments"),
    ),
    (
        *(136, "graph", "a value of the graph", "silu"),
        *(Silu, SiluOfTheGraph, "of all arguments"),
    ),
    (
        *(117, "double backward", "double backward of a part", "mse_loss"),
        *(Square, SquareOnce, "derivative of the gradient"),
    ),
)

MUTANTS = [
    Mutant(
        number=number,
        title=title,
        kernel=entry(operation, wrong),
        correct=entry(operation, right),
        words=words,
        condition=condition,
    )
    for number, condition, title, operation, right, wrong, words in PLANTED
]
