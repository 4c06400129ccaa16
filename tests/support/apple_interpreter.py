"""Apple's Core AI interpreter for tests. Calls run in a separate process, since the library ends the process on some
mistakes.
"""

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
    """Run a program in this process. Returns the outputs, and the states after the call under the names that they have
    as outputs.
    """
    executable = _LOADED.get(path, function)
    try:
        names = [spec.name for spec in executable.signature.outputs]
        return executable.run({**inputs, **(states or {})}, names)
    except BaseException:
        _LOADED.drop()
        raise


class _Loaded:
    """A cache of the program that was called last, since loading a program takes a hundred times as long as calling
    it.
    """

    def __init__(self) -> None:
        self._executable: AppleExecutable | None = None
        self._key: object = None

    def get(self, path: Path, function: str) -> AppleExecutable:
        """Return the loaded program. Tests write one program after another to the same path, so the cache checks
        whether the file has changed.
        """
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
    """Call `raise_function` in this process. Unlike that function, it does not read the file in a separate process
    first.
    """
    # These modules import Apple's library, which other tests do not need and not every machine has.
    from triune.coreai.program import load_program
    from triune.coreai.raising import raise_function

    return raise_function(load_program(path))


def described(path: Path) -> Description:
    """Call `describe` in this process. Unlike that function, it does not read the file in a separate process first."""
    asset = read_asset(path)
    found = description._describe_here(path)
    return Description(asset, tuple(description._function(each) for each in found["functions"]))


def next_state(name: str) -> str:
    return new_state(name)


class Apart:
    """Calls a function in another process. If the process dies, the call raises EOFError, and the next call starts a
    new process.

    Importing Apple's library takes seconds, so the process is kept, and the next `Apart` that is called uses it.
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
        """Call the function. Returns whether the call succeeded, and its result or its exception. After an exception
        the process is gone.
        """
        try:
            self._ours.send(question)
            return self._ours.recv()
        except (EOFError, BrokenPipeError):
            self._process.join()
            raise EOFError(f"the process ended with {self._process.exitcode}") from None
        except BaseException:
            # The test has timed out: a later answer of the process would not belong to any call.
            self._process.kill()
            self._process.join()
            raise


def _serve(channel: Any) -> None:
    # Swift and MLIR write their error messages to standard error.
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
