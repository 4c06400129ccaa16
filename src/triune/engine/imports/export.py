"""An exported decoder as a paged graph."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from triune.core.errors import UnsupportedError
from triune.engine.imports.found import FoundAttention
from triune.engine.imports.group_query import find_group_query
from triune.engine.imports.interface import Interface
from triune.engine.imports.paged import Paging
from triune.engine.imports.prepare import GROUP_QUERY, prepare
from triune.engine.imports.probe import Probe, Sizes
from triune.engine.imports.reshapes import Reshapes
from triune.engine.imports.written_out import find_written_out
from triune.engine.models.builder import OPSET
from triune.graph.held import HELD, HeldModel
from triune.graph.index import Index, label
from triune.graph.load import load
from triune.graph.passes.fold import Fold
from triune.graph.passes.infer import Infer
from triune.graph.passes.run import run_passes
from triune.graph.passes.tidy import Tidy
from triune.graph.weight_files import refer
from triune.graph.weights import Large

_FEW: Final = (Sizes(2, 3, 4), Sizes(1, 5, 0))
_MOST_TOKENS: Final = 1 << 18
"""The longest context, in tokens, for which masks are computed and compared. A larger sliding window counts as none."""

_ALIGNED: Final = 64


def import_decoder(path: Path, num_positions: int, head_size: int = 0) -> HeldModel:
    """Read an ONNX decoder with caches, and rewrite it in the paged form (`engine.models.forms`).

    Args:
        path: the ONNX file. Its weights stay in their files, mapped into memory.
        num_positions: the longest context in tokens.
        head_size: the size of a head by the config, for files whose caches do not state it; 0 if it is not known.

    Raises:
        InvalidArgumentError: the file is not a valid ONNX model.
        UnsupportedError: it is not a decoder with caches, or its attention is not what `triune::PagedAttention`
            computes. The message names the node and what was expected.
    """
    large = Large()
    model, interface = prepare(load(path), large, head_size)
    longest = Sizes(1, 1, max(min(num_positions, _MOST_TOKENS) - 1, 1))
    probes = [Probe(model, interface, sizes) for sizes in (*_FEW, longest)]
    index = Index(model.graph, "found", large)
    found = [_find(index, interface, layer, probes, num_positions) for layer in range(len(interface.pasts))]
    model = Paging(interface, found, probes)(model)
    model = run_passes(model, [Infer(), Fold(), Infer(), Reshapes(), Infer(), Fold(), Reshapes(), Tidy()])
    large.give_back(model)
    for each in model.opset_import:
        if each.domain in ("", "ai.onnx"):
            each.version = OPSET
    return _held(model)


def _find(
    index: Index, interface: Interface, layer: int, probes: Sequence[Probe], num_positions: int
) -> FoundAttention:
    """Find the attention of a layer. The error that refuses it names the layer."""
    past = interface.pasts[layer]
    node = next((each for each in index.readers(past.key) if each.op_type == GROUP_QUERY), None)
    try:
        if node is not None:
            return find_group_query(index, node, past, probes, num_positions)
        return find_written_out(index, past, probes)
    except UnsupportedError as error:
        which = f" ({label(node)})" if node is not None else ""
        raise UnsupportedError(
            f"the attention of layer {layer}{which} is not understood: {error}. The model can be served as a tensor "
            "model: name the backend 'onnxruntime' in its config"
        ) from error


def _held(model: ModelProto) -> HeldModel:
    """The model with its large weights as arrays, which are mapped into memory."""
    weights: dict[str, NDArray[np.uint8]] = {}
    files: dict[str, NDArray[np.uint8]] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {each.key: each.value for each in tensor.external_data}
        location, begin, length = entries["location"], int(entries["offset"]), int(entries["length"])
        if location not in files:
            files[location] = np.memmap(location, np.uint8, "r")
        data = files[location][begin : begin + length]
        weights[tensor.name] = data if begin % _ALIGNED == 0 else data.copy()
        refer(tensor, HELD, 0, length)
    return HeldModel(model, weights)
