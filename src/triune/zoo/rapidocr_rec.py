"""The recogniser of RapidOCR (PP-OCRv4), which reads the characters of a line of text in an image.

Its outputs need CTC decoding.
"""

from collections.abc import Sequence

import onnx

from triune.core.errors import InvalidArgumentError
from triune.core.units import Unit
from triune.zoo.packages import Package, Sources
from triune.zoo.recipe import ModelFolder, Recipe, placement

PACKAGE = Package(
    name="rapidocr-onnxruntime",
    version="1.4.4",
    filename="rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
    sha256="971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    licence="Apache-2.0",
)
MODEL = "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"

_CONFIG = """\
name: "rapidocr_rec"
platform: "onnxruntime_onnx"
max_batch_size: 8

# A BGR image of height 48 and any width, values from -1 to 1, padded on the right with zeros.
input [ { name: "x", data_type: TYPE_FP32, format: FORMAT_NCHW, dims: [ 3, 48, -1 ] } ]
# For each step along the line, the probability of each line of characters.txt; the first, empty one is CTC's blank.
output [ { name: "softmax_11.tmp_0", data_type: TYPE_FP32, dims: [ -1, 6625 ] } ]

dynamic_batching { }
"""


def build(sources: Sources, units: Sequence[Unit]) -> ModelFolder:
    """Build the model's folder, with a file of characters that has one class in each line."""
    (model,) = sources.read(PACKAGE, MODEL)
    characters = "\n".join(read_characters(model)) + "\n"
    return ModelFolder(_CONFIG + placement(units), {"1/model.onnx": model, "characters.txt": characters.encode()})


RECIPE = Recipe("rapidocr_rec", build, (PACKAGE,), frozenset({Unit.CPU, Unit.AMX, Unit.GPU}))


def read_characters(model: bytes) -> list[str]:
    """The character of each class: "" for CTC's blank, then the characters in the model's metadata, then a space.

    Raises:
        InvalidArgumentError: the model's metadata has no characters.
    """
    for entry in onnx.load_model_from_string(model).metadata_props:
        if entry.key == "character":
            # Split at line feeds only: str.split() would also split at one of the characters, the ideographic space.
            return ["", *entry.value.removesuffix("\n").split("\n"), " "]
    raise InvalidArgumentError("the recogniser's metadata has no entry 'character'")
