"""Products of matrices in 8 bits, with activations quantized in the range that each run has."""

from collections.abc import Callable, Sequence

from onnx import NodeProto, TensorProto, helper

from triune.graph.packed import Packed, small_tensor
from triune.graph.weights import tensor_of


class DynamicProducts:
    """Writes MatMul(x, w) as DynamicQuantizeLinear, MatMulInteger, and a product with both scales.

    ONNX Runtime fuses these nodes (MatMulIntegerToFloat). Products of one value share its quantization.
    """

    def __init__(self, new_name: Callable[[str], str], add: Callable[[TensorProto], None]) -> None:
        """Args:
        new_name: makes an unused name from a proposed one.
        add: adds a constant to the graph.
        """
        self._new_name = new_name
        self._add = add
        self._quantized: dict[str, tuple[str, str, str]] = {}

    def constants(self, weight: str, packed: Packed) -> tuple[str, str]:
        """Add the levels [K, N] and the scales [N] or [] of a weight without zero point. Returns their names."""
        levels, scales = self._new_name(f"{weight}/levels"), self._new_name(f"{weight}/scales")
        self._add(small_tensor(levels, packed.elem_type, packed.data))
        self._add(tensor_of(scales, packed.scale.reshape(-1 if packed.axes else ())))
        return levels, scales

    def product(self, node: NodeProto, levels: str, scales: str) -> Sequence[NodeProto]:
        """The nodes for a MatMul whose second operand is a weight."""
        x, result = node.input[0], node.output[0]
        nodes: list[NodeProto] = []
        if x not in self._quantized:
            names = [self._new_name(f"{x}/{part}") for part in ("levels", "scale", "zero")]
            self._quantized[x] = names[0], names[1], names[2]
            nodes.append(helper.make_node("DynamicQuantizeLinear", [x], names, name=names[0]))
        quantized, scale, zero = self._quantized[x]
        whole, floats, both = (self._new_name(f"{result}/{part}") for part in ("integers", "floats", "scales"))
        return [
            *nodes,
            helper.make_node("MatMulInteger", [quantized, levels, zero], [whole], name=whole),
            helper.make_node("Cast", [whole], [floats], name=floats, to=TensorProto.FLOAT),
            helper.make_node("Mul", [scale, scales], [both], name=both),
            helper.make_node("Mul", [floats, both], [result], name=node.name),
        ]
