"""The Runtime and Executable protocols: adapters of the vendor libraries that run models."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from triune.core.datatypes import Array
from triune.core.requests import Parameter
from triune.core.tensors import Signature
from triune.core.units import Unit

NO_OPTIONS: Mapping[str, Parameter] = MappingProxyType({})
"""The options of a config without options for the runtime."""


class Executable(Protocol):
    """A model compiled by a runtime for a unit, ready to run.

    `run` releases the GIL for the computation and may be called from any thread, one call at a time.
    """

    @property
    def signature(self) -> Signature:
        """The inputs and outputs that the model file declares."""
        ...

    @property
    def unit(self) -> Unit:
        """The unit that the executable was compiled for."""
        ...

    @property
    def precision(self) -> str:
        """The floating-point format of the computation: "fp32", "bf16", "fp16"."""
        ...

    @property
    def report(self) -> str:
        """The library's report of where it computes: devices and kernels; "" if it reports nothing.

        Call it after the model has run once. It may take milliseconds.
        """
        ...

    @property
    def is_steady(self) -> bool:
        """Whether the run time depends only on the shapes of the inputs, not on their values. False if unknown."""
        ...

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the named outputs.

        Args:
            inputs: the arrays by name, with all required inputs. They are neither changed nor kept after the call.
            outputs: the names of the outputs to compute, at least one.

        Returns:
            the arrays by name, in the order of `outputs`. The caller owns the arrays: no later call writes to them.

        Raises:
            InvalidArgumentError: the model refuses these inputs (a shape that it cannot compute).
            InternalError: the runtime failed otherwise.
        """
        ...

    def interrupt(self) -> None:
        """Ask the running `run` to end soon with an error, if the library supports this. Any thread may call this; it
        does not wait.
        """
        ...

    def close(self) -> None:
        """Free all resources. No `run` may be running or follow. A second `close` does nothing."""
        ...


class Runtime(Protocol):
    """A vendor library that compiles and runs models. It can be pickled, so that worker processes get copies."""

    @property
    def name(self) -> str:
        """The backend's name in config.pbtxt."""
        ...

    @property
    def default_filenames(self) -> Sequence[str]:
        """The file names to look for in a version's folder if the config names none, the most common first."""
        ...

    @property
    def option_names(self) -> Collection[str]:
        """The names of the options that `inspect` and `load` accept; any other is an error."""
        ...

    def units(self) -> Sequence[Unit]:
        """The units of this machine that this runtime can compile for, the preferred one first."""
        ...

    def inspect(self, path: Path, options: Mapping[str, Parameter] = NO_OPTIONS) -> Signature:
        """Read the signature of a model file without compiling it.

        Args:
            path: the model file.
            options: as for `load`. Some options choose one of several functions in a file.

        Raises:
            InvalidArgumentError: the file is not a model that this runtime reads, or an option is unknown or wrong.
        """
        ...

    def load(self, path: Path, *, unit: Unit, num_threads: int, options: Mapping[str, Parameter]) -> Executable:
        """Compile a model file for a unit.

        Args:
            path: the model file.
            unit: one of `units()`.
            num_threads: CPU threads that one `run` may use, at least 1.
            options: the parameters in the model's config that are meant for this runtime.

        Raises:
            InvalidArgumentError: the file is broken, or an option is unknown.
            UnsupportedError: this runtime cannot run the model on the unit.
        """
        ...
