"""How a declared function is called: check every argument, evaluate, reduce, pull back.

Nothing is computed, and nothing written to ``out``, before every check has passed.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gradref import arrays
from gradref.arrays import Extent, Layout, describe, reject
from gradref.declare.domains import REAL, SHARED, Domain, Interval
from gradref.declare.operation import Operation, choices


def elementwise_call(formula: Callable[..., Tensor], record: Operation) -> Callable[..., Any]:
    """Return the public form of an elementwise formula."""
    signature, literals = inspect.signature(formula), choices(formula)

    @functools.wraps(formula)
    def call(x: Any, /, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        if args or kwargs:
            args, kwargs = tuple(map(plain, args)), {n: plain(v) for n, v in kwargs.items()}
            check_parameters(record, literals, bind(signature, (x, *args), kwargs))
        tensor, restore = arrays.enter("x", x)
        tensor = arrays.to_float(tensor, like=x)
        buffer = arrays.enter_out(out, x, tensor.shape, tensor.dtype, {"x": tensor})
        if torch.compiler.is_compiling() or tensor.numel() <= arrays.BLOCK:
            wide = formula(arrays.widen(tensor), *args, **kwargs)
            result = arrays.narrowed(wide, tensor.dtype)
            if buffer is not None:
                buffer.copy_(result)
        else:
            result = arrays.compute(
                lambda x: formula(x, *args, **kwargs),
                Layout(tuple(tensor.shape), None),
                {"x": (tensor, "element")},
                "element",
                tensor.dtype,
                buffer,
            )
        return restore(result) if out is None else out

    return _marked(call, formula, record)


ResultExtent = Extent | Literal["argument"]
"""The extent of a result; "argument" is that of the argument that a derivative is by."""


def rows_call(
    formula: Callable[..., Tensor], record: Operation, extent: ResultExtent
) -> Callable[..., Any]:
    """Return the public form of a row-wise formula, of an unreduced loss, or of a derivative."""
    signature, literals = inspect.signature(formula), choices(formula)
    required = {n for n, p in signature.parameters.items() if p.default is p.empty}
    is_derivative_of_loss = record.kind == "loss" and extent == "argument"

    @functools.wraps(formula)
    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        given = bind(signature, args, kwargs)
        check_parameters(record, literals, given)
        entered = _Entered.enter(record, given, required)
        reduced = extent == "row" and entered.reduction != "none"
        is_shared = extent == "argument" and given.get("wrt") in record.shared
        own: Extent = "element" if extent == "argument" else extent
        shape = () if reduced else entered.layout.shape_of(own)
        if is_shared:
            shape = tuple(entered.tensors[given["wrt"]].shape)
        dtype = entered.dtype()
        destination = arrays.enter_out(out, entered.like, shape, dtype, entered.tensors)
        unreduced = functools.partial(formula, **entered.parameters)
        if is_derivative_of_loss:
            result = entered.pull_back(unreduced, dtype, destination)
        elif reduced:
            result = entered.reduce(unreduced, dtype, destination)
        elif is_shared:
            by_class = arrays.summed(unreduced, entered.layout, entered.inputs)
            result = rounded_into(by_class.sum_to_size(shape), dtype, destination)
        else:
            result = arrays.compute(
                unreduced, entered.layout, entered.inputs, own, dtype, destination
            )
        return entered.restore(result) if out is None else out

    return _marked(call, formula, record)


def _marked(
    call: Callable[..., Any], formula: Callable[..., Tensor], record: Operation
) -> Callable[..., Any]:
    """Put on a call the record every tool starts from, and the formula that it evaluates."""
    call.__dict__.update(operation=record, formula=formula)
    return call


def bind(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return every argument by name, defaults filled in, a scalar of NumPy as one of Python."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    optional = {n for n, p in signature.parameters.items() if p.default is not p.empty}
    return {n: plain(v) if n in optional else v for n, v in bound.arguments.items()}


def plain(value: Any) -> Any:
    """Return a scalar of NumPy as the number of Python that it is, and all else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def check_parameters(
    record: Operation, literals: Mapping[str, tuple[Any, ...]], given: Mapping[str, Any]
) -> None:
    """Reject a parameter outside of its ``Literal`` or its interval."""
    for name, allowed in literals.items():
        value = given[name]
        if not isinstance(value, str) or value not in allowed:
            got = repr(value) if isinstance(value, str) else describe(value)
            reject(name, got, "one of " + ", ".join(map(repr, allowed)))
    for name, default in record.parameters.items():
        if isinstance(default, bool) and not isinstance(given[name], bool):
            reject(name, describe(given[name]), "True or False", TypeError)
    for name in record.domains:
        if name not in record.parameters or name not in given:
            continue
        domain = record.domain(name, given)
        if isinstance(domain, Interval):
            _check_number(name, given[name], domain)


