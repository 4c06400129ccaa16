"""Magika: detects the type of a file from its first and last bytes."""

import json
from collections.abc import Sequence
from typing import cast

from triune.core.units import Unit
from triune.zoo.packages import Package, Sources
from triune.zoo.recipe import ModelFolder, Recipe, placement

PACKAGE = Package(
    name="magika",
    version="1.0.3",
    filename="magika-1.0.3-py3-none-any.whl",
    sha256="938d8e033953f2ddeb8c35dc423aa289ca116bfa7a71a778f6e77460f9025803",
    licence="Apache-2.0",
)
MODEL = "magika/models/standard_v3_3/model.onnx"
SETTINGS = "magika/models/standard_v3_3/config.min.json"

NUM_BYTES = 1024
"""How many bytes of a file's beginning, and of its end, the model reads."""
PADDING = 256
"""The value with which fewer than NUM_BYTES bytes are filled up: a beginning after its last byte, an end before its
first byte.
"""
BLOCK_BYTES = 4096
"""The bytes that the model reads are taken from the file's first and last block of this size, of which white space at
the file's ends is stripped.
"""

_CONFIG = """\
name: "magika"
platform: "onnxruntime_onnx"
max_batch_size: 32

# The first 1024 and the last 1024 bytes of the file, without white space at its ends; 256 pads a shorter file.
input [ { name: "bytes", data_type: TYPE_INT32, dims: [ 2048 ] } ]
output [ { name: "target_label", data_type: TYPE_FP32, dims: [ 214 ], label_filename: "labels.txt" } ]

dynamic_batching { }
"""


def build(sources: Sources, units: Sequence[Unit]) -> ModelFolder:
    """Build the model's folder, with its labels."""
    model, settings = sources.read(PACKAGE, MODEL, SETTINGS)
    labels = cast("dict[str, list[str]]", json.loads(settings))["target_labels_space"]
    files = {"1/model.onnx": model, "labels.txt": "".join(f"{label}\n" for label in labels).encode()}
    return ModelFolder(_CONFIG + placement(units), files)


RECIPE = Recipe("magika", build, (PACKAGE,))
