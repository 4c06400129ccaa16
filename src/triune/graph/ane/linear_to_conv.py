"""Replace linear layers by 1x1 convolutions."""

from onnx import ModelProto, NodeProto

from triune.core.errors import InternalError
from triune.graph.ane.borders import Borders
from triune.graph.ane.layout_pass import LayoutPass
from triune.graph.ane.report import LINEAR_TO_CONV
from triune.graph.index import Index, label
from triune.graph.match.linear import Linear, bias_vector, match_linear
from triune.graph.match.no_match import NoMatchError

MAX_CHANNELS = 65536
"""The largest size of an axis on the Neural Engine. The output layer of a language model (its vocabulary) may be
larger.
"""


class LinearToConv(LayoutPass):
    """Given a linear layer of (B, S, C): MatMul, perhaps with an Add, or Gemm, with constant weights. Result: a 1x1
    Conv of (B, C, 1, S).

    A Gemm of (B * S, C), reshaped from (B, S, C), is replaced, too. Layers without a sequence, of (B, C), stay: in (B,
    C, 1, 1) the last axis has size 1, which the Neural Engine pads to 64 bytes.
    """

    name = LINEAR_TO_CONV

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace linear layers in `model`, in place, by 1x1 convolutions."""
        index = self._index(model.graph)
        borders = Borders(index)
        nodes: list[NodeProto] = []
        done: set[str] = set()
        for node in model.graph.node:
            if node.output and node.output[0] in done:
                continue
            linear = self._linear(index, node)
            if linear is None:
                nodes.append(node)
                continue
            done.update(name for each in linear.nodes for name in each.output)
            _write(index, borders, linear)
            nodes += index.take()
            self._report.change(self.name, label(node), "1x1 convolution")
        index.replace(nodes)
        return model

    def _linear(self, index: Index, node: NodeProto) -> Linear | None:
        """The linear layer that begins with a node; None if there is none, or if it is not to be converted."""
        try:
            linear = match_linear(index, node)
        except NoMatchError as problem:
            self._report.leave(self.name, label(node), str(problem))
            return None
        reason = None if linear is None else _reason(index, linear)
        if reason is not None:
            self._report.leave(self.name, label(node), reason)
        return linear if reason is None else None


def _reason(index: Index, linear: Linear) -> str | None:
    """The reason why a layer is not converted; None if it is to be converted."""
    num_channels = max(linear.num_inputs, linear.num_outputs)
    if num_channels > MAX_CHANNELS:
        return f"{num_channels} channels; the Neural Engine has at most {MAX_CHANNELS}"
    rank = index.rank(linear.x)
    if rank == 2 and _sequence(index, linear) is None:
        return "its operand (B, C) has no sequence: the last axis would be 1"
    if rank in (2, 3):
        is_vector = not linear.bias or bias_vector(index, linear) is not None
        return None if is_vector else "its bias is not a constant vector"
    return f"an operand of rank {rank} has no layout (B, C, 1, S)" if rank else "an operand of unknown rank"


def _sequence(index: Index, linear: Linear) -> str | None:
    """The value (B, S, C), if the layer reads it reshaped to (B * S, C); else None."""
    reshape = index.producer(linear.x, "Reshape")
    dims = index.dims(reshape.input[0]) if reshape is not None else None
    is_sequence = dims is not None and len(dims) == 3 and dims[2] == linear.num_inputs
    return reshape.input[0] if reshape is not None and is_sequence else None


def _write(index: Index, borders: Borders, linear: Linear) -> None:
    build, output = index.build, linear.nodes[-1].output[0]
    sequence = _sequence(index, linear) if index.rank(linear.x) == 2 else None
    inputs = [borders.enter(sequence or linear.x), _conv_weight(index, linear)]
    bias = bias_vector(index, linear)
    if bias is not None:
        inputs.append(index.weight(bias))
    result = build.op("Conv", *inputs, kernel_shape=[1, 1])
    if sequence is None:
        borders.leave(result, output)
        return
    unflattened = build.name()
    borders.leave(result, unflattened)
    build.put("Reshape", [unflattened, build.ints(-1, linear.num_outputs)], [output])


def _conv_weight(index: Index, linear: Linear) -> str:
    """The name of alpha * weight, reshaped to (num_outputs, num_inputs, 1, 1). Quantized weights stay quantized."""
    packed = index.packed(linear.weight)
    if packed is not None:
        rows = packed if linear.is_transposed else packed.transposed(1, 0)
        return index.packed_weight(rows.with_ones(2).times(linear.alpha))
    array = index.constant(linear.weight)
    if array is None:
        raise InternalError(f"the weight '{linear.weight}' is not a constant")
    if linear.alpha != 1:
        array = array * array.dtype.type(linear.alpha)
    return index.weight((array if linear.is_transposed else array.T)[:, :, None, None])
