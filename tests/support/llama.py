"""A small LLaMA with seeded random weights, node by node as torch's two exporters write it.

Tokens, mask and positions (batch, steps), both free, to logits (batch, steps, vocabulary): two layers of four heads
that share two heads of keys, RMSNorm, RoPE, a mask of causes and padding, SwiGLU.
"""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from support.transformers import HEAD, HEADS, VOCABULARY, WIDTH, Writer

Exporter = Literal["traced", "dynamo"]
"""torch.onnx.export of old, which traces (and optimum through it), and the newer one."""

SHARED = 2
"""Heads of keys and values."""
REPEATS = HEADS // SHARED
HIDDEN = 3 * WIDTH


def exported_llama(exporter: Exporter) -> ModelProto:
    """Make the model in the form in which this exporter writes LlamaForCausalLM."""
    graph = _Llama("llama", exporter)
    for name in ("tokens", "mask", "positions"):
        graph.input(name, TensorProto.INT64, ["batch", "steps"])
    x = graph.add("Gather", graph.random(VOCABULARY, WIDTH), "tokens")
    tables = graph.tables()
    mask = graph.mask()
    for _ in range(2):
        x = graph.add("Add", x, graph.attention(graph.norm(x), tables, mask))
        x = graph.add("Add", x, graph.mlp(graph.norm(x)))
    graph.add("MatMul", graph.norm(x), graph.random(WIDTH, VOCABULARY), output="logits")
    graph.output("logits", TensorProto.FLOAT, ["batch", "steps", VOCABULARY])
    return graph.model()


