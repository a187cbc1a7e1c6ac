"""Change one thing at a time in our own formulas and measuring code: does a check notice?

    pip install -c constraints.txt cosmic-ray pytest-cov
    python tests/mutation/run.py [--sample N] [--seed S] [MODULE...]

The operators are those of cosmic-ray. The mutants are written into a clone of the last commit,
never into this checkout, and each is checked in a fork that has torch imported already: first the
examples of the module, then the judge, then tests, up to the first that fails; of the judge's own
modules those tests that run a changed line. ``results.md`` is the outcome; what a person writes
into its column ``reason`` stays where the survivor does.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import functools
import importlib.util
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
MEMORY = 16 << 30
"""Address space of a check, in bytes: a mutant may ask for all there is."""

FACTS = "tests/test_facts.py"
JUDGE = "tests/test_judge.py"
TRUTH = "tests/test_truth.py"
SWEEP = "tests/test_sweep.py -k not any_number"
TALLY = "tests/test_sweep.py -k tall or quantile"
JUDGING = """tests/test_judge.py tests/test_reported.py tests/test_kernel_contract.py
    tests/test_check.py tests/test_contenders.py tests/test_planted.py tests/test_sweep.py
    tests/test_mutants.py tests/test_hostile.py"""
"""What tests the judge: of it those tests are run that execute a changed line."""

COVERING = "covering"
FORMULAS = """tests/test_errorfree.py tests/test_textbook.py tests/test_properties.py
    tests/test_contracts.py tests/test_boundary.py -k not(docstring or blocks)"""
CHECKS: dict[str, tuple[str, ...]] = {
    "activations/_gated.py": (f"{FACTS} -k elu or silu", "judge", FORMULAS),
    "activations/_piecewise.py": (f"{FACTS} -k elu or softplus", "judge", FORMULAS),
    "activations/_rowwise.py": ("judge", FORMULAS),
    "activations/_sigmoidal.py": (f"{FACTS} -k sigmoid or tanh or heaviside", "judge", FORMULAS),
    "losses/_classification.py": ("judge", FORMULAS),
    "losses/_information.py": ("judge", FORMULAS),
    "losses/_regression.py": ("judge", FORMULAS),
    "gradref/formula/errorfree.py": (
        "tests/test_errorfree.py",
        "judge sigmoid elu leaky_relu",
        "judge activations",
        FORMULAS,
    ),
    "gradref/formula/float32.py": ("tests/test_errorfree.py", "judge tanh elu"),
    **{
        f"gradref/{package}/{path.name}": (COVERING,)
        for package in ("judge", "contenders")
        for path in sorted((HERE.parents[1] / "gradref" / package).glob("[!_]*.py"))
    },
    "gradref/sweep/settle.py": (SWEEP,),
    "gradref/sweep/tally.py": (TALLY, SWEEP),
    "gradref/truth/jets.py": (TRUTH, SWEEP, FACTS, "judge sigmoid elu", JUDGE),
}
"""The modules under test and, after their examples, the checks of each: tests, or the judge of the
operations that are named, or else of those that the module declares, or what is ``COVERING``."""

OPERATORS = (
    "ReplaceBinaryOperator_(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)_(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)",
    "ReplaceBinaryOperator_Bit(And|Or|Xor)_Bit(And|Or|Xor)",
    "ReplaceComparisonOperator_(Is|IsNot)_(Is|IsNot)",
    "ReplaceComparisonOperator_(Eq|NotEq|[LG]tE?)_(Eq|NotEq|[LG]tE?)",
    "ReplaceUnaryOperator_.*|AddNot|ReplaceTrueWithFalse|ReplaceFalseWithTrue|NumberReplacer",
    "ReplaceAndWithOr|ReplaceOrWithAnd|ReplaceBreakWithContinue|ReplaceContinueWithBreak",
    "RemoveDecorator|ZeroIterationForLoop",
)
"""Without what is only a TypeError, like a float that is shifted, and what replaces names."""

Span = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Mutant:
    """A changed module, the change in one line, and the lines that it changes."""

    source: str
    change: str
    lines: frozenset[int]


# --- mutants -------------------------------------------------------------------------------------


def positions(source: str) -> list[tuple[str, int]]:
    """An operator of cosmic-ray and the occurrence that it changes, for every mutation."""
    from cosmic_ray.ast import Visitor, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    wanted = re.compile("core/(" + "|".join(OPERATORS) + ")")
    skipped = list(spans(source))
    found: list[tuple[str, int]] = []

    class Collect(Visitor):  # type: ignore[misc]  # cosmic-ray has no types
        def __init__(self, name: str) -> None:
            self.name, self.operator, self.count = name, get_operator(name)(), 0

        def visit(self, node: Any) -> Any:
            for start, _ in self.operator.mutation_positions(node):
                if not any(low <= start < high for low, high in skipped):
                    found.append((self.name, self.count))
                self.count += 1
            return node

    tree = get_ast(source)
    for name in operator_names():
        if wanted.fullmatch(name):
            Collect(name).walk(tree)
    return found


def spans(source: str) -> Iterator[Span]:
    """Where nothing is worth a change: annotations, ``Literal[...]``, messages, test cases, and
    ``strict=True``, which has no effect where lengths agree.
    """
    lines = source.splitlines()

    def at(line: int, column: int) -> tuple[int, int]:
        return line, len(lines[line - 1].encode()[:column].decode())

    for node in ast.walk(ast.parse(source)):
        parts: list[ast.expr | None] = []
        if isinstance(node, ast.arg | ast.AnnAssign):
            parts.append(node.annotation)
        if isinstance(node, ast.FunctionDef):
            parts.append(node.returns)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("Literal", "Callable"):
            parts.append(node)
        if isinstance(node, ast.JoinedStr):
            parts.append(node)
        if isinstance(node, ast.keyword) and node.arg in ("cases", "strict"):
            parts.append(node.value)
        for part in filter(None, parts):
            assert part.end_lineno is not None
            assert part.end_col_offset is not None
            start = at(part.lineno, part.col_offset)
            yield start, at(part.end_lineno, part.end_col_offset)


def mutants(source: str, sample: int | None, seed: int) -> list[Mutant]:
    """A random sample of the mutants of a module that compile and are not written twice."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    found = positions(source)
    random.Random(seed).shuffle(found)
    seen = {ast.dump(ast.parse(source))}
    chosen: list[Mutant] = []
    for name, occurrence in found:
        if len(chosen) == sample:
            break
        changed = mutate_code(source, get_operator(name)(), occurrence)
        try:
            tree = ast.dump(ast.parse(changed))
            compile(changed, "mutant", "exec")
        except SyntaxError:
            continue
        if tree not in seen:
            seen.add(tree)
            lines = frozenset(
                line for a, b, _, _ in differing(source, changed) for line in range(a + 1, b + 1)
            )
            chosen.append(Mutant(changed, in_one_line(source, changed), lines))
    return chosen


