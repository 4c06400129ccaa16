"""Products on the matrix unit of Apple's CPUs, which only Apple's library Accelerate can use.

They are computed by numpy, whose wheels for macOS 14 and later call Accelerate. Core ML would need a model for each
shape, in a separate process.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from triune.core.datatypes import Array
from triune.core.tensors import Signature
from triune.core.units import Unit


def is_on_accelerate() -> bool:
    """Whether numpy computes products with Apple's Accelerate."""
    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return "accelerate" in str(blas.get("name", "")).lower()


class AccelerateProduct:
    """An `Executable` of one product, "x0" times "x1" as "y". It computes in fp32; results of fp16 and bf16 are rounded
    at the end, and int8 gives sums as INT32, which are exact for up to 1,024 terms.
    """

    def __init__(self) -> None:
        self.unit = Unit.AMX
        self.precision = "fp32"
        self.is_steady = True
        self.report = "Accelerate, through numpy"
        self.signature = Signature((), ())

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the product."""
        first, second = inputs["x0"], inputs["x1"]
        product = np.matmul(first.astype(np.float32, copy=False), second.astype(np.float32, copy=False))
        dtype = np.dtype(np.int32) if first.dtype == np.int8 else first.dtype
        return {name: product.astype(dtype, copy=False) for name in outputs}

    def interrupt(self) -> None:
        """Do nothing: numpy cannot interrupt a product."""

    def close(self) -> None:
        """Do nothing: there are no resources to free."""
