"""Lists the runtimes that serve each unit, with the versions of their packages."""

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence

from triune.core.units import Unit
from triune.hardware.facts import RuntimeVersion
from triune.runtimes.registry import ROWS, Row


def runtimes_by_unit(served: Mapping[str, Sequence[Unit]]) -> Mapping[Unit, Sequence[RuntimeVersion]]:
    """The runtimes of each unit, the default one first.

    Args:
        served: the units of each runtime by backend name, from `runtimes.registry.served`.
    """
    found = {row.name: (_described(row), served[row.name]) for row in ROWS if row.name in served}
    return {unit: [described for described, its in found.values() if unit in its] for unit in Unit}


def _described(row: Row) -> RuntimeVersion:
    return RuntimeVersion(row.name, row.title, next(_versions(row), ""))


def _versions(row: Row) -> Iterator[str]:
    for name in row.distributions:
        try:
            yield importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
