from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.held import HeldModel, held_tensor
from triune.graph.load import load, read_model
from triune.graph.weight_files import array_of

WEIGHT = np.random.default_rng(0).standard_normal((64, 3), np.float32)
X = np.random.default_rng(1).standard_normal((2, 64), np.float32)


def held() -> HeldModel:
    """A product with a weight that is held."""
    tensor, data = held_tensor("w", TensorProto.FLOAT, WEIGHT.shape, WEIGHT)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        initializer=[tensor],
    )
    return HeldModel(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), {"w": data})


def test_a_contiguous_weight_is_not_copied() -> None:
    assert np.shares_memory(held().weights["w"], WEIGHT)
    assert held().weight_bytes == WEIGHT.nbytes


def test_a_whole_model_contains_its_weights() -> None:
    model = held().whole()
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, {"x": X})[0], X @ WEIGHT, atol=1e-5)


def test_a_whole_model_of_more_than_protobuf_holds_is_refused() -> None:
    small = held()
    # Broadcast: it takes no memory.
    huge = HeldModel(small.model, {"w": np.broadcast_to(np.uint8(0), 2**31)})
    with pytest.raises(UnsupportedError, match="the weights take 2147483648 bytes, .* save it with its weights"):
        huge.whole()


def test_a_copy_refers_to_addresses() -> None:
    model = held()
    (tensor,) = model.referring("memory").graph.initializer
    entries = {each.key: each.value for each in tensor.external_data}
    assert entries == {"location": "memory", "offset": str(WEIGHT.ctypes.data), "length": str(WEIGHT.nbytes)}
    # Every method works on a copy of the graph.
    assert model.whole().graph.initializer[0].raw_data == WEIGHT.tobytes()


def test_a_saved_model_has_its_weights_in_a_file_beside_it(tmp_path: Path) -> None:
    held().save(tmp_path / "model.onnx")
    assert {each.name for each in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    (tensor,) = load(tmp_path / "model.onnx").graph.initializer
    np.testing.assert_array_equal(array_of(tensor), WEIGHT)


def test_a_file_cannot_name_an_address(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(held().referring("*/_ORT_MEM_ADDR_/*").SerializeToString())
    with pytest.raises(InvalidArgumentError, match="which does not exist"):
        read_model(tmp_path / "model.onnx")


@pytest.mark.parametrize("elem_type", [TensorProto.INT4, TensorProto.UINT4, TensorProto.INT8, TensorProto.FLOAT16])
def test_the_elements_of_an_initializer_are_those_that_onnx_reads(elem_type: int) -> None:
    data = np.random.default_rng(2).integers(0, 60, 15 * 2, np.uint8)
    count = 15 * 2 * 2 if elem_type in (TensorProto.INT4, TensorProto.UINT4) else 15 * 2
    count //= 2 if elem_type == TensorProto.FLOAT16 else 1
    tensor, held_data = held_tensor("w", elem_type, (5, count // 5), data)
    model = HeldModel(helper.make_model(helper.make_graph([], "g", [], [], initializer=[tensor])), {"w": held_data})
    found = model.array(tensor)
    (whole,) = model.whole().graph.initializer
    assert found.dtype in (np.int8, np.uint8, np.float16)
    np.testing.assert_array_equal(found, array_of(whole).astype(found.dtype))
    # One that is not held is read as any other.
    np.testing.assert_array_equal(HeldModel(model.model, {}).array(whole).astype(found.dtype), found)
