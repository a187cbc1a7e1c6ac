"""Ways to change a number behind the back of a digest, and a digest without changing a number.

In each program f(1.5) becomes another number, or stays the same, when the word CHANGE is replaced
by one text or another. Files of a package are separated by lines like ``--- name.py``.
"""

from __future__ import annotations

import importlib
import itertools
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gradref.sweep.digest import reached, source_digest

TWO_OR_THREE = ("2.0", "3.0")

SEEN = {
    "a constant": ("K = CHANGE\ndef f(x): return K * x", *TWO_OR_THREE),
    "a global assigned later": ("K = 1.0\ndef f(x): return K * x\nK = CHANGE", *TWO_OR_THREE),
    "a constant behind two modules": (
        "from pk import a\ndef f(x): return a.b.K * x\n--- a.py\nfrom pk import b\n"
        "--- b.py\nK = CHANGE",
        *TWO_OR_THREE,
    ),
    "lambdas of a list comprehension": (
        "FS = [lambda x, k=k: k * x for k in (CHANGE,)]\ndef f(x): return FS[0](x)",
        *TWO_OR_THREE,
    ),
    "one of two lambdas on a line": (
        "A, B = (lambda x: 2 * x), (lambda x: 3 * x)\nT = {'a': CHANGE}\n"
        "def f(x): return T['a'](x)",
        "A",
        "B",
    ),
    "a lambda that is no statement of its own": (
        "from functools import partial\nG = partial(\n    lambda k, x: k CHANGE x,\n    2.0)\n"
        "def f(x): return G(x)",
        "*",
        "+",
    ),
    "the argument of a decorator": (
        """
        import functools
        def times(k):
            def wrap(g):
                @functools.wraps(g)
                def inner(x): return k * g(x)
                return inner
            return wrap
        @times(CHANGE)
        def f(x): return x
        """,
        *TWO_OR_THREE,
    ),
    "the body of a decorator": (
        """
        import functools
        def twice(g):
            @functools.wraps(g)
            def inner(x): return CHANGE * g(x)
            return inner
        @twice
        def g(x): return x
        def f(x): return g(x)
        """,
        *TWO_OR_THREE,
    ),
    "the decorator of a function within a function": (
        """
        def twice(g): return lambda x: CHANGE * g(x)
        def f(x):
            @twice
            def g(x): return x
            return g(x)
        """,
        *TWO_OR_THREE,
    ),
    "the decorator of a method": (
        """
        import functools
        def twice(g):
            @functools.wraps(g)
            def inner(self, x): return CHANGE * g(self, x)
            return inner
        class C:
            @twice
            def g(self, x): return x
        def f(x): return C().g(x)
        """,
        *TWO_OR_THREE,
    ),
    "a function in a cache": (
        "import functools\n@functools.cache\ndef g(x): return CHANGE * x\ndef f(x): return g(x)",
        *TWO_OR_THREE,
    ),
    "a function for a type": (
        """
        import functools
        @functools.singledispatch
        def g(x): return x
        @g.register
        def _(x: float): return CHANGE * x
        def f(x): return g(x)
        """,
        *TWO_OR_THREE,
    ),
    "a default that is a function": (
        "def g(x): return CHANGE * x\ndef f(x, g=g): return g(x)",
        *TWO_OR_THREE,
    ),
    "the default of a method": (
        "K = CHANGE\nclass C:\n    def g(self, x, k=K): return k * x\ndef f(x): return C().g(x)",
        *TWO_OR_THREE,
    ),
    "the attribute of a function": (
        "def g(x): return g.k * x\ng.k = CHANGE\ndef f(x): return g(x)",
        *TWO_OR_THREE,
    ),
    "the attribute of a class": ("class C: k = CHANGE\ndef f(x): return C.k * x", *TWO_OR_THREE),
    "a private attribute from a global": (
        "K = CHANGE\nclass C:\n    _k = K\n    def g(self, x): return self._k * x\n"
        "def f(x): return C().g(x)",
        *TWO_OR_THREE,
    ),
    "a private attribute assigned later": (
        "class C:\n    _k = 1.0\n    def g(self, x): return self._k * x\nC._k = CHANGE\n"
        "def f(x): return C().g(x)",
        *TWO_OR_THREE,
    ),
    "a private class within a class": (
        """
        K = CHANGE
        class C:
            class _D:
                def g(self, x): return K * x
            def g(self, x): return self._D().g(x)
        def f(x): return C().g(x)
        """,
        *TWO_OR_THREE,
    ),
    "a method put on a class": (
        "class C: pass\ndef g(self, x): return CHANGE * x\nC.g = g\ndef f(x): return C().g(x)",
        *TWO_OR_THREE,
    ),
    "the default factory of a field": (
        """
        from dataclasses import dataclass, field
        def k(): return CHANGE
        @dataclass
        class C:
            k: float = field(default_factory=k)
        def f(x): return C().k * x
        """,
        *TWO_OR_THREE,
    ),
    "a metaclass": (
        "class M(type):\n    def __call__(cls, x): return CHANGE * x\n"
        "class C(metaclass=M): pass\ndef f(x): return C(x)",
        *TWO_OR_THREE,
    ),
    "a descriptor": (
        "class D:\n    def __get__(self, o, t): return CHANGE\nclass C: k = D()\n"
        "def f(x): return C().k * x",
        *TWO_OR_THREE,
    ),
    "a cached property": (
        "import functools\nK = CHANGE\nclass C:\n    @functools.cached_property\n"
        "    def k(self): return K\ndef f(x): return C().k * x",
        *TWO_OR_THREE,
    ),
    "the state of an instance": (
        "class C:\n    def __init__(self, k): self.k = k\nc = C(CHANGE)\ndef f(x): return c.k * x",
        *TWO_OR_THREE,
    ),
    "the slots of an instance": (
        "class C:\n    __slots__ = ('k',)\n    def __init__(self, k): self.k = k\nc = C(CHANGE)\n"
        "def f(x): return c.k * x",
        *TWO_OR_THREE,
    ),
    "a function in an instance": (
        "class C: pass\nc = C(); c.g = lambda x: CHANGE * x\ndef f(x): return c.g(x)",
        *TWO_OR_THREE,
    ),
    "a callable instance": (
        "class C:\n    def __call__(self, x): return CHANGE * x\nc = C()\ndef f(x): return c(x)",
        *TWO_OR_THREE,
    ),
    "a bound method": (
        "class C:\n    def __init__(self, k): self.k = k\n    def g(self, x): return self.k * x\n"
        "g = C(CHANGE).g\ndef f(x): return g(x)",
        *TWO_OR_THREE,
    ),
    "the method of a dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass C:\n    k: float\n"
        "    def g(self, x): return self.k CHANGE x\nc = C(2.0)\ndef f(x): return c.g(x)",
        "*",
        "+",
    ),
    "the method of a named tuple": (
        "from typing import NamedTuple\nclass T(NamedTuple):\n    k: float\n"
        "    def g(self, x): return self.k CHANGE x\nt = T(2.0)\ndef f(x): return t.g(x)",
        "*",
        "+",
    ),
    "the method of a float": (
        "class T(float):\n    def __mul__(self, x): return CHANGE * x\nt = T(1.0)\n"
        "def f(x): return t * x",
        *TWO_OR_THREE,
    ),
    "the state of a dict": (
        "class T(dict): pass\nt = T(); t.k = CHANGE\ndef f(x): return t.k * x",
        *TWO_OR_THREE,
    ),
    "a member of an enum": (
        "from enum import Enum\nclass E(Enum):\n    A = 2.0\n    B = 3.0\nK = E.CHANGE\n"
        "def f(x): return K.value * x",
        "A",
        "B",
    ),
    "a namespace": (
        "from types import SimpleNamespace\nN = SimpleNamespace(g=lambda x: CHANGE * x)\n"
        "def f(x): return N.g(x)",
        *TWO_OR_THREE,
    ),
    "functions in a container": (
        "from collections import deque\nQ = deque([lambda x: CHANGE * x])\n"
        "def f(x): return Q[0](x)",
        *TWO_OR_THREE,
    ),
    "a tensor": (
        "import torch\nK = torch.tensor(CHANGE, dtype=torch.float64)\n"
        "def f(x): return float(K * x)",
        "1.00000001",
        "1.00000002",
    ),
    "a long array": (
        "import numpy as np\nK = np.arange(3000.0); K[1500] = CHANGE\n"
        "def f(x): return float(K[1500] * x)",
        *TWO_OR_THREE,
    ),
    "an alias of a builtin": (
        "import math\nE = math.CHANGE\ndef f(x): return E(x)",
        "exp",
        "sin",
    ),
    "an alias of another package's function": (
        "import statistics\nE = statistics.CHANGE\ndef f(x): return E([x, 1, 10])",
        "mean",
        "median",
    ),
    "an alias of another package": (
        "import CHANGE as xp\ndef f(x): return float(xp.remainder(x, 1))",
        "math",
        "numpy",
    ),
    "two functions of one name": (
        "from pk import a, b\ndef f(x): return CHANGE\n--- a.py\ndef g(x): return x\n"
        "--- b.py\ndef g(x): return 3 * x",
        "a.g(x) - b.g(2 * x)",
        "b.g(x) - a.g(2 * x)",
    ),
    "a module in a container": (
        "from pk import a\nM = {'a': a}\ndef f(x): return M['a'].g(x)\n"
        "--- a.py\ndef g(x): return CHANGE * x",
        *TWO_OR_THREE,
    ),
    "getattr of a module": (
        "from pk import a\ndef f(x): return getattr(a, 'g')(x)\n"
        "--- a.py\ndef g(x): return CHANGE * x",
        *TWO_OR_THREE,
    ),
    "a module by a local name": (
        "from pk import a\ndef f(x):\n    m = a\n    return m.g(x)\n"
        "--- a.py\ndef g(x): return CHANGE * x",
        *TWO_OR_THREE,
    ),
    "an import in the function": (
        "def f(x):\n    from pk.a import g\n    return g(x)\n--- a.py\ndef g(x): return CHANGE * x",
        *TWO_OR_THREE,
    ),
    "an import of a module in the function": (
        "def f(x):\n    import pk.a as q\n    return q.g(x)\n--- a.py\ndef g(x): return CHANGE * x",
        *TWO_OR_THREE,
    ),
    "an import of a module from a package in the function": (
        "def f(x):\n    from pk import a\n    return a.g(x)\n--- a.py\ndef g(x): return CHANGE * x",
        *TWO_OR_THREE,
    ),
    "a lambda that exec has made": ("exec('f = lambda x: CHANGE * x')", *TWO_OR_THREE),
    "a function that exec has made": (
        "exec('def g(x): return CHANGE * x')\ndef f(x): return g(x)",
        *TWO_OR_THREE,
    ),
}

