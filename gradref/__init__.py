"""The toolkit behind ``activations`` and ``losses``: declarations, transforms, truth, verdicts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    "derivative",
    "gradient",
    "hvp",
    "jacobian",
    "jvp",
    "second_derivative",
    "value_and_derivative",
    "vjp",
]


def __getattr__(name: str) -> Any:
    """Import the transforms, and torch with them, only when one is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'gradref' has no attribute {name!r}")
    return getattr(import_module("gradref.transforms"), name)
