"""Which runtime runs the decoders of transformers on this machine."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from triune.core.decoder import CacheType, DecoderExecutable, DecoderPrecision
from triune.core.errors import UnsupportedError
from triune.core.units import Unit
from triune.graph.held import HeldModel
from triune.runtimes.machine import Machine
from triune.runtimes.registry import missing


class LoadDecoder(Protocol):
    """Compiles a decoder's graph in the paged form; see `OpenVinoDecoder`."""

    def __call__(
        self,
        model: HeldModel,
        *,
        unit: Unit,
        num_threads: int,
        num_blocks: int,
        precision: DecoderPrecision | None,
        cache_type: CacheType | None,
    ) -> DecoderExecutable:
        """Compile it, with a cache of `num_blocks` blocks of `cache_type`; None takes the runtime's own type and
        precision.
        """
        ...


def _openvino() -> LoadDecoder:
    from triune.runtimes.openvino.decoder import OpenVinoDecoder

    return OpenVinoDecoder


_LOADERS: Final[Mapping[str, Callable[[], LoadDecoder]]] = {"openvino": _openvino}
"""The runtimes that can, the preferred one first, each with a function that imports its decoder."""


def decoder_runtime(machine: Machine) -> str:
    """The name of the runtime that runs decoders here.

    Raises:
        UnsupportedError: none is installed; the message has the command that installs one.
    """
    for name in _LOADERS:
        if name in machine.runtimes:
            return name
    raise UnsupportedError(_lacking())


def missing_decoder() -> str:
    """Why no decoder can run here, with the command that installs a runtime; empty if one can. Imports nothing."""
    return _lacking() if not _LOADERS.keys() - missing().keys() else ""


def _lacking() -> str:
    remedies = " or ".join(f"pip install 'triune[{name}]'" for name in _LOADERS)
    return f"transformers are run by {' or '.join(_LOADERS)}, which is not installed: {remedies}"


def load_decoder(runtime: str) -> LoadDecoder:
    """The function of a runtime that compiles decoders. Imports the runtime's library."""
    return _LOADERS[runtime]()
