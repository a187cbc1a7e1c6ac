"""Where the calls of kernels are made: in this process, or in another that may crash or hang.

The other is forked by a server that has imported torch and nothing of a subject, as importing it
takes longer than most checks. torch is imported by what makes or answers calls, and not with this
module: the server can be started before its parent imports it, so that both do at the same time.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Literal, Protocol

import cloudpickle  # type: ignore[import-untyped]  # it brings no types

if TYPE_CHECKING:
    from gradref.contenders.call import Call, Returned
    from gradref.contenders.kernel import Kernel, Role

TIME_LIMIT = 20.0
"""Seconds that one call may take, besides 5 for every million numbers: a machine may be shared."""

OURS = ("gradref", "activations", "losses", "torch")
"""Packages that every process finds."""

START_LIMIT = 120.0
"""Seconds that importing the kernels may take."""

MEMORY_LIMIT = 4 << 30
"""Bytes of memory of its own that a kernel's process may have."""

Request = tuple[Literal["answer", "digest"], Any]


class Runner(Protocol):
    """What calls the functions of a kernel, in this process or in another."""

    def ask(self, call: Call) -> Returned:
        """Return the answer to one call."""
        ...


class Host(Runner, Protocol):
    """A runner that has the functions, or reaches the process that has them."""

    def digest(self, kernel: str, role: Role) -> str:
        """Return the digest of everything that the results of a function depend on."""
        ...


class InProcess:
    """Makes calls in this process: for functions that no other process could import."""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self._kernels = {kernel.name: kernel for kernel in kernels}

    def ask(self, call: Call) -> Returned:
        """Return the answer to one call."""
        from gradref.contenders.call import perform

        return perform(self._kernels[call.kernel], call)

    def digest(self, kernel: str, role: Role) -> str:
        """Return the digest of everything that the results of a function depend on."""
        from gradref.sweep.digest import source_digest

        return source_digest(self._kernels[kernel].functions[role])


