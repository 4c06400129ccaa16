import dataclasses

import pytest

from support.recorded_machines import recorded
from triune.core.units import Unit
from triune.hardware.cpu import CoreLevel
from triune.hardware.describe import describe_units
from triune.runtimes.described import with_neural_engine_cores

pytest.importorskip("coremltools")

from coremltools.models.compute_device import MLCPUComputeDevice, MLNeuralEngineComputeDevice

from triune.runtimes.coreml.devices import neural_engine_cores


class Cpu(MLCPUComputeDevice):
    def __init__(self) -> None:
        """coremltools' class, without the part of Core ML's below it, which exists on macOS alone."""


class Engine(MLNeuralEngineComputeDevice):
    total_core_count = 16

    def __init__(self) -> None:
        """As above."""


CPU, ENGINE = Cpu(), Engine()


def test_the_neural_engine_among_coremltools_devices() -> None:
    assert neural_engine_cores([CPU, ENGINE]) == 16
    assert neural_engine_cores([CPU, ENGINE, ENGINE]) == 32
    assert neural_engine_cores([CPU]) is None
    assert neural_engine_cores([]) is None


def test_core_ml_tells_cores_that_the_system_does_not_print() -> None:
    outputs = recorded("m2-pro")
    silent = dataclasses.replace(outputs, texts={**outputs.texts, "neural_engine": ""})
    ane = {each.unit: each for each in describe_units(silent, is_installed=lambda _: True)}[Unit.ANE]
    assert not ane.cores
    told = with_neural_engine_cores(ane, neural_engine_cores([ENGINE]))
    assert told.cores == (CoreLevel("neural engine", 16),)
    assert "cores" in ane.unavailable
    assert "cores" not in told.unavailable
    assert with_neural_engine_cores(ane, None) == ane
