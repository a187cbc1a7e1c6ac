"""Digests: everything that a number depends on changes them, and nothing else does."""

from __future__ import annotations

import functools
import inspect
import linecache
import math
import re
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch

from gradref.arrays import round_once
from gradref.declare.registry import operations
from gradref.formula import errorfree, float32
from gradref.sweep.digest import reached, source_digest

SUBJECTS = [
    pytest.param(record, role, id=f"{record.name}-{role}")
    for record in operations()
    if record.kind == "elementwise"
    for role in ("value", "derivative", "second_derivative")
]


def function_of(record: Any, role: str) -> Any:
    return record.function if role == "value" else record.derivatives[role]


def digest(function: Any) -> str:
    return source_digest(function, round_once, without=(float32,))


def called(function: Any, **parameters: Any) -> set[FunctionType]:
    """Functions of ours that run when a formula does, anywhere on the line."""
    seen = set()

    def look(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and "gradref" in (frame.f_code.co_filename):
            seen.add(frame.f_code)

    x = torch.cat([torch.linspace(-800, 800, 999), torch.linspace(-1, 1, 99) * 1e-30]).double()
    sys.setprofile(look)
    try:
        inspect.unwrap(function)(x, **parameters)
    finally:
        sys.setprofile(None)
    candidates = [
        value
        for module in (errorfree, float32, *_families())
        for value in vars(module).values()
        if isinstance(inspect.unwrap(value) if callable(value) else value, FunctionType)
    ]
    return {f for f in map(inspect.unwrap, candidates) if f.__code__ in seen}


def _families() -> list[ModuleType]:
    return [module for name, module in sys.modules.items() if name.startswith("activations._")]


def with_a_statement(function: FunctionType) -> FunctionType:
    """The same function with one more statement in its source."""
    lines = inspect.getsource(function).splitlines(keepends=True)
    source = "".join(line for line in lines) + "\n    _ = 0\n"
    name = f"<changed {function.__qualname__}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    scope: dict[str, Any] = {}
    tree = compile(source, name, "exec", flags=0, dont_inherit=True)
    code = next(c for c in tree.co_consts if inspect.iscode(c) and c.co_name == function.__name__)
    changed = FunctionType(code, function.__globals__ | scope, function.__name__)
    changed.__module__, changed.__qualname__ = function.__module__, function.__qualname__
    return changed


def places(value: Any) -> Iterator[tuple[ModuleType, str]]:
    """Every module and name under which a value is known."""
    for module in (errorfree, *_families()):
        for name, known in list(vars(module).items()):
            if known is value:
                yield module, name


@pytest.mark.parametrize(("record", "role"), SUBJECTS)
def test_every_function_that_runs_is_followed(record: Any, role: str) -> None:
    """Changed one after the other: as seen by a profiler, not by the digest itself."""
    function = function_of(record, role)
    plain = inspect.unwrap(function)
    names = {name.partition("'")[0] for name in reached(function, without=(float32,))}
    ran = called(function, **record.parameters)
    assert {f.__qualname__ for f in ran if f.__code__ is not plain.__code__} <= names


def test_a_changed_function_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind an attribute of a module: tanh is errorfree.tanh(x)."""
    from activations import gelu, sigmoid_second_derivative, tanh

    for function in (tanh, sigmoid_second_derivative):
        before = digest(function)
        with monkeypatch.context() as patch:
            patch.setattr(errorfree, "tanh", with_a_statement(errorfree.tanh))
            assert digest(function) != before
        assert digest(function) == before
    before = digest(gelu)
    for name in ("two_product", "_high_half", "may_hold", "near_0"):
        original = getattr(errorfree, name)
        with monkeypatch.context() as patch:
            for module, known in places(original):
                patch.setattr(module, known, with_a_statement(original))
            assert digest(gelu) != before, name
    with monkeypatch.context() as patch:
        patch.setattr(errorfree, "log1p", with_a_statement(errorfree.log1p))
        assert digest(gelu) == before, "gelu takes no logarithm"


@pytest.mark.parametrize(("record", "role"), SUBJECTS)
def test_every_constant_counts_and_no_other(
    record: Any, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all constants of the modules, those named in what is reached, each by itself."""
    function = function_of(record, role)
    before, known = digest(function), reached(function, round_once, without=(float32,))
    sources = "\n".join(text for text in known.values() if text.startswith(("def", "class")))
    for module in (errorfree, float32, *_families()):
        for name, value in list(vars(module).items()):
            if not name.isupper() or not isinstance(value, (float, tuple)):
                continue
            other = math.pi if isinstance(value, float) else (*value, 1.0)
            with monkeypatch.context() as patch:
                patch.setattr(module, name, other)
                has_changed = digest(function) != before
            is_named = re.search(rf"\b{name}\b", sources) is not None
            assert has_changed == (is_named and module is not float32), name


def test_closures_defaults_partials_and_containers_count() -> None:
    def made(factor: float) -> Any:
        def scaled(x: float) -> float:
            return factor * x

        return scaled

    def with_default(x: float, power: float = 2.0) -> float:
        return x**power

    assert source_digest(made(2.0)) == source_digest(made(2.0))
    assert source_digest(made(2.0)) != source_digest(made(3.0))
    table = {"a": made(2.0)}

    def through(x: float) -> float:
        return float(table["a"](x))

    before = source_digest(through)
    table["a"] = made(3.0)
    assert source_digest(through) != before
    before = source_digest(with_default)
    with_default.__defaults__ = (3.0,)
    assert source_digest(with_default) != before
    partials = {source_digest(functools.partial(with_default, power=p)) for p in (2.0, 3.0)}
    assert len(partials) == 2


def test_what_changes_no_number_does_not_count() -> None:
    def documented(x: float) -> float:
        """Return twice x."""
        return 2 * x

    first = source_digest(documented)

    def documented(x):  # type: ignore[no-untyped-def,no-redef]  # the same without words and types
        return 2 * x  # and with a comment

    assert source_digest(documented) == first
    documented.__module__ = __name__ + ".moved"
    assert source_digest(documented) == first


def test_orders_have_digests_of_their_own() -> None:
    from activations import silu, silu_derivative, silu_second_derivative

    assert len({digest(f) for f in (silu, silu_derivative, silu_second_derivative)}) == 3


def test_no_path_is_part_of_it() -> None:
    from gradref.sweep.native import writes_the_loop

    for record in operations():
        if record.kind == "elementwise":
            for content in reached(record.function, round_once, *writes_the_loop()).values():
                assert "/" + "work" not in content
                assert ".py'" not in content
