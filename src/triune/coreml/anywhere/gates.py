"""Make coremltools' checks for macOS succeed.

Other modules import the checking functions by name, so the functions' code objects are replaced, not their names. A
boolean that is imported by name is replaced in each module that has it. Names that are `None` because the compiled
module was missing are set in the modules that are loaded already.
"""

import importlib
import importlib.util
import platform
import sys
from types import FunctionType, ModuleType
from typing import Any

from triune.core.errors import UnsupportedError
from triune.coreml.anywhere.module import NAME
from triune.coreml.quiet import quiet

_PACKAGE = "coremltools"
# It derives classes from the module's while it is imported, or sets None in their place.
_DERIVING = "coremltools.models.ml_program.experimental.compute_plan_utils"
_FLAG = "_IS_MACOS"
_ORIGINALS = "triune_originals"


def open_gates(module: ModuleType) -> None:
    """Replace coremltools' compiled module by `module`, and make its checks report macOS on Apple silicon.

    Raises:
        UnsupportedError: coremltools is not installed.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise UnsupportedError(
            "triune.coreml.anywhere needs coremltools, which is not installed: pip install 'triune[coreml]'"
        )
    sys.modules[NAME] = module
    with quiet():
        package: Any = importlib.import_module(_PACKAGE)
        questions: Any = importlib.import_module("coremltools.models.utils")
    package.libcoremlpython = module
    is_macos, macos_version = _questions(questions)
    originals = (is_macos.__code__, macos_version.__code__, platform.machine)
    setattr(module, _ORIGINALS, originals)
    is_macos.__code__ = _answer_is_macos.__code__
    macos_version.__code__ = _answer_macos_version.__code__
    questions._macos_version.cache_clear()
    platform.machine = _machine_for_coremltools(originals[2])
    _turn(module, is_open=True)


def close_gates(module: ModuleType) -> None:
    """Undo `open_gates`."""
    package: Any = sys.modules[_PACKAGE]
    questions: Any = sys.modules["coremltools.models.utils"]
    is_macos, macos_version = _questions(questions)
    is_macos.__code__, macos_version.__code__, platform.machine = getattr(module, _ORIGINALS)
    questions._macos_version.cache_clear()
    del sys.modules[NAME]
    del package.libcoremlpython
    _turn(module, is_open=False)


def _questions(questions: Any) -> tuple[FunctionType, FunctionType]:
    # The second function is wrapped by a cache, a C object.
    return questions._is_macos, questions._macos_version.__wrapped__


def _answer_is_macos() -> bool:
    return True


def _answer_macos_version() -> tuple[int, ...]:
    # The first that reads specification version 10, the newest of coremltools 9. Its code runs among coremltools'
    # names, so it can use none of this module's.
    return (26, 0)


def _machine_for_coremltools(machine: Any) -> Any:
    """`platform.machine` that reports Apple silicon to coremltools, and the real machine to other callers."""

    def answer() -> str:
        caller: str = sys._getframe(1).f_globals.get("__name__", "")  # pyright: ignore[reportPrivateUsage]  # by name
        return "arm64" if caller.partition(".")[0] == _PACKAGE else machine()

    return answer


def _loaded() -> list[ModuleType]:
    return [each for name, each in list(sys.modules.items()) if name.partition(".")[0] == _PACKAGE and each]


def _turn(module: ModuleType, *, is_open: bool) -> None:
    """In all loaded modules, set the flag, and set the names that are None to `module`'s classes, or back to None."""
    proxies = {name: value for name, value in vars(module).items() if name.startswith("_ML")}
    for each in _loaded():
        names = vars(each)
        if names.get(_FLAG) is (not is_open):
            setattr(each, _FLAG, is_open)
        for name, value in proxies.items():
            before, after = (None, value) if is_open else (value, None)
            if each is not module and name in names and names[name] is before:
                setattr(each, name, after)
    _derive_again()


def _derive_again() -> None:
    # Reloading a module keeps its dictionary, so functions imported from it see the new classes.
    if _DERIVING in sys.modules:
        with quiet():
            importlib.reload(sys.modules[_DERIVING])
