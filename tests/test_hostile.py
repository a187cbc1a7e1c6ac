"""Nothing that a subject does ends, hangs or bends the judge: each is a verdict."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from flint import ctx

from gradref.contenders import sandbox
from gradref.contenders.kernel import Kernel
from gradref.contenders.sandbox import InProcess
from gradref.environment import has_compiler
from gradref.judge import state
from gradref.judge.verdict import Case
from gradref.runs.check import check, check_subject
from gradref.runs.choices import Mode
from gradref.runs.options import Options

pytestmark = pytest.mark.xdist_group("hostile")

AT_IMPORT = {
    "changes the default dtype": "torch.set_default_dtype(torch.float64)",
    "turns gradients off": "torch.set_grad_enabled(False)",
    "makes NumPy raise": "import numpy; numpy.seterr(all='raise')",
    "changes the bits of Arb": "import flint; flint.ctx.prec = 24",
    "prints without end": "print('x' * 10_000_000)",
    "closes its output": "import os; os.close(1); os.close(2)",
    "replaces what torch offers": "torch.equal = lambda a, b: True",
    "replaces our truth": "import gradref.truth.jets as j; j.jets = None",
    "replaces Arb": "import flint; flint.arb = flint.arb_series = None",
    "leaves a process behind": "import subprocess; subprocess.Popen(['sleep', '60'])",
    "handles signals": "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
}
"""What a module does that holds a right kernel: it passes, and the judge is as it was."""

FATAL = {
    "exits": ("import os; os._exit(0)", "importing it crashes: its process ended with status 0"),
    "leaves by SystemExit": ("import sys; sys.exit(3)", "crashes: its process ended with status 3"),
    "is killed": (
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "importing it crashes: SIGKILL",
    ),
    "does not end": ("import time; time.sleep(1000)", "not imported within"),
}
"""What a module does that cannot be imported then, and what is said."""

IN_THE_CALL = {
    "flushes subnormal numbers": (
        "torch.set_flush_denormal(True)",
        "subnormal numbers are flushed to zero",
    ),
    "exits": ("import os; os._exit(7)", "crashes: its process ended with status 7"),
    "divides by zero in C": ("import ctypes; ctypes.string_at(0)", "crashes: SIGSEGV"),
    "raises SystemExit": ("raise SystemExit(1)", "crashes: its process ended with status 1"),
    "interrupts": ("raise KeyboardInterrupt", "crashes: its process ended with status 1"),
    "sleeps for ever": ("import time; time.sleep(1000)", "hangs: no answer in"),
    "forks": ("import os; os.fork()", ""),
    "closes every file": (
        "import os; os.closerange(3, 256)",
        "crashes: its process|crashes: .*connection",
    ),
    "floods its output": ("import os; os.write(1, b'x' * 50_000_000)", ""),
    "allocates without end": (
        "kept = []\n    while True: kept.append(torch.empty(1 << 26))",
        "raises RuntimeError: .*memory|raises MemoryError",
    ),
    "recurses without end": (
        "return recurses_without_end(x)",
        "raises RecursionError|crashes: SIGSEGV",
    ),
    "returns no tensor": ("return 'relu'", "returned str, wants a tensor"),
    "returns a tensor on no device": ("return x.to('meta')", "raises|returns"),
}
"""What a kernel does when it is called, and what is said, if anything."""


def written(path: Path, before: str, **bodies: str) -> str:
    """A module of right kernels that do something before they compute."""
    functions = "".join(
        f"def {name}(x):\n    {body}\n    return torch.relu(x)\n\n\n"
        for name, body in bodies.items()
    )
    entries = ", ".join(f'"{n}": {{"operation": "relu", "forward": {n}}}' for n in bodies)
    path.write_text(f"import torch\n{before}\n\n\n{functions}KERNELS = {{{entries}}}\n")
    return str(path)


def said(path: str, mode: Mode = "link") -> dict[str, str]:
    """The words of all failures by kernel; the judge computes as before."""
    run = check_subject(path, None, ["float32"], Options(mode))
    assert not list(state.changes())
    found: dict[str, str] = {}
    for verdict in run.judged:
        words = "" if verdict.passed else "; ".join(verdict.words)
        found[verdict.contender] = found.get(verdict.contender, "") + words
    return found


def test_a_module_changes_nothing_here(tmp_path: Path) -> None:
    everything = "\n".join(AT_IMPORT.values())
    assert said(written(tmp_path / "subject.py", everything, relu="pass"))["relu"] == ""


@pytest.mark.parametrize("what", FATAL)
def test_a_module_that_ends_its_process(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "does not end":
        monkeypatch.setattr(sandbox, "START_LIMIT", 3.0)
    code, words = FATAL[what]
    with pytest.raises(ImportError, match=words):
        said(written(tmp_path / "subject.py", code, relu="pass"))


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of kernels that do all this, each in the process that the one before leaves."""
    bodies = {what.replace(" ", "_"): code for what, (code, _) in IN_THE_CALL.items()}
    path = tmp_path_factory.mktemp("hostile") / "subject.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "TIME_LIMIT", 3.0)
        return said(written(path, "", **bodies))


@pytest.mark.parametrize("what", IN_THE_CALL)
def test_a_call_is_a_verdict(what: str, heard: dict[str, str]) -> None:
    found, (_, words) = heard[what.replace(" ", "_")], IN_THE_CALL[what]
    assert re.search(words, found) if words else not found


@pytest.mark.skipif(not has_compiler("cpu"), reason="no C++ compiler")
def test_a_library_that_flushes_does_not_bend_the_truth(tmp_path: Path) -> None:
    """One built with -ffast-math turns subnormal numbers off for the process that loads it."""
    (tmp_path / "fast.c").write_text("float twice(float x) { return x + x; }")
    command = ["gcc", "-shared", "-fPIC", "-ffast-math", "-o", "fast.so", "fast.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    load = f"import ctypes; library = ctypes.CDLL({str(tmp_path / 'fast.so')!r})"
    found = said(written(tmp_path / "subject.py", load, relu="pass"), "link")
    assert "subnormal numbers are flushed to zero" in found["relu"]


@pytest.mark.parametrize(
    ("bend", "words"),
    [
        ("torch.set_flush_denormal(True)", "subnormal numbers are treated as 0"),
        ("torch.set_default_dtype(torch.float64)", "torch's default dtype is torch.float64"),
        ("ctx.prec = 24", "Arb computes with 24 bits"),
        ("np.seterr(over='raise')", "NumPy's errors are"),
        ("torch.set_grad_enabled(False)", "torch records no gradients"),
    ],
)
def test_a_kernel_in_this_process_may_bend_the_judge_who_says_so(bend: str, words: str) -> None:
    def relu(x: torch.Tensor) -> torch.Tensor:
        exec(bend)
        return x.clamp(min=0)

    kernel = Kernel.of("relu", {"forward": relu})
    case = Case("relu", {}, "float32", "cpu")
    errors = np.geterr()
    try:
        verdicts = list(check(kernel, case, InProcess([kernel]), Options("link")))
    finally:
        torch.set_flush_denormal(False)
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        np.seterr(**errors)  # type: ignore[arg-type]  # what was set before
        ctx.prec = state.PRECISION
    assert [v.status for v in verdicts] == ["fail"] * len(verdicts)
    assert all(
        f"the process that judges was changed, no verdict: {words}" in v.words[0] for v in verdicts
    )