class Sandbox:
    """Makes calls in a process that imports the kernels; in a new one after a crash or a hang.

    Nothing of the subject is imported here, where the truth is computed: a module may change how
    this process computes, and a kernel may return freed memory that holds the truth.
    """

    def __init__(self, subject: str, operation: str | None, pickled: bytes = b"") -> None:
        self._subject, self._operation, self._pickled = subject, operation, pickled
        self._process: BaseProcess | None = None
        self._kernels: list[Kernel] | None = None
        self._count = 0

    @classmethod
    def of(cls, kernels: Sequence[Kernel]) -> Sandbox:
        """Return one for kernels of this process: a copy of them, with all that they refer to.

        Raise TypeError where that cannot be copied.
        """
        with _copied_whole({f.__module__ for k in kernels for f in k.functions.values()}):
            try:
                pickled = cloudpickle.dumps(list(kernels))
            except Exception as problem:  # what a function refers to decides what is raised
                raise TypeError(f"{kernels[0].name} cannot be copied: {problem}") from None
        return cls(kernels[0].name, None, pickled)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *problem: object) -> None:
        self._stop()

    def prepare(self) -> None:
        """Start the server without waiting for it: it imports torch while this process goes on."""
        forkserver.set_forkserver_preload(["torch", "gradref.contenders.load"])
        forkserver.ensure_running()

    @property
    def kernels(self) -> list[Kernel]:
        """The declarations of the kernels; raise ImportError where there are none."""
        if self._process is None:
            self._start()
        if self._kernels is None:
            self._kernels = self._imported()
        return self._kernels

    def ask(self, call: Call) -> Returned:
        """Return the answer to one call."""
        from gradref.contenders.call import Returned

        limit = TIME_LIMIT + 5e-6 * sum(array.numel() for array in call.arrays)
        try:
            answer: Returned = self._sent(("answer", call), limit)
        except TimeoutError:
            return Returned(problem=f"hangs: no answer in {limit:.0f} s")
        except ConnectionError as problem:
            return Returned(problem=f"crashes: {problem}")
        return answer

    def digest(self, kernel: str, role: Role) -> str:
        """Return the digest of everything that the results of a function depend on."""
        found: str = self._sent(("digest", (kernel, role)), START_LIMIT)
        return found

    def _sent(self, request: Request, limit: float) -> Any:
        """Return what the process replies to a request.

        Raise TimeoutError where it takes too long, and ConnectionError where the process ends; the
        next request is then to a new one.
        """
        _ = self.kernels  # the process is ready to reply
        self._count += 1
        until = time.monotonic() + limit
        try:
            self._connection.send_bytes(pickle.dumps((self._count, request)))
            for count, reply in self._replies(until):
                if count == self._count:  # or it is late, of a process that was given up
                    return reply
        except (EOFError, OSError, pickle.UnpicklingError):
            raise ConnectionError(self._cause()) from None
        self._stop()
        raise TimeoutError

    def _replies(self, until: float) -> Iterator[tuple[int, Any]]:
        while self._connection.poll(max(0.0, until - time.monotonic())):
            yield pickle.loads(self._connection.recv_bytes())

    def _start(self) -> None:
        self.prepare()
        server = multiprocessing.get_context("forkserver")
        self._connection, theirs = server.Pipe()
        source = (self._subject, self._operation)
        arguments = (theirs, dict(os.environ), self._pickled or source)
        process = server.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        self._process, self._kernels = process, None
        theirs.close()

    def _imported(self) -> list[Kernel]:
        if not self._connection.poll(START_LIMIT):
            self._stop()
            raise ImportError(f"{self._subject}: not imported within {START_LIMIT:g} s")
        try:
            found = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            found = f"{self._subject}: importing it crashes: {self._cause()}"
        if isinstance(found, str):
            self._stop()
            raise ImportError(found)
        kernels: list[Kernel] = found
        return kernels

    def _cause(self) -> str:
        """Return how the process has ended, and make sure that it has."""
        assert self._process is not None  # it has just been asked
        self._process.join(5)
        status = self._process.exitcode
        self._stop()
        if status is None:
            return "its process closes the connection"
        if status < 0:
            return signal.Signals(-status).name
        return f"its process ended with status {status}"

    def _stop(self) -> None:
        """End the process and every other that it has started."""
        if self._process is not None:
            if self._process.pid is not None:
                _kill_session(self._process.pid)
            self._process.kill()
            self._process.join()
            self._process = self._kernels = None


@contextmanager
def _copied_whole(names: Iterable[str]) -> Iterator[None]:
    """Have functions of modules that another process may not find copied, and not referred to."""
    packages = sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")
    found = [sys.modules[name] for name in names if name in sys.modules]
    own = [m for m in found if not (getattr(m, "__file__", None) or "").startswith(packages)]
    own = [m for m in own if m.__name__.partition(".")[0] not in OURS and hasattr(m, "__file__")]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


def _kill_session(leader: int) -> None:
    try:
        if os.getsid(leader) == leader:
            os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended, with all of them


def _serve(
    connection: Connection, environment: dict[str, str], source: tuple[str, str | None] | bytes
) -> None:
    """Import the kernels and send their declarations, then reply until the connection closes."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    _silence()
    import torch

    from gradref.contenders.load import load

    if not torch.cuda.is_available():  # whose driver reserves more than there is
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # overflows and the like are what the inputs are for
    try:
        kernels = pickle.loads(source) if isinstance(source, bytes) else load(*source)
    except Exception as problem:
        connection.send_bytes(pickle.dumps(str(problem)))
        return
    if dynamo := sys.modules.get("torch._dynamo"):
        dynamo.config.recompile_limit = 1 << 16  # a compiled kernel stays one in every dtype
    connection.send_bytes(pickle.dumps([kernel.declaration() for kernel in kernels]))
    runner, own = InProcess(kernels), os.getpid()
    while True:
        try:
            count, (kind, content) = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        reply = runner.ask(content) if kind == "answer" else runner.digest(*content)
        if os.getpid() != own:
            os._exit(0)  # a fork of the process, which a kernel has made
        connection.send_bytes(pickle.dumps((count, reply)))


def _silence() -> None:
    """Send what the kernels print nowhere: the output is the judge's."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
