"""pytest: ``@gradref.conforms("gelu")`` on a kernel in a test file, and ``assert_conforms``.

Nothing of gradref, and no torch, is imported before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from gradref.testing.conforms import Conformance


class AssertConforms(Protocol):
    """What the fixture is: fails the test unless a kernel conforms."""

    def __call__(
        self,
        kernel: Callable[..., Any] | Mapping[str, Any],
        operation: str,
        *,
        dtypes: Sequence[str] = ("f32",),
        grad: bool = False,
        max_ulp: float | None = None,
        mode: str = "quick",
        **settings: Any,
    ) -> None:
        """Raise an AssertionError with what is probably wrong."""


@pytest.fixture
def assert_conforms() -> AssertConforms:
    """Fail the test unless a kernel gives what the operation is, within ``max_ulp``."""
    from gradref.testing.conforms import assert_kernel_conforms

    return assert_kernel_conforms


def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[pytest.Item] | None:
    """A kernel marked with ``@gradref.conforms`` is a test for every dtype."""
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
    """One kernel in one dtype."""

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
        """The verdicts in words are the failure; a traceback of the judge would say nothing."""
        if isinstance(excinfo.value, AssertionError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where the kernel stands."""
        return self.path, None, self.name
