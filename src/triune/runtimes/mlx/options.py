"""The options of the MLX runtime in a model's config. Their names begin with `mlx.`."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from triune.core.errors import InvalidArgumentError
from triune.core.requests import Parameter
from triune.runtimes.options import check_names

PRECISION = "mlx.precision"
OPTION_NAMES = (PRECISION,)

Precision: TypeAlias = Literal["source", "bf16", "fp16"]
"""The precision in which MLX computes a model; "source" keeps the model's own (see `metal.lower`)."""

PRECISIONS: Mapping[str, Precision] = {"source": "source", "bf16": "bf16", "fp16": "fp16"}
"""The precisions by the words of configs."""


def read_precision(options: Mapping[str, Parameter]) -> Precision:
    """Read the option `mlx.precision`. The default is "source", the model's own precision.

    Raises:
        InvalidArgumentError: an option is unknown, or has another value.
    """
    check_names("mlx", options, OPTION_NAMES)
    word = str(options.get(PRECISION, "source")).strip().lower()
    if word not in PRECISIONS:
        raise InvalidArgumentError(f"parameter '{PRECISION}' is '{word}'; write one of {', '.join(PRECISIONS)}")
    return PRECISIONS[word]
