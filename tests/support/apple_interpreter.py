"""Apple's Core AI interpreter for tests: calls in a process of its own, which its library ends on some mistakes."""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from onnx import ModelProto

from triune.coreai import description
from triune.coreai.asset import read_asset
from triune.coreai.description import Description
from triune.coreai.executable import AppleExecutable
from triune.graph.state_names import new_state


def interpret(
    path: Path, inputs: Mapping[str, Any], *, function: str = "main", states: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """In this process: the outputs, and the states after the call under their names as outputs."""
    executable = _LOADED.get(path, function)
    try:
        names = [spec.name for spec in executable.signature.outputs]
        return executable.run({**inputs, **(states or {})}, names)
    except BaseException:
        _LOADED.drop()
        raise


class _Loaded:
    """The program that was called last: to load one takes a hundred times as long as to call it."""

    def __init__(self) -> None:
        self._executable: AppleExecutable | None = None
        self._key: object = None

    def get(self, path: Path, function: str) -> AppleExecutable:
        """Tests write one program after another to the same path."""
        stats = [(each, each.stat()) for each in sorted(path.rglob("*"))]
        key = (path, function, [(each, stat.st_ino, stat.st_size, stat.st_mtime_ns) for each, stat in stats])
        if self._executable is None or key != self._key:
            self.drop()
            self._executable, self._key = AppleExecutable(path, function, None, "fp32"), key
        return self._executable

    def drop(self) -> None:
        if self._executable is not None:
            self._executable.close()
        self._executable = None


_LOADED = _Loaded()


def interpret_apart(argument: tuple[Path, Mapping[str, Any]]) -> dict[str, Any]:
    """The function that `Apart` runs in its process: `interpret` with the path and the inputs in one argument."""
    return interpret(*argument)


def raised(path: Path) -> ModelProto:
    """As `raise_function`, but no process of its own reads first what a test has just written."""
    # These import Apple's library, which processes of other tests do not need, and not every machine has.
    from triune.coreai.program import load_program
    from triune.coreai.raising import raise_function

    return raise_function(load_program(path))


def described(path: Path) -> Description:
    """As `describe`, but no process of its own reads first what a test has just written."""
    asset = read_asset(path)
    found = description._describe_here(path)
    return Description(asset, tuple(description._function(each) for each in found["functions"]))


def next_state(name: str) -> str:
    return new_state(name)


class Apart:
    """Calls a function in another process. When that dies the call raises EOFError, and the next one starts another.

    A process imports Apple's library for seconds, so it stays, and whichever `Apart` is called next takes it.
    """

    _idle: ClassVar[list["_Process"]] = []

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self._call = call

    def __call__(self, argument: Any) -> Any:
        process = self._idle.pop() if self._idle else _Process()
        is_good, answer = process.ask((self._call, argument))
        self._idle.append(process)
        if not is_good:
            raise answer
        return answer


class _Process:
    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, question: tuple[Callable[[Any], Any], Any]) -> tuple[bool, Any]:
        """Whether the call returned, and what it returned or raised. After an exception the process is gone."""
        try:
            self._ours.send(question)
            return self._ours.recv()
        except (EOFError, BrokenPipeError):
            self._process.join()
            raise EOFError(f"the process ended with {self._process.exitcode}") from None
        except BaseException:
            # A test's time is up: what the process answers later belongs to no call.
            self._process.kill()
            self._process.join()
            raise


def _serve(channel: Any) -> None:
    # Swift and MLIR write their complaints there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(2, 1)
    while True:
        try:
            call, argument = channel.recv()
        except EOFError:
            return
        try:
            answer = (True, call(argument))
        except Exception as error:
            answer = (False, RuntimeError(f"{type(error).__name__}: {error}"))
        channel.send(answer)
