"""`triune.units`: what this machine has, and what was measured of it."""

import dataclasses
from collections.abc import Mapping, Sequence

from triune.api.direct.products import here
from triune.api.measuring import measure
from triune.core.units import Unit
from triune.hardware.facts import UnitFacts
from triune.hardware.measured import machine_key, save_measured
from triune.runtimes.described import described_units, known_units, measured_folder, with_measured


def units() -> Sequence[UnitFacts]:
    """Every compute unit: whether this machine has it, what it is and can do, and why it is absent.

    Imports the libraries of the installed runtimes, to tell their versions.
    """
    return known_units()


def measure_units() -> Sequence[UnitFacts]:
    """Measure this machine's rates and bandwidth, keep them, and describe its units with them. Takes about a minute.

    The products from which `triune.matmul` chooses a unit are measured, too.

    Raises:
        OSError: the cache folder cannot be written to.
    """
    found = described_units()
    measured = measure(found)
    save_measured(measured_folder(), machine_key(found), measured.figures)
    here().tune()
    return [_with_failure(each, measured.failures) for each in with_measured(found, measured.figures)]


def _with_failure(facts: UnitFacts, failures: Mapping[Unit, str]) -> UnitFacts:
    if facts.unit not in failures:
        return facts
    return dataclasses.replace(facts, unavailable={**facts.unavailable, "products": failures[facts.unit]})
