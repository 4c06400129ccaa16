"""A decoder's graph, compiled by OpenVINO in one precision."""

import contextlib
from collections.abc import Collection, Generator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triune.core.datatypes import Array
from triune.core.decoder import CacheType, DecoderPrecision, DecoderStep
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.core.step_rows import ROW_NAMES, rows_of
from triune.graph.held import HeldModel
from triune.graph.paged_attention import OP_TYPE
from triune.runtimes.arrays import packed
from triune.runtimes.failures import reason_of
from triune.runtimes.openvino.library import library
from triune.runtimes.openvino.paged_attention import LONGEST, extension, make_paged
from triune.runtimes.openvino.whole_zero_points import make_zero_points_whole

CACHE_TYPES: Final[Mapping[CacheType, str]] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "u8"}
"""OpenVINO's names for the types of caches."""

_IN_MEMORY: Final = "*/_ORT_MEM_ADDR_/*"
"""If a tensor's external data has this location, OpenVINO's ONNX front end takes its offset as an address in memory."""


class Program:
    """A decoder's graph, compiled by OpenVINO in one precision.

    Attributes:
        precision: fp32 or bf16.
    """

    def __init__(
        self,
        model: HeldModel,
        precision: DecoderPrecision,
        properties: Mapping[str, object],
        *,
        caches: Collection[str],
        is_rounding: bool,
    ) -> None:
        """Compile a graph in the paged form, or one whose attention is written out (`graph.written_out`).

        Args:
            model: the graph.
            precision: fp32 or bf16.
            properties: properties of OpenVINO, in addition to those that follow from the other arguments.
            caches: the names of the caches among its inputs.
            is_rounding: whether activations are rounded to 8 bits where they are multiplied by quantized weights.

        Raises:
            UnsupportedError: OpenVINO cannot compile the graph, or not with such a cache or precision on this CPU.
        """
        properties = {**properties, "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
        try:
            compiled = compile_decoder(model, properties, is_rounding=is_rounding)
        except RuntimeError as error:
            kind = properties.get("KV_CACHE_PRECISION")
            cache = (
                f" with a cache in {next(name for name, each in CACHE_TYPES.items() if each == kind)}" if kind else ""
            )
            raise UnsupportedError(f"OpenVINO cannot compile the decoder{cache}: {reason_of(error)}") from error
        if precision == "bf16" and compiled.get_property("INFERENCE_PRECISION_HINT") != library.Type.bf16:
            raise UnsupportedError(
                "OpenVINO does not compute in bf16 on this CPU: run the decoder in fp32, on unit 'cpu'"
            )
        self.precision = precision
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._ports = {name: index for index, port in enumerate(compiled.inputs) for name in port.get_names()}
        steps = {each.name for each in model.model.graph.input} - set(caches) | {LONGEST}
        self._given: dict[int, Array] = {}
        self._num_tokens = 0
        self._step_ports = {name: at for name, at in self._ports.items() if name in steps}
        self._has_rows = not ROW_NAMES.isdisjoint(self._step_ports)

    def port(self, name: str) -> Any:
        """The compiled model's input of this name."""
        return self._compiled.input(name)

    def give(self, name: str, tensor: Any) -> None:
        """Set an input that stays the same for all steps."""
        self._request.set_input_tensor(self._ports[name], tensor)

    def begin(self, step: DecoderStep) -> None:
        """Start to compute a step that fits into the caches. Call `finish` before the next one begins."""
        arrays = step.arrays()
        arrays[LONGEST] = np.array((step.past_lengths + np.diff(step.subsequence_begins)).max(), np.int32)
        if self._has_rows:
            arrays |= rows_of(step)
        if missing := self._step_ports.keys() - arrays.keys():
            raise InvalidArgumentError(f"the model reads {', '.join(sorted(missing))}, which the step's memory lacks")
        # The request does not own the arrays, so keep references to them until it has run.
        self._given = {index: packed(arrays[name]) for name, index in self._step_ports.items()}
        self._num_tokens = len(step.input_ids)
        with self._failures():
            for index, array in self._given.items():
                self._request.set_input_tensor(index, library.Tensor(array, shared_memory=True))
            self._request.start_async()

    def finish(self) -> NDArray[np.float32]:
        """Wait for the running step. Returns its logits, whose memory the next step overwrites."""
        with self._failures():
            self._request.wait()
        return self._request.get_output_tensor(0).data

    def output(self, name: str) -> NDArray[np.float32]:
        """Another output of the finished step, whose memory the next step overwrites."""
        return self._request.get_tensor(name).data

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        """Compute a step that fits the caches, and return its logits as `finish` does."""
        self.begin(step)
        return self.finish()

    @contextlib.contextmanager
    def _failures(self) -> Generator[None]:
        try:
            yield
        except Exception as error:
            raise InternalError(
                f"OpenVINO failed in a step of {self._num_tokens} tokens: {reason_of(error)}"
            ) from error


def compile_decoder(model: HeldModel, properties: Mapping[str, object], *, is_rounding: bool) -> Any:
    """Compile a graph in the paged form, or one whose attention is written as standard operators, with OpenVINO.

    Args:
        model: the graph.
        properties: properties of OpenVINO.
        is_rounding: whether activations are rounded to 8 bits where they are multiplied by quantized weights.

    Raises:
        RuntimeError: OpenVINO's own error.
    """
    core = library.Core()
    core.add_extension(extension())
    read = core.read_model(model.referring(_IN_MEMORY).SerializeToString())
    if any(node.op_type == OP_TYPE for node in model.model.graph.node):
        make_paged(read, model.model.graph)
    if is_rounding:
        make_zero_points_whole(read)
    else:
        properties = {**properties, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    return core.compile_model(read, "CPU", properties)
