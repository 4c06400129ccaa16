"""Raw requests, with Inference-Header-Content-Length 0: the whole body is the data of the model's only input.

Source: Triton's binary tensor data extension, "raw binary request".
"""

from math import prod

from triune.config.model_config import ModelConfig
from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceRequest
from triune.core.tensors import format_shape
from triune.frontends.bodies.compression import Body
from triune.frontends.kserve.http.codec import OutputForm
from triune.frontends.kserve.tensors import as_bytes, decode_raw, object_array


def decode_raw_request(
    model: str, version: int | None, body: Body, config: ModelConfig
) -> tuple[InferenceRequest, OutputForm]:
    """Decode a raw request. The input's shape is computed from the model's config and the body's size.

    Raises:
        InvalidArgumentError: the model does not have exactly one input, or the body's size does not determine its
            shape.
    """
    if len(config.inputs) != 1:
        raise InvalidArgumentError(
            f"Raw request must only have 1 input (found 1) to be deduced but got {len(config.inputs)} inputs in "
            f"'{model}' model configuration: Inference-Header-Content-Length is 0, so the body is the model's one "
            "input; describe several in JSON"
        )
    (tensor,) = config.inputs.values()
    num_free = tensor.dims.count(-1)
    batch = (1,) if config.batching.max_batch_size else ()
    if tensor.datatype is DataType.BYTES:
        if num_free or prod(tensor.dims) != 1:
            raise InvalidArgumentError(
                f"For BYTE datatype raw input '{tensor.name}', the model must have input shape [1], "
                f"not {format_shape(tensor.dims)}: describe it in JSON"
            )
        array = object_array([as_bytes(body)], batch + tensor.dims)
    else:
        if num_free > 1:
            raise InvalidArgumentError(
                f"The shape of the raw input '{tensor.name}' can not be deduced because there are more than one "
                f"variable-sized dimension: {format_shape(tensor.dims)} has {num_free}; describe it in JSON"
            )
        row_bytes = prod(dim for dim in tensor.dims if dim != -1) * tensor.datatype.itemsize
        size = len(body) // row_bytes if row_bytes else 0
        dims = tuple(size if dim == -1 else dim for dim in tensor.dims)
        array = decode_raw(tensor.name, tensor.datatype, batch + dims, memoryview(body), model)
    return InferenceRequest(model, {tensor.name: array}, version), OutputForm(True, {})
