"""Triune: an inference server for Apple silicon, written in Python.

```python
import triune

with triune.load("model.onnx", "cpu") as model:
    print(model.run({"x": [[1, 2, 3, 4]]}))
```
"""

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
    from triune.loading import Model, load, units

__version__ = VERSION

__all__ = [
    "InternalError",
    "InvalidArgumentError",
    "Model",
    "NotFoundError",
    "TriuneError",
    "UnavailableError",
    "UnsupportedError",
    "load",
    "units",
]

_LOADING = frozenset({"Model", "load", "units"})


def __getattr__(name: str) -> Any:
    """Every module is within this package: what it offers is imported when it is asked for."""
    if name not in _LOADING:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from triune import loading

    return getattr(loading, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
