"""The module object that replaces `coremltools.libcoremlpython`: it has the same names, and calls other modules for
everything.
"""

from types import ModuleType
from typing import Literal

from triune.coreml.anywhere.assets import ModelAssetProxy
from triune.coreml.anywhere.devices import CPUDeviceProxy, GPUDeviceProxy, NeuralEngineDeviceProxy
from triune.coreml.anywhere.plan import ComputePlanProxy
from triune.coreml.anywhere.proxy import ModelProxy, StateProxy
from triune.coreml.anywhere.structure import LayerProxy, OperationProxy

NAME = "coremltools.libcoremlpython"
_MARK = "triune_executor"


def build_module(executor: Literal["onnxruntime", "reference"]) -> ModuleType:
    """A module with the interface of coremltools' compiled one, whose models run with `executor`."""
    module = ModuleType(NAME, "Triune's stand-in for coremltools' compiled module, which exists for macOS only.")
    names = {
        "_MLModelProxy": type("_MLModelProxy", (ModelProxy,), {"executor": executor, "__doc__": ModelProxy.__doc__}),
        "_MLModelAssetProxy": ModelAssetProxy,
        "_MLStateProxy": StateProxy,
        "_MLCPUComputeDeviceProxy": CPUDeviceProxy,
        "_MLGPUComputeDeviceProxy": GPUDeviceProxy,
        "_MLNeuralEngineComputeDeviceProxy": NeuralEngineDeviceProxy,
        "_MLComputePlanProxy": ComputePlanProxy,
        "_MLModelStructureProgramOperationProxy": OperationProxy,
        "_MLModelStructureNeuralNetworkLayerProxy": LayerProxy,
        _MARK: executor,
    }
    for name, value in names.items():
        setattr(module, name, value)
    return module


def is_standin(module: ModuleType) -> bool:
    """Whether `module` was made by `build_module`."""
    return hasattr(module, _MARK)