NOT_SEEN = {
    "the alias of a module": (
        "from pk import a as CHANGE\ndef f(x): return CHANGE.g(x)\n--- a.py\ndef g(x): return x",
        "q",
        "r",
    ),
    "the module of a function": (
        "from pk.CHANGE import g\ndef f(x): return g(x)\n--- a.py\ndef g(x): return x\n"
        "--- b.py\ndef g(x): return x",
        "a",
        "b",
    ),
    "the module of an import in the function": (
        "def f(x):\n    from pk.CHANGE import g\n    return g(x)\n--- a.py\ndef g(x): return x\n"
        "--- b.py\ndef g(x): return x",
        "a",
        "b",
    ),
    "a function that is named like an attribute": (
        "def real(x): return CHANGE\ndef f(x): return x.real",
        "1",
        "2",
    ),
    "a global that is named like a local variable": (
        "K = CHANGE\ndef f(x):\n    K = 2 * x\n    return K",
        "1",
        "5",
    ),
    "a global that is named like a method's variable": (
        "K = CHANGE\nclass C:\n    def g(self, x):\n        K = 2 * x\n        return K\n"
        "def f(x): return C().g(x)",
        "1",
        "5",
    ),
    "another function of the module": ("def g(x): return CHANGE\ndef f(x): return x", "1", "2"),
    "words": ("def f(x):\n    CHANGE\n    return (x)", "'''Say.'''  # why", "'''Another.'''"),
    "the place of a lambda": (
        "G = {CHANGE'a': lambda x: 2 * x, 'b': 1}\ndef f(x): return G['a'](x)",
        "",
        "\n    ",
    ),
    "what a cache holds": (
        "import functools\n@functools.cache\ndef g(x): return 2 * x\ndef f(x): return g(x)\nCHANGE",
        "",
        "f(2.0)",
    ),
    "the addresses of what holds itself": (
        "class C: pass\nc = C(); c.me = c; L = [c]; L.append(L)\n"
        "def f(x): return (c, L, x)[2]CHANGE",
        "",
        "  # again",
    ),
}


