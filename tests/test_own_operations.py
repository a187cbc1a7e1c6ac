"""Operations of one's own: found, refused by name, in a wheel; and packages that hide ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gradref.contenders.ours import Ours
from gradref.contenders.witness import Torch
from gradref.declare import Facts, derivative, elementwise, loss
from gradref.declare.checks import problem
from gradref.declare.domains import REAL
from gradref.declare.operation import operation
from gradref.judge import gates
from gradref.judge.elementwise import ElementwiseExam
from gradref.judge.trial import Trial
from gradref.judge.verdict import Case
from gradref.truth import series

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_operations"

KERNELS = """
import torch


def elliott(x):
    return 0.5 + 0.5 * x / (1 + x.abs())
"""


def run(*arguments: str, here: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the console script in a folder."""
    script = Path(sys.executable).parent / "gradref"
    environment = {**os.environ, **more}
    command = [str(script), *arguments]
    return subprocess.run(
        command, cwd=here, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module of operations and one of kernels."""
    here = tmp_path_factory.mktemp("own")
    shutil.copy(EXAMPLE / "smooth.py", here)
    (here / "kernels.py").write_text(KERNELS)
    return here


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("verify", "smooth:elliott", "--dtype", "bf16"), 0, "smooth:elliott"),
        (("verify", "smooth:gelu"), 2, "an operation that smooth declares"),
        (("check", "kernels.py", "--op", "smooth:elliott", "--dtype", "bf16"), 1, "import smooth"),
        (("show", "smooth:elliott"), 0, "from smooth import elliott"),
        (("report", "smooth", "--out", "page.html"), 0, "1 operations in page.html"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_command_takes_an_operation_of_the_working_directory(
    folder: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    result = run(*arguments, here=folder)
    assert result.returncode == status, result.stdout + result.stderr
    shown = (result.stdout + result.stderr).replace("│", " ").split()
    assert words in " ".join(shown)


def test_a_package_is_found_by_its_entry_point_in_a_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(EXAMPLE, source)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    install += ["--no-build-isolation", "--target", str(tmp_path / "installed"), str(source)]
    subprocess.run(install, check=True)
    path = str(tmp_path / "installed")
    result = run("verify", "elliott", "--dtype", "f16", here=tmp_path, PYTHONPATH=path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "elliott" in result.stdout


# --- what is not declared as it should be --------------------------------------------------------

LIMITS = {-inf: (-1.0, 0.0, 0.0), inf: (1.0, 0.0, 0.0)}


def tanh_declared(**instead: Any) -> Any:
    """The hyperbolic tangent, with another truth or other facts."""
    given = {"torch": torch.tanh, "truth": series.tanh, "facts": Facts(limits=LIMITS)}

    @elementwise(**{**given, **instead})
    def tanh(x: Tensor, /) -> Tensor:
        """Hyperbolic tangent."""
        return torch.tanh(x)

    return tanh


@pytest.mark.parametrize(
    ("instead", "words"),
    [
        ({}, ""),
        ({"truth": lambda x: abs(x)}, "has a truth that raises TypeError: bad operand type"),
        ({"truth": lambda x: 1.0}, "has a truth that gives float, wants a flint.arb_series"),
        (
            {"facts": Facts(limits={**LIMITS, inf: (2.0, 0.0, 0.0)})},
            "declares the limit 2 of f at inf, and its truth tends to 1",
        ),
        (
            {"facts": Facts(limits={**LIMITS, inf: (1.0, 1.0, 0.0)})},
            "declares the limit 1 of f′ at inf, and its truth tends to 0",
        ),
        ({"facts": Facts(limits={inf: (1.0, 0.0)})}, "wants f, f′ and f″"),
        (
            {"facts": Facts(limits=LIMITS, kinks={1.0: ("left", "left", "left")})},
            "declares a kink at 1, where f, f′ and f″ do not jump",
        ),
    ],
)
def test_a_wrong_declaration_is_named(instead: dict[str, Any], words: str) -> None:
    found = problem(operation(tanh_declared(**instead)))
    assert words in found
    assert bool(found) == bool(words)


def test_a_loss_needs_a_gradient_and_everything_a_docstring() -> None:
    @loss(torch=None, truth=lambda input: input, domains={"input": REAL})
    def plain(input: Tensor) -> Tensor:
        """Its input."""
        return input

    assert "has no gradient, wants one: a function under @gradient(plain)" in problem(
        operation(plain)
    )

    @elementwise(torch=None, truth=lambda x: x, facts=Facts(limits={}))
    def silent(x: Tensor, /) -> Tensor:
        return x

    assert problem(operation(silent)).startswith("has no docstring")


def test_a_function_without_a_second_derivative_is_judged_without_it() -> None:
    tanh = tanh_declared()

    @derivative(tanh)
    def tanh_derivative(x: Tensor, /) -> Tensor:
        return 1 / torch.cosh(x).square()

    record, case = operation(tanh), Case("tanh", {}, "bfloat16", "cpu")
    exam = ElementwiseExam(case, {}, 0, ("bfloat16",), declared=record)
    verdicts = list(Trial(Ours(record), gates.OURS, [Torch()]).verdicts(exam))
    assert {v.quantity for v in verdicts if "special" not in v.quantity} == {
        "value",
        "derivative",
        "vjp",
        "jvp",
    }


def test_a_wrong_declaration_is_an_error_where_it_is_asked_for_and_breaks_nothing_else(
    folder: Path,
) -> None:
    source = (folder / "smooth.py").read_text()
    (folder / "wrong.py").write_text(source.replace("inf: (1.0, 0.0, 0.0)", "inf: (3.0, 0.0, 0.0)"))
    asked = run("verify", "wrong", here=folder)
    assert asked.returncode == 2
    assert "elliott of wrong declares the limit 3 of f at inf" in " ".join(
        asked.stderr.replace("│", " ").split()
    )
    (folder / "broken.py").write_text("import nowhere")
    broken = run("verify", "broken", here=folder)
    assert broken.returncode == 2
    assert "broken: importing it raises ModuleNotFoundError" in broken.stderr


# --- packages of the same names ------------------------------------------------------------------

HIDING = """
import losses, gradref
assert losses.__file__.endswith("here/losses.py") and losses.theirs == 1
assert gradref.losses.mse_loss(3.0, 1.0) == 4.0
assert gradref.losses.cross_entropy.operation.name == "cross_entropy"
import losses as again
assert again.theirs == 1
from gradref.declare.registry import operations
assert len(operations("losses")) > 10
"""


def test_a_module_that_hides_ours_is_named_and_ours_is_reached(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "losses.py").write_text("theirs = 1")
    command = [sys.executable, "-c", HIDING]
    subprocess.run(command, cwd=here, check=True)
    command = [sys.executable, "-m", "gradref", "list"]
    result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    assert result.stderr == "losses is losses.py, not gradref's, which is gradref.losses\n"
    assert "cross_entropy" in result.stdout
