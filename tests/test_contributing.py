"""CONTRIBUTING.md, followed to the letter in a copy of the checkout."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTION = (ROOT / "CONTRIBUTING.md").read_text().partition("## Check it")[0]
TESTS = "tests/test_contracts.py tests/test_facts.py"

QUICKLY = {
    "gradref verify": "",
    "pytest": f"-n 0 {TESTS}",
    "gradref show": "",
    "python docs/build.py": "--only conventions",
}
"""What is added to a command so that it takes seconds: less of the same."""

STALE = """
import json, sys
sys.path.insert(0, "tests")
from docs.accuracy import stale, wanted
print(json.dumps([[sweep.record.name for sweep in sweeps] for sweeps in (stale(), wanted())]))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what git knows of this checkout, and of what is about to be added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    known = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(lambda name: (ROOT / name).is_file(), known.stdout.splitlines()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(command: list[str], checkout: Path) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "GRADREF_CACHE": str(checkout / "truths"),
        "PYTEST_ADDOPTS": "",
    }
    result = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-4000:]}{result.stderr[-4000:]}"
    return result.stdout


def as_it_is_typed(command: str, family: str) -> list[str]:
    """A command of the document for this interpreter, made quick."""
    (start,) = (start for start in QUICKLY if command.startswith(start))
    program, *arguments = shlex.split(f"{command} {QUICKLY[start]}")
    if program == "pytest":
        arguments.append(family)  # whose doctests these are
    return [sys.executable, *(() if program == "python" else ("-m", program)), *arguments]


def added(text: str, declaration: str, names: list[str]) -> str:
    """A family with one more declaration, and with its names among the public ones."""
    start = "__all__ = [\n"
    head, public, tail = re.split(
        rf"{re.escape(start)}(.*?)(?=^\])", text, maxsplit=1, flags=re.M | re.S
    )
    lines = sorted([*public.splitlines(), *(f'    "{name}",' for name in names)])
    return "".join([head, start, *(f"{line}\n" for line in lines), tail, "\n\n", declaration])


def test_a_function_is_one_file_and_one_command(checkout: Path) -> None:
    (family,) = set(re.findall(r"^1\. .*`(\S+\.py)`", SECTION, re.M))
    declaration = re.findall(r"```python\n(.*?)```", SECTION, re.S)[0]
    commands = re.findall(r"```sh\n(.*?)```", SECTION, re.S)[0].splitlines()
    names = re.findall(r"^def (\w+)", declaration, re.M)
    path = checkout / family
    assert names[0] not in path.read_text(), "CONTRIBUTING.md adds what there is: take another"
    path.write_text(added(path.read_text(), declaration, names))

    assert len(commands) == len(QUICKLY)
    said = {
        start: run(as_it_is_typed(line.partition("#")[0], family), checkout)
        for start, line in zip(QUICKLY, commands, strict=True)
    }
    assert re.search(r"^PASS: \d+ verdicts", said["gradref verify"], re.M)
    assert re.search(r"\b[2-9]\d passed", said["pytest"])
    assert (checkout / f"{names[0]}.svg").stat().st_size > 1000
    assert f"| `{names[0]}` |" in (checkout / "docs" / "conventions.md").read_text()

    run([sys.executable, "-m", "ruff", "check", family], checkout)
    run([sys.executable, "-m", "ruff", "format", "--check", family], checkout)
    stale, wanted = json.loads(run([sys.executable, "-c", STALE], checkout))
    assert set(stale) == {names[0]}
    assert stale == [name for name in wanted if name == names[0]]
