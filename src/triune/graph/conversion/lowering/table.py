"""The table of the lowerings that targets share. The table of a target takes precedence over it."""

from collections.abc import Mapping
from typing import Final

from triune.graph.conversion.context import Lowering
from triune.graph.conversion.lowering import (
    elementwise,
    indices,
    norms,
    recurrent_steps,
    reductions,
    sampling,
    shapes,
    suppression,
)

SHARED: Final[Mapping[str, Lowering]] = {
    **elementwise.TABLE,
    **norms.TABLE,
    **indices.TABLE,
    **shapes.TABLE,
    **recurrent_steps.TABLE,
    **reductions.TABLE,
    **sampling.TABLE,
    **suppression.TABLE,
}
