"""Sizes as they are given on the command line."""

import pytest

from triune.core.errors import InvalidArgumentError
from triune.graph.conversion.shapes import InputShape, Range, parse_shape


def test_sizes_up_to_the_end_of_int32_are_taken() -> None:
    assert parse_shape("x=1..2147483647,4") == ("x", InputShape(((Range(1, 2147483647), 4),)))


@pytest.mark.parametrize("size", ["1..99999999999", "2147483648"])
def test_a_size_that_no_runtime_of_apple_counts_is_refused(size: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"dimension '{size}' .* is beyond 2147483647"):
        parse_shape(f"x={size},4")
