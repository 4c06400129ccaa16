"""Large weights set aside while ONNX's C++ code, which copies all it is given, works on the rest."""

from onnx import ModelProto, TensorProto, helper

from triune.graph.values import subgraphs_of

LARGE_BYTES = 1 << 16


class SetAside:
    """The large initializers of a model, which are inputs of it for the time being.

    A message of protobuf holds 2 GiB at most, and every call of shape inference copies the model twice.
    """

    def __init__(self, model: ModelProto) -> None:
        """Takes them out of `model`."""
        graph = model.graph
        self._inputs = {value.name for value in graph.input}
        self._large = [tensor for tensor in graph.initializer if _num_bytes(tensor) >= LARGE_BYTES]
        small = [tensor for tensor in graph.initializer if _num_bytes(tensor) < LARGE_BYTES]
        self._large = [_copy(tensor) for tensor in self._large]
        small = [_copy(tensor) for tensor in small]
        del graph.initializer[:]
        graph.initializer.extend(small)
        for tensor in self._large:
            if tensor.name not in self._inputs:
                graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))

    def give_back(self, model: ModelProto) -> None:
        """Puts those that `model` still reads back into it."""
        names = {tensor.name for tensor in self._large}
        inputs = [value for value in model.graph.input if value.name not in names or value.name in self._inputs]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        used = _names_read(model)
        model.graph.initializer.extend(tensor for tensor in self._large if tensor.name in used)


def _num_bytes(tensor: TensorProto) -> int:
    return len(tensor.raw_data) or tensor.ByteSize()


def _copy(tensor: TensorProto) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    return copy


def _names_read(model: ModelProto) -> set[str]:
    names = {value.name for value in model.graph.output}
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        names.update(value.name for value in graph.output)
        for node in graph.node:
            names.update(node.input)
            graphs.extend(subgraphs_of(node))
    return names
