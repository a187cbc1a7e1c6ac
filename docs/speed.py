"""Write ``docs/speed.md`` from the raw results of ``gradref bench``.

gradref bench ... --out benchmarks/results/cpu.jsonl && python docs/speed.py
"""

from __future__ import annotations

from pathlib import Path

from gradref.bench.run import Result, latest, read
from gradref.bench.subjects import BOUND, COMPILED, EAGER, FRESH, PLAIN

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"

TARGETS: dict[str, tuple[float, float, float]] = {
    "sigmoid": (7, 4, 0.8),
    "tanh": (7, 4, 0.8),
    "silu": (7, 4, 0.8),
    "gelu": (6, 3, 0.6),
    "softmax": (5, 3, 0.8),
    "cross_entropy": (10, 5, 0.6),
    "mse_loss": (8, 5, 0.85),
}
"""At 2^24 float32 elements: against autograd, against compiled autograd, share of the bound."""

LARGE = 16_000_000

HEAD = """\
# Speed

Written by `docs/speed.py` from `benchmarks/results`; `gradref bench` measures. Value and derivative
by one fused kernel, into buffers that are given; for softmax the value and the vector-Jacobian
product, for a loss the value and the gradient. Every number is the median, over paired rounds in
random order in one process, of the ratio of two times, with the larger half of a bootstrap interval
of 95 %. Contenders have to agree on the results before they are timed.

- **autograd**: torch's function, forward and backward, its time as a multiple of ours; **compiled
  autograd**: the same under torch.compile.
- **fused**: our kernel into fresh memory. **plain, out=**: the plain calls, which evaluate in
  float64 and round once.
- **of bound**: the time of a kernel with the same reads and writes and next to no arithmetic, as a
  share of ours: 1 is the speed of memory.

The machines are shared: the share of the bound and all ratios move with what the neighbours do to
the memory. Nothing has been measured on a GPU, with huge pages, against Liger, scikit-learn or JAX.
"""


WHY = """\
What holds back those that do not reach their aim, from reading the generated code:

- `gelu`: arithmetic, not memory: the polynomial of Mills' ratio and the error of x², without which
  the tail is wrong.
- `silu`, `tanh`: beside one exponential and one reciprocal the operations that keep the digits of
  subnormal results.
- `cross_entropy`, `softmax`: three loops over a row in the cache, for the maximum, the sums and the
  result, each with one accumulator that waits for its own last addition, and sums in cascades.
- Small arrays: what a call costs in dynamo's guards and our checks, which is more than autograd's.
"""


def row(result: Result) -> str:
    """The results of one subject."""
    ratios = result.ratios

    def times(name: str) -> str:
        ratio = ratios.get(name)
        return "not measured" if ratio is None else f"{ratio.median:.2f} ± {ratio.margin:.2f}"

    cells = [
        f"`{result.operation}`",
        result.dtype,
        " × ".join(f"{n:,}" for n in result.shape),
        *(times(name) for name in (EAGER, COMPILED, FRESH, PLAIN)),
        f"{ratios[BOUND].median:.2f}",
        f"{result.compile_seconds:.1f} s",
    ]
    return "| " + " | ".join(cells) + " |"


def target_row(result: Result) -> str:
    """What was aimed at, and what came out."""
    ratios = result.ratios
    reached = (ratios[EAGER].median, ratios[COMPILED].median, ratios[BOUND].median)
    cells = [
        f"{got:.2f} (≥ {wanted:g}{'' if got >= wanted else ', **not reached**'})"
        for got, wanted in zip(reached, TARGETS[result.operation], strict=True)
    ]
    return f"| `{result.operation}` | " + " | ".join(cells) + " |"


def document() -> str:
    """The whole of it."""
    entries = latest(e for path in sorted(RESULTS.glob("*.jsonl")) for e in read(path))
    machines = {
        f"torch {a['torch']}, {a['cpu capability']}, {a['threads']} threads, {a['when'][:10]}"
        for a, _ in entries
    }
    large = [
        r
        for _, r in entries
        if r.operation in TARGETS and r.dtype == "float32" and r.traffic >= 8 * LARGE
    ]
    return "\n".join(
        [
            HEAD,
            f"Measured with {'; '.join(sorted(machines)) or 'nothing yet'}.",
            "",
            "## Aims, at 2²⁴ elements in float32",
            "",
            f"| operation | {EAGER} | {COMPILED} | of bound |",
            "|---|---|---|---|",
            *map(target_row, large),
            "",
            WHY,
            "## Everything",
            "",
            f"| operation | dtype | shape | {EAGER} | {COMPILED} | {FRESH} | {PLAIN} | of bound "
            "| compiled in |",
            "|---|---|---|---|---|---|---|---|---|",
            *(row(result) for _, result in entries),
            "",
        ]
    )


if __name__ == "__main__":
    (ROOT / "docs" / "speed.md").write_text(document())
