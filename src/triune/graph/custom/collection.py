"""Collect the custom operators that Python files and shared libraries define."""

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeAlias

from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.core.files import read_file
from triune.graph.custom.op import CustomOp

LIBRARY_SUFFIXES: Final = (".so", ".dylib", ".dll")

_LARGEST_BYTES: Final = 1 << 30
"""The largest file or library of operators that is read."""

Id: TypeAlias = tuple[str, str]
"""The domain and the name of an operator."""


@dataclass(frozen=True, slots=True)
class CustomOps:
    """Custom operators by domain and name. They can be pickled: a process that gets them reads the files again.

    Attributes:
        ops: the operators.
        files: the Python files that defined them; empty if they were given as objects.
        libraries: shared libraries of operators for ONNX Runtime.
        contents: the hashes of the files and libraries, as they were read.
    """

    ops: Mapping[Id, CustomOp] = field(default_factory=dict[Id, CustomOp])
    files: tuple[Path, ...] = ()
    libraries: tuple[Path, ...] = ()
    contents: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ops or self.libraries)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.files or not self.ops:
            return read_custom_ops, ([*self.files, *self.libraries],)
        return CustomOps, (self.ops, self.files, self.libraries, self.contents)

    def digest(self) -> str:
        """A hash of the operators' names and bodies, and of the files and libraries. For operators that were given as
        objects, it does not cover the numpy functions.
        """
        total = hashlib.sha256(" ".join(self.contents).encode())
        for each in sorted(self.ops.values(), key=str):
            body = b"" if each.body is None else each.body.SerializeToString(deterministic=True)
            total.update(f"{each} {len(body)} ".encode() + body)
        return total.hexdigest()


Given: TypeAlias = Path | str | CustomOp | Iterable[Path | str | CustomOp]
"""Custom operators, or the files that define them."""

NO_CUSTOM_OPS: Final = CustomOps()


def read_custom_ops(given: Given) -> CustomOps:
    """Collect custom operators.

    Args:
        given: Python files, whose global CustomOps are taken; shared libraries of operators for ONNX Runtime; or the
            operators themselves. The files are run, with all rights of this process: name only files that you trust.

    Raises:
        NotFoundError: a file does not exist.
        InvalidArgumentError: a file cannot be run or defines no operator, or two operators have one name.
    """
    each_given: Sequence[Path | str | CustomOp] = [given] if isinstance(given, (Path, str, CustomOp)) else list(given)
    found: list[tuple[CustomOp, str]] = []
    files: list[Path] = []
    libraries: list[Path] = []
    for each in each_given:
        if isinstance(each, CustomOp):
            found.append((each, "the argument"))
            continue
        path = Path(each).absolute()
        if not path.is_file():
            raise NotFoundError(f"there is no file '{each}' of custom operators")
        if path.suffix in LIBRARY_SUFFIXES:
            libraries.append(path)
        elif path.suffix == ".py":
            files.append(path)
            found += [(op, f"'{path.name}'") for op in _defined_in(path)]
        else:
            raise InvalidArgumentError(
                f"custom operators are in Python files (.py) or in shared libraries ({', '.join(LIBRARY_SUFFIXES)}), "
                f"not in '{path.name}'"
            )
    ops: dict[Id, CustomOp] = {}
    places: dict[Id, str] = {}
    for op, place in found:
        key = (op.domain, op.name)
        if key in ops and ops[key] is not op:
            raise InvalidArgumentError(f"custom operator '{op}' is defined by {places[key]} and by {place}; keep one")
        ops[key], places[key] = op, place
    if files and any(isinstance(each, CustomOp) for each in each_given):
        # A worker process reads files again, but receives objects pickled, so one collection cannot have both.
        raise InvalidArgumentError("give custom operators as files or as objects, not as both")
    contents = tuple(hashlib.sha256(read_file(path, _LARGEST_BYTES)).hexdigest() for path in (*files, *libraries))
    return CustomOps(ops, tuple(files), tuple(libraries), contents)


def _defined_in(path: Path) -> list[CustomOp]:
    """The global variables of a Python file that are custom operators. The file is run."""
    module = _run(path)
    found = {id(each): each for each in vars(module).values() if isinstance(each, CustomOp)}
    if not found:
        raise InvalidArgumentError(
            f"'{path.name}' defines no custom operator; decorate a function with @triune.custom_op('domain::Name')"
        )
    return list(found.values())


def _run(path: Path) -> ModuleType:
    name = f"triune_custom_ops_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidArgumentError(f"'{path}' cannot be run as Python")
    module = importlib.util.module_from_spec(spec)
    # Register the module: dataclasses and pickle look it up by its name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, InvalidArgumentError):
            raise InvalidArgumentError(f"in '{path.name}': {error}") from error
        line = _line_in(path, error)
        raise InvalidArgumentError(
            f"'{path.name}' of custom operators fails{line}: {type(error).__name__}: {error}"
        ) from error
    return module


def _line_in(path: Path, error: Exception) -> str:
    """The line of the file in which an exception was raised, as " in line 7"; "" if it was not raised in the file."""
    found = ""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            found = f" in line {trace.tb_lineno}"
        trace = trace.tb_next
    return found
