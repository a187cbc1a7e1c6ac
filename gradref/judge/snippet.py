"""A result as Python to run: its inputs, torch's call and ours, and what each gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F

from gradref.declare.operation import Operation, formula_of
from gradref.judge.verdict import Case, Finding, Place, Verdict

HEX = re.compile(r" \(-?0x[^)]*\)")
"""A number in hex behind the same in decimal."""

_INTEGERS = re.compile(r"[\d\s,\[\]-]+")
_QUANTITY = re.compile(r"(?P<role>\w+)(?:\((?P<by>[^)]*)\))?(?: \[(?P<reduction>\w+)\])?")
VECTOR = 64
"""Elements of which an elementwise function is asked: torch computes few of them in another way."""

_REDUCTIONS = ("mean", "sum", "batchmean")


@dataclass(frozen=True)
class _Asked:
    """A quantity of an operation, by the names in a verdict."""

    record: Operation
    role: str
    wrt: str
    along: str
    reduction: str
    place: Place
    dtype: str

    @classmethod
    def of(cls, record: Operation, quantity: str, place: Place, dtype: str) -> _Asked:
        found = _QUANTITY.match(quantity)
        assert found is not None  # every quantity has a role
        named = (found["by"] or "").split(", ") if found["by"] else []
        role, first = found["role"], record.arguments[0]
        reduction = found["reduction"] if found["reduction"] in _REDUCTIONS else "none"
        wrt = named[0] if named else first
        return cls(record, role, wrt, named[-1] if named else first, reduction, place, dtype)

    @property
    def names(self) -> list[str]:
        """The arrays that the function is called with."""
        return [name for name in self.place.at if name not in ("grad_output", "tangent")]

    def arguments(self, instead: str = "", of: str = "") -> str:
        """Return what stands in the parentheses of a call, one argument replaced by another."""
        arrays = [
            (instead if name == of else name) if name in self.record.arguments else f"{name}={name}"
            for name in self.names
        ]
        return ", ".join([*arrays, *self.settings])

    @property
    def all_parameters(self) -> dict[str, Any]:
        """The parameters with their defaults, but for arrays and the reduction."""
        plain = {n: v for n, v in self.record.parameters.items() if n != "reduction"}
        known = {**plain, **self.place.parameters}
        return {name: value for name, value in known.items() if name not in self.place.at}

    @property
    def settings(self) -> list[str]:
        """The parameters that are not default, and the reduction of a loss."""
        reduction = {"reduction": self.reduction} if self.record.reductions else {}
        known = {**self.place.parameters, **reduction}
        return [f"{name}={_literal(value)}" for name, value in known.items()]


def _literal(value: Any) -> str:
    is_special = isinstance(value, float) and not abs(value) < float("inf")
    return f'float("{value}")' if is_special else repr(value).replace("'", '"')


def snippet(
    record: Operation, quantity: str, place: Place, dtype: str, said: Iterable[tuple[str, float]]
) -> str:
    """Return Python that shows a result beside torch's and ours; ``said`` is what each gives."""
    asked = _Asked.of(record, quantity, place, dtype)
    is_ours = asked.role in ("value", "vjp", "jvp") or asked.role in record.derivatives
    is_theirs = record.torch is not None and asked.role in _THEIRS
    at = 0
    for size, index in zip(place.shape, place.index, strict=True):
        at = at * size + index
    lines = [_imports(record), *(_array(asked, name) for name in place.at)]
    shown = []
    if is_ours:
        lines.append(f"ours = {_ours(asked)}")
        shown.append(f"ours.flatten()[{at}].item()")
    if is_theirs:
        lines += _THEIRS[asked.role](asked)
        shown.append(f"theirs.flatten()[{at}].item()")
    digits = 17 if dtype == "float64" else 9
    words = ", ".join(f"{who} {value:.{digits}g}" for who, value in said)
    return "\n".join([*lines, f"print({', '.join(shown)})  # {words}"])


def of_finding(finding: Finding) -> str:
    """Return a finding about torch as Python."""
    said = (("ours", finding.ours), ("torch", finding.torch), ("truth", finding.truth))
    return snippet(_record(finding), finding.quantity, finding.place, finding.dtype, said)


def of_verdict(verdict: Verdict) -> str:
    """Return the input that a verdict on a kernel rests on as Python; empty if there is none."""
    if verdict.point is None:
        return ""
    said = (("gradref, torch; the kernel gave", verdict.point.got), ("truth", verdict.point.truth))
    return snippet(_record(verdict), verdict.quantity, verdict.point.place, verdict.dtype, said)


def _record(about: Finding | Verdict) -> Operation:
    return Case(about.operation, {}, about.dtype, about.device).record


def _imports(record: Operation) -> str:
    return f"import {record.package}, gradref, torch, torch.nn.functional as F"


def _array(asked: _Asked, name: str) -> str:
    value = asked.place.at[name]
    if _INTEGERS.fullmatch(value):
        return f"{name} = torch.tensor({value})"
    numbers = re.sub(r"\b(nan|inf)\b", r"torch.\1", HEX.sub("", value))
    if asked.record.kind == "elementwise":
        return f"{name} = torch.tensor([{numbers}] * {VECTOR}, dtype=torch.{asked.dtype})"
    return f"{name} = torch.tensor({numbers}, dtype=torch.{asked.dtype})"


