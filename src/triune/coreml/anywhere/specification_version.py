"""The lowest specification version that supports all that a model uses."""

from typing import Any

from triune.core.errors import UnsupportedError
from triune.coreml.protos import model_pb2, parsed

# The newest specification version that is known here: that of iOS 26 and macOS 26.
LARGEST_VERSION = 10

_OPSETS = {"CoreML5": 6, "CoreML6": 7, "CoreML7": 8, "CoreML8": 9}
_FP16_VERSION, _STATE_VERSION, _FUNCTIONS_VERSION, _INT8_VERSION = 7, 9, 9, 10
_FP16, _INT8, _GRAY_FP16 = 65552, 131080, 40


def lowered(specification: Any) -> Any:
    """Set the lowest version that supports the operator sets, features and functions of a specification.

    Args:
        specification: a `Model_pb2.Model` or its bytes; not changed.

    Returns:
        a copy, of the type of `specification`.

    Raises:
        InvalidArgumentError: the bytes are not a specification.
        UnsupportedError: it holds no ML Program, or an operator set that is not known.
    """
    proto = model_pb2().Model()
    if isinstance(specification, bytes):
        parsed(proto, specification, "specification", "a Core ML specification")
    else:
        proto.CopyFrom(specification)
    proto.specificationVersion = _version_of(proto)
    return proto.SerializeToString() if isinstance(specification, bytes) else proto


def _version_of(proto: Any) -> int:
    kind = proto.WhichOneof("Type")
    if kind != "mlProgram":
        raise UnsupportedError(f"the lowest version of a model of type '{kind}' is not known; only of an ML Program")
    opsets = {str(function.opset) for function in proto.mlProgram.functions.values()}
    if not opsets <= _OPSETS.keys():
        raise UnsupportedError(f"the operator sets {sorted(opsets - _OPSETS.keys())} are not known")
    versions = [_OPSETS[opset] for opset in opsets]
    interfaces = [proto.description, *proto.description.functions]
    versions += [_FUNCTIONS_VERSION for _ in proto.description.functions]
    for interface in interfaces:
        versions += [_STATE_VERSION for _ in interface.state]
        versions += [_feature_version(each.type) for each in (*interface.input, *interface.output)]
    return max(versions, default=min(_OPSETS.values()))


def _feature_version(kind: Any) -> int:
    if kind.imageType.colorSpace == _GRAY_FP16 or kind.multiArrayType.dataType == _FP16:
        return _FP16_VERSION
    return _INT8_VERSION if kind.multiArrayType.dataType == _INT8 else min(_OPSETS.values())
