"""An older operator set is declared where the model is the same in it."""

import pytest
from onnx import ModelProto, TensorProto, helper

from triune.graph.core_ops import OPSET
from triune.graph.declare_older import OLDER, declare_older
from triune.graph.inference import infer_shapes


def model(op: str, elem_type: int, **attributes: int) -> ModelProto:
    inputs = [helper.make_tensor_value_info(name, elem_type, [2]) for name in ("a", "b")]
    node = helper.make_node(op, ["a", "b"] if op in ("Add", "BitShift", "Mod") else ["a"], ["y"], **attributes)
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", elem_type, [2])])
    return infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10))


@pytest.mark.parametrize(
    ("made", "version"),
    [
        (model("Add", TensorProto.FLOAT), OLDER),
        (model("Cast", TensorProto.FLOAT, to=TensorProto.FLOAT), OLDER),
        (model("Celu", TensorProto.FLOAT), OLDER),
        # The older Celu takes fp32 alone, and Mod was described anew.
        (model("Celu", TensorProto.DOUBLE), OPSET),
        (model("Mod", TensorProto.INT64), OPSET),
        (model("RandomNormalLike", TensorProto.FLOAT), 21),
        (model("Bernoulli", TensorProto.FLOAT), 21),
    ],
)
def test_the_operator_set(made: ModelProto, version: int) -> None:
    declare_older(made)
    assert [each.version for each in made.opset_import] == [version]
