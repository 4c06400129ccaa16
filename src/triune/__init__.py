"""Triune: an inference server for Apple silicon, written in Python.

```python
import triune

with triune.load("model.onnx", "cpu") as model:
    print(model.run({"x": [[1, 2, 3, 4]]}))

triune.convert("model.onnx", "model.mlpackage", precision="fp16", verify=True)

with triune.Engine("model.gguf") as engine:
    print(engine.chat([{"role": "user", "content": "Hello"}], max_tokens=100))
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from triune.core.errors import (
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    TriuneError,
    UnavailableError,
    UnsupportedError,
)
from triune.core.version import VERSION

if TYPE_CHECKING:
    from triune.api.answers import Answer
    from triune.api.compressing.compress import Compression, compress
    from triune.api.converting import Conversion, convert
    from triune.api.direct.products import matmul, unit
    from triune.api.direct.unit import DirectUnit
    from triune.api.engine import Engine
    from triune.api.models import UnitModel, load, predict
    from triune.api.optimizing import Optimization, optimize
    from triune.api.planning import plan
    from triune.api.simulation import simulate
    from triune.api.tuning import tune
    from triune.api.units import units
    from triune.core.model import Model
    from triune.graph.custom import CustomOp, custom_op
    from triune.planning.plan import Plan
    from triune.simulation.report import Simulation
    from triune.tuning.report import Tuning

__version__ = VERSION

__all__ = [
    "Answer",
    "Compression",
    "Conversion",
    "CustomOp",
    "DirectUnit",
    "Engine",
    "InternalError",
    "InvalidArgumentError",
    "Model",
    "NotFoundError",
    "Optimization",
    "Plan",
    "Simulation",
    "TriuneError",
    "Tuning",
    "UnavailableError",
    "UnitModel",
    "UnsupportedError",
    "compress",
    "convert",
    "custom_op",
    "load",
    "matmul",
    "optimize",
    "plan",
    "predict",
    "simulate",
    "tune",
    "unit",
    "units",
]

_MODULES = {
    "Answer": "triune.api.answers",
    "Compression": "triune.api.compressing.compress",
    "Conversion": "triune.api.converting",
    "CustomOp": "triune.graph.custom",
    "DirectUnit": "triune.api.direct.unit",
    "Engine": "triune.api.engine",
    "Model": "triune.core.model",
    "Optimization": "triune.api.optimizing",
    "Plan": "triune.planning.plan",
    "Simulation": "triune.simulation.report",
    "Tuning": "triune.tuning.report",
    "UnitModel": "triune.api.models",
    "compress": "triune.api.compressing.compress",
    "convert": "triune.api.converting",
    "custom_op": "triune.graph.custom",
    "load": "triune.api.models",
    "matmul": "triune.api.direct.products",
    "optimize": "triune.api.optimizing",
    "plan": "triune.api.planning",
    "predict": "triune.api.models",
    "simulate": "triune.api.simulation",
    "tune": "triune.api.tuning",
    "unit": "triune.api.direct.products",
    "units": "triune.api.units",
}


def __getattr__(name: str) -> Any:
    """Import a name of the package when it is first used. Python calls this once for each name."""
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    globals()[name] = found = getattr(import_module(_MODULES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
