"""The functions that raise all operations: the tables of all families together."""

from triune.coreai.raising import (
    compression,
    elementwise_binary,
    elementwise_unary,
    gathering,
    images,
    interpolation,
    linear,
    padding,
    quantization,
    reduction,
    refused,
    shaping,
    slicing,
    sorting,
    window,
)
from triune.coreai.raising.complex_numbers import on_parts
from triune.coreai.raising.region import table_of

TABLE = on_parts(
    table_of(
        compression.TABLE,
        elementwise_binary.TABLE,
        elementwise_unary.TABLE,
        gathering.TABLE,
        images.TABLE,
        interpolation.TABLE,
        linear.TABLE,
        padding.TABLE,
        quantization.TABLE,
        reduction.TABLE,
        refused.TABLE,
        shaping.TABLE,
        slicing.TABLE,
        sorting.TABLE,
        window.TABLE,
    )
)
