"""What a check can be asked for; without torch, so that the command line answers at once."""

from __future__ import annotations

from typing import Literal, get_args

SHORT = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}
"""The dtypes, with the names that a command takes besides torch's, and shows."""

_LONG = {short: dtype for dtype, short in SHORT.items()}

Mode = Literal["link", "quick", "full", "exhaustive"]
MODES: tuple[Mode, ...] = get_args(Mode)
Kinks = Literal["torch", "subdifferential"]
GateName = Literal["standard", "strict", "torch"]
"""What fails. Strict: each result that is off by more than the claim, and the wrong sign of a zero.
Standard: beyond the normal range and at special inputs only what torch does better, and no sign of
a zero. Torch: only what torch does better at all.
"""


def dtypes_of(*texts: str) -> list[str]:
    """Return the dtypes in lists like ``bf16,f32``.

    >>> dtypes_of("bf16, f32", "float32")
    ['bfloat16', 'float32']
    """
    names = [_LONG.get(name.strip(), name.strip()) for text in texts for name in text.split(",")]
    for name in names:
        if name not in SHORT:
            wants = f"one of {', '.join((*_LONG, *SHORT))}"
            raise ValueError(f"dtype: got {name!r}, wants {wants}")
    return list(dict.fromkeys(names))
