"""The examples run, and say what they promise."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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
