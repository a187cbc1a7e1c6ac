"""The command line: its output, its files and its exit status."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from gradref.cli import app
from gradref.judge.elementwise import ORDERS
from gradref.judge.pool import Outcome
from gradref.runs.run import Run


def gradref(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})


def test_help_is_quick() -> None:
    """In seconds of the processor, which do not depend on who else is busy."""
    command = [sys.executable, "-c", "from gradref.cli import main; main()", "--help"]
    durations = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        durations.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(durations) < 0.5


def test_importing_the_packages_adds_little_to_importing_torch() -> None:
    code = (
        "import time; start = time.process_time(); import torch; middle = time.process_time();"
        "import activations, losses; print((time.process_time() - middle) / (middle - start))"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2)]
    assert min(map(float, runs)) < 0.25


def test_native_kernels_are_not_certified_uncompiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = gradref("certify", "relu", "--native", "--dtype", "f16", "--out", str(tmp_path))
    assert result.exit_code == 3
    assert "--native on cpu needs a C++ compiler" in result.output
    assert not list(tmp_path.iterdir())


def test_verify(tmp_path: Path) -> None:
    files = {kind: tmp_path / f"verdicts.{kind}" for kind in ("json", "junit", "markdown")}
    options = [option for kind, path in files.items() for option in (f"--{kind}", str(path))]
    result = gradref("verify", "silu", "softmax", "--dtype", "bfloat16", "-v", *options)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "silu on cpu" in result.stdout
    assert "proved" in result.stdout
    assert "Findings: where torch is wrong" in result.stdout
    assert "torch gives nan where the truth is 0 (inf ulp) at x = -inf" in result.stdout

    data = json.loads(files["json"].read_text())
    assert data["finished"]
    assert data["environment"]["torch"]
    silu = [v for v in data["verdicts"] if v["operation"] == "silu"]
    ordinary = {v["quantity"] for v in silu if "[" not in v["quantity"]}
    assert ordinary == {"value", "derivative", "second_derivative", "vjp", "jvp"}
    assert all(v["errors"]["correctly_rounded"] == 1.0 for v in silu if v["quantity"] in ORDERS)
    suite = ElementTree.parse(files["junit"]).getroot()
    assert int(suite.attrib["tests"]) == len(data["verdicts"]) == len(suite)
    assert "| f' | bfloat16 |" in files["markdown"].read_text()


def test_verify_is_one_screen() -> None:
    """A row for each operation, then findings, then one line."""
    result = gradref("verify", "silu", "mse_loss", "--dtype", "float32")
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:3] == ["nearest", "in", "elsewhere"]
    assert [line.split()[0] for line in lines[1:3]] == ["mse_loss", "silu"]
    assert lines[3].startswith("torch silu")
    assert re.match(r"PASS: \d+ verdicts, [0-9.]+ M results in \d:\d\d; \d+ findings", lines[-2])
    assert lines[-1].startswith("next: ")


def test_orders_are_selected(tmp_path: Path) -> None:
    path = tmp_path / "o.json"
    result = gradref(
        "verify", "mse_loss", "--dtype", "float32", "--order", "1", "--json", str(path)
    )
    assert result.exit_code == 0
    quantities = {v["quantity"] for v in json.loads(path.read_text())["verdicts"]}
    assert all(quantity.startswith("gradient") for quantity in quantities)
    assert "gradient(target) [mean]" in quantities


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("verify", "gleu"), 2, "'gleu' (did"),
        (("verify", "mse"), 2, "'mse' (did you mean mse_loss?)"),
        (("verify", "--dtype", "f32,float8"), 2, "float8"),
        (("--version",), 0, "gradref "),
        (("-h",), 0, "verify"),
        (("verify", "--order", "3"), 2, "order"),
        (("show", "gleu"), 2, "gleu"),
        (("show", "activations"), 2, "a package"),
        (("frobnicate",), 2, "frobnicate"),
        (("verify", "silu", "--device", "nonesuch"), 3, "could not run: device 'nonesuch'"),
        (("show", "softmax", "--plot", "/tmp/x.png"), 2, "ends in .svg"),
        (("verify", "silu", "--json", "/nonexistent/x.json"), 2, "nonexistent"),
    ],
)
def test_usage_and_what_cannot_run(arguments: tuple[str, ...], status: int, words: str) -> None:
    result = gradref(*arguments)
    assert result.exit_code == status
    assert words in " ".join(result.output.split())


def test_exit_codes() -> None:
    run = Run("gradref", {})
    assert run.exit_code == 3  # nothing has run
    run.finished = True
    assert run.exit_code == 3
    run.add(Outcome("relu", [], "RuntimeError: no memory"))
    assert run.exit_code == 3
    assert run.as_dict()["problems"] == ["relu: RuntimeError: no memory"]


INTERRUPTIBLE = """
import signal
from gradref.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in its background
main()
"""


def test_an_interrupt_leaves_the_finished_part(tmp_path: Path) -> None:
    """Interrupted when a third table of truths is there: two processes have finished a job then."""
    path, tables = tmp_path / "part.json", tmp_path / "truths"
    dtypes = ("--dtype", "f64", "--dtype", "float16,bf16")
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "verify", *dtypes, "--json", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "GRADREF_CACHE": str(tables)},
    ) as process:
        for _ in range(600):
            time.sleep(0.2)
            if len(list(tables.glob("*.npz"))) > 2:
                break
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    data = json.loads(path.read_text())
    assert process.returncode == 3, output
    assert not data["finished"]
    assert data["verdicts"]
    assert "interrupted" in output


def test_list_and_show(tmp_path: Path) -> None:
    listed = gradref("list").stdout
    for name in ("gelu", "cross_entropy", "kl_divergence"):
        assert name in listed
    picture = tmp_path / "elu.svg"
    result = gradref("show", "elu", "--plot", str(picture))
    assert result.exit_code == 0
    for words in (
        "elu_derivative",
        "alpha: a finite number >= 0",
        "Lipschitz constant: 1",
        "chosen",
    ):
        assert words in result.stdout
    assert picture.read_text().count("<svg ") == 5  # a sheet of four charts
    assert "differs from torch in threshold" in gradref("show", "softplus").stdout


OWN_PACKAGE = '''
from math import inf, nan

import torch

from gradref.declare import derivative, elementwise, second_derivative
from gradref.declare.operation import Facts


@elementwise(
    torch=torch.sin,
    truth=lambda x: x.sin(),
    facts=Facts(limits={-inf: (nan, nan, nan), inf: (nan, nan, nan)}),
)
def sine(x, /):
    """Sine."""
    return torch.sin(x)


@derivative(sine)
def sine_derivative(x, /):
    return SLOPE


@second_derivative(sine)
def sine_second_derivative(x, /):
    return -torch.sin(x)
'''


@pytest.mark.parametrize(("slope", "status"), [("torch.cos(x)", 0), ("torch.cos(2 * x)", 1)])
def test_a_package_of_ones_own_is_judged(slope: str, status: int, tmp_path: Path) -> None:
    """By its name, without an entry point."""
    (tmp_path / "their_package.py").write_text(OWN_PACKAGE.replace("SLOPE", slope))
    command = [sys.executable, "-m", "gradref", "verify", "their_package", "--dtype", "float16"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == status, run.stdout
    assert ("PASS: 10 verdicts" in run.stdout) == (status == 0)
