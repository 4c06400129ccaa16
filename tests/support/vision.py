"""A small vision transformer with seeded random weights, node by node as torch.onnx.export traces it (opset 17).

Images (batch, 3, 16, 16) to features (batch, 17, channels): patches by a Conv, a class token, position embeddings, and
two layers of attention and an MLP whose Gelu is written with Erf. Every size of a Reshape is computed from the shape of
its operand, as in exports with a free batch size.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from support.transformers import HEAD, HEADS, WIDTH, Writer

Family = Literal["dinov2", "clip"]
"""Of Hugging Face: DINOv2 scales its layers and adds them to (batch, steps, channels); CLIP normalizes before them."""

_ONE = numpy_helper.from_array(np.array([1], np.int64))
PATCH, PATCHES = 4, 16
STEPS = PATCHES + 1


def exported_vision(family: Family, batch: int | str = "batch") -> ModelProto:
    """Make a model in the form in which the vision models of this family are exported."""
    graph = _Vision(family)
    graph.input("pixels", TensorProto.FLOAT, [batch, 3, PATCH * 4, PATCH * 4])
    x = graph.embedded("pixels")
    if family == "clip":
        x = graph.layer_norm(x)
    for _ in range(2):
        x = graph.add("Add", graph.layer_scaled(graph.attention(graph.layer_norm(x))), x)
        x = graph.add("Add", graph.layer_scaled(graph.perceptron(graph.layer_norm(x))), x)
    normal = graph.add("LayerNormalization", x, graph.random(WIDTH, mean=1), graph.random(WIDTH), output="features")
    graph.output("features", TensorProto.FLOAT, [batch, STEPS if family == "clip" else "steps", WIDTH])
    graph.add("Gather", normal, graph.weight("first", np.array(0)), axis=1, output="pooled")
    graph.output("pooled", TensorProto.FLOAT, [batch, WIDTH])
    return graph.model()


class _Vision(Writer):
    """Writes the parts of the model."""

    def __init__(self, family: Family) -> None:
        super().__init__(family, opset=17)
        self._family = family

    def size(self, x: str, axis: int) -> str:
        """The size of an axis of `x`, as a vector with one element."""
        index = self.weight(f"axis{axis}", np.array(axis))
        return self.add("Unsqueeze", self.add("Gather", self.add("Shape", x), index, axis=0), self.ints(0))

    def sizes(self, *sizes: str) -> str:
        """A vector of sizes that are computed one by one."""
        return self.add("Concat", *sizes, axis=0)

    def embedded(self, pixels: str) -> str:
        """The embeddings: patches, with the class token before them, plus position embeddings."""
        weight, bias = self.random(WIDTH, 3, PATCH, PATCH), self.random(WIDTH)
        patches = self.add(
            "Conv", pixels, weight, bias, kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH], pads=[0, 0, 0, 0]
        )
        kept = self.add("Slice", self.add("Shape", patches), self.ints(0), self.ints(2), self.ints(0))
        flat = self.add("Reshape", patches, self.sizes(kept, self.ints(-1)))
        steps = self.add("Transpose", flat, perm=[0, 2, 1])
        shape = self.sizes(self.size(pixels, 0), self.ints(-1), self.ints(-1))
        value = self.add("ConstantOfShape", self.ints(3), value=_ONE)
        minus = self.add("Mul", value, self.weight("minus", np.array(-1)))
        shape = self.add("Where", self.add("Equal", shape, minus), value, shape)
        token = self.add("Expand", self.random(1, 1, WIDTH), shape)
        return self.add("Add", self.add("Concat", token, steps, axis=1), self.random(1, STEPS, WIDTH))

    def attention(self, x: str) -> str:
        """Attention of (batch, steps, channels). The last Reshape has -1 for the channels."""
        q, k, v = (self.split(x) for _ in range(3))
        if self._family == "clip":
            scale = self.add("Sqrt", self.add("Div", self.scalar(1), self.add("Sqrt", self.width(q))))
            k = self.add("Transpose", k, perm=[0, 1, 3, 2])
            scores = self.add("MatMul", self.add("Mul", q, scale), self.add("Mul", k, scale))
        else:
            scores = self.add("MatMul", q, self.add("Transpose", k, perm=[0, 1, 3, 2]))
            scores = self.add("Div", scores, self.scalar(math.sqrt(HEAD)))
        mixed = self.add("MatMul", self.add("Softmax", scores, axis=-1), v)
        mixed = self.add("Transpose", mixed, perm=[0, 2, 1, 3])
        of = x if self._family == "clip" else mixed
        flat = self.add("Reshape", mixed, self.sizes(self.size(of, 0), self.size(of, 1), self.ints(-1)))
        return self.linear(flat, WIDTH, WIDTH)

    def split(self, x: str) -> str:
        """A projection, split into heads: (batch, heads, steps, width)."""
        flat = self.linear(x, WIDTH, WIDTH)
        parts = self.ints(-1), self.ints(HEAD)
        if self._family == "dinov2":
            parts = self.ints(HEADS), self.ints(HEAD)
        parted = self.add("Reshape", flat, self.sizes(self.size(x, 0), self.size(x, 1), *parts))
        return self.add("Transpose", parted, perm=[0, 2, 1, 3])

    def width(self, q: str) -> str:
        """The last size of the queries, as a float."""
        end = self.ints(2**63 - 1)
        last = self.add("Slice", self.add("Shape", q), self.ints(-1), end)
        return self.add("Cast", last, to=TensorProto.FLOAT)

    def layer_scaled(self, x: str) -> str:
        """DINOv2's scale for each channel."""
        return self.add("Mul", x, self.random(WIDTH)) if self._family == "dinov2" else x

    def perceptron(self, x: str) -> str:
        """Linear, Gelu, linear."""
        wide = self.linear(x, WIDTH, 4 * WIDTH)
        if self._family == "clip":
            bent = self.add("Mul", wide, self.add("Sigmoid", self.add("Mul", wide, self.scalar(1.702))))
        else:
            erf = self.add("Erf", self.add("Div", wide, self.scalar(math.sqrt(2))))
            bent = self.add("Mul", self.add("Mul", wide, self.add("Add", erf, self.scalar(1))), self.scalar(0.5))
        return self.linear(bent, 4 * WIDTH, WIDTH)


def images(batch: int) -> dict[str, NDArray[np.float32]]:
    """Pixels for `exported_vision`."""
    rng = np.random.default_rng(batch)
    return {"pixels": rng.standard_normal((batch, 3, PATCH * 4, PATCH * 4)).astype(np.float32)}
