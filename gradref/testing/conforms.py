"""Assertions about kernels, with which a test file has its own functions judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gradref.arrays import reject
from gradref.declare.operation import operations

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Conformance:
    """What a kernel is judged by: an operation, dtypes, an error bound, a mode and settings."""

    operation: str
    dtypes: Sequence[str] = ("f32",)
    grad: bool = False
    max_ulp: float | None = None
    mode: str = "quick"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def require(self, kernel: Callable[..., Any] | Mapping[str, Any], dtype: str) -> None:
        """Raise an AssertionError, with the verdicts in words, unless a kernel passes."""
        from gradref.contenders.kernel import Kernel
        from gradref.contenders.sandbox import InProcess
        from gradref.judge.verdict import order_of
        from gradref.report.text import sentences
        from gradref.runs.check import cases, check
        from gradref.runs.choices import MODES, Mode, dtypes_of
        from gradref.runs.options import Options

        __tracebackhide__ = True
        modes: dict[str, Mode] = {mode: mode for mode in MODES}
        if self.mode not in modes:
            reject("mode", repr(self.mode), f"one of {', '.join(MODES)}")
        role = "function" if self.grad else "forward"
        entry = kernel if isinstance(kernel, Mapping) else {role: kernel}
        judged = Kernel.of(self.operation, {"operation": self.operation, **entry, **self.settings})
        options = Options(modes[self.mode], claim=self.max_ulp)
        runner = InProcess([judged])
        verdicts = [
            verdict
            for _, case in cases([judged], dtypes_of(dtype), "cpu")
            for verdict in check(judged, case, runner, options)
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


def conforms(
    operation: str,
    *,
    dtypes: Sequence[str] = ("f32",),
    grad: bool = False,
    max_ulp: float | None = None,
    mode: str = "quick",
    **settings: Any,
) -> Callable[[Function], Function]:
    """Mark a kernel in a test file: pytest then judges it, in a test for each dtype.

    With ``grad`` torch differentiates the kernel, and its gradients are judged too; ``max_ulp`` is
    the largest error allowed, and ``settings`` are the parameters that the kernel is written for.
    Raises ValueError for an unknown operation.

    >>> import torch
    >>> @conforms("relu", dtypes=["f32", "bf16"], grad=True)
    ... def my_relu(x):
    ...     return torch.clamp(x, min=0)
    """
    operations(operation)  # an unknown one is an error here, not in the middle of a run
    conformance = Conformance(operation, tuple(dtypes), grad, max_ulp, mode, settings)

    def mark(function: Function) -> Function:
        known = getattr(function, "__gradref_conforms__", ())
        function.__gradref_conforms__ = (*known, conformance)  # type: ignore[attr-defined]  # a mark
        return function

    return mark


def assert_kernel_conforms(
    kernel: Callable[..., Any] | Mapping[str, Any],
    operation: str,
    *,
    dtypes: Sequence[str] = ("f32",),
    grad: bool = False,
    max_ulp: float | None = None,
    mode: str = "quick",
    **settings: Any,
) -> None:
    """Raise an AssertionError unless a kernel conforms; other arguments are as in ``conforms``.

    ``kernel`` is a function, or a dict of functions by role as in ``KERNELS``.
    """
    __tracebackhide__ = True
    conformance = Conformance(operation, tuple(dtypes), grad, max_ulp, mode, settings)
    for dtype in dtypes:
        conformance.require(kernel, dtype)
