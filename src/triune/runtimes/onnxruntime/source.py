"""What ONNX Runtime is given of a model: its file, or its bytes with the weights in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from triune.core.errors import UnsupportedError
from triune.graph.growth import growth_of
from triune.graph.guard import guard
from triune.graph.hoist import hoist_weights
from triune.graph.load import has_external_data, locate_data
from triune.graph.weight_files import data_of, refer


@dataclass(frozen=True, slots=True)
class OnnxSource:
    """A model as ONNX Runtime is to load it.

    Attributes:
        model: its file, or its bytes.
        names, weights: what its bytes call files, and these files' contents; not read once a session is made.
        hosting_reason: why it is for a process of its own; empty where it is not.
        gives_labels: as of `Growth`.
    """

    model: Path | bytes
    names: Sequence[str]
    weights: Sequence[NDArray[np.uint8]]
    hosting_reason: str
    gives_labels: bool

    def give_weights(self, options: Any) -> None:
        """Have a session of these SessionOptions find the weights."""
        if self.names:
            options.add_external_initializers_from_files_in_memory(
                list(self.names), list(self.weights), [each.nbytes for each in self.weights]
            )


def source_of(model: ModelProto, path: Path) -> OnnxSource:
    """Prepare a model: guarded, judged, and its weights read.

    ONNX Runtime would map the files beside a model into memory: whoever writes to one would change answers, or end the
    process by cutting it short (SIGBUS).

    Args:
        model: as `read_model` gives it; changed.
        path: its file.

    Raises:
        InvalidArgumentError: weights beside it cannot be read, or are not as many as the model says.
        UnsupportedError: without them it takes more than protobuf's 2 GiB.
    """
    path = path.absolute()
    is_in_files = has_external_data(model)
    if is_in_files:
        hoist_weights(model)
        locate_data(model, path.parent)
    growth = growth_of(model)
    guarded = guard(model)
    hosting_reason = guarded.left or growth.node
    if not is_in_files and not guarded.is_changed:
        return OnnxSource(path, (), (), hosting_reason, growth.gives_labels)
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
    return OnnxSource(content, names, weights, hosting_reason, growth.gives_labels)
