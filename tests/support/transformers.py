"""Small transformers with seeded random weights, in the form that exporters write. Batch size and sequence length are
free.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from triune.engine.models import write_encoder
from triune.engine.weights import DenseTensor
from triune.engine.weights.config import BertConfig
from triune.zoo.graph_builder import GraphBuilder

WIDTH, HEADS = 32, 4
HEAD = WIDTH // HEADS
VOCABULARY = 40
_MOST_STEPS = 64
_LEAST = float(np.finfo(np.float32).min)


def random_minilm() -> ModelProto:
    """The graph of MiniLM, with six layers of width 384, random weights and a vocabulary of 50 tokens."""
    config = BertConfig(50, 384, 6, 12, 1536, 512, 2, pooling="mean", is_normalized=True)
    rng = np.random.default_rng(3)
    weights: dict[str, NDArray[np.float32]] = {}

    def add(name: str, *shape: int, mean: float = 0) -> None:
        weights[name] = (mean + rng.standard_normal(shape, np.float32) * 0.05).astype(np.float32)

    def norm(name: str) -> None:
        add(f"{name}.weight", 384, mean=1)
        add(f"{name}.bias", 384)

    for kind, size in (("word", 50), ("position", 512), ("token_type", 2)):
        add(f"embeddings.{kind}_embeddings.weight", size, 384)
    norm("embeddings.LayerNorm")
    for layer in range(6):
        prefix = f"encoder.layer.{layer}"
        sizes = {f"attention.self.{name}": (384, 384) for name in ("query", "key", "value")}
        sizes |= {"attention.output.dense": (384, 384), "intermediate.dense": (1536, 384), "output.dense": (384, 1536)}
        for name, shape in sizes.items():
            add(f"{prefix}.{name}.weight", *shape)
            add(f"{prefix}.{name}.bias", shape[0])
        norm(f"{prefix}.attention.output.LayerNorm")
        norm(f"{prefix}.output.LayerNorm")
    return write_encoder(config, _Named(weights), "plain").whole()


class _Named:
    """A source of weights by name."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self._weights = weights

    def tensor(self, name: str) -> DenseTensor:
        """The weight of this name."""
        return DenseTensor(self._weights[name], "F32")


