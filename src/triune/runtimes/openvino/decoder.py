"""Decoders on OpenVINO's CPU plugin, over paged caches that Triune owns and the plugin writes in place."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triune.core.datatypes import Array
from triune.core.decoder import CacheType, DecoderStep, checked_blocks, checked_tokens
from triune.core.errors import InternalError, UnsupportedError, no_memory
from triune.core.units import Unit
from triune.graph.held import HeldModel
from triune.graph.paged_attention import cache_heads
from triune.runtimes.arrays import packed
from triune.runtimes.failures import reason_of
from triune.runtimes.openvino.cache import Cache
from triune.runtimes.openvino.library import library
from triune.runtimes.openvino.paged_attention import LONGEST, extension, make_paged, require_convertible

_IN_MEMORY: Final = "*/_ORT_MEM_ADDR_/*"
"""The location of external data whose offsets are addresses, for OpenVINO's ONNX front end."""

_CACHE_TYPES: Final[Mapping[CacheType, str]] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "u8"}


class OpenVinoDecoder:
    """A `core.decoder.DecoderExecutable`: fp32 on `cpu`, bf16 on `amx`. Packed weights stay packed."""

    def __init__(
        self,
        model: HeldModel,
        *,
        unit: Unit,
        num_threads: int,
        num_blocks: int,
        cache_type: CacheType | None = None,
        is_exact: bool = False,
    ) -> None:
        """Compile a graph in the paged form (`engine.models.forms`).

        Args:
            model: the graph; it is not needed afterwards.
            unit: `cpu` or `amx`.
            num_threads: CPU threads of a step.
            num_blocks: the blocks of the cache.
            cache_type: of keys and values; None takes what the plugin takes on this CPU.
            is_exact: do not round activations to 8 bits where they meet packed weights.

        Raises:
            UnsupportedError: OpenVINO cannot compile it, or not with such a cache on this CPU.
            NoMemoryError: there is not the memory for the cache.
        """
        properties: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": "bf16" if unit is Unit.AMX else "f32",
            "INFERENCE_NUM_THREADS": num_threads,
            # See `runtime`: with one thread and one stream, errors would be ignored.
            "NUM_STREAMS": 1 if num_threads > 1 else 0,
            "ENABLE_CPU_PINNING": False,
        }
        if cache_type is not None:
            properties["KV_CACHE_PRECISION"] = _CACHE_TYPES[cache_type]
        if is_exact:
            properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
        try:
            compiled = compile_decoder(model, properties)
        except RuntimeError as error:
            cache = f" with a cache in {cache_type}" if cache_type else ""
            raise UnsupportedError(f"OpenVINO cannot compile the decoder{cache}: {reason_of(error)}") from error
        if unit is Unit.AMX and compiled.get_property("INFERENCE_PRECISION_HINT") != library.Type.bf16:
            raise UnsupportedError("OpenVINO does not compute in bf16 on this CPU, so the decoder cannot run on 'amx'")
        self.unit = unit
        self.precision = "bf16" if unit is Unit.AMX else "fp32"
        self._request = compiled.create_infer_request()
        ports = {name: index for index, port in enumerate(compiled.inputs) for name in port.get_names()}
        self._ports = {name: ports[name] for name in ports if name in _step_names() or name == LONGEST}
        self._caches = [
            Cache(compiled.input(name), ports[name], *heads) for name, heads in cache_heads(model.model.graph).items()
        ]
        self.block_size = self._caches[0].block_size
        self.cache_form = f"openvino {library.__version__} {self._caches[0].form} {self._caches[1].form}"
        self.allocate(num_blocks)

    @property
    def block_bytes(self) -> int:
        """See `DecoderExecutable`."""
        return sum(cache.block_bytes for cache in self._caches)

    @property
    def num_blocks(self) -> int:
        """See `DecoderExecutable`."""
        return len(self._caches[0].blocks)

    def allocate(self, num_blocks: int) -> None:
        """See `DecoderExecutable`."""
        try:
            for cache in self._caches:
                cache.allocate(num_blocks, self._request)
        except (MemoryError, RuntimeError) as error:
            what = f"a cache of {num_blocks} blocks, {num_blocks * self.block_bytes} bytes"
            raise no_memory(what, "give the cache fewer blocks") from error

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        """See `DecoderExecutable`."""
        step.require_fitting(self.num_blocks, self.block_size)
        arrays = step.arrays()
        arrays[LONGEST] = np.array((step.past_lengths + np.diff(step.subsequence_begins)).max(), np.int32)
        # The request does not own the arrays, so they must live until it has run.
        given = {index: packed(arrays[name]) for name, index in self._ports.items()}
        try:
            for index, array in given.items():
                self._request.set_input_tensor(index, library.Tensor(array, shared_memory=True))
            self._request.infer()
        except Exception as error:
            raise InternalError(
                f"OpenVINO failed in a step of {len(step.input_ids)} tokens: {reason_of(error)}"
            ) from error
        return self._request.get_output_tensor(0).data

    def read_blocks(self, indices: Sequence[int]) -> Sequence[Array]:
        """See `DecoderExecutable`."""
        return [cache.blocks[list(indices)] for cache in self._caches]

    def write_blocks(self, indices: Sequence[int], blocks: Sequence[Array]) -> None:
        """See `DecoderExecutable`."""
        caches = [cache.blocks for cache in self._caches]
        for cache, new in zip(caches, checked_blocks(indices, blocks, caches), strict=True):
            cache[list(indices)] = new

    def read_tokens(self, blocks: Sequence[int], num_tokens: int) -> Sequence[NDArray[np.float32]]:
        """See `DecoderExecutable`."""
        return [cache.tokens(blocks, num_tokens) for cache in self._caches]

    def write_tokens(self, blocks: Sequence[int], tokens: Sequence[NDArray[np.float32]]) -> None:
        """See `DecoderExecutable`."""
        heads = [(cache.heads, cache.head_size) for cache in self._caches]
        for cache, new in zip(self._caches, checked_tokens(tokens, heads), strict=True):
            cache.put_tokens(blocks, new)

    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """See `DecoderExecutable`."""
        for cache in self._caches:
            cache.blocks[list(targets)] = cache.blocks[list(sources)]

    def close(self) -> None:
        """See `DecoderExecutable`."""
        del self._request, self._caches


def compile_decoder(model: HeldModel, properties: Mapping[str, object]) -> Any:
    """OpenVINO's compiled model of a graph in the paged form.

    Raises:
        UnsupportedError: OpenVINO's attention lacks what the graph asks for.
        RuntimeError: OpenVINO's own error.
    """
    require_convertible(model.model.graph)
    core = library.Core()
    core.add_extension(extension())
    read = core.read_model(model.referring(_IN_MEMORY).SerializeToString())
    make_paged(read, model.model.graph)
    return core.compile_model(read, "CPU", properties)


def _step_names() -> frozenset[str]:
    return frozenset(DecoderStep.__dataclass_fields__)
