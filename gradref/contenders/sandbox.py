"""Where the calls of kernels are made: in this process, or in another that may crash or hang.

torch is imported by what makes or answers calls, and not with this module: a sandbox can be started
before its parent imports it, so that both do at the same time.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gradref.contenders.call import Call, Returned
    from gradref.contenders.kernel import Kernel

TIME_LIMIT = 20.0
"""Seconds that one call may take, besides 5 for every million numbers: a machine may be shared."""

START_LIMIT = 120.0
"""Seconds that importing the kernels may take."""


class Runner(Protocol):
    """What calls the functions of a kernel, in this process or in another."""

    def ask(self, call: Call) -> Returned:
        """Return the answer to one call."""
        ...


class InProcess:
    """Makes calls in this process: for functions that no other process could import."""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self._kernels = {kernel.name: kernel for kernel in kernels}

    def ask(self, call: Call) -> Returned:
        """Return the answer to one call."""
        from gradref.contenders.call import perform

        return perform(self._kernels[call.kernel], call)


class Sandbox:
    """Makes calls in a process that imports the kernels; in a new one after a crash or a hang.

    The truth is never computed there, so that a kernel cannot return freed memory that holds it.
    """

    def __init__(self, subject: str, operation: str | None) -> None:
        self._subject, self._operation = subject, operation
        self._process: BaseProcess | None = None
        self._is_ready = False

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *problem: object) -> None:
        self._stop()

    def prepare(self) -> None:
        """Start the process without waiting for it: it imports while this one goes on."""
        if self._process is None:
            self._start()

    def ask(self, call: Call) -> Returned:
        """Return the answer to one call."""
        from gradref.contenders.call import Returned

        self.prepare()
        if not self._is_ready:
            self._wait_until_imported()
        try:
            self._connection.send_bytes(pickle.dumps(call))
            limit = TIME_LIMIT + 5e-6 * sum(array.numel() for array in call.arrays)
            if not self._connection.poll(limit):
                self._stop()
                return Returned(problem=f"hangs: no answer in {limit:.0f} s")
            answer: Returned = pickle.loads(self._connection.recv_bytes())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return Returned(problem=f"crashes: {self._cause()}")
        return answer

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        arguments = (theirs, self._subject, self._operation)
        process = spawn.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        self._process, self._is_ready = process, False
        theirs.close()

    def _wait_until_imported(self) -> None:
        if not self._connection.poll(START_LIMIT):
            self._stop()
            raise ImportError(f"{self._subject}: not imported within {START_LIMIT:g} s")
        try:
            problem = self._connection.recv_bytes().decode()
        except EOFError:
            problem = f"its process crashes: {self._cause()}"
        if problem:
            self._stop()
            raise ImportError(f"{self._subject}: importing it in a process of its own: {problem}")
        self._is_ready = True

    def _cause(self) -> str:
        assert self._process is not None  # it has just been asked
        self._process.join(5)
        status = self._process.exitcode
        self._process = None
        if status is not None and status < 0:
            return signal.Signals(-status).name
        return f"its process ended with status {status}"

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(connection: Connection, subject: str, operation: str | None) -> None:
    """Import the kernels, then answer calls until the connection closes."""
    import torch

    from gradref.contenders.call import perform
    from gradref.contenders.load import load

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # overflows and the like are what the inputs are for
    try:
        kernels: Mapping[str, Kernel] = {k.name: k for k in load(subject, operation)}
    except Exception as problem:  # whatever somebody's module raises
        connection.send_bytes(f"{type(problem).__name__}: {problem}".encode())
        return
    if dynamo := sys.modules.get("torch._dynamo"):
        dynamo.config.recompile_limit = 1 << 16  # a compiled kernel stays one in every dtype
    connection.send_bytes(b"")
    while True:
        try:
            call: Call = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        connection.send_bytes(pickle.dumps(perform(kernels[call.kernel], call)))