def differing(before: str, after: str) -> Iterator[tuple[int, int, int, int]]:
    """Where two sources differ: from and up to which lines of the one, and of the other."""
    lines = (before.splitlines(), after.splitlines())
    for tag, a, b, c, d in difflib.SequenceMatcher(None, *lines, autojunk=False).get_opcodes():
        if tag != "equal":
            yield a, b, c, d


def in_one_line(before: str, after: str) -> str:
    """The function and the lines that differ, without line numbers: they would not last."""
    old, new = before.splitlines(), after.splitlines()
    where = ""
    out: dict[str, list[str]] = {"-": [], "+": []}
    for a, b, c, d in differing(before, after):
        out["-"] += [line.strip() for line in old[a:b]]
        out["+"] += [spaced(line.strip()) for line in new[c:d]]
        where = where or enclosing(before, a + 1)
    return f"{where}: `{' '.join(out['-'])}` → `{' '.join(out['+'])}`"


def spaced(line: str) -> str:
    """A line without the space that cosmic-ray writes before a number."""
    return re.sub(r"(?<=[(\[]) +|(?<=\w=) +", "", re.sub(" +", " ", line))


def enclosing(source: str, line: int) -> str:
    """The name of the innermost function or class around a line, decorators included."""
    name = "module"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if first <= line <= (node.end_lineno or 0):
                name = node.name
    return name


# --- checks --------------------------------------------------------------------------------------


def stages(module: str, lines: frozenset[int]) -> list[tuple[str, Callable[[], bool]]]:
    """The checks of changed lines of a module, cheapest first; each says whether all is well."""
    name = module.removesuffix(".py").replace("/", ".")
    checks: list[tuple[str, Callable[[], bool]]] = [("examples", functools.partial(examples, name))]
    for command in CHECKS[module]:
        if command == COVERING:
            chosen = covering(module, lines)
            checks.append(("covering tests", functools.partial(passing, chosen)))
            continue
        first, *rest = command.split()
        passes = functools.partial(judged, name, rest)
        checks.append((first, passes if first == "judge" else functools.partial(tests, command)))
    return checks