@pytest.fixture
def function_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    numbers = itertools.count()

    def made(program: str) -> Any:
        """Return f of pk/m.py, in a package that is imported anew."""
        folder = tmp_path / str(next(numbers)) / "pk"
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        first, *others = textwrap.dedent(program).split("--- ")
        (folder / "m.py").write_text(first)
        for file in others:
            name, _, text = file.partition("\n")
            (folder / name).write_text(text)
        for name in [n for n in sys.modules if n.partition(".")[0] == "pk"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(folder.parent)
        return importlib.import_module("pk.m").f

    return made


@pytest.mark.parametrize(("program", "one", "other"), SEEN.values(), ids=SEEN)
def test_what_changes_a_number_changes_the_digest(
    program: str, one: str, other: str, function_of: Callable[[str], Any]
) -> None:
    digests, numbers = [], []
    for text in (one, other):
        f = function_of(program.replace("CHANGE", text))
        digests.append(source_digest(f))
        numbers.append(f(1.5))
    assert numbers[0] != numbers[1], "not an attack"
    assert digests[0] != digests[1], reached(f)


@pytest.mark.parametrize(("program", "one", "other"), NOT_SEEN.values(), ids=NOT_SEEN)
def test_what_changes_no_number_does_not_change_the_digest(
    program: str, one: str, other: str, function_of: Callable[[str], Any]
) -> None:
    digests, numbers = [], []
    for text in (one, other):
        f = function_of(program.replace("CHANGE", text))
        digests.append(reached(f))
        numbers.append(f(1.5))
    assert numbers[0] == numbers[1]
    assert digests[0] == digests[1]


def test_kernels_that_are_no_functions_of_ours_differ_too() -> None:
    functional = torch.nn.functional
    kernels = [torch.sigmoid, torch.tanh, functional.silu, functional.gelu, torch.nn.SiLU()]
    kernels += [torch.ops.aten.silu.default, torch.ops.aten.gelu.default]
    assert len({source_digest(kernel) for kernel in kernels}) == len(kernels)
