"""How inductor compiles a fused kernel, by the number of elements and the arithmetic."""

from __future__ import annotations

from typing import Any

SMALL = 1 << 15
"""Elements up to which two threads would take longer to meet than to compute."""


def settings(elements: int, is_native: bool) -> dict[str, Any]:
    """Return inductor's settings: one thread or all; a·b + c rounded once, or twice.

    In float64 it is rounded twice, as by the plain call, whose results a precise kernel has.
    """
    threads = {"cpp.threads": 1} if elements <= SMALL else {}
    contract = {"cpp.enable_floating_point_contract_flag": "fast"} if is_native else {}
    return threads | contract