def examples(name: str) -> bool:
    """The examples of the docstrings."""
    import doctest

    import torch

    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE
    return doctest.testmod(module, extraglobs={"torch": torch}, optionflags=flags).failed == 0


def judged(name: str, chosen: list[str]) -> bool:
    """The gates of the judge, for the operations that a module declares or those named."""
    from gradref.declare.registry import operations
    from gradref.judge.verdict import DTYPES
    from gradref.runs.verify import jobs

    records = operations(*chosen)
    if not chosen:
        records = [record for record in records if record.module == name]
    selected = jobs(records, DTYPES, ["cpu"], "smoke", 0, (0, 1, 2))
    return all(verdict.passed for job in selected for verdict in job())


def tests(command: str) -> bool:
    """The tests of some files, perhaps those with certain words."""
    files, _, words = command.partition(" -k ")
    return passing([*files.split(), *(["-k", words] if words else [])])


def passing(chosen: Sequence[str]) -> bool:
    """Run some tests by pytest, up to the first failure."""
    import pytest

    quiet = ["-n", "0", "-x", "-q", "-p", "no:cacheprovider", "--device", "cpu"]
    quiet += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what is imported before
    return pytest.main([*quiet, *chosen]) == 0


@functools.cache
def executed() -> dict[str, dict[int, frozenset[str]]]:
    """The tests of the judge that execute each line of each module, in this process."""
    from coverage import CoverageData

    words = ["--cov=gradref", "--cov-context=test", "--cov-report=", "-q", "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "pytest", *words, *JUDGING.split()], check=True)
    data = CoverageData()
    data.read()
    here = Path.cwd()
    return {
        str(Path(name).relative_to(here)): {
            line: frozenset(test.partition("|")[0].partition("@")[0] for test in tests if test)
            for line, tests in data.contexts_by_lineno(name).items()
        }
        for name in data.measured_files()
    }


def covering(module: str, lines: frozenset[int]) -> list[str]:
    """The tests that execute one of some lines; all, of what is executed at import."""
    by_line = executed()[module]
    found = frozenset().union(*(by_line.get(line, frozenset()) for line in lines))
    return sorted(found or frozenset().union(*by_line.values()))


def check(module: str, lines: frozenset[int], limit: int, log: Path) -> tuple[str, float]:
    """What notices that a module is as it is now (nothing: ""), in a fork; and the time it took."""
    checks, start = stages(module, lines), time.monotonic()
    pid = os.fork()
    if pid == 0:
        in_fork(checks, limit, log)
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - start
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "time" if number == signal.SIGALRM else signal.Signals(number).name, seconds
    code = os.WEXITSTATUS(status)
    return checks[code - 1][0] if code else "", seconds


def in_fork(checks: list[tuple[str, Callable[[], bool]]], limit: int, log: Path) -> NoReturn:
    """Import our packages anew and run the checks; the exit status is the one that fails."""
    code = 0
    try:
        signal.alarm(limit)  # its default action ends the process, whatever that is at
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        for _, passes in checks:
            code += 1
            if not passes():
                break
        else:
            code = 0
    except BaseException as problem:  # also a SystemExit is the mutant's
        print(f"{type(problem).__name__}: {problem}", flush=True)
        code = max(code, 1)
    finally:
        sys.stdout.flush()
        os._exit(code)


# --- results -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of the mutants of a module."""

    tried: int
    killers: dict[str, int]
    survivors: tuple[str, ...]


UNCHANGED: dict[tuple[str, ...], float] = {}


def seconds_unchanged(checks: tuple[str, ...], module: str, log: Path) -> float:
    """How long checks take of a module as it is, which has to pass them; of each module once."""
    if checks not in UNCHANGED:
        noticed, UNCHANGED[checks] = check(module, frozenset(), 900, log)
        if noticed:
            words = log.read_text()[-2000:]
            raise SystemExit(f"{module} fails {noticed} without a change:\n{words}")
    return UNCHANGED[checks]


def try_module(clone: Path, module: str, sample: int | None, seed: int) -> Outcome:
    """Every chosen mutant of a module against its checks; unchanged it has to pass them."""
    path, log = clone / module, clone.parent / "log"
    source = path.read_text()
    limit = int(20 + 2 * seconds_unchanged(CHECKS[module], module, log))
    killers: dict[str, int] = {}
    survivors: list[str] = []
    chosen = mutants(source, sample, seed)
    for mutant in chosen:
        path.write_text(mutant.source)
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        noticed, seconds = check(module, mutant.lines, limit, log)
        if noticed:
            killers[noticed] = killers.get(noticed, 0) + 1
        else:
            survivors.append(mutant.change)
        print(f"{module}: {noticed or 'SURVIVES':24} {seconds:5.1f} s  {mutant.change}", flush=True)
    path.write_text(source)
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
    return Outcome(len(chosen), killers, tuple(sorted(survivors)))


def write(path: Path, outcomes: dict[str, Outcome], how: str) -> None:
    """The report; modules that were not run keep their rows, survivors their reasons."""
    before = path.read_text().splitlines() if path.exists() else []
    rows = {row[0]: row for row in map(cells, before) if len(row) == 6 and row[0] in CHECKS}
    kept = [row for row in map(cells, before) if len(row) == 3 and row[0] in CHECKS]
    reasons = {(row[0], row[1]): row[2] for row in kept}
    survivors = [row for row in kept if row[0] not in outcomes]
    for module, outcome in outcomes.items():
        killed = outcome.tried - len(outcome.survivors)
        share = f"{killed / outcome.tried:.0%}" if outcome.tried else ""
        by = ", ".join(f"{name} {count}" for name, count in sorted(outcome.killers.items()))
        rows[module] = [module, str(outcome.tried), str(killed), str(outcome.tried - killed)]
        rows[module] += [share, f"{by} ({how})"]
        for change in outcome.survivors:
            cell = change.replace("|", "\\|")
            survivors.append([module, cell, reasons.get((module, cell), "")])
    tried, killed = (sum(int(row[i]) for row in rows.values()) for i in (1, 2))
    same = sum(row[2].startswith("equivalent") for row in survivors)
    text = [
        "# Mutants of our own code",
        "",
        "Written by `tests/mutation/run.py`; only the reasons are by hand.",
        "",
        f"{killed} of {tried} mutants are killed, {killed / tried:.1%}. Of the survivors {same}",
        "are equivalent: they change nothing that is promised. Of all others",
        f"{killed / (tried - same):.1%} are killed.",
        "",
        "| module | tried | killed | survived | share | killed by |",
        "|---|---|---|---|---|---|",
        *("| " + " | ".join(rows[module]) + " |" for module in CHECKS if module in rows),
        "",
        "| module | survivor | reason |",
        "|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in sorted(survivors)),
    ]
    path.write_text("\n".join(text) + "\n")


def cells(line: str) -> list[str]:
    """The cells of a row of a table; none of another line."""
    parts = re.split(r"(?<!\\)\|", line)
    return [cell.strip() for cell in parts[1:-1]]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sample", type=int, help="mutants per module; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="default: all of them")
    given = parser.parse_args()
    modules = given.modules or list(CHECKS)
    if unknown := set(modules) - set(CHECKS):
        parser.error(f"{', '.join(sorted(unknown))}: wants one of {', '.join(CHECKS)}")
    if not all(map(importlib.util.find_spec, ("cosmic_ray", "pytest_cov"))):
        parser.error("needs more: pip install -c constraints.txt cosmic-ray pytest-cov")
    with tempfile.TemporaryDirectory(prefix="gradref-mutation-") as directory:
        clone = Path(directory) / "clone"
        subprocess.run(["git", "clone", "-q", str(HERE.parents[1]), str(clone)], check=True)
        os.chdir(clone)
        sys.path[0] = str(clone)
        os.environ["PYTHONPATH"] = str(clone)
        import_others(clone)
        how = f"seed {given.seed}, {'all' if given.sample is None else given.sample}"
        for module in modules:
            outcome = try_module(clone, module, given.sample, given.seed)
            write(HERE / "results.md", {module: outcome}, how)


def import_others(clone: Path) -> None:
    """Import what every check needs and no mutant changes, so that a fork has it already."""
    import torch

    torch.set_num_threads(1)
    for name in ("mpmath", "hypothesis", "pytest", "xdist.plugin", "pytest_benchmark.plugin"):
        importlib.import_module(name)
    import activations
    import losses

    for package in (activations, losses):
        assert Path(str(package.__file__)).is_relative_to(clone), package.__file__
    for name in list(sys.modules):
        if name.partition(".")[0] in ("activations", "losses", "gradref"):
            del sys.modules[name]


if __name__ == "__main__":
    main()
