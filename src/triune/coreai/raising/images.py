"""Conversion between images and tensors. In an ONNX graph an image is a tensor of its bytes."""

from collections.abc import Mapping
from math import prod
from types import MappingProxyType

from triune.core.errors import InvalidArgumentError
from triune.coreai.raising.given import Given
from triune.coreai.raising.region import Raise
from triune.coreai.raising.types import tensor_type
from triune.graph.raising.graph import Graph, Tensor


def _image_to_tensor(graph: Graph, given: Given) -> Tensor:
    del graph
    return given["source"]


def _tensor_to_image(graph: Graph, given: Given) -> Tensor:
    """Reshape a tensor to the bytes of an image. Their number must fit, which Apple's library does not check."""
    source = given["source"]
    shape = tuple(size or 0 for size in tensor_type(given.operation.result.type).shape or ())
    if source.shape == shape:
        return source
    sizes = source.shape or ()
    known = [size for size in sizes if size is not None]
    if len(known) == len(sizes) and prod(known) != prod(shape):
        raise InvalidArgumentError(f"a tensor of shape {known} is made an image of {prod(shape)} bytes, {list(shape)}")
    return graph.reshape(source, *shape)


TABLE: Mapping[str, Raise] = MappingProxyType(
    {"image_to_tensor": _image_to_tensor, "tensor_to_image": _tensor_to_image}
)
