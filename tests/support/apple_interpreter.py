"""Apple's Core AI interpreter for tests: calls in a process of its own, which its library ends on some mistakes."""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from triune.coreai.executable import AppleExecutable
from triune.graph.state_names import new_state


def interpret(
    path: Path, inputs: Mapping[str, Any], *, function: str = "main", states: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """In this process: the outputs, and the states after the call under their names as outputs."""
    executable = AppleExecutable(path, function, None, "fp32")
    try:
        names = [spec.name for spec in executable.signature.outputs]
        return executable.run({**inputs, **(states or {})}, names)
    finally:
        executable.close()


def interpret_apart(argument: tuple[Path, Mapping[str, Any]]) -> dict[str, Any]:
    """The function that `Apart` runs in its process: `interpret` with the path and the inputs in one argument."""
    return interpret(*argument)


def next_state(name: str) -> str:
    return new_state(name)


class Apart:
    """A process that calls one function again and again; when it dies the call raises EOFError, and the next one starts
    another."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self._call = call
        self._process: Any = None
        self._ours: Any = None

    def __call__(self, argument: Any) -> Any:
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._ours, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._call), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._ours.send(argument)
            is_good, answer = self._ours.recv()
        except EOFError:
            self._process.join()
            code, self._process = self._process.exitcode, None
            raise EOFError(f"the process ended with {code}") from None
        except BaseException:
            # A test's time is up: what the process answers later belongs to no call.
            self._process.kill()
            self._process.join()
            self._process = None
            raise
        if not is_good:
            raise answer
        return answer

    def close(self) -> None:
        if self._process is not None:
            self._ours.close()
            self._process.join()
            self._process = None


def _serve(channel: Any, call: Callable[[Any], Any]) -> None:
    # Swift and MLIR write their complaints there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(2, 1)
    while True:
        try:
            argument = channel.recv()
        except EOFError:
            return
        try:
            answer = (True, call(argument))
        except Exception as error:
            answer = (False, RuntimeError(f"{type(error).__name__}: {error}"))
        channel.send(answer)
