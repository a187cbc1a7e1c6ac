"""jax.nn, with jax.vjp for the backward and jax.jvp for the products with tangents.

``"library": "jax"`` says that the functions take JAX arrays. float64 needs ``jax_enable_x64``.

Run it: ``gradref check examples/kernels/jax_nn.py --dtype f32,bf16``. Needs ``pip install jax``.

It does not pass. XLA flushes subnormal numbers to 0 on a CPU, so that relu does not even have the
derivative 1 there; σ(1 − σ) and 1 − tanh² cancel; in bfloat16 every step is rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import jax
    import jax.numpy as jnp
except ModuleNotFoundError as error:
    raise ImportError("jax is not installed: pip install jax") from error

jax.config.update("jax_enable_x64", True)

Function = Callable[..., Any]


def kernel(function: Function, **entry: Any) -> dict[str, Any]:
    """A function with its vector-Jacobian and its Jacobian-vector products."""

    def backward(grad_output: jax.Array, x: jax.Array) -> jax.Array:
        return jax.vjp(function, x)[1](grad_output)[0]

    def jvp(x: jax.Array, tangent: jax.Array) -> jax.Array:
        return jax.jvp(function, (x,), (tangent,))[1]

    entry |= {"library": "jax", "forward": function, "backward": backward, "jvp": jvp}
    return entry


def gelu_tanh(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)


def gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


KERNELS = {
    "silu": kernel(jax.nn.silu),
    "gelu": kernel(gelu, approximate="none"),
    "gelu_tanh": kernel(gelu_tanh, operation="gelu", approximate="tanh"),
    "relu": kernel(jax.nn.relu),
    "softplus": kernel(jax.nn.softplus),
    "logsigmoid": kernel(jax.nn.log_sigmoid),
    "sigmoid": kernel(jax.nn.sigmoid),
    "tanh": kernel(jnp.tanh),
    "softmax": kernel(jax.nn.softmax),
    "log_softmax": kernel(jax.nn.log_softmax),
}
