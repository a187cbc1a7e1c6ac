"""Options and fixtures shared by tests and benchmarks: device, dtype, seed."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import settings

settings.register_profile("gradref", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("gradref")

DTYPES = ("float64", "float32", "float16", "bfloat16")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradref")
    group.addoption("--device", action="append", help="cpu, cuda, ...; default: cpu and cuda")
    group.addoption("--dtype", action="append", choices=DTYPES, help="default: all four")
    group.addoption("--seed", default="0", help="seed of the random inputs, or 'random'")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--seed") == "random":
        config.option.seed = str(random.SystemRandom().randrange(2**31))
    torch.set_num_threads(1)


def pytest_report_header(config: pytest.Config) -> str:
    return f"gradref seed: {config.getoption('--seed')} (replay with --seed)"


def devices(config: pytest.Config) -> list[str]:
    """What is asked for, else the CPU and whatever accelerator there is."""
    present = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return config.getoption("--device") or present


def dtypes(config: pytest.Config) -> list[str]:
    return config.getoption("--dtype") or list(DTYPES)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, chosen in (("dtype", dtypes), ("device", devices)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, chosen(metafunc.config))


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--seed"))


@pytest.fixture(autouse=True)
def _doctest_names(request: pytest.FixtureRequest) -> None:
    """The examples of a docstring may use torch without importing it."""
    if "doctest_namespace" in request.fixturenames:
        request.getfixturevalue("doctest_namespace")["torch"] = torch


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A closing table: the worst error of every function, in ulp."""
    worst: dict[tuple[str, str], dict[str, float]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name == "verdict":
                    operation, order, dtype, ours = value
                    cell = worst.setdefault((operation, order), {})
                    cell[dtype] = max(cell.get(dtype, 0.0), ours)
    if not worst:
        return
    terminalreporter.section("worst error in ulp")
    terminalreporter.line(f"{'':39}" + "".join(f"{dtype:>10}" for dtype in DTYPES))
    for (operation, order), cell in sorted(worst.items()):
        numbers = "".join(f"{cell[d]:>10.4g}" if d in cell else f"{'':10}" for d in DTYPES)
        terminalreporter.line(f"{operation:34}{order:5}{numbers}")
