"""The toolkit behind ``activations`` and ``losses``: declarations, transforms, truth, verdicts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradref.conformance import conforms
    from gradref.fused import fuse
    from gradref.transforms import (
        as_autograd,
        derivative,
        gradient,
        hvp,
        jacobian,
        jvp,
        second_derivative,
        value_and_derivative,
        vjp,
    )

__all__ = [
    "as_autograd",
    "conforms",
    "derivative",
    "fuse",
    "gradient",
    "hvp",
    "jacobian",
    "jvp",
    "second_derivative",
    "value_and_derivative",
    "vjp",
]


def __getattr__(name: str) -> Any:
    """Import what is public, and torch with it, only when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'gradref' has no attribute {name!r}")
    module = {"conforms": "conformance", "fuse": "fused"}.get(name, "transforms")
    return getattr(import_module(f"gradref.{module}"), name)