def minilm_inputs(batch: int, length: int) -> dict[str, NDArray[Any]]:
    """Inputs for `random_minilm`. The second half of the last row is padding."""
    rng = np.random.default_rng(length)
    mask = np.ones((batch, length), np.int64)
    mask[-1, (length + 1) // 2 :] = 0
    return {
        "input_ids": rng.integers(0, 50, (batch, length)),
        "attention_mask": mask,
        "token_type_ids": np.zeros((batch, length), np.int64),
    }


class Writer(GraphBuilder):
    """Layers with random weights."""

    def __init__(self, name: str, opset: int = 20) -> None:
        super().__init__(name, opset=opset, ir_version=9)
        self._rng = np.random.default_rng(7)
        self._num_weights = 0

    def random(self, *shape: int, mean: float = 0) -> str:
        """Add a new random weight."""
        self._num_weights += 1
        values = mean + self._rng.standard_normal(shape) * 0.2
        return self.weight(f"w{self._num_weights}", values.astype(np.float32))

    def linear(self, x: str, width: int, out: int, *, has_bias: bool = True) -> str:
        """A linear layer as MatMul and Add."""
        product = self.add("MatMul", x, self.random(width, out))
        return self.add("Add", product, self.random(out)) if has_bias else product

    def conv1d(self, x: str, width: int, out: int) -> str:
        """A linear layer as in exports of GPT-2: Reshape to rows, Gemm, and Reshape back to a computed shape."""
        rows = self.add("Reshape", x, self.ints(-1, width))
        product = self.add("Gemm", rows, self.random(width, out), self.random(out))
        steps = self.add("Concat", self.add("Shape", x, start=0, end=2), self.ints(out), axis=0)
        return self.add("Reshape", product, steps)

    def layer_norm(self, x: str) -> str:
        """Layer normalization over the last axis."""
        return self.add("LayerNormalization", x, self.random(WIDTH, mean=1), self.random(WIDTH), axis=-1, epsilon=1e-5)

    def rms_norm(self, x: str) -> str:
        """RMSNorm in the form in which LLaMA is exported."""
        square = self.add("ReduceMean", self.add("Pow", x, self.scalar(2)), self.ints(-1), keepdims=1)
        root = self.add("Sqrt", self.add("Add", square, self.scalar(1e-5)))
        return self.add("Mul", self.random(WIDTH, mean=1), self.add("Div", x, root))

    def part(self, x: str, start: int, end: int, axis: int) -> str:
        """Slice an axis from `start` to `end`."""
        return self.add("Slice", x, self.ints(start), self.ints(end), self.ints(axis))

    def thirds(self, x: str, size: int, axis: int) -> list[str]:
        """Slice an axis into three parts of equal size."""
        return [self.part(x, i * size, (i + 1) * size, axis) for i in range(3)]

    def heads(self, x: str, *, num_heads: int = HEADS, is_key: bool = False) -> str:
        """Split into heads (B, heads, S, width), with keys transposed."""
        parted = self.add("Reshape", x, self.ints(0, 0, num_heads, HEAD))
        return self.add("Transpose", parted, perm=[0, 2, 3, 1] if is_key else [0, 2, 1, 3])

    def joined(self, shares: str, values: str) -> str:
        """Multiply attention weights by values, and join the heads to (B, S, C)."""
        mixed = self.add("Transpose", self.add("MatMul", shares, values), perm=[0, 2, 1, 3])
        return self.add("Reshape", mixed, self.ints(0, 0, WIDTH))

    def model(self) -> ModelProto:
        """The model with all nodes that were written."""
        return onnx.load_model_from_string(self.build())


def gpt2() -> ModelProto:
    """Two layers of GPT-2, from tokens (B, S) to logits (B, S, vocabulary), with Gemm of rows, a fused QKV, and masks
    by Where.
    """
    graph = Writer("gpt2")
    graph.input("tokens", TensorProto.INT64, ["batch", "steps"])
    length = graph.add("Shape", "tokens", start=1, end=2)
    table = graph.random(VOCABULARY, WIDTH)
    places = graph.add("Slice", graph.random(_MOST_STEPS, WIDTH), graph.ints(0), length, graph.ints(0))
    x = graph.add("Add", graph.add("Gather", table, "tokens"), places)
    triangle = graph.weight("triangle", np.tril(np.ones((1, 1, _MOST_STEPS, _MOST_STEPS), np.bool_)))
    square = graph.add("Concat", length, length, axis=0)
    causal = graph.add("Slice", triangle, graph.ints(0, 0), square, graph.ints(2, 3))
    for _ in range(2):
        normal = graph.layer_norm(x)
        q, k, v = graph.thirds(graph.conv1d(normal, WIDTH, 3 * WIDTH), WIDTH, -1)
        scores = graph.add("MatMul", graph.heads(q), graph.heads(k, is_key=True))
        scores = graph.add("Div", scores, graph.scalar(math.sqrt(HEAD)))
        masked = graph.add("Where", causal, scores, graph.scalar(_LEAST))
        mixed = graph.joined(graph.add("Softmax", masked, axis=-1), graph.heads(v))
        x = graph.add("Add", graph.conv1d(mixed, WIDTH, WIDTH), x)
        wide = graph.conv1d(graph.layer_norm(x), WIDTH, 4 * WIDTH)
        x = graph.add("Add", x, graph.conv1d(_tanh_gelu(graph, wide), 4 * WIDTH, WIDTH))
    graph.add("MatMul", graph.layer_norm(x), graph.random(WIDTH, VOCABULARY), output="logits")
    graph.output("logits", TensorProto.FLOAT, ["batch", "steps", VOCABULARY])
    return graph.model()


def _tanh_gelu(graph: Writer, x: str) -> str:
    cube = graph.add("Mul", graph.add("Pow", x, graph.scalar(3)), graph.scalar(0.044715))
    inner = graph.add("Mul", graph.add("Add", x, cube), graph.scalar(math.sqrt(2 / math.pi)))
    bent = graph.add("Add", graph.add("Tanh", inner), graph.scalar(1))
    return graph.add("Mul", graph.add("Mul", x, graph.scalar(0.5)), bent)


def llama() -> ModelProto:
    """One layer of LLaMA, from (B, S, C) to (B, S, C), with RMSNorm, RoPE, two heads of keys for four of queries, -inf
    masks, and SwiGLU.
    """
    graph = Writer("llama")
    graph.input("x", TensorProto.FLOAT, ["batch", "steps", WIDTH])
    length = graph.add("Shape", "x", start=1, end=2)
    square = graph.add("Concat", length, length, axis=0)
    value = onnx.numpy_helper.from_array(np.array([-np.inf], np.float32))
    full = graph.add("ConstantOfShape", square, value=value)
    causal = graph.add(
        "Unsqueeze", graph.add("Trilu", full, graph.weight("one", np.array(1)), upper=1), graph.ints(0, 1)
    )
    angles = np.arange(_MOST_STEPS)[:, None] * 100.0 ** (-np.arange(0, HEAD, 2) / HEAD)
    tables = [np.concatenate([f(angles), f(angles)], 1).astype(np.float32) for f in (np.cos, np.sin)]
    cos, sin = (
        graph.add("Slice", graph.weight(f"table{i}", table), graph.ints(0), length, graph.ints(0))
        for i, table in enumerate(tables)
    )

    def turned(x: str) -> str:
        left, right = graph.part(x, 0, HEAD // 2, 3), graph.part(x, HEAD // 2, HEAD, 3)
        swapped = graph.add("Concat", graph.add("Neg", right), left, axis=3)
        return graph.add("Add", graph.add("Mul", x, cos), graph.add("Mul", swapped, sin))

    def repeated(x: str) -> str:
        whole = graph.add("Unsqueeze", x, graph.ints(2))
        twice = graph.add("Expand", whole, graph.ints(1, 1, 2, 1, 1))
        steps = graph.add(
            "Concat", graph.add("Shape", x, start=0, end=1), graph.ints(HEADS), length, graph.ints(HEAD), axis=0
        )
        return graph.add("Reshape", twice, steps)

    normal = graph.rms_norm("x")
    q = turned(graph.heads(graph.linear(normal, WIDTH, WIDTH, has_bias=False)))
    k = turned(graph.heads(graph.linear(normal, WIDTH, WIDTH // 2, has_bias=False), num_heads=2))
    v = graph.heads(graph.linear(normal, WIDTH, WIDTH // 2, has_bias=False), num_heads=2)
    scores = graph.add("MatMul", q, graph.add("Transpose", repeated(k), perm=[0, 1, 3, 2]))
    masked = graph.add("Add", graph.add("Mul", scores, graph.scalar(1 / math.sqrt(HEAD))), causal)
    mixed = graph.joined(graph.add("Softmax", masked, axis=-1), repeated(v))
    x = graph.add("Add", "x", graph.linear(mixed, WIDTH, WIDTH, has_bias=False))
    normal = graph.rms_norm(x)
    gate = graph.linear(normal, WIDTH, 3 * WIDTH, has_bias=False)
    gate = graph.add("Mul", gate, graph.add("Sigmoid", gate))
    wide = graph.add("Mul", gate, graph.linear(normal, WIDTH, 3 * WIDTH, has_bias=False))
    graph.add("Add", x, graph.linear(wide, 3 * WIDTH, WIDTH, has_bias=False), output="y")
    graph.output("y", TensorProto.FLOAT, ["batch", "steps", WIDTH])
    return graph.model()


def encoder(cut: str) -> ModelProto:
    """One attention layer of an encoder, from (B, S, C) to (B, S, C), whose fused QKV is split in one of the usual
    ways.

    Args:
        cut: "thirds": Slices of the channels; "stacked": Reshape to (B, S, 3, heads, width), Transpose, then Gather;
            "interleaved": (B, S, heads, 3 * width), GPT-NeoX's; "scaled": the queries are scaled, not the scores.
    """
    graph = Writer("encoder")
    graph.input("x", TensorProto.FLOAT, ["batch", "steps", WIDTH])
    fused = graph.linear("x", WIDTH, 3 * WIDTH)
    if cut == "stacked":
        stacked = graph.add("Reshape", fused, graph.ints(0, 0, 3, HEADS, HEAD))
        stacked = graph.add("Transpose", stacked, perm=[2, 0, 3, 1, 4])
        q, k, v = (graph.add("Gather", stacked, graph.weight(f"at{i}", np.array(i)), axis=0) for i in range(3))
        k = graph.add("Transpose", k, perm=[0, 1, 3, 2])
    elif cut == "interleaved":
        whole = graph.add("Reshape", fused, graph.ints(0, 0, HEADS, 3 * HEAD))
        q, k, v = graph.thirds(graph.add("Transpose", whole, perm=[0, 2, 1, 3]), HEAD, 3)
        k = graph.add("Transpose", k, perm=[0, 1, 3, 2])
    else:
        q, k, v = graph.thirds(fused, WIDTH, 2)
        q, k, v = graph.heads(q), graph.heads(k, is_key=True), graph.heads(v)
    factor = graph.scalar(1 / math.sqrt(HEAD))
    if cut == "scaled":
        scores = graph.add("MatMul", graph.add("Mul", q, factor), k)
    else:
        scores = graph.add("Mul", graph.add("MatMul", q, k), factor)
    mixed = graph.joined(graph.add("Softmax", scores, axis=-1), v)
    graph.add("Add", graph.linear(mixed, WIDTH, WIDTH), "x", output="y")
    graph.output("y", TensorProto.FLOAT, ["batch", "steps", WIDTH])
    return graph.model()


def hidden(batch: int, length: int) -> Mapping[str, NDArray[np.float32]]:
    """Hidden states: the input `x` of `llama` and `encoder`."""
    return {"x": np.random.default_rng(length).standard_normal((batch, length, WIDTH)).astype(np.float32)}
