"""The pytest plugin: tests from ``@gradref.conforms("gelu")``, and the fixture ``assert_conforms``.

It imports torch and the rest of gradref only when a test asks for them: every run of pytest loads
the plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from gradref.testing.conforms import Conformance


class AssertConforms(Protocol):
    """The type of the fixture: a function that fails the test unless a kernel conforms."""

    def __call__(
        self,
        kernel: Callable[..., Any] | Mapping[str, Any],
        operation: str,
        *,
        dtypes: str | Iterable[Any] = "f32",
        grad: bool = False,
        max_ulp: float | None = None,
        mode: str = "quick",
        **settings: Any,
    ) -> None:
        """Raise an AssertionError, with what is probably wrong, unless a kernel conforms."""


@pytest.fixture
def assert_conforms() -> AssertConforms:
    """Return a function that fails the test unless a kernel conforms to an operation."""
    from gradref.testing.conforms import assert_kernel_conforms

    return assert_kernel_conforms


def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[pytest.Item] | None:
    """Return a test for each dtype of a kernel marked with ``@gradref.conforms``; else None."""
    conformances = getattr(obj, "__gradref_conforms__", None)
    if conformances is None:
        return None
    return [
        ConformanceItem.from_parent(
            collector,
            name=f"{name}[{conformance.operation}-{dtype}]",
            kernel=obj,
            conformance=conformance,
            dtype=dtype,
        )
        for conformance in conformances
        for dtype in conformance.dtypes
    ]


class ConformanceItem(pytest.Item):
    """The test of one kernel in one dtype."""

    def __init__(
        self, *, kernel: Callable[..., Any], conformance: Conformance, dtype: str, **known: Any
    ) -> None:
        super().__init__(**known)
        self._kernel, self._conformance, self._dtype = kernel, conformance, dtype

    def runtest(self) -> None:
        """Judge the kernel."""
        __tracebackhide__ = True
        self._conformance.require(self._kernel, self._dtype)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> str | Any:
        """Return the verdicts in words: a traceback through the judge would say nothing."""
        if isinstance(excinfo.value, AssertionError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Return the file and the name of the kernel."""
        return self.path, None, self.name
