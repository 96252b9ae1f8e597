"""Objects in processes of their own, so that memory, threads and imports of one are not seen in another's numbers."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from tectum.errors import ConfigError, MissingExtraError, TectumError

_PATIENCE = 5.0


class RemoteError(Exception):
    """What went wrong in another process.

    Attributes:
        text: one sentence or two.
        memory: there was not enough memory.
        usage: it is a mistake in what was asked for.
    """

    def __init__(self, text: str, memory: bool = False, usage: bool = False) -> None:
        super().__init__(text, memory, usage)
        self.text, self.memory, self.usage = text, memory, usage

    def __str__(self) -> str:
        return self.text


class Remote:
    """`make(*arguments)` in a new process, made at the first call; a context manager that ends the process.

    Args:
        make: a class or function at the top of a module.
        arguments: pickled, as are those of the calls and their answers.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))
        self._process.start()
        theirs.close()  # so that the end of the process ends the connection

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(_PATIENCE if error is None else 0)

    def close(self, patience: float = _PATIENCE) -> None:
        """End the process, if it has not ended by itself within so many seconds."""
        self._connection.close()  # which ends it as soon as it waits for a call
        self._process.join(patience)
        self._process.terminate()
        self._process.join()

    def call(self, method: str, *arguments: Any) -> Any:
        """The answer of the object's method.

        Raises:
            RemoteError: the object could not be made, the method raised, or the process died.
        """
        try:
            self._connection.send((method, arguments))
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            killed = self._process.exitcode == -signal.SIGKILL
            hint = "most likely for lack of memory" if killed else f"with exit code {self._process.exitcode}"
            raise RemoteError(f"its process was ended by the system, {hint}", memory=killed) from None
        if isinstance(answer, RemoteError):
            raise answer
        return answer


def _serve(connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    os.dup2(2, 1)  # what packages print is no result
    served = None
    while True:
        try:
            method, inputs = connection.recv()
        except EOFError:
            return
        answer: Any
        try:
            if served is None:
                served = make(*arguments)
            answer = getattr(served, method)(*inputs)
        except Exception as error:  # one row's fault is not another's
            answer = describe_failure(error)
        connection.send(answer)


def describe_failure(error: Exception) -> RemoteError:
    """What another process is told of an exception."""
    if isinstance(error, TectumError):
        memory = "out of memory" in str(error)
        return RemoteError(str(error), memory, isinstance(error, ConfigError | MissingExtraError))
    text = next(iter(str(error).strip().splitlines()), "no message")
    return RemoteError(f"{type(error).__name__}: {text}", isinstance(error, MemoryError))


def peak_memory() -> int | None:
    """Most bytes that this process has held; None where the system does not tell."""
    # Not ru_maxrss on Linux, where it begins with that of the parent.
    peak = status_bytes("VmHWM")
    if peak is None and sys.platform == "darwin":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak


def status_bytes(key: str) -> int | None:
    """What Linux tells of this process's memory under a key of /proc/self/status; None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
