"""Sigmoid and tanh with their derivatives: the flat ends in which a gradient vanishes.

Run it: ``python examples/vanishing_gradient.py [picture.png]``
"""

from __future__ import annotations

import sys

import numpy as np

from activations import sigmoid, sigmoid_derivative, tanh, tanh_derivative

LAYERS = 10


def plot(path: str) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    x = np.linspace(-8, 8, 801)
    figure, (curves, depth) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name, f, slope, colour in (
        ("sigmoid", sigmoid, sigmoid_derivative, "#1f5fa8"),
        ("tanh", tanh, tanh_derivative, "#d1495b"),
    ):
        curves.plot(x, f(x), color=colour, label=name)
        curves.plot(x, slope(x), color=colour, linestyle="--", label="its derivative")
        depth.semilogy(x, slope(x) ** LAYERS, color=colour, label=name)
    curves.set_title("beyond |x| = 4 both derivatives are below 0.02")
    curves.legend()
    depth.set_title(f"the factor that is left of a gradient after {LAYERS} layers")
    depth.set_ylim(1e-30, 10)
    depth.legend()
    for axis in (curves, depth):
        axis.set_xlabel("x")
        axis.grid(color="0.9")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "vanishing_gradient.png"
    plot(path)
    print(
        f"the largest slope of sigmoid is {sigmoid_derivative(0.0)}, of tanh {tanh_derivative(0.0)}"
    )
    print(
        f"after {LAYERS} layers of sigmoid at most {sigmoid_derivative(0.0) ** LAYERS:.1e} is left"
    )
    print(f"plotted to {path}")


if __name__ == "__main__":
    main()