def llama_inputs(batch: int, length: int, *, is_padded: bool = True) -> dict[str, NDArray[Any]]:
    """Inputs for the model. The last row begins with padding, for whose positions all keys are masked."""
    rng = np.random.default_rng(length)
    mask = np.ones((batch, length), np.int64)
    if is_padded:
        mask[-1, : length // 2] = 0
    positions = np.maximum(np.cumsum(mask, 1) - 1, 0)
    return {"tokens": rng.integers(0, VOCABULARY, (batch, length)), "mask": mask, "positions": positions}


class _Llama(Writer):
    """Writes the parts of the model."""

    def __init__(self, name: str, exporter: Exporter) -> None:
        super().__init__(name)
        self._is_traced = exporter == "traced"

    def size(self, x: str, axis: int) -> str:
        """The size of an axis of `x`, as a vector with one element."""
        if not self._is_traced:
            return self.add("Shape", x, start=axis, end=axis + 1)
        index = self.weight(f"axis{axis}", np.array(axis))
        return self.add("Unsqueeze", self.add("Gather", self.add("Shape", x), index, axis=0), self.ints(0))

    def reshaped(self, x: str, *sizes: str) -> str:
        """Reshape by sizes that are computed one by one."""
        more: dict[str, Any] = {} if self._is_traced else {"allowzero": 1}
        return self.add("Reshape", x, self.add("Concat", *sizes, axis=0), **more)

    def tables(self) -> tuple[str, str]:
        """Cos and sin of the positions, (batch, 1, steps, width)."""
        frequencies = 100.0 ** (-np.arange(0, HEAD, 2, dtype=np.float32) / HEAD)
        column = self.weight("inv_freq", frequencies.astype(np.float32).reshape(1, -1, 1))
        wide = self.expanded(column, self.size("positions", 0), self.ints(HEAD // 2), self.ints(1))
        row = self.add("Cast", self.add("Unsqueeze", "positions", self.ints(1)), to=TensorProto.FLOAT)
        angles = self.add("Transpose", self.add("MatMul", wide, row), perm=[0, 2, 1])
        both = self.add("Concat", angles, angles, axis=-1)
        cos, sin = (self.add("Mul", self.add(op, both), self.scalar(1)) for op in ("Cos", "Sin"))
        return self.add("Unsqueeze", cos, self.ints(1)), self.add("Unsqueeze", sin, self.ints(1))

    def expanded(self, x: str, *sizes: str) -> str:
        """Expand. The traced export also checks for sizes of -1."""
        shape = self.add("Concat", *sizes, axis=0)
        if self._is_traced:
            ones = self.weight(f"ones{len(sizes)}", np.ones(len(sizes), np.int64))
            minus = self.add("Mul", ones, self.weight("minus", np.array(-1)))
            shape = self.add("Where", self.add("Equal", shape, minus), ones, shape)
        return self.add("Expand", x, shape)

    def mask(self) -> str:
        """The attention mask (batch, 1, steps, steps): masked keys have -inf, or in the traced export the lowest
        number.
        """
        length = self.add("Squeeze", self.size("tokens", 1), self.ints(0))
        zero, one = self.weight("zero", np.array(0)), self.weight("one", np.array(1))
        steps = self.add("Range", zero, length, one)
        rows, columns = self.add("Unsqueeze", steps, self.ints(1)), self.add("Unsqueeze", steps, self.ints(0))
        before = self.add("LessOrEqual", columns, rows)
        there = self.add("Unsqueeze", self.add("Cast", "mask", to=TensorProto.BOOL), self.ints(1, 2))
        seen = self.add("And", self.add("Unsqueeze", before, self.ints(0, 1)), there)
        least = float(np.finfo(np.float32).min) if self._is_traced else -math.inf
        return self.add("Where", seen, self.scalar(0), self.weight("least", np.array(least, np.float32)))

    def norm(self, x: str) -> str:
        """RMSNorm, which always computes in fp32."""
        x = self.add("Cast", x, to=TensorProto.FLOAT)
        mean = self.add("ReduceMean", self.add("Pow", x, self.scalar(2)), self.ints(-1), keepdims=1)
        root = self.add("Sqrt", self.add("Add", mean, self.scalar(1e-5)))
        inverse = self.add("Div", self.scalar(1), root) if self._is_traced else self.add("Reciprocal", root)
        normal = self.add("Cast", self.add("Mul", x, inverse), to=TensorProto.FLOAT)
        return self.add("Mul", self.random(WIDTH, mean=1), normal)

    def attention(self, x: str, tables: tuple[str, str], mask: str) -> str:
        """Attention of (batch, steps, channels)."""
        q = self.turned(self.split(x, HEADS), tables)
        k = self.turned(self.split(x, SHARED), tables)
        v = self.split(x, SHARED)
        k, v = self.repeated(k), self.repeated(v)
        scale = self.scalar(HEAD**-0.25)
        scores = self.add("MatMul", self.add("Mul", q, scale), self.add("Mul", self.keys(k), scale))
        shares = self.add("Softmax", self.add("Add", scores, mask), axis=-1)
        if not self._is_traced:
            shares = self.add("Where", self.add("IsNaN", shares), self.scalar(0), shares)
        mixed = self.add("Transpose", self.add("MatMul", shares, v), perm=[0, 2, 1, 3])
        flat = self.reshaped(mixed, self.size(x, 0), self.size(x, 1), self.ints(WIDTH))
        return self.linear(flat, WIDTH, WIDTH, has_bias=False)

    def split(self, x: str, num_heads: int) -> str:
        """A projection, split into heads: (batch, heads, steps, width)."""
        flat = self.linear(x, WIDTH, num_heads * HEAD, has_bias=False)
        parted = self.reshaped(
            flat, self.size(x, 0), self.size(x, 1), self.ints(-1 if self._is_traced else num_heads), self.ints(HEAD)
        )
        return self.add("Transpose", parted, perm=[0, 2, 1, 3])

    def turned(self, x: str, tables: tuple[str, str]) -> str:
        """Rotary position embedding (RoPE)."""
        cos, sin = tables
        half: str = self.ints(HEAD // 2)
        if self._is_traced:
            half = self.add("Div", self.size(x, 3), self.ints(2))
        end = self.ints(2**63 - 1)
        first = self.add("Slice", x, self.ints(0), half, self.ints(3), self.ints(1))
        second = self.add("Slice", x, half, end, self.ints(3), self.ints(1))
        rotated = self.add("Concat", self.add("Neg", second), first, axis=-1)
        return self.add("Add", self.add("Mul", x, cos), self.add("Mul", rotated, sin))

    def repeated(self, x: str) -> str:
        """Repeat each head of keys or values for the query heads that share it."""
        batch, steps = self.size(x, 0), self.size(x, 2)
        whole = self.add("Unsqueeze", x, self.ints(2))
        wide = self.expanded(whole, batch, self.ints(SHARED), self.ints(REPEATS), steps, self.ints(HEAD))
        return self.reshaped(wide, batch, self.ints(HEADS), steps, self.ints(HEAD))

    def keys(self, k: str) -> str:
        """The keys with their last two axes transposed."""
        if self._is_traced:
            return self.add("Transpose", k, perm=[0, 1, 3, 2])
        batch, steps = self.size(k, 0), self.size(k, 2)
        rows = self.add("Reshape", k, self.add("Concat", self.ints(-1), steps, self.ints(HEAD), axis=0))
        return self.reshaped(
            self.add("Transpose", rows, perm=[0, 2, 1]), batch, self.ints(HEADS), self.ints(HEAD), steps
        )

    def mlp(self, x: str) -> str:
        """The MLP, with SwiGLU."""
        gate = self.linear(x, WIDTH, HIDDEN, has_bias=False)
        wide = self.add(
            "Mul", self.add("Mul", gate, self.add("Sigmoid", gate)), self.linear(x, WIDTH, HIDDEN, has_bias=False)
        )
        return self.linear(wide, HIDDEN, WIDTH, has_bias=False)