# --- ours ----------------------------------------------------------------------------------------


def _ours(asked: _Asked) -> str:
    record, role = asked.record, asked.role
    package = record.package
    arguments = [asked.arguments()]
    if record.kind == "elementwise" and role in ("vjp", "jvp"):
        vector = "grad_output" if role == "vjp" else "tangent"
        given = ", ".join(["x", vector, *asked.settings])
        return f"gradref.{role}({package}.{record.name})({given})"
    if role.endswith("from_output"):
        name = record.derivatives[role].__name__
        value = f"{package}.{record.name}({asked.arguments()})"
        return f"{package}.{name}({', '.join([value, *asked.settings])})"
    if role == "value":
        return f"{package}.{record.name}({asked.arguments()})"
    arguments += [f"{vector}={vector}" for vector in asked.place.at if vector in _VECTORS]
    accepted = signature(formula_of(record.derivatives[role])).parameters
    by = {"wrt": asked.wrt, "along": asked.along}
    arguments += [f'{key}="{name}"' for key, name in by.items() if key in accepted]
    return f"{package}.{record.derivatives[role].__name__}({', '.join(arguments)})"


_VECTORS = ("grad_output", "tangent")

# --- torch's -------------------------------------------------------------------------------------


def _theirs(asked: _Asked, moving: str = "") -> str:
    """Return torch's call, by its public name where it has one; of one array ``a`` if it moves."""
    record = asked.record
    names = (
        f"{short}.{name}"
        for short, module in (("F", F), ("torch", torch))
        for name in dir(module)
        if not name.startswith("_") and getattr(module, name) is record.torch
    )
    instead = ("a", moving) if moving else ("", "")
    if public := next(names, ""):
        return f"{public}({asked.arguments(*instead)})"
    written_here = replace(asked, place=replace(asked.place, parameters=asked.all_parameters))
    return f"{record.package}.{record.name}.operation.torch({written_here.arguments(*instead)})"


def _value(asked: _Asked) -> list[str]:
    return [f"theirs = {_theirs(asked)}"]


def _first(asked: _Asked, wrt: str, vector: str, more: str = "") -> str:
    return f"torch.autograd.grad({_theirs(asked)}, {wrt}, {vector}{more})"


def _leaves(*names: str) -> list[str]:
    return [f"{name}.requires_grad_()" for name in dict.fromkeys(names)]


def _derivative(asked: _Asked) -> list[str]:
    return [*_leaves("x"), f"(theirs,) = {_first(asked, 'x', 'torch.ones_like(x)')}"]


def _second(asked: _Asked) -> list[str]:
    slope = _first(asked, "x", "torch.ones_like(x)", ", create_graph=True")
    second = "(theirs,) = torch.autograd.grad(slope, x, torch.ones_like(x))"
    return [*_leaves("x"), f"(slope,) = {slope}", second]


def _gradient(asked: _Asked) -> list[str]:
    return [*_leaves(asked.wrt), f"(theirs,) = {_first(asked, asked.wrt, 'grad_output')}"]


def _jvp(asked: _Asked) -> list[str]:
    along = asked.along
    function = f"lambda a: {_theirs(asked, along)}"
    return [f"_, theirs = torch.func.jvp({function}, ({along},), (tangent,))"]


def _hvp(asked: _Asked) -> list[str]:
    slope = _first(asked, asked.along, "grad_output", ", create_graph=True")
    second = f"(theirs,) = torch.autograd.grad(slope, {asked.wrt}, tangent)"
    return [*_leaves(asked.along, asked.wrt), f"(slope,) = {slope}", second]


def _columns(asked: _Asked, of: str, x: str) -> str:
    units = f"torch.eye({of}.shape[-1], dtype={of}.dtype)"
    each = f"torch.autograd.grad({of}, {x}, e.expand_as({of}), retain_graph=True)[0]"
    return f"theirs = torch.stack([{each} for e in {units}], 1)"


def _jacobian(asked: _Asked) -> list[str]:
    return [*_leaves(asked.wrt), f"y = {_theirs(asked)}", _columns(asked, "y", asked.wrt)]


def _diagonal(asked: _Asked) -> list[str]:
    return [*_jacobian(asked), "theirs = theirs.diagonal(dim1=1, dim2=2)"]


def _hessian_diagonal(asked: _Asked) -> list[str]:
    wrt = asked.wrt
    slope = f"(slope,) = {_first(asked, wrt, 'grad_output', ', create_graph=True')}"
    if asked.record.coupled is None:
        second = f"(theirs,) = torch.autograd.grad(slope, {wrt}, torch.ones_like({wrt}))"
        return [*_leaves(wrt), slope, second]
    diagonal = "theirs = theirs.diagonal(dim1=1, dim2=2)"
    return [*_leaves(wrt), slope, _columns(asked, "slope", wrt), diagonal]


_THEIRS: dict[str, Callable[[_Asked], list[str]]] = {
    "value": _value,
    "derivative": _derivative,
    "second_derivative": _second,
    "vjp": _gradient,
    "gradient": _gradient,
    "jvp": _jvp,
    "jacobian": _jacobian,
    "jacobian_diagonal": _diagonal,
    "hvp": _hvp,
    "hessian_diagonal": _hessian_diagonal,
}
"""How torch is asked for each quantity."""
