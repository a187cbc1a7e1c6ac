"""A picture of an elementwise function: its jets, and where ours and torch are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradref.arrays import reject
from gradref.contenders.witness import torch_jets
from gradref.declare.operation import Operation
from gradref.judge.elementwise import ORDERS
from gradref.judge.ulp import errors, to_floats
from gradref.truth.jets import Balls, Floats, jets

POINTS = 4001
SPAN = 20.0
NAMES = ("f", "f'", "f''")


def plot_operation(record: Operation, path: Path) -> None:
    """f, f′ and f″ over [−6, 6], and the float32 errors of ours and torch's over [−20, 20]."""
    if record.kind != "elementwise":
        reject("operation", f"{record.name}, which is {record.kind}", "an elementwise one")
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(13, 6.5), layout="constrained")
    x = torch.linspace(-SPAN, SPAN, POINTS, dtype=torch.float32)
    truth = jets(record.truth, to_floats(x), **record.parameters)
    theirs = torch_jets(record, x, record.parameters)
    functions = (record.function, *(record.derivatives[name] for name in ORDERS[1:]))
    for order, function in enumerate(functions):
        ours = to_floats(function(x, **record.parameters))
        _draw_curve(axes[0, order], to_floats(x), ours, f"{NAMES[order]} of {record.name}")
        _draw_errors(axes[1, order], to_floats(x), truth[order], ours, theirs[order])
    axes[1, 0].set_ylabel("error in ulp of float32")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_curve(axis: Any, x: Floats, y: Floats, title: str) -> None:
    near = np.abs(x) <= 6
    axis.axhline(0, color="0.8", linewidth=0.8)
    axis.axvline(0, color="0.8", linewidth=0.8)
    axis.plot(x[near], y[near], color="#1f5fa8", linewidth=1.8)
    axis.set_title(title)


def _draw_errors(axis: Any, x: Floats, truth: Balls, ours: Floats, theirs: Floats | None) -> None:
    axis.set_yscale("log")
    axis.set_ylim(1e-3, 1e9)
    axis.axhline(0.5, color="0.6", linewidth=0.8, linestyle="--")
    if theirs is not None:
        wrong = np.clip(errors(theirs, truth, torch.float32), 1e-3, 1e9)
        axis.plot(x, wrong, ".", markersize=2, color="#d1495b", label="torch")
    right = np.clip(errors(ours, truth, torch.float32), 1e-3, 1e9)
    axis.plot(x, right, ".", markersize=2, color="#1f5fa8", label="ours")
    axis.set_xlabel("x")
    axis.legend(loc="upper right", markerscale=4, title="dashed: ½ ulp")
