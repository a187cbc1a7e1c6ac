"""The usual gates of the field: what people do to believe in a kernel.

One draw of standard normal inputs of a friendly shape, and a comparison with torch and its
autograd in the same dtype. A gate is passed, failed, or None where it does not apply.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradref.declare.operation import REAL, Domain, Operation
from gradref.declare.registry import operations

from ._mutant import Kernel, Mutant

Gate = Callable[[Mutant], bool | None]

ROLES = (
    "forward",
    "backward",
    "derivative",
    "second_derivative",
    "jvp",
    "value_and_gradient",
    "function",
)
SEED = 0

DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "real": lambda x: x,
    "unit": torch.sigmoid,
    "distribution": lambda x: torch.softmax(x, -1),
    "log_probability": lambda x: torch.log_softmax(x, -1),
    "positive": torch.exp,
}
"""Members of a domain from normal numbers."""


def close(mutant: Mutant) -> bool | None:
    """torch.allclose with tolerances of 1e-2."""
    return _each(mutant, lambda got, want: torch.allclose(got, want, rtol=1e-2, atol=1e-2))


def assert_close(mutant: Mutant) -> bool | None:
    """torch.testing.assert_close with its own tolerances."""

    def gate(got: Tensor, want: Tensor) -> bool:
        torch.testing.assert_close(got, want)  # raises, and so fails
        return True

    return _each(mutant, gate)


def correlated(mutant: Mutant) -> bool | None:
    """A Pearson correlation above 0.999; what is constant but for rounding has none."""

    def gate(got: Tensor, want: Tensor) -> bool | None:
        if torch.allclose(want, want.flatten()[0], atol=1e-6):
            return None
        pair = np.stack([got.double().flatten(), want.double().flatten()])
        return bool(np.corrcoef(pair)[0, 1] > 0.999)

    return _each(mutant, gate)


def gradcheck(mutant: Mutant) -> bool | None:
    """torch.autograd.gradcheck in float64, of two rows."""
    kernel = mutant.kernel
    settings = _settings(kernel)
    if "function" in kernel:
        function = kernel["function"]
    elif {"forward", "backward"} <= kernel.keys():
        function = _as_autograd(kernel, settings)
    else:
        return None
    x, *rest = _inputs(mutant, torch.float64, (2, mutant.shape[-1]))
    try:
        return torch.autograd.gradcheck(lambda v: function(v, *rest), (x.requires_grad_(),))
    except Exception:
        return False


GATES: dict[str, Gate] = {
    "allclose(1e-2)": close,
    "torch.testing.assert_close": assert_close,
    "Pearson > 0.999": correlated,
    "gradcheck": gradcheck,
}

# --- the comparison ------------------------------------------------------------------------------


def _each(mutant: Mutant, gate: Callable[[Tensor, Tensor], bool | None]) -> bool | None:
    """Whether everything that a kernel computes passes; False where it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's advice on kl_div, the correlation of a constant
        try:
            answers = [gate(*pair) for pair in _pairs(mutant)]
        except Exception:
            return False
    applicable = [answer for answer in answers if answer is not None]
    return all(applicable) if applicable else None


def _pairs(mutant: Mutant) -> Iterator[tuple[Tensor, Tensor]]:
    """What the kernel gives and then, of the very same inputs, what torch gives."""
    kernel = mutant.kernel
    settings = _settings(kernel)
    for role in ROLES:
        if role in kernel:
            arrays = _inputs(mutant, getattr(torch, mutant.dtypes[0]), mutant.shape)
            got = _kernel_results(kernel, role, arrays, settings)
            if role != "forward":  # a gradient is taken of clones, each with its own graph
                arrays = _inputs(mutant, getattr(torch, mutant.dtypes[0]), mutant.shape)
            yield from zip(got, _torch_results(kernel, role, arrays, settings), strict=True)


