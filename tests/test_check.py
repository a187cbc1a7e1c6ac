"""Bring your own kernel: what is accepted, what is said, what a crash or a hang is."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from kernels_to_check import flushing_sigmoid
from mutants import CONDITIONS
from rich.console import Console
from typer.testing import CliRunner, Result

import gradref
from gradref.cli import app
from gradref.contenders import sandbox
from gradref.contenders.call import Call, perform
from gradref.contenders.kernel import Kernel
from gradref.contenders.load import load
from gradref.contenders.sandbox import InProcess
from gradref.judge.verdict import Case
from gradref.report import terminal
from gradref.runs.check import check, check_subject, is_named, ulp_of
from gradref.runs.choices import dtypes_of
from gradref.runs.options import Options
from gradref.runs.run import Run
from gradref.sweep import archive
from gradref.testing.conforms import assert_kernel_conforms

FILE = str(Path(__file__).parent / "kernels_to_check.py")


def checked(op: str, dtypes: str = "f32", **options: Any) -> Run:
    return check_subject(FILE, op, dtypes_of(dtypes), Options(**{"mode": "link", **options}))


def words(result: Run) -> str:
    return "; ".join(text for verdict in result.verdicts for text in verdict.words)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", *arguments], env={"COLUMNS": "200"})


# --- verdicts ------------------------------------------------------------------------------------


def test_a_right_kernel_passes_under_all_conditions() -> None:
    result = checked("right", "f32,bf16", mode="quick", conditions=CONDITIONS)
    assert {verdict.status for verdict in result.verdicts} == {"pass"}
    names = {verdict.quantity for verdict in result.verdicts}
    assert {"value", "value [special]", "lengths", "layouts", "repeated"} <= names


def test_a_call_with_poisoned_memory_leaves_the_mode_of_torch_as_it_was() -> None:
    modes: list[int] = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        modes.append(torch.get_deterministic_debug_mode())
        return torch.relu(x)

    kernel = Kernel.of("relu", {"forward": forward})
    call = Call("relu", "forward", (torch.ones(4),), poisoned=True)
    torch.set_deterministic_debug_mode("warn")
    try:
        assert not perform(kernel, call).problem
        assert torch.get_deterministic_debug_mode() == 1
    finally:
        torch.set_deterministic_debug_mode("default")
    assert modes == [1]


def test_a_wrong_kernel_is_explained_with_its_worst_input() -> None:
    result = checked("gelu", mode="quick")
    assert result.exit_code == 1
    (value,) = (verdict for verdict in result.verdicts if verdict.quantity == "value")
    assert "cancels" in words(result)
    assert "exactly 0 for x in [-1" in words(result)
    assert value.point is not None
    assert value.point.where == "left tail"
    assert "x" in value.point.place.at
    assert value.point.ulp / value.point.allowed == value.used
    assert value.errors is not None
    assert set(value.others) == {"gradref", "torch"}
    assert value.others["gradref"].worst <= 0.5001 < value.errors.worst
    assert sum(value.errors.histogram) == value.errors.count > 30_000


def test_a_function_of_a_file_is_asked_with_its_derivatives_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def relu(x):\n    return x.clamp(min=0)\n"
        "def relu_backward(grad_output, x):\n    return grad_output * 2 * (x > 0)\n"
        "from torch import relu as rectifier\n"
    )
    result = check_subject(f"{file}:relu", None, ["float32"], Options("link"))
    assert "too large by a factor of 2" in words(result)
    alone = check_subject(f"{file}:rectifier", "relu", ["float32"], Options("link"))
    assert alone.exit_code == 0
    as_another = check_subject(f"{file}:relu", "sigmoid", ["float32"], Options("link"))
    assert {verdict.operation for verdict in as_another.verdicts} == {"sigmoid"}


def test_quick_mode_has_the_cheap_conditions() -> None:
    result = checked("right", "f32", mode="quick")
    names = {verdict.quantity for verdict in result.verdicts}
    assert {"arguments untouched", "repeated", "lengths", "layouts"} <= names
    assert "two threads" not in names


def test_a_condition_that_was_not_tried_does_not_hold() -> None:
    """Views are compared with what contiguous memory gives, which is wrong already."""
    kernel = Kernel.of("silu", {"forward": lambda x: 2 * x})
    case = Case("silu", {}, "float32", "cpu")
    found = list(check(kernel, case, InProcess([kernel]), Options("quick")))
    assert "repeated" in {verdict.quantity for verdict in found}
    assert "layouts" not in {verdict.quantity for verdict in found}


def test_a_kernel_that_rounds_ties_away_does_not_round_correctly() -> None:
    """leaky_relu(-1.5) ties at 5,350 bfloat16 inputs: one judge, one rule for them."""

    def away(x: torch.Tensor) -> torch.Tensor:
        y = torch.where(x > 0, x.double(), -1.5 * x.double())
        bits = y.float().view(torch.int32)  # exact: 9 bits
        return ((bits + 0x8000) & -0x10000).view(torch.float32).to(x.dtype)

    entry = {"forward": away, "operation": "leaky_relu", "negative_slope": -1.5}
    kernel = Kernel.of("leaky_relu", entry)
    case = Case("leaky_relu", {"negative_slope": -1.5}, "bfloat16", "cpu")
    options = Options("quick", claim=0.5)
    verdicts = {v.quantity: v for v in check(kernel, case, InProcess([kernel]), options)}
    value = verdicts["value"]
    assert value.errors is not None
    assert value.status == "fail"
    assert round((1 - value.errors.correctly_rounded) * value.errors.count) > 5000


FLUSHING = {"operation": "sigmoid", "forward": flushing_sigmoid}


@pytest.mark.parametrize(("declared", "status"), [({}, "fail"), ({"subnormals": "flush"}, "pass")])
def test_flushing_subnormal_numbers_can_be_declared(declared: Any, status: str) -> None:
    kernel = Kernel.of("flushing", {**FLUSHING, **declared})
    case = Case("sigmoid", {}, "float32", "cpu")
    (value, *_) = check(kernel, case, InProcess([kernel]), Options("link"))
    assert value.status == status
    assert bool(value.notes) == bool(declared)
    if declared:
        assert "subnormal numbers flushed to 0, as declared" in value.notes[0]


def test_the_sign_of_a_zero_counts_under_the_strict_gate_alone() -> None:
    def relu(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, torch.where(x.isnan(), x, -0.0 * x.abs()))

    def tanh(x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(x.double()).to(x.dtype)
        return torch.where(y == 0, 0.0, y)

    for function, of, status in ((tanh, "tanh", "fail"), (relu, "relu", "pass")):
        kernel = Kernel.of(of, {"forward": function})
        case = Case(of, {}, "float32", "cpu")
        (plain, *_) = check(kernel, case, InProcess([kernel]), Options("link"))
        (strict, *_) = check(kernel, case, InProcess([kernel]), Options("link", gate="strict"))
        assert plain.status == "pass"
        assert strict.status == status
        assert plain.errors is not None
        assert (plain.errors.wrong_zero_sign > 0) == (status == "fail")


def test_a_crash_is_a_verdict_and_not_the_end() -> None:
    assert "crashes: SIGSEGV" in words(checked("crash"))
    assert checked("crash", "f32,bf16").exit_code == 1


def test_a_hang_is_a_verdict_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "TIME_LIMIT", 1.0)
    result = checked("hang", "f32,bf16")
    assert words(result).count("hangs: no answer in 1 s") == 2


def test_an_exception_and_a_wrong_shape_are_verdicts() -> None:
    assert "raises NotImplementedError: float64 is not implemented" in words(checked("raise"))
    assert "returns shape (" in words(checked("shape"))


def test_what_a_kernel_does_not_offer_is_recorded() -> None:
    result = checked("tanh", "bf16,f16")
    assert [v.status for v in result.verdicts if v.dtype == "bfloat16"] == ["unsupported"]
    assert "raises NotImplementedError: bfloat16" in words(result)
    assert result.exit_code == 0
    assert checked("tanh", "bf16").exit_code == 3  # nothing was judged


def test_kinks_are_torchs_or_anything_in_the_subdifferential() -> None:
    assert "another value at the kink 0: got 0.5, torch's choice is 0" in words(checked("kink"))
    assert checked("kink", kinks="subdifferential").exit_code == 0


def test_a_claim_and_a_seed_are_kept() -> None:
    strict = checked("tanh", "f16", mode="quick", claim=0.5)
    assert strict.exit_code == 0
    first, again, other = (json.dumps(checked("gelu", seed=n).as_dict()) for n in (5, 5, 6))
    assert first == again
    assert first != other


def test_expected_failures(tmp_path: Path) -> None:
    xfails = tmp_path / "xfails.txt"
    xfails.write_text("gelu.value.float32.cpu  # 1 + erf\n\n# a comment\n")
    options, dtypes = Options("link"), ["float32"]
    result = check_subject(FILE, "gelu", dtypes, options, xfails)
    (value, *others) = result.verdicts
    assert value.status == "expected failure"
    assert {verdict.status for verdict in others} <= {"pass", "unsupported"}
    assert result.exit_code == 0
    xfails.write_text("tanh.value.float32.cpu\nsilu.*")
    result = check_subject(FILE, "tanh", dtypes, options, xfails)
    assert "unexpected pass" in {verdict.status for verdict in result.verdicts}
    assert result.unused == ["silu.*"]
    assert result.exit_code == 1


def test_expected_failures_are_named_literally(tmp_path: Path) -> None:
    def half(input: torch.Tensor, target: torch.Tensor, reduction: str) -> torch.Tensor:
        return torch.nn.functional.mse_loss(input, target, reduction=reduction) / 2

    kernel = Kernel.of("mse_loss", {"function": half})
    case = Case("mse_loss", {}, "float32", "cpu")
    failing = list(check(kernel, case, InProcess([kernel]), Options("link")))
    names = {v.name for v in failing if v.status == "fail"}
    assert "mse_loss.gradient(input)_[mean].float32.cpu" in names
    for name in names:
        assert [v.name for v in failing if is_named(v, name)] == [name]
    assert {v.name for v in failing if is_named(v, "mse_loss.*_[mean].*")} == {
        v.name for v in failing if "[mean]" in v.quantity
    }
    assert not [v for v in failing if is_named(v, "mse_loss.valu?.float32.cpu")]


def test_a_layout_that_a_library_does_not_take_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a stand-in for JAX, whose arrays have no strides."""

    def from_dlpack(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_contiguous():
            raise ValueError("strides are not supported")
        return tensor

    stand_in = types.ModuleType("jax")
    vars(stand_in)["clear_caches"] = lambda: None
    monkeypatch.setitem(sys.modules, "jax", stand_in)
    dlpack = types.ModuleType("jax.dlpack")
    vars(dlpack)["from_dlpack"] = from_dlpack
    monkeypatch.setitem(sys.modules, "jax.dlpack", dlpack)
    kernel = Kernel.of("relu", {"forward": torch.relu, "library": "jax"})
    case = Case("relu", {}, "float32", "cpu")
    found = {
        v.quantity: v
        for v in check(kernel, case, InProcess([kernel]), Options("link", conditions=CONDITIONS))
    }
    assert {v.status for name, v in found.items() if name != "layouts"} == {"pass"}
    assert found["layouts"].status == "unsupported"
    assert "JAX does not take its strides" in found["layouts"].words[0]


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ('raise RuntimeError("no licence")', "RuntimeError: no licence"),
        ("import os; os.abort()", "importing it crashes: SIGABRT"),
    ],
)
def test_an_import_that_fails_only_in_its_own_process(
    tmp_path: Path, problem: str, said: str
) -> None:
    file = tmp_path / "fails.py"
    file.write_text(
        f"import multiprocessing\nif multiprocessing.parent_process(): {problem}\nrelu = abs\n"
    )
    with pytest.raises(ImportError, match=said):
        check_subject(str(file), "relu", ["float32"], Options("link"))


