"""The toolkit behind ``activations`` and ``losses``: declarations, transforms, truth, verdicts."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import activations
    import losses

    __version__: str

    from gradref.autodiff.lookup import (
        derivative,
        gradient,
        hvp,
        jacobian,
        jvp,
        second_derivative,
        value_and_derivative,
        vjp,
    )
    from gradref.autodiff.rules import as_autograd
    from gradref.fusion.fused import fuse
    from gradref.testing.conforms import conforms

__all__ = [
    "__version__",
    "activations",
    "as_autograd",
    "conforms",
    "derivative",
    "fuse",
    "gradient",
    "hvp",
    "jacobian",
    "jvp",
    "losses",
    "second_derivative",
    "value_and_derivative",
    "vjp",
]


_HOME = {"conforms": "testing.conforms", "fuse": "fusion.fused", "as_autograd": "autodiff.rules"}
"""Where a public name is defined, if not in autodiff.lookup."""


def __getattr__(name: str) -> Any:
    """Import what is public, and torch with it, only when it is asked for."""
    if name == "__version__":
        return version("gradref")
    if name not in __all__:
        raise AttributeError(f"module 'gradref' has no attribute {name!r}")
    if name in ("activations", "losses"):  # also where another module hides them
        return import_module("gradref.packages").package(name)
    return getattr(import_module(f"gradref.{_HOME.get(name, 'autodiff.lookup')}"), name)
