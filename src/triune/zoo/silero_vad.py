"""Silero VAD, which returns the probability that a short sound contains speech. The client keeps its state."""

from collections.abc import Sequence

import onnx

from triune.core.errors import InvalidArgumentError
from triune.core.units import Unit
from triune.zoo.packages import Package, Sources
from triune.zoo.recipe import ModelFolder, Recipe, placement

PACKAGE = Package(
    name="silero-vad",
    version="6.2.3",
    filename="silero_vad-6.2.3-py3-none-any.whl",
    sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    licence="MIT",
)
MODEL = "silero_vad/data/silero_vad.onnx"

SAMPLE_RATE = 16_000
NUM_SAMPLES = 512
"""The number of new samples in a call: 32 ms at 16 kHz."""
NUM_CONTEXT_SAMPLES = 64
"""How many samples of the previous call are put in front of the new ones."""

_CONFIG = """\
name: "silero_vad"
platform: "onnxruntime_onnx"
max_batch_size: 0

# At 16 kHz a call takes 576 samples (-1 to 1): the last 64 of the call before (zeros at first), then 512 new ones.
# At 8 kHz: 32 and 256. `state` starts as zeros; give each call the `stateN` of the one before.
input [
  { name: "input", data_type: TYPE_FP32, dims: [ -1, -1 ] },
  { name: "state", data_type: TYPE_FP32, dims: [ 2, -1, 128 ] },
  { name: "sr", data_type: TYPE_INT64, dims: [ 1 ] }
]
output [
  { name: "output", data_type: TYPE_FP32, dims: [ -1, 1 ] },
  { name: "stateN", data_type: TYPE_FP32, dims: [ 2, -1, 128 ] }
]

"""


def build(sources: Sources, units: Sequence[Unit]) -> ModelFolder:
    """Build the model's folder."""
    (model,) = sources.read(PACKAGE, MODEL)
    return ModelFolder(_CONFIG + placement(units), {"1/model.onnx": with_rate_as_vector(model)})


RECIPE = Recipe("silero_vad", build, (PACKAGE,))


def with_rate_as_vector(content: bytes) -> bytes:
    """Change the input `sr` from a scalar, which Triton's configs cannot express, to INT64[1].

    Only a comparison reads it, and the single result is the condition of an If. Both accept the new shape.

    Raises:
        InvalidArgumentError: the model has no input `sr`.
    """
    model = onnx.load_model_from_string(content)
    for value in model.graph.input:
        if value.name == "sr":
            value.type.tensor_type.shape.dim.add(dim_value=1)
            return model.SerializeToString(deterministic=True)
    raise InvalidArgumentError("the model has no input 'sr'")
