"""One adapter a vendor library: each loads a model file on a unit."""

import importlib.util
from collections.abc import Mapping, Sequence

from triune.core.runtime import Runtime
from triune.core.units import UnitStatus


def available(units: Sequence[UnitStatus]) -> Mapping[str, Runtime]:
    """The runtimes that are installed here, by backend name, the usual one first. Imports their libraries.

    Args:
        units: this machine's, as `hardware.units.detect_units` tells them.
    """
    from triune.runtimes.onnxruntime import OnnxRuntime

    runtimes: list[Runtime] = [OnnxRuntime()]
    if "openvino" not in missing():
        from triune.runtimes.openvino import OpenVino

        runtimes.append(OpenVino(units))
    raised = {unit: runtime for runtime in reversed(runtimes) for unit in runtime.units()}
    if "coreml" not in missing():
        from triune.runtimes.coreml import CoreMl

        runtimes.append(CoreMl(units))
    if "coreai" not in missing():
        from triune.runtimes.coreai import CoreAi

        runtimes.append(CoreAi(units, raised))
    return {runtime.name: runtime for runtime in runtimes}


def missing() -> Mapping[str, str]:
    """The backends whose library is not installed, and the line that installs it. Imports nothing."""
    lines = {
        "openvino": "backend 'openvino' needs OpenVINO: pip install 'triune[openvino]'",
        "coreml": "backend 'coreml' needs coremltools: pip install 'triune[coreml]'",
        "coreai": "backend 'coreai' needs coreai-core: pip install 'triune[coreai]'",
    }
    libraries = {"openvino": "openvino", "coreml": "coremltools", "coreai": "coreai"}
    return {name: line for name, line in lines.items() if importlib.util.find_spec(libraries[name]) is None}
