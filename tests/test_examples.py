"""The examples run, and say what they promise."""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradref.contenders.load import load as load_kernels
from gradref.runs.check import check_subject
from gradref.runs.choices import GateName, Mode, dtypes_of
from gradref.runs.options import Options
from gradref.runs.run import Run

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.mark.parametrize("name", ["linear_regression", "logistic_regression"])
def test_training_by_hand_is_training_by_autograd(name: str) -> None:
    example = load(name)
    for ours, theirs in zip(example["by_hand"](), example["by_autograd"](), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_it_runs(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [path.name])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    load("vanishing_gradient")["plot"](str(tmp_path / "picture.png"))
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_boosting_lowers_the_loss() -> None:
    example = load("numpy_only")
    x = np.linspace(-3, 3, 200)
    label = (np.sin(2 * x) > 0).astype(float)
    score = example["boost"](x, label)
    assert ((score > 0) == (label > 0)).mean() > 0.95


# --- kernels to judge ----------------------------------------------------------------------------


def kernels(name: str) -> str:
    return str(EXAMPLES / "kernels" / f"{name}.py")


def judged(
    name: str,
    operation: str | None,
    dtypes: str,
    mode: Mode = "link",
    device: str = "cpu",
    gate: GateName = "standard",
) -> Run:
    options = Options(mode, seed=0, device=device, gate=gate)
    return check_subject(kernels(name), operation, dtypes_of(dtypes), options)


def findings(result: Run) -> dict[str, str]:
    """What is said of every failure, by kernel, quantity and dtype."""
    return {f"{v.contender} {v.quantity} {v.dtype}": "; ".join(v.words) for v in result.failures}


def test_torchs_own_ops_do_not_pass() -> None:
    found = findings(judged("torch_ops", "silu", "f32", gate="strict"))
    assert "exactly 0 for x in [-" in found["silu value float32"]
    assert "NaN at x = -inf" in found["silu value [special] float32"]
    assert "cancels" in found["silu second_derivative float32"]


def test_torchs_losses_take_indices_and_probabilities() -> None:
    result = judged("torch_ops", "cross_entropy", "f32,bf16")
    assert {verdict.dtype for verdict in result.failures} == {"bfloat16"}
    passed = {verdict.label for verdict in result.verdicts if verdict.status == "pass"}
    assert {"cross_entropy", "cross_entropy(target=<distribution>)"} <= passed
    assert not [verdict for verdict in result.verdicts if verdict.status == "unsupported"]


def test_formulas_of_tutorials_do_not_pass() -> None:
    found = findings(judged("numpy_textbook", None, "f32", gate="strict"))
    for name, words in {
        "sigmoid derivative": "cancels",
        "tanh value": "cancels",
        "tanh value [special]": "NaN",
        "relu derivative [special]": "NaN is swallowed: it gives 0",
        "silu value [special]": "NaN at x = -inf",
        "softplus value": "exp overflows",
        "gelu value": "returns float64, wants float32",
        "softmax value": "exp overflows, the maximum of a row is not subtracted",
    }.items():
        assert words in found[f"{name} float32"], name
    assert not [name for name in found if name.startswith("stable_softmax")]


def test_losses_of_tutorials_do_not_pass() -> None:
    found = findings(judged("numpy_textbook", "cross_entropy", "f32", "quick"))
    assert "infinity" in found["cross_entropy value [mean] float32"]
    assert "cross_entropy gradient(input) [mean] float32" not in found
    found = findings(judged("numpy_textbook", "binary_cross_entropy", "f32", "quick"))
    assert "NaN" in found["binary_cross_entropy value float32"]
    assert "NaN" in found["binary_cross_entropy gradient(input) float32"]


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_the_triton_kernels_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu = torch.cuda.is_available()
    monkeypatch.setenv("TRITON_INTERPRET", "0" if on_gpu else "1")  # the file leaves it so
    result = judged("triton_kernels", None, "f32,bf16", device="cuda" if on_gpu else "cpu")
    assert findings(result) == {}
    assert {verdict.contender for verdict in result.judged} == {"softmax", "cross_entropy"}
    assert result.exit_code == 0


@pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed")
def test_jax_does_not_pass() -> None:
    found = findings(judged("jax_nn", "sigmoid", "f32"))
    assert all("cancels" in found[f"sigmoid {what} float32"] for what in ("derivative", "jvp"))
    assert findings(judged("jax_nn", "softmax", "f64")) == {}


def test_elu_is_right_until_it_is_compiled() -> None:
    found = findings(judged("compiled", "elu", "f32"))
    assert list(found) == ["elu_compiled value float32"]
    assert "cancels" in found["elu_compiled value float32"]


@pytest.mark.parametrize(("name", "library"), [("triton_kernels", "triton"), ("jax_nn", "jax")])
def test_a_library_that_is_missing_is_said(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")  # the file sets it
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f"{library} is not installed: pip install {library}"):
        load_kernels(kernels(name))