def _kernel_results(
    kernel: Kernel, role: str, arrays: list[Tensor], settings: Mapping[str, Any]
) -> list[Tensor]:
    if role == "function":
        leaf = arrays[0].requires_grad_()
        value = _call(kernel, role, leaf, *arrays[1:], **settings)[0]
        return [value.detach(), *torch.autograd.grad(value.sum(), leaf)]
    if role == "backward":
        ones = torch.ones_like(_reference(kernel, arrays, settings))
        return _call(kernel, role, ones, *arrays, **settings)[:1]
    tangent = [torch.ones_like(arrays[0])] if role == "jvp" else []
    return _call(kernel, role, *arrays, *tangent, **settings)


def _torch_results(
    kernel: Kernel, role: str, arrays: list[Tensor], settings: Mapping[str, Any]
) -> list[Tensor]:
    if role == "forward":
        return [_reference(kernel, arrays, settings)]
    if role == "jvp":

        def of_first(x: Tensor) -> Tensor:
            return _reference(kernel, [x, *arrays[1:]], settings)

        return [torch.func.jvp(of_first, (arrays[0],), (torch.ones_like(arrays[0]),))[1]]
    leaf = arrays[0].requires_grad_()
    value = _reference(kernel, [leaf, *arrays[1:]], settings)
    (slope,) = torch.autograd.grad(value.sum(), leaf, create_graph=role == "second_derivative")
    if role == "second_derivative":
        return list(torch.autograd.grad(slope.sum(), leaf))
    with_value = role in ("function", "value_and_gradient")
    return [value.detach(), slope] if with_value else [slope]


def _call(kernel: Kernel, role: str, *arrays: Tensor, **settings: Any) -> list[Tensor]:
    """The results of a kernel, given the settings that it accepts."""
    function = kernel[role]
    accepted = inspect.signature(function).parameters
    given = {name: value for name, value in settings.items() if name in accepted}
    if kernel.get("library") == "numpy":
        return [torch.from_numpy(function(*(a.numpy() for a in arrays), **given))]
    result = function(*arrays, **given)
    return list(result) if isinstance(result, tuple) else [result]


# --- inputs and reference ------------------------------------------------------------------------


def _record(kernel: Kernel) -> Operation:
    (record,) = operations(kernel["operation"])
    return record


def _settings(kernel: Kernel) -> dict[str, Any]:
    return {name: kernel[name] for name in _record(kernel).parameters if name in kernel}


def _inputs(mutant: Mutant, dtype: torch.dtype, shape: tuple[int, ...]) -> list[Tensor]:
    """Normal numbers, made members of the domain of each array; the same in every call."""
    record = _record(mutant.kernel)
    if record.draw is not None:
        drawn = record.draw(np.random.default_rng(SEED), {}, False)
        tensors = {name: torch.from_numpy(a) for name, a in drawn.items()}
        given = (tensors[name] for name in record.arguments)
        return [a.to(dtype) if a.is_floating_point() else a for a in given]
    generator = torch.Generator().manual_seed(SEED)
    domains = record.array_domains(record.parameters | _settings(mutant.kernel))

    def draw(domain: Domain) -> Tensor:
        if domain.draw == "index":
            of_rows = shape if domain.extent == "element" else shape[:-1]
            return torch.randint(int(domain.low), shape[-1], of_rows, generator=generator)
        x = torch.randn(shape, generator=generator, dtype=torch.float64) * mutant.scale
        if domain.values:
            return torch.tensor(domain.values, dtype=dtype)[(x > 0).long()]
        return DRAWS[domain.draw](x).to(dtype)

    return [draw(domains[name][0] if name in domains else REAL) for name in record.arguments]


def _reference(kernel: Kernel, arrays: list[Tensor], settings: Mapping[str, Any]) -> Tensor:
    """torch's own function, with torch's convention for the dimension of a row."""
    record = _record(kernel)
    assert record.torch is not None
    return record.torch(*arrays, **{**record.parameters, **settings})


def _as_autograd(kernel: Kernel, settings: Mapping[str, Any]) -> Callable[..., Tensor]:
    class Wrapped(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arrays: Tensor) -> Tensor:
            ctx.save_for_backward(*arrays)
            return _call(kernel, "forward", *arrays, **settings)[0]

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
            gradient = _call(kernel, "backward", grad_output, *ctx.saved_tensors, **settings)[0]
            return gradient, *([None] * (len(ctx.saved_tensors) - 1))

    return Wrapped.apply
