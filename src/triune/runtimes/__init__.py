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
    return {runtime.name: runtime for runtime in runtimes}


def missing() -> Mapping[str, str]:
    """The backends whose library is not installed, and the line that installs it. Imports nothing."""
    if importlib.util.find_spec("openvino") is None:
        return {"openvino": "backend 'openvino' needs OpenVINO: pip install 'triune[openvino]'"}
    return {}
