"""One adapter a vendor library: each loads a model file on a unit."""

import functools
import importlib.util
from collections.abc import Mapping, Sequence

from triune.core.runtime import Runtime
from triune.core.units import UnitStatus


def available(
    units: Sequence[UnitStatus], *, conversion_bytes: int | None = None, run_bytes: int | None = None
) -> Mapping[str, Runtime]:
    """The runtimes that are installed here, by backend name, the usual one first. Imports their libraries.

    Args:
        units: this machine's, as `hardware.units.detect_units` tells them.
        conversion_bytes: the memory that a conversion may take; None takes three quarters of the machine's.
        run_bytes: the memory that one run of ONNX Runtime may take; None sets no limit.
    """
    from triune.runtimes.onnxruntime import OnnxRuntime

    runtimes: list[Runtime] = [OnnxRuntime(run_bytes)]
    if "openvino" not in missing():
        from triune.runtimes.openvino import OpenVino

        runtimes.append(OpenVino(units))
    raised = {unit: runtime for runtime in reversed(runtimes) for unit in runtime.units()}
    if "coreml" not in missing():
        from triune.runtimes.coreml import CoreMl
        from triune.runtimes.coreml_conversion import convert_apart

        convert = functools.partial(convert_apart, memory_bytes=conversion_bytes)
        runtimes.append(CoreMl(units, convert=convert))
    if "coreai" not in missing():
        from triune.runtimes.coreai import CoreAi

        runtimes.append(CoreAi(units, raised, conversion_bytes=conversion_bytes))
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
