"""Triune: an inference server for Apple silicon, written in Python."""

from pathlib import Path
from typing import TYPE_CHECKING

from triune.core.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triune.core.requests import Parameter
    from triune.loading import LoadedModel

__version__ = VERSION


def load(
    path: "Path | str", units: "Sequence[str] | None" = None, *, options: "Mapping[str, Parameter] | None" = None
) -> "LoadedModel":
    """One model on one unit, without a server: see `triune.loading.load`."""
    # Every module is within this package: what it offers is imported when it is asked for.
    from triune import loading

    return loading.load(path, units, options=options)
