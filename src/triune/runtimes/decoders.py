"""Which runtime runs the decoders of transformers on this machine."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from triune.core.decoder import CacheType, DecoderExecutable, DecoderPrecision
from triune.core.errors import UnsupportedError
from triune.core.units import Presence, Unit
from triune.graph.held import HeldModel
from triune.hardware.memory import usable_memory
from triune.runtimes.machine import Machine
from triune.runtimes.registry import missing


class LoadDecoder(Protocol):
    """Compiles a decoder's graph in the paged form; see `OpenVinoDecoder`, `MlxDecoder` and `load_ladder_decoder`."""

    def __call__(
        self,
        model: HeldModel,
        *,
        unit: Unit,
        num_threads: int,
        num_blocks: int,
        precision: DecoderPrecision | None,
        cache_type: CacheType | None,
        is_reproducible: bool = False,
        has_guesses: bool = False,
    ) -> DecoderExecutable:
        """Compile a decoder, with a cache of `num_blocks` blocks of `cache_type`; None takes the runtime's own type and
        precision. With `is_reproducible`, a token's logits have the same bits regardless of the other sequences in its
        step and of how earlier tokens were divided into steps. With `has_guesses`, steps may contain guessed tokens,
        and a wrong guess must not change any logits after it was overwritten.
        """
        ...


def _openvino() -> LoadDecoder:
    from triune.runtimes.openvino.decoder import OpenVinoDecoder

    return OpenVinoDecoder


def _mlx() -> LoadDecoder:
    from triune.runtimes.mlx.decoder import MlxDecoder

    return MlxDecoder


def _coreml() -> LoadDecoder:
    from triune.hardware.cpu import read_cpu
    from triune.hardware.units import detect_units
    from triune.runtimes.compiled_cache import CompiledCache
    from triune.runtimes.coreml import CoreMl
    from triune.runtimes.coreml.decoder import load_ladder_decoder

    return functools.partial(load_ladder_decoder, CoreMl(detect_units(read_cpu())), CompiledCache())


_SHARE_OF_MEMORY: Final = 3
"""The weights of a trusted decoder (`trusted_decoder`) are a second copy in memory. They may take at most the available
memory divided by this number.
"""

_MOST_EVALUATED: Final = 1 << 30
"""A decoder with more bytes of weights than this is not computed in ONNX's reference evaluator, which is slow."""

_LOADERS: Final[Mapping[str, Callable[[], LoadDecoder]]] = {"mlx": _mlx, "openvino": _openvino}
"""The runtimes that can run decoders, the preferred one first, each with a function that imports its decoder."""

_NEURAL_ENGINE: Final = "coreml"
"""The runtime of decoders on the Neural Engine. It is used only for models whose config names `ane`, since it computes
one sequence after the other.
"""


def decoder_runtime(machine: Machine, unit: Unit | None = None) -> str:
    """The name of the runtime that runs decoders here.

    Args:
        machine: the machine.
        unit: the unit that the config names; None takes the runtime of the best unit that is not emulated.

    Raises:
        UnsupportedError: no such runtime is installed, or only one for an emulated unit that the config does not name.
            The message has the command that installs a runtime.
    """
    if unit is Unit.ANE and machine.status(unit).presence is not Presence.ABSENT:
        if _NEURAL_ENGINE not in machine.runtimes:
            raise UnsupportedError(
                f"transformers on '{unit.value}' are run by {_NEURAL_ENGINE}, which is not installed: pip install "
                f"'triune[{_NEURAL_ENGINE}]'"
            )
        return _NEURAL_ENGINE
    able = [name for name in _LOADERS if name in machine.runtimes]
    if not able:
        raise UnsupportedError(_lacking())
    wanted = {each.unit for each in machine.units if each.presence is Presence.PRESENT} if unit is None else {unit}
    fitting = [name for name in able if not wanted.isdisjoint(machine.runtimes[name].units())]
    if not fitting and unit is None:
        raise UnsupportedError(f"{_lacking(able)}; or name the unit 'gpu', which is emulated")
    # If no runtime supports the unit, return any runtime: the config is refused later, with an error about its unit.
    return (fitting or able[-1:])[0]


def missing_decoder() -> str:
    """Why no decoder can run on this machine, with the command that installs a runtime; empty if one can. This imports
    no library.
    """
    return _lacking() if not _LOADERS.keys() - missing().keys() else ""


def _lacking(able: Sequence[str] = ()) -> str:
    names = [name for name in _LOADERS if name not in able]
    remedies = " or ".join(f"pip install 'triune[{name}]'" for name in names)
    return f"transformers are run by {' or '.join(names)}, which is not installed: {remedies}"


def load_decoder(runtime: str) -> LoadDecoder:
    """The function of a runtime that compiles decoders. Imports the runtime's library."""
    return _coreml() if runtime == _NEURAL_ENGINE else _LOADERS[runtime]()


def trusted_decoder(model: HeldModel, machine: Machine) -> DecoderExecutable | None:
    """A decoder in fp32 on the CPU that rounds nothing to fewer bits, with a cache of one block.

    It runs in OpenVINO if that is installed, else in ONNX's reference evaluator, which takes about three times as long.

    Returns:
        the decoder; None if the weights exceed the available memory divided by `_SHARE_OF_MEMORY`, or 1 GiB for the
            evaluator.

    Raises:
        UnsupportedError: the decoder cannot be compiled.
    """
    if model.weight_bytes > usable_memory().available // _SHARE_OF_MEMORY:
        return None
    if "openvino" in machine.runtimes:
        from triune.runtimes.openvino.decoder import OpenVinoDecoder

        num_threads = machine.num_cores
        return OpenVinoDecoder(
            model,
            unit=Unit.CPU,
            num_threads=num_threads,
            num_blocks=1,
            precision="fp32",
            cache_type="fp32",
            is_exact=True,
        )
    from triune.runtimes.reference_decoder import ReferenceDecoder

    return ReferenceDecoder(model, num_blocks=1) if model.weight_bytes <= _MOST_EVALUATED else None
