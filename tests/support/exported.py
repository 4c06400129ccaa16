"""Small hand-written decoders in the form that exporters write, and their outputs in ONNX Runtime."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from triune.graph.builder import Builder

VOCABULARY, WIDTH, HEADS, KV_HEADS, SIZE, POSITIONS = 48, 32, 4, 2, 16, 64
MICROSOFT = "com.microsoft"


class Written(Builder):
    """A decoder of one layer, whose attention the caller writes."""

    def __init__(self) -> None:
        super().__init__("n")
        self.rng = np.random.default_rng(5)
        self.weights: list[TensorProto] = []
        self.inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]),
        ]

    def weight(self, *shape: int) -> str:
        """A seeded random weight."""
        return self.keep((self.rng.normal(size=shape) / 4).astype(np.float32))

    def keep(self, array: NDArray[Any]) -> str:
        """Add a constant to the file."""
        name = self.name()
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def input(self, name: str, *shape: int | str) -> str:
        """Add another input, INT64."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, shape))
        return name

    def microsoft(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Add one of ONNX Runtime's own operators."""
        self.put(op_type, inputs, outputs, domain=MICROSOFT, **attributes)

    def lengths(self) -> tuple[str, str]:
        """`seqlens_k` and `total_sequence_length` of the mask."""
        count = self.op("ReduceSum", "attention_mask", self.ints(1), keepdims=0)
        total = self.op("Gather", self.op("Shape", "attention_mask"), self.constant(1, np.int64), axis=0)
        return self.cast(self.op("Sub", count, self.ints(1)), TensorProto.INT32), self.cast(total, TensorProto.INT32)

    def tables(self, width: int) -> tuple[str, str]:
        """Cosines and sines of rotary embeddings of `width` features."""
        angles = np.arange(POSITIONS)[:, None] / 100.0 ** (np.arange(0, width, 2) / width)
        return self.keep(np.cos(angles).astype(np.float32)), self.keep(np.sin(angles).astype(np.float32))

    def model(self, attend: Callable[["Written", str], str], *, kv_heads: int = KV_HEADS) -> ModelProto:
        """Make the decoder. `attend` writes its attention, from hidden states [batch, tokens, WIDTH] to a value [batch,
        tokens, HEADS * SIZE], and `present.0.key` and `present.0.value`.
        """
        x = self.op("Gather", self.weight(VOCABULARY, WIDTH), "input_ids")
        attended = self.op("MatMul", attend(self, x), self.weight(HEADS * SIZE, WIDTH))
        x = self.op("Add", x, attended)
        self.put("MatMul", [x, self.weight(WIDTH, VOCABULARY)], ["logits"])
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", VOCABULARY])]
        for kind in ("key", "value"):
            shape: list[int | str] = ["batch", kv_heads, "past", SIZE]
            self.inputs.append(helper.make_tensor_value_info(f"past_key_values.0.{kind}", TensorProto.FLOAT, shape))
            shape[2] = "total"
            outputs.append(helper.make_tensor_value_info(f"present.0.{kind}", TensorProto.FLOAT, shape))
        graph = helper.make_graph(self.nodes, "decoder", self.inputs, outputs, self.weights)
        imports = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


def runtime_logits(model: ModelProto | Path, ids: NDArray[np.int64], steps: Sequence[int]) -> NDArray[np.float32]:
    """The logits of one text in ONNX Runtime, which computes `steps` tokens in the first steps, and then one token in
    each step.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    given: Any = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    inputs = {each.name: each for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    pasts = {
        name: np.zeros((1, each.shape[1], 0, each.shape[3]), np.float32)
        for name, each in inputs.items()
        if name.startswith("past_key_values")
    }
    found: list[NDArray[np.float32]] = []
    done = 0
    for count in (*steps, *[1] * (len(ids) - sum(steps))):
        feeds: dict[str, Any] = {"input_ids": ids[None, done : done + count], **pasts}
        done += count
        if "attention_mask" in inputs:
            feeds["attention_mask"] = np.ones((1, done), np.int64)
        if "position_ids" in inputs:
            feeds["position_ids"] = np.arange(done - count, done)[None]
        if "use_cache_branch" in inputs:
            feeds["use_cache_branch"] = np.array([True])
        given_back = dict(zip(names, session.run(None, feeds), strict=True))
        found.append(given_back["logits"][0])
        pasts = {name: given_back[name.replace("past_key_values", "present")] for name in pasts}
    return np.concatenate(found)
