"""Core ML's list of this machine's compute devices, read through coremltools."""

import importlib
import importlib.util
from collections.abc import Iterable
from typing import Any


def core_ml_devices() -> Iterable[Any]:
    """Core ML's devices, `MLComputeDevice` each; none on systems without Core ML."""
    module: Any = importlib.import_module("coremltools.models.compute_device")
    # Ask for no devices without coremltools' compiled part, which exists only on macOS.
    if importlib.util.find_spec("coremltools.libcoremlpython") is None:
        return ()
    return module.MLComputeDevice.get_all_compute_devices()


def neural_engine_cores(devices: Iterable[Any]) -> int | None:
    """The number of cores of the Neural Engines among Core ML's devices; None if there are none, or if Core ML does not
    report it.
    """
    kind: Any = importlib.import_module("coremltools.models.compute_device").MLNeuralEngineComputeDevice
    counts: list[int] = [each.total_core_count for each in devices if isinstance(each, kind)]
    return sum(counts) or None
