"""Assertions about kernels, with which a test file has its own functions judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from gradref.arrays import describe, reject
from gradref.declare.registry import operations

if TYPE_CHECKING:
    from gradref.contenders.kernel import Kernel
    from gradref.contenders.sandbox import Host
    from gradref.runs.options import Options

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Conformance:
    """What a kernel is judged by: an operation, dtypes, an error bound, a mode and settings."""

    operation: str
    dtypes: tuple[str, ...]
    grad: bool
    options: Options
    settings: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        operation: str,
        dtypes: str | Iterable[Any],
        grad: bool,
        max_ulp: float | None,
        mode: str,
        settings: Mapping[str, Any],
    ) -> Conformance:
        """Return what is asked for; raise for what is no operation, dtype, bound or mode."""
        from gradref.runs.check import ulp_of
        from gradref.runs.choices import MODES, Mode, dtypes_of
        from gradref.runs.options import Options

        if not isinstance(operation, str):
            wants = 'the name of an operation, as in conforms("relu")'
            reject("operation", describe(operation), wants, TypeError)
        operations(operation)
        modes: dict[str, Mode] = {known: known for known in MODES}
        if mode not in modes:
            reject("mode", repr(mode), f"one of {', '.join(MODES)}")
        claim = None if max_ulp is None else ulp_of(str(max_ulp), "max_ulp")
        named = [dtypes] if isinstance(dtypes, str) else dtypes
        chosen = dtypes_of(*(str(dtype).removeprefix("torch.") for dtype in named))
        return cls(operation, tuple(chosen), grad, Options(modes[mode], claim=claim), settings)

    def kernel(self, function: Callable[..., Any] | Mapping[str, Any]) -> Kernel:
        """Return a function, or an entry of ``KERNELS``, as a kernel; raise where it is none."""
        from gradref.contenders.kernel import Kernel

        role = "function" if self.grad else "forward"
        entry = function if isinstance(function, Mapping) else {role: function}
        return Kernel.of(self.operation, {"operation": self.operation, **entry, **self.settings})

    def require(self, function: Callable[..., Any] | Mapping[str, Any], dtype: str) -> None:
        """Raise an AssertionError, with the verdicts in words, unless a kernel passes."""
        from gradref.judge.verdict import order_of
        from gradref.report.text import sentences
        from gradref.runs.check import cases, check

        __tracebackhide__ = True
        judged = self.kernel(function)
        with _host(judged) as runner:
            verdicts = [
                verdict
                for _, case in cases([judged], [dtype], "cpu")
                for verdict in check(judged, case, runner, self.options)
            ]
        missing = "; ".join(w for v in verdicts for w in v.words if v.status == "unsupported")
        judged_orders = {order_of(v.quantity) for v in verdicts if v.status != "unsupported"}
        if not judged_orders:
            reject("kernel", missing or "none", "a kernel with something to judge")
        if self.grad and 1 not in judged_orders:
            raise AssertionError(f"no gradient of {self.operation} to judge: {missing}")
        failed = ["\n  ".join(sentences(v)) for v in verdicts if not v.passed]
        if failed:
            raise AssertionError(f"does not conform to {self.operation}:\n" + "\n".join(failed))


@contextmanager
def _host(kernel: Kernel) -> Iterator[Host]:
    """Give what calls a kernel: a process of its own, or this one where it cannot be copied."""
    from gradref.contenders.sandbox import InProcess, Sandbox

    try:
        sandbox = Sandbox.of([kernel])
    except TypeError:
        yield InProcess([kernel])
    else:
        with sandbox:
            yield sandbox


def conforms(
    operation: str,
    *,
    dtypes: str | Iterable[Any] = "f32",
    grad: bool = False,
    max_ulp: float | None = None,
    mode: str = "quick",
    **settings: Any,
) -> Callable[[Function], Function]:
    """Mark a kernel in a test file: pytest then judges it, in a test for each dtype.

    With ``grad`` torch differentiates the kernel, and its gradients are judged too; ``max_ulp`` is
    the largest error allowed, and ``settings`` are the parameters that the kernel is written for.
    It is judged in a process of its own, so that a crash or a hang is a failure; one that cannot be
    copied there, as it refers to a library by ctypes, say, is judged in this process.
    ``dtypes`` are named as for ``gradref check``, or torch's own. Raises ValueError or TypeError
    for an unknown operation, dtype, mode or setting.

    >>> import torch
    >>> @conforms("relu", dtypes=["f32", "bf16"], grad=True)
    ... def my_relu(x):
    ...     return torch.clamp(x, min=0)
    """
    conformance = Conformance.of(operation, dtypes, grad, max_ulp, mode, settings)

    def mark(function: Function) -> Function:
        conformance.kernel(function)  # what is wrong with it is an error here, not in a test
        known = getattr(function, "__gradref_conforms__", ())
        function.__gradref_conforms__ = (*known, conformance)  # type: ignore[attr-defined]  # a mark
        return function

    return mark


def assert_kernel_conforms(
    kernel: Callable[..., Any] | Mapping[str, Any],
    operation: str,
    *,
    dtypes: str | Iterable[Any] = "f32",
    grad: bool = False,
    max_ulp: float | None = None,
    mode: str = "quick",
    **settings: Any,
) -> None:
    """Raise an AssertionError unless a kernel conforms; other arguments are as in ``conforms``.

    ``kernel`` is a function, or a dict of functions by role as in ``KERNELS``.
    """
    __tracebackhide__ = True
    conformance = Conformance.of(operation, dtypes, grad, max_ulp, mode, settings)
    for dtype in conformance.dtypes:
        conformance.require(kernel, dtype)
