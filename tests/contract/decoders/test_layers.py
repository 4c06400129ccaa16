"""A decoder in the plain form, cut before every layer: what the engine writes is a graph like any other."""

from pathlib import Path

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

import triune
from contract.decoders.cases import CONFIGS, SeededWeights, packed
from triune.engine.models import write_model
from triune.engine.weights.tensors import Tensor
from triune.graph.load import load
from triune.graph.normalize import normalize
from triune.planning.graph_ops import KEPT


class _Packed(SeededWeights):
    """Weights whose layers' matrices are packed in 4 bits."""

    def tensor(self, name: str) -> Tensor:
        tensor = super().tensor(name)
        is_matrix = ".layers." in name and tensor.dequantize().ndim == 2
        return packed(tensor.dequantize(), 4, "zero points") if is_matrix else tensor


@pytest.mark.parametrize("kind", [SeededWeights, _Packed])
def test_layers_on_two_units_give_the_logits_of_the_whole(tmp_path: Path, kind: type[SeededWeights]) -> None:
    pytest.importorskip("mlx.core")
    held = write_model(CONFIGS["llama 2"], kind(CONFIGS["llama 2"]), "plain")
    path = tmp_path / "model.onnx"
    held.save(path)
    # Each layer begins with the norm of what the one before gave.
    nodes = normalize(load(path), keep=KEPT).graph.node
    norms = [at for at, node in enumerate(nodes) if node.op_type == "RMSNormalization"]
    assert len(norms) == 5
    layers = [nodes[at - 1].name for at in (norms[0], norms[2], norms[4])]
    plan = f"cpu to {layers[0]}, gpu to {layers[1]}, cpu to {layers[2]}, gpu"
    tokens = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], np.int64)
    (expected,) = ReferenceEvaluator(held.whole()).run(None, {"input_ids": tokens})
    with triune.load(path, plan=plan) as model:
        assert model.placement is not None
        assert [each.unit.value for each in model.placement.segments] == ["cpu", "gpu", "cpu", "gpu"], model.placement
        np.testing.assert_allclose(model.run({"input_ids": tokens})["logits"], expected, atol=2e-4, rtol=1e-3)
