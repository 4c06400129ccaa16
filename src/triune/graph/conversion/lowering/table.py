"""The table of core ops that are written once. A lowering overrides entries by its own forms."""

from collections.abc import Mapping
from typing import Final

from triune.graph.conversion.context import Lowering
from triune.graph.conversion.lowering import (
    elementwise,
    norms,
    places,
    recurrent_steps,
    reductions,
    sampling,
    shapes,
    suppression,
)

SHARED: Final[Mapping[str, Lowering]] = {
    **elementwise.TABLE,
    **norms.TABLE,
    **places.TABLE,
    **shapes.TABLE,
    **recurrent_steps.TABLE,
    **reductions.TABLE,
    **sampling.TABLE,
    **suppression.TABLE,
}
