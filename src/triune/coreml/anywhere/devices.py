"""The compute devices that coremltools lists where Triune stands in for Core ML. Their names say so."""

import importlib
from typing import Any

CPU_NAME = "CPU (Triune)"
GPU_NAME = "GPU (emulated by Triune)"
NEURAL_ENGINE_NAME = "Neural Engine (emulated by Triune)"


class CPUDeviceProxy:
    """This machine's CPU, which runs everything."""

    name = CPU_NAME


class GPUDeviceProxy:
    """A GPU in name only: operations placed on it run on the CPU."""

    name = GPU_NAME


class NeuralEngineDeviceProxy:
    """A Neural Engine in name only: operations placed on it run on the CPU."""

    name = NEURAL_ENGINE_NAME

    def get_total_core_count(self) -> int:
        """Return 16, the number of cores of Apple's Neural Engines from A14 and M1 on."""
        return 16


def cpu_device() -> Any:
    """The `MLCPUComputeDevice`."""
    return _device("MLCPUComputeDevice", CPUDeviceProxy())


def gpu_device() -> Any:
    """The `MLGPUComputeDevice`, emulated."""
    return _device("MLGPUComputeDevice", GPUDeviceProxy())


def neural_engine_device() -> Any:
    """The `MLNeuralEngineComputeDevice`, emulated."""
    return _device("MLNeuralEngineComputeDevice", NeuralEngineDeviceProxy())


def all_devices() -> list[Any]:
    """Return the CPU, and the emulated GPU and Neural Engine."""
    return [cpu_device(), gpu_device(), neural_engine_device()]


def _device(class_name: str, proxy: Any) -> Any:
    # Subclass coremltools' class, to print the device's name, which coremltools' class does not print.
    base: Any = getattr(importlib.import_module("coremltools.models.compute_device"), class_name)

    def show(_: Any) -> str:
        return proxy.name

    return type(f"Triune{class_name}", (base,), {"name": proxy.name, "__repr__": show})(proxy)
