"""Products whose zero points were made whole give the numbers of the products before."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from contract.decoders.cases import PackedForm, packed
from triune.engine.models.builder import ModelBuilder
from triune.engine.weights import DenseTensor, PackedTensor, Tensor

pytest.importorskip("openvino")

from triune.runtimes.openvino.library import library, opset
from triune.runtimes.openvino.whole_zero_points import make_zero_points_whole


class Weights:
    """Two matrices of one shape."""

    def __init__(self, tensor: PackedTensor) -> None:
        self._tensors: dict[str, Tensor] = {
            "first.weight": tensor,
            "second.weight": tensor,
            "first.bias": DenseTensor(np.arange(tensor.shape[0], dtype=np.float32), "F32"),
        }

    def tensor(self, name: str) -> Tensor:
        """The weight of this name."""
        return self._tensors[name]


def written(tensor: PackedTensor, *shape: int | str) -> Any:
    """The OpenVINO model of two products with one input of this shape; the first has a bias."""
    graph = ModelBuilder("products", Weights(tensor))
    x = graph.input("x", TensorProto.FLOAT, *shape)
    graph.result(graph.linear(x, "first", has_bias=True), "first", *shape[:-1], tensor.shape[0])
    graph.result(graph.linear(x, "second"), "second", *shape[:-1], tensor.shape[0])
    return library.Core().read_model(graph.build().whole().SerializeToString())


def computed(model: Any, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The outputs, in fp32 throughout."""
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    return list(library.Core().compile_model(model, "CPU", exact)(x).values())


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def offset_weights(bits: Any, rows: int = 5) -> PackedTensor:
    """Weights with offsets in blocks of 8. The zero points of the first rows are no codes: the weights are all above 0,
    all below it, and all equal.
    """
    dense = random(rows, 24)
    dense[0] = np.abs(dense[0]) + 3
    dense[1] = -np.abs(dense[1]) - 3
    tensor = packed(dense, bits, "offsets")
    assert tensor.offsets is not None
    scales, offsets = tensor.scales.copy(), tensor.offsets.copy()
    scales[2], offsets[2] = 0, 0.75
    return PackedTensor(tensor.codes, bits, scales, None, 8, "Q", offsets=offsets)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", [(7, 24), (2, 3, 24)])
def test_the_numbers_stay_and_the_zero_points_become_integers(bits, shape) -> None:
    tensor = offset_weights(bits)
    model = written(tensor, *shape)
    x = random(*shape)
    assert make_zero_points_whole(model) == 2
    kinds = Counter(node.get_type_name() for node in model.get_ops())
    assert (kinds["MatMul"], kinds["ReduceSum"]) == (4, 1), "the sums are computed once"
    expected = x.astype(np.float64) @ tensor.dequantize().T.astype(np.float64)
    first, second = computed(model, x)
    np.testing.assert_allclose(first, expected + np.arange(5), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(second, expected, rtol=1e-5, atol=1e-4)
    for node in model.get_ops():
        if node.get_type_name() == "Subtract":
            zeros = node.input_value(1).get_node().input_value(0)
            assert zeros.get_element_type().get_type_name() == f"u{bits}"


def test_the_number_of_tokens_may_be_free() -> None:
    tensor = offset_weights(4)
    model = written(tensor, "tokens", 24)
    assert make_zero_points_whole(model) == 2
    for count in (1, 6):
        x = random(count, 24)
        np.testing.assert_allclose(computed(model, x)[1], x @ tensor.dequantize().T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("form", ["signed", "zero points"])
def test_other_forms_stay_as_they_are(form: PackedForm) -> None:
    model = written(packed(random(4, 16), 4, form), 3, 16)
    before = [node.get_name() for node in model.get_ordered_ops()]
    assert make_zero_points_whole(model) == 0
    assert [node.get_name() for node in model.get_ordered_ops()] == before


def test_weights_that_are_read_elsewhere_stay_as_they_are() -> None:
    model = written(offset_weights(4), 3, 24)
    weights = next(node for node in model.get_ops() if node.get_type_name() == "Transpose")
    model.add_results([opset.result(weights.output(0))])
    assert make_zero_points_whole(model) == 1
    np.testing.assert_allclose(computed(model, random(3, 24))[2], offset_weights(4).dequantize().T, atol=1e-5)
