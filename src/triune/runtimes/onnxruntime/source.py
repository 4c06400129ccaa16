"""The form in which ONNX Runtime loads a model: a file, or bytes with the weights in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from triune.core.errors import UnsupportedError
from triune.graph.defaults import free_initializers
from triune.graph.growth import growth_of
from triune.graph.guard import guard
from triune.graph.hoist import hoist_weights
from triune.graph.load import has_external_data, locate_data
from triune.graph.weight_files import data_of, refer


@dataclass(frozen=True, slots=True)
class OnnxSource:
    """A model for ONNX Runtime to load.

    Attributes:
        model: its file, or its bytes.
        names, weights: the names and contents of external weight files; not needed once the session exists.
        hosting_reason: why the model must run in a separate process; empty if it need not.
        gives_labels: whether each element of a numeric input may become a string in an output, as class labels do.
        string_copies: the bytes of strings that a run holds, as a multiple of those in the request.
    """

    model: Path | bytes
    names: Sequence[str]
    weights: Sequence[NDArray[np.uint8]]
    hosting_reason: str
    gives_labels: bool
    string_copies: float

    def give_weights(self, options: Any) -> None:
        """Pass the weights to SessionOptions."""
        if self.names:
            options.add_external_initializers_from_files_in_memory(
                list(self.names), list(self.weights), [each.nbytes for each in self.weights]
            )


def source_of(model: ModelProto, path: Path) -> OnnxSource:
    """Prepare a model: rewrite unsafe operators, decide whether it needs a separate process, and read its weights.

    External weights are read into memory, since ONNX Runtime would memory-map their files: a later write to such a file
    would change answers, and truncating it would crash the process (SIGBUS).

    Args:
        model: the result of `read_model`; it is changed.
        path: its file.

    Raises:
        InvalidArgumentError: external weights cannot be read, or have another size than the model declares.
        UnsupportedError: without external weights it is larger than protobuf's 2 GiB.
    """
    path = path.absolute()
    is_in_files = has_external_data(model, path)
    if is_in_files:
        _locate(model, path)
    growth = growth_of(model)
    guarded = guard(model)
    hosting_reason = guarded.crash_risk or growth.node
    if not is_in_files and not guarded.is_changed:
        return OnnxSource(path, (), (), hosting_reason, growth.gives_labels, growth.copies)
    if not is_in_files:
        _locate(model, path)
    names: list[str] = []
    weights: list[NDArray[np.uint8]] = []
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            names.append(f"{len(names)}")
            weights.append(data_of(tensor))
            refer(tensor, PurePath(names[-1]), 0, weights[-1].nbytes)
    try:
        content = model.SerializeToString()
    except ValueError as error:
        raise UnsupportedError(
            f"'{path}' is too large to be changed for ONNX Runtime: {error}; save its weights beside it, as external "
            "data"
        ) from error
    return OnnxSource(content, names, weights, hosting_reason, growth.gives_labels, growth.copies)


def _locate(model: ModelProto, path: Path) -> None:
    """Make all large weights initializers of the main graph, as references to their external files, and read the small
    ones into the model.
    """
    # Change an old IR version to a newer one: for old versions, ONNX Runtime refuses an initializer of a subgraph that
    # is not listed as an input as well.
    free_initializers(model)
    hoist_weights(model)
    locate_data(model, path.parent)
