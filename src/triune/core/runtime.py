"""The seam between Triune and the vendor libraries that run models."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from triune.core.datatypes import Array
from triune.core.requests import Parameter
from triune.core.tensors import Signature
from triune.core.units import Unit

NO_OPTIONS: Mapping[str, Parameter] = MappingProxyType({})
"""Of a config that says nothing of the runtime's own."""


class Executable(Protocol):
    """A model compiled by a runtime for a unit, ready to run.

    `run` releases the GIL for the computation and may be called from any thread, one call at a time.
    """

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as the model file states them."""
        ...

    @property
    def unit(self) -> Unit:
        """The unit that it was compiled for."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in: "fp32", "bf16", "fp16"."""
        ...

    @property
    def is_steady(self) -> bool:
        """The shapes of the inputs decide how long a run takes, and their values do not. False where nobody knows."""
        ...

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the named outputs.

        Args:
            inputs: name to array, all required ones. Not changed, not kept after the call.
            outputs: names of the outputs wanted, at least one.

        Returns:
            name to array in the order of `outputs`. The caller owns the arrays: no later call writes to them.

        Raises:
            InvalidArgumentError: the model refuses these inputs (a shape that it cannot compute).
            InternalError: the runtime failed otherwise.
        """
        ...

    def interrupt(self) -> None:
        """Have the `run` under way end soon, with an error, where the library can. From any thread; does not wait."""
        ...

    def close(self) -> None:
        """Free what it holds. No `run` is under way and none follows."""
        ...


class Runtime(Protocol):
    """A vendor library. It can be pickled: a worker process loads models with its own copy."""

    @property
    def name(self) -> str:
        """The backend's name in config.pbtxt."""
        ...

    @property
    def default_filenames(self) -> Sequence[str]:
        """The names that a model file in a version's folder has when the config names none, the usual one first."""
        ...

    @property
    def option_names(self) -> Collection[str]:
        """The options that `inspect` and `load` read; any other is an error."""
        ...

    def units(self) -> Sequence[Unit]:
        """The units of this machine that it can compile for, the preferred one first."""
        ...

    def inspect(self, path: Path, options: Mapping[str, Parameter] = NO_OPTIONS) -> Signature:
        """Read the signature of a model file without compiling it.

        Args:
            path: the model file.
            options: as of `load`: some choose among the interfaces that a file has.

        Raises:
            InvalidArgumentError: the file is no model that this runtime reads, or an option is unknown or wrong.
        """
        ...

    def load(self, path: Path, *, unit: Unit, num_threads: int, options: Mapping[str, Parameter]) -> Executable:
        """Compile a model file for a unit.

        Args:
            path: the model file.
            unit: one of `units()`.
            num_threads: CPU threads that one `run` may use, at least 1.
            options: the runtime's own settings out of the model's config.

        Raises:
            InvalidArgumentError: the file is broken, or an option is unknown.
            UnsupportedError: this runtime cannot run the model on the unit.
        """
        ...