EXPLAINED = {
    "overflowing": "infinity for x >= 8.*: exp overflows",
    "two sides": r"for x in \[-(3|2.9).*, -2.*\] and for x in \[2.*\], and nowhere else: a branch",
    "wrong constant": "^another formula or constant, or an approximation: a relative error of 0.00",
    "mean of rows": "mean divides by the number of rows, not of elements",
    "flushed": "subnormal numbers are flushed to zero",
    "log of 0": "infinity .*: the logarithm of a probability that underflows to 0",
    "0 log 0": r"0 \* log 0",
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_a_failure_is_explained(name: str) -> None:
    result = checked(name, mode="quick")
    assert re.search(EXPLAINED[name], words(result))
    assert "clamped" not in words(result)
    assert "garbage" not in words(result)
    assert "results of" not in words(result)


# --- subjects ------------------------------------------------------------------------------------


def test_what_can_be_judged() -> None:
    assert [k.name for k in load(FILE, "silu")] == ["right", "crash", "hang", "raise", "shape"]
    assert load("torch.nn.functional", "gelu")[0].named.keys() == {"function"}
    assert load("kernels_to_check:Straight", "relu")[0].operation == "relu"
    assert load("aten::silu")[0].operation == "silu"
    module = load("torch.nn:GELU", "gelu")[0]
    assert module.settings == {"approximate": "none"}
    loss = load("torch.nn:CrossEntropyLoss", "cross_entropy")[0]
    assert loss.settings["reduction"] == "mean"
    named = load("activations", "silu")[0]
    assert set(named.named) == {"forward", "derivative", "second_derivative"}


@pytest.mark.parametrize(
    ("subject", "operation", "message"),
    [
        ("missing.py", None, "subject: got 'missing.py', wants a file that exists"),
        ("no.such.module", None, "subject: got 'no.such.module', wants a file.py, a module"),
        ("math:nothing", None, "subject: got 'math:nothing', wants an attribute of math"),
        ("json", None, "subject: got 'json' with no kernel, wants"),
        ("aten::nothing", "silu", "subject: got 'aten::nothing', wants the name of a registered"),
        (FILE, "softmax", "with no kernel for softmax"),
        ("torch.nn:SiLU", "swish", "got 'swish' (did you mean silu?), wants a name"),
    ],
)
def test_subjects_that_are_none(subject: str, operation: str | None, message: str) -> None:
    with pytest.raises((ValueError, ImportError)) as error:
        load(subject, operation)
    assert message in str(error.value)


def test_an_interrupted_check_keeps_what_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_case(label: str, of: int) -> None:
        asked.append(label)
        if len(asked) == 2:
            raise KeyboardInterrupt

    asked: list[str] = []
    options = Options("link", conditions=())
    run = check_subject(FILE, "gelu", dtypes_of("f32,f16"), options, on_case=on_case)
    assert not run.finished
    assert {verdict.dtype for verdict in run.judged} == {"float32"}
    shown = io.StringIO()
    terminal.show_kernels(Console(file=shown), run, "in brief")
    assert "interrupted: " in shown.getvalue()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"forward": 3}, "KERNELS['silu']['forward']: got int 3, wants a callable"),
        ({}, "KERNELS['silu']: got [], wants one of forward, backward"),
        ({"forward": abs, "operation": "swish"}, "KERNELS['silu']: operation: got 'swish' (did"),
        ({"forward": abs, "beta": 2}, "KERNELS['silu']: got 'beta', wants one of"),
        ({"forward": abs, "library": "mlx"}, "KERNELS['silu']['library']: got 'mlx', wants"),
        (
            {"forward": abs, "operation": "cross_entropy", "target": "both"},
            "KERNELS['silu']['target']: got 'both', wants",
        ),
        (
            {"forward": abs, "operation": "huber_loss", "delta": torch.tensor(1.0)},
            "KERNELS['silu']['delta']: got a float32 tensor of shape (), wants a number",
        ),
        (
            {"forward": abs, "contiguous": torch.tensor(True)},
            "KERNELS['silu']['contiguous']: got tensor(True), wants one of True, False",
        ),
    ],
)
def test_entries_that_are_none(entry: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        Kernel.of("silu", entry)
    assert message in str(error.value)


def test_lists_of_dtypes_and_claims() -> None:
    assert dtypes_of("bf16, f32,bfloat16") == ["bfloat16", "float32"]
    assert (ulp_of("1ulp"), ulp_of(" 0.5 ")) == (1.0, 0.5)
    with pytest.raises(ValueError, match="dtype: got 'f8', wants one of f64"):
        dtypes_of("f8")
    with pytest.raises(ValueError, match="claim: got '0.1ulp', wants a number of ulp"):
        ulp_of("0.1ulp")


# --- the command, and pytest ---------------------------------------------------------------------


def test_the_command_writes_what_it_says(tmp_path: Path) -> None:
    paths = {kind: tmp_path / f"out.{kind}" for kind in ("json", "junit", "markdown", "html")}
    options = [text for kind, path in paths.items() for text in (f"--{kind}", str(path))]
    result = invoke(FILE, "--op", "gelu", "--dtype", "f32", "--seed", "1", *options)
    assert result.exit_code == 1
    assert "cancels for x in" in result.output
    assert "not passed" in result.output
    content = json.loads(paths["json"].read_text())
    assert content["exit_code"] == 1
    assert content["environment"]["torch"] == torch.__version__
    suite = ElementTree.parse(paths["junit"]).getroot()
    assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure")) > 0
    assert "| f | f32 |" in paths["markdown"].read_text()
    page = paths["html"].read_text()
    assert "cancels for x in" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_kernels_are_certified_too(tmp_path: Path) -> None:
    arguments = ["certify", "right", "--module", FILE, "--dtype", "float16", "--out", str(tmp_path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (path,) = tmp_path.iterdir()
    (certificate,) = archive.read(path)
    assert (certificate.subject, certificate.grade) == ("right", "proved")
    assert certificate.total.inputs == 2**16
    assert certificate.total.worst <= 1.0
    assert (
        CliRunner().invoke(app, [*arguments, "--claim", "0.5"]).exit_code == 1
    )  # torch rounds twice


def test_usage_errors() -> None:
    assert invoke("missing.py").exit_code == 2
    assert invoke(FILE, "--claim", "nothing").exit_code == 2
    assert invoke(FILE, "--dtype", "f8").exit_code == 2
    assert invoke(FILE, "--device", "nowhere").exit_code == 3


def test_pytest_judges_marked_kernels(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        textwrap.dedent(
            """
            import torch, gradref

            @gradref.conforms("relu", dtypes=["f32", "bf16"])
            def relu(x):
                return torch.clamp(x, min=0)

            @gradref.conforms("sigmoid", dtypes=["bf16"], mode="link")
            def flat(x):
                return torch.zeros_like(x)

            def test_fixture(assert_conforms):
                assert_conforms({"forward": torch.tanh}, "tanh", dtypes=["f32"], mode="link")
            """
        )
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 failed, 3 passed" in run.stdout, run.stdout
    assert "does not conform to sigmoid:\nf bf16: every result is 0" in run.stdout


@pytest.mark.parametrize(
    ("given", "problem", "message"),
    [
        ({"dtypes": "f8"}, ValueError, "dtype: got 'f8', wants one of f64"),
        ({"max_ulp": 0.1}, ValueError, "max_ulp: got '0.1', wants a number of ulp"),
        ({"mode": "fast"}, ValueError, "mode: got 'fast', wants one of link, quick"),
        ({"max_ulps": 1}, ValueError, "got 'max_ulps', wants one of"),
    ],
)
def test_a_mark_says_at_once_what_it_does_not_take(
    given: dict[str, Any], problem: type[Exception], message: str
) -> None:
    with pytest.raises(problem, match=message):
        gradref.conforms("relu", **given)(torch.relu)


def test_a_mark_takes_dtypes_in_any_form() -> None:
    for dtypes in ("bf16,f32", ["bfloat16", "f32"], [torch.bfloat16, torch.float32]):
        marked = gradref.conforms("relu", dtypes=dtypes)(lambda x: torch.clamp(x, min=0))
        (conformance,) = marked.__gradref_conforms__
        assert conformance.dtypes == ("bfloat16", "float32")
    with pytest.raises(TypeError, match="operation: got .*, wants the name of an operation"):
        gradref.conforms(torch.nn.functional.gelu)  # type: ignore[arg-type]  # without parentheses


def test_marks_and_assertions() -> None:
    with pytest.raises(ValueError, match=r"got 'swish' \(did you mean silu\?\), wants a name"):
        gradref.conforms("swish")
    with pytest.raises(ValueError, match="mode: got 'fast', wants one of link, quick"):
        assert_kernel_conforms(torch.tanh, "tanh", mode="fast")
    with pytest.raises(AssertionError, match="these are the results of relu"):
        assert_kernel_conforms(lambda x: torch.clamp(x, min=0), "silu")
    assert_kernel_conforms(
        torch.nn.functional.mse_loss, "mse_loss", dtypes=["f64"], grad=True, reduction="sum"
    )


def test_a_kernel_of_a_test_that_ends_its_process_is_a_failure() -> None:
    scale = torch.tensor(1.0)  # in a closure, which no other process could import

    def deadly(x: torch.Tensor) -> torch.Tensor:
        os._exit(7) if x.numel() > 5 else None
        return x * scale

    with pytest.raises(AssertionError, match="its process ended with status 7"):
        assert_kernel_conforms(deadly, "relu", mode="link")


def test_a_kernel_that_cannot_be_copied_is_judged_in_this_process() -> None:
    lock, seen = threading.Lock(), os.getpid()

    def relu(x: torch.Tensor) -> torch.Tensor:
        with lock:
            assert os.getpid() == seen
            return torch.clamp(x, min=0)

    assert_kernel_conforms(relu, "relu", mode="link")
