"""Recorded outputs of other machines, in `tests/unit/hardware/recorded`, whose README has the source of each."""

import json
from pathlib import Path

from triune.hardware.outputs import Outputs

FOLDER = Path(__file__).parents[1] / "unit" / "hardware" / "recorded"

NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def recorded(name: str) -> Outputs:
    """The recorded outputs of the machine with this name."""
    machine = json.loads((FOLDER / name / "machine.json").read_text())
    return Outputs(**machine, texts={path.stem: path.read_text() for path in (FOLDER / name).glob("*.txt")})
