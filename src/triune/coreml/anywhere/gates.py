"""Make coremltools' checks for macOS succeed.

Other modules of coremltools have imported the checking functions by name. Therefore the code object of each function is
replaced: another function under the same name would not reach these modules. A boolean that is imported by name is
replaced in each module that has it. Classes of coremltools' compiled module (`libcoremlpython`) are None in modules
that were imported while it was missing; they are set there, too.
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
# The name of a module of coremltools that derives classes from those of the compiled module when it is imported, or
# sets them to None if the compiled module is missing.
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
        checks: Any = importlib.import_module("coremltools.models.utils")
    package.libcoremlpython = module
    is_macos, macos_version = _check_functions(checks)
    originals = (is_macos.__code__, macos_version.__code__, platform.machine)
    setattr(module, _ORIGINALS, originals)
    is_macos.__code__ = _always_macos.__code__
    macos_version.__code__ = _newest_macos.__code__
    checks._macos_version.cache_clear()
    platform.machine = _machine_for_coremltools(originals[2])
    _switch(module, is_open=True)


def close_gates(module: ModuleType) -> None:
    """Undo `open_gates`."""
    package: Any = sys.modules[_PACKAGE]
    checks: Any = sys.modules["coremltools.models.utils"]
    is_macos, macos_version = _check_functions(checks)
    is_macos.__code__, macos_version.__code__, platform.machine = getattr(module, _ORIGINALS)
    checks._macos_version.cache_clear()
    del sys.modules[NAME]
    del package.libcoremlpython
    _switch(module, is_open=False)


def _check_functions(checks: Any) -> tuple[FunctionType, FunctionType]:
    """The functions by which coremltools checks for macOS, and asks for its version."""
    # `_macos_version` is wrapped in functools' cache, a C object that has no Python code to replace: return the
    # function inside.
    return checks._is_macos, checks._macos_version.__wrapped__


def _always_macos() -> bool:
    return True


def _newest_macos() -> tuple[int, ...]:
    # macOS 26 is the first version that reads specification version 10, the newest of coremltools 9. The version is
    # written here as a literal: this function's code replaces that of a function in coremltools, where names of this
    # module do not exist.
    return (26, 0)


def _machine_for_coremltools(machine: Any) -> Any:
    """Wrap `platform.machine`: coremltools gets "arm64", and other callers the real machine."""

    def answer() -> str:
        caller: str = sys._getframe(1).f_globals.get("__name__", "")  # pyright: ignore[reportPrivateUsage]  # by name
        return "arm64" if caller.partition(".")[0] == _PACKAGE else machine()

    return answer


def _loaded_modules() -> list[ModuleType]:
    return [each for name, each in list(sys.modules.items()) if name.partition(".")[0] == _PACKAGE and each]


def _switch(module: ModuleType, *, is_open: bool) -> None:
    """Change all loaded modules of coremltools: set their flag for macOS to true, and their variables for classes of
    the compiled module, which are None, to the classes of `module`. If `is_open` is false, undo both.
    """
    proxies = {name: value for name, value in vars(module).items() if name.startswith("_ML")}
    for each in _loaded_modules():
        names = vars(each)
        if names.get(_FLAG) is (not is_open):
            setattr(each, _FLAG, is_open)
        for name, value in proxies.items():
            before, after = (None, value) if is_open else (value, None)
            if each is not module and name in names and names[name] is before:
                setattr(each, name, after)
    _reload_derived()


def _reload_derived() -> None:
    # Reload the module, so that it derives its classes again. Its dictionary is the same object, so that functions
    # imported from it use the new classes.
    if _DERIVING in sys.modules:
        with quiet():
            importlib.reload(sys.modules[_DERIVING])