def _check_number(name: str, value: Any, domain: Interval) -> None:
    kinds = int if domain.integer else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        reject(name, describe(value), domain.wants, TypeError)
    if domain.excludes(value) or math.isnan(value):
        bits = value.bit_length() if isinstance(value, int) else 0
        reject(name, f"an int of {bits} bits" if bits > 64 else repr(value), domain.wants)


# --- row-wise functions and losses ---------------------------------------------------------------


@dataclass(frozen=True)
class _Entered:
    """The checked arguments of one call of a row-wise function or a loss."""

    record: Operation
    layout: Layout
    tensors: dict[str, Tensor]
    inputs: dict[str, tuple[Tensor, Extent]]
    parameters: dict[str, Any]
    restore: Callable[[Tensor], Any]
    like: Any

    @classmethod
    def enter(cls, record: Operation, given: dict[str, Any], required: set[str]) -> _Entered:
        """Check every array against the first, and put the coupled dimension last."""
        domains = _array_domains(record, given, required)
        first = next(iter(domains))
        like = given[first]
        tensors: dict[str, Tensor] = {}
        restores = []
        for name in domains:
            if given[name] is None:
                reject(name, "None", "a tensor, an array or a float", TypeError)
            if _library(given[name]) is not _library(like):
                reject(name, describe(given[name]), f"the same kind as {first}", TypeError)
            tensor, restore = arrays.enter(name, given[name])
            tensors[name] = tensor
            restores.append(restore)
        layout = layout_of(record, first, tensors[first], given)
        floating = [t.dtype for t in tensors.values() if t.is_floating_point()]
        common = functools.reduce(torch.promote_types, floating) if floating else None
        inputs = {
            name: _checked(name, tensor, domains[name], layout, given, common)
            for name, tensor in tensors.items()
        }
        for name, (tensor, _) in inputs.items():
            if tensor.device != tensors[first].device:
                reject(name, f"device {tensor.device}", f"{tensors[first].device}, as {first}")
        parameters = {name: value for name, value in given.items() if name not in inputs}
        if "dim" in parameters:
            parameters["dim"] = -1
        for role in ("wrt", "along"):
            chosen = parameters.get(role)
            if chosen is not None and not inputs[chosen][0].is_floating_point():
                reject(role, repr(chosen), "an argument that is not a class index")
        if parameters.get("reduction") == "batchmean" and not layout.shape:
            reject(first, "shape ()", "at least one dimension for 'batchmean'")
        return cls(record, layout, tensors, inputs, parameters, restores[0], like)

    @property
    def reduction(self) -> str:
        return str(self.parameters.get("reduction", "none"))

    def dtype(self) -> torch.dtype:
        """Return the dtype of a result: of a gradient its argument's, of a value the common one."""
        names = [self.parameters["wrt"]] if "wrt" in self.parameters else list(self.inputs)
        arguments = [name for name in names if name in (*self.record.arguments, "y")]
        dtypes = [self.inputs[name][0].dtype for name in arguments]
        return functools.reduce(torch.promote_types, [d for d in dtypes if d.is_floating_point])

    def reduce(
        self, unreduced: Callable[..., Tensor], dtype: torch.dtype, out: Tensor | None
    ) -> Tensor:
        """Return the sum or the mean of the unreduced loss, rounded once."""
        wide = arrays.total(unreduced, self.layout, self.inputs) / self._denominator()
        return rounded_into(wide, dtype, out)

    def pull_back(
        self, unreduced: Callable[..., Tensor], dtype: torch.dtype, out: Tensor | None
    ) -> Tensor:
        """Return the derivative of the unreduced loss, times what the reduction passes back."""
        denominator = self._denominator()
        inputs = dict(self.inputs)
        ones = denominator.new_ones(())
        inputs["grad_output"] = inputs.pop("grad_output", (ones, "whole"))
        inputs["denominator"] = (torch.where(denominator == 0, math.inf, denominator), "whole")
        per_row = self.layout.axis is not None and inputs["grad_output"][1] == "row"

        def scaled(grad_output: Tensor, denominator: Tensor, **block: Tensor) -> Tensor:
            backward = grad_output.unsqueeze(-1) if per_row else grad_output
            return unreduced(**block) * (backward / denominator)

        return arrays.compute(scaled, self.layout, inputs, "element", dtype, out)

    def _denominator(self) -> Tensor:
        """Return what ``reduction`` divides by, as a tensor on the device: no host round trip.

        A mean over nothing has the gradient 0: :meth:`pull_back` then divides by infinity.
        """
        first = next(iter(self.inputs.values()))[0]
        mass = self.record.mass
        if self.reduction == "mean" and mass is not None:
            known = {p.name for p in self.record.mass_arguments}
            parameters = {name: v for name, v in self.parameters.items() if name in known}
            inputs = {name: v for name, v in self.inputs.items() if name in known}
            given = {**parameters, **inputs}
            needed = [p.name for p in self.record.mass_arguments if p.default is p.empty]
            if all(given[name] is not None for name in needed):
                return arrays.total(functools.partial(mass, **parameters), self.layout, inputs)
        count = 1
        if self.reduction == "mean":
            count = math.prod(self.layout.lead)
        if self.reduction == "batchmean":
            count = first.shape[0]
        return first.new_full((), count, dtype=arrays.evaluated_in(first.dtype))


