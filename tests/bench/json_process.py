"""Processes that measure for the benchmark, asked by lines of JSON over their pipes.

Two native runtimes in one process may deadlock (libgomp of CTranslate2, the pool of onnxruntime)
and share memory and threads at least; so every side has a process of its own. The module of a side
ends with :func:`answer`; :class:`JsonProcess` starts it and calls its functions.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

_STOP_SECONDS = 30.0


class ProcessError(Exception):
    """A process of the benchmark failed; the message says which, and what it said."""


def answer(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Answers calls until the parent closes the pipe.

    What the functions print goes to standard error, since standard output carries the answers.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        call = json.loads(line)
        try:
            reply = {"result": functions[call["function"]](**call["arguments"])}
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


class JsonProcess:
    """A module of the benchmark that runs by itself."""

    def __init__(self, module: str, *arguments: str, python: str = sys.executable) -> None:
        """Starts it.

        Args:
            module: The module to run.
            arguments: Its arguments.
            python: Of which environment.
        """
        self._module = module
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def call(self, function: str, **arguments: Any) -> Any:
        """Calls a function of the module and waits for its result.

        Raises:
            ProcessError: The function failed, or the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(
                json.dumps({"function": function, "arguments": arguments}) + "\n"
            )
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass  # it has ended; said below
        if not line:
            code = self._process.wait(_STOP_SECONDS)
            raise ProcessError(f"{self._module} ended with {code} in `{function}`")
        reply = json.loads(line)
        if "error" in reply:
            raise ProcessError(f"{self._module}.{function}: {reply['error']}")
        return reply["result"]

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
