"""The names of torch that every fused kernel needs and that are not public, each with a substitute.

A torch that lacks one of them compiles all the same, and loses what the substitute cannot do. What
the code generator needs besides stands in :mod:`gradref.fusion.codegen`, which is optional.
"""

from __future__ import annotations

import importlib
from typing import Any


def name_of_torch(module: str, name: str, otherwise: Any) -> Any:
    """Return an attribute of a module of torch, or the substitute where there is none."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return otherwise


TracingError = name_of_torch("torch._dynamo.exc", "TorchDynamoException", RuntimeError)
"""What dynamo raises; without it, any RuntimeError is taken for one."""

CompilingError = name_of_torch("torch._inductor.exc", "InductorError", RuntimeError)
"""What inductor raises; without it, any RuntimeError is taken for one."""

GraphPass = name_of_torch("torch._inductor.custom_graph_pass", "CustomGraphPass", object)
"""A pass over a graph with an identity; without it, inductor does not cache what it compiles."""

mark_dynamic = name_of_torch("torch._dynamo", "maybe_mark_dynamic", lambda tensor, dim: None)
"""Ask for a kernel of any length; without it, torch finds out at the second length."""
