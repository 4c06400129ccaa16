"""What is told of runtimes without their libraries is what they tell themselves."""

import subprocess
import sys

import pytest

from triune.core.units import Presence, Unit, UnitStatus
from triune.runtimes.registry import available, served

PRESENT, EMULATED, ABSENT = Presence.PRESENT, Presence.EMULATED, Presence.ABSENT


@pytest.mark.parametrize("amx", [PRESENT, ABSENT])
@pytest.mark.parametrize("gpu", Presence)
@pytest.mark.parametrize("ane", Presence)
def test_each_runtime_serves_the_units_that_are_told(amx: Presence, gpu: Presence, ane: Presence) -> None:
    presence = {Unit.CPU: PRESENT, Unit.AMX: amx, Unit.GPU: gpu, Unit.ANE: ane}
    units = [UnitStatus(unit, each) for unit, each in presence.items()]
    found = served(units)
    assert found == {name: runtime.units() for name, runtime in available(units).items()}
    assert Unit.CPU in found["onnxruntime"]


def test_telling_the_units_imports_no_library() -> None:
    code = (
        "import sys, triune; found = triune.units(); assert found[0].runtimes[0].version;"
        "print([name for name in ('onnxruntime', 'openvino', 'mlx', 'coremltools', 'coreai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
