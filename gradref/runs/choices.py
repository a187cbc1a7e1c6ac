"""What a check can be asked for; without torch, so that the command line answers at once."""

from __future__ import annotations

from typing import Literal, get_args

Mode = Literal["link", "quick", "full", "exhaustive"]
MODES: tuple[Mode, ...] = get_args(Mode)
Kinks = Literal["torch", "subdifferential"]
GateName = Literal["standard", "strict"]
"""What rows are held to: what the usual algorithms keep, or what a stable one does, as ours are.

The strict gate also fails a zero of the wrong sign."""
