"""Arrays as the inputs of requests of Triton's clients."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from tritonclient.utils import np_to_triton_dtype


def tensors(module: ModuleType, arrays: Mapping[str, np.ndarray], **options: Any) -> list[Any]:
    """Make inputs for the client in `module`, tritonclient.http or .grpc. `options` are passed to its
    `set_data_from_numpy`.
    """
    made = []
    for name, array in arrays.items():
        tensor = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array, **options)
        made.append(tensor)
    return made