def rounded_into(wide: Tensor, dtype: torch.dtype, out: Tensor | None) -> Tensor:
    """Return a result rounded once, in ``out`` where that is given."""
    result = arrays.narrowed(wide, dtype)
    return result if out is None else out.copy_(result)


def _array_domains(
    record: Operation, given: Mapping[str, Any], required: set[str]
) -> dict[str, tuple[Domain, ...]]:
    """Return the domains of the arrays among the arguments, in the order of the signature."""
    backward: Extent = "output"
    if record.kind == "loss":
        backward = "row" if given.get("reduction", "none") == "none" else "whole"
    is_shared = given.get("along") in record.shared
    known = {
        "x": (REAL,),
        "y": (REAL,),
        **record.array_domains(given),
        "tangent": (SHARED if is_shared else REAL,),
        "grad_output": (Domain("a real number", extent=backward),),
    }
    return {
        name: known[name]
        for name, value in given.items()
        if name in known and (value is not None or name in required)
    }


def _library(value: Any) -> type:
    """Return the kind of an array: all arrays of a call are of one kind."""
    kinds: tuple[tuple[type, ...], ...] = ((Tensor,), (np.ndarray, np.generic), (bool, int, float))
    return next((kind[0] for kind in kinds if isinstance(value, kind)), type(value))


def layout_of(record: Operation, first: str, tensor: Tensor, given: Mapping[str, Any]) -> Layout:
    """Return the layout of ``tensor``, the argument ``first``; reject a shape without rows."""
    shape = tuple(tensor.shape)
    if record.coupled is None:
        return Layout(shape, None)
    if not shape:
        reject(first, "shape ()", "at least one dimension")
    axis = _axis(record, shape, given)
    if shape[axis] == 0:
        reject(first, f"shape {shape}", f"an element along dimension {axis}")
    if shape[axis] % record.parts:
        reject(first, f"shape {shape}", f"a multiple of {record.parts} along dimension {axis}")
    return Layout(shape, axis, record.parts)


def _axis(record: Operation, shape: tuple[int, ...], given: Mapping[str, Any]) -> int:
    """Return the coupled dimension."""
    if record.coupled == "class":
        return min(1, len(shape) - 1)
    if record.coupled == "last":
        return len(shape) - 1
    dim = given["dim"]
    if isinstance(dim, bool) or not isinstance(dim, int):
        reject("dim", describe(dim), "an int", TypeError)
    if not -len(shape) <= dim < len(shape):
        reject("dim", dim, f"{-len(shape)} to {len(shape) - 1} for shape {shape}", IndexError)
    return dim % len(shape)


def _checked(
    name: str,
    tensor: Tensor,
    domains: tuple[Domain, ...],
    layout: Layout,
    given: Mapping[str, Any],
    common: torch.dtype | None,
) -> tuple[Tensor, Extent]:
    """Return ``tensor`` and its extent; reject a dtype, a shape or a value that does not fit."""
    integer = not tensor.is_floating_point()
    domain = next((d for d in domains if d.integer is integer), domains[0])
    if domain.integer and not integer:
        reject(name, describe(given[name]), f"{domain.wants}, which are integers", TypeError)
    if domain.integer:
        tensor = tensor.to(torch.int64)  # in which classes and the one to ignore are compared
    elif integer:
        tensor = tensor.to(common) if common else arrays.to_float(tensor, like=given[name])
    shape = layout.shape_of(domain.extent)
    if domain.broadcasts:
        if not _broadcasts(tuple(tensor.shape), shape):
            reject(name, f"shape {tuple(tensor.shape)}", f"a shape that broadcasts to {shape}")
        tensor = tensor.expand(shape)
    if tuple(tensor.shape) != shape:
        reject(name, f"shape {tuple(tensor.shape)}", f"shape {shape}: nothing is broadcast")
    if not arrays.has_no_values(tensor):
        _check_values(name, tensor, domain, layout.classes, given.get(domain.ignored))
    return tensor, domain.extent


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    tail = to[len(to) - len(shape) :]
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape, tail, strict=True))


def _check_values(
    name: str, tensor: Tensor, domain: Domain, classes: int, ignored: int | None
) -> None:
    if domain.is_everything:
        return
    outside = domain.excludes(tensor)
    if domain.integer:
        outside = outside | (tensor >= classes)
        if ignored is not None:
            outside = outside & (tensor != ignored)
    if outside.any():
        value = tensor[outside].flatten()[0].item()
        wants = f"{domain.wants} in [{domain.low:g}, {classes})" if domain.integer else domain.wants
        reject(name, f"a value of {value}", wants, IndexError if domain.integer else ValueError)
