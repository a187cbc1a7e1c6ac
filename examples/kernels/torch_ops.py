"""torch's own ops, judged: no kernel to write, only a name and the function for it.

An entry that is a function is one that torch differentiates: its value, its gradient and, of an
elementwise function, its second derivative are judged. What a function takes by name is varied:
``approximate``, ``beta`` and ``threshold``, ``weight``, ``label_smoothing``, ``reduction``.
``"target": "either"`` says that a loss takes class indices and probabilities; ``"threshold": 20.0``
that softplus is judged with torch's own default, where the reference has none.

Run it: ``gradref check examples/kernels/torch_ops.py --dtype f32,bf16``

It does not pass. silu, gelu and sigmoid are 0 in a left tail in which the truth is not; σ(1 − σ),
1 − tanh² and 1 + erf cancel, which costs the derivative of sigmoid all digits from x = 17 on in
float32 and from x = 6 on in bfloat16; and where x = −∞, inf · 0 is NaN.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

KERNELS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "softplus": {"function": F.softplus, "threshold": 20.0},
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": F.softmax,
    "log_softmax": F.log_softmax,
    "cross_entropy": {"function": F.cross_entropy, "target": "either"},
}
