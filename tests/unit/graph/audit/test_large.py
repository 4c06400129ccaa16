"""Inputs that can be made larger: which ones, and what stays as it is."""

import numpy as np

from triune.graph.audit import Input, sized_inputs
from triune.graph.audit.uses import Uses

FLOAT = np.dtype(np.float32)


def test_floats_are_multiplied_by_a_size_and_masks_divisors_lengths_and_integers_are_not() -> None:
    inputs = [
        Input("x", FLOAT, ((64,),)),
        Input("mask", FLOAT, ((64,),), uses=Uses(kept=1)),
        Input("scale", FLOAT, ((64,),), uses=Uses(is_divisor=True)),
        Input("index", np.dtype(np.int64), ((64,),)),
    ]
    both, positive = (each.of(4096) for each in sized_inputs(inputs))
    assert both.name == "numbers up to 4096"
    assert both.arrays["x"].min() < -3000 < 3000 < both.arrays["x"].max() <= 4096
    assert 2048 <= positive.arrays["x"].min() < positive.arrays["x"].max() <= 4096
    for each in (both, positive):
        assert set(np.unique(each.arrays["mask"])) <= {0, 1}
        assert 0 < np.abs(each.arrays["scale"]).min() <= np.abs(each.arrays["scale"]).max() <= 1
        assert each.arrays["index"].max() <= 4
        assert {name: array.dtype for name, array in each.arrays.items()} == {one.name: one.dtype for one in inputs}


def test_there_are_none_without_floats_or_of_images_alone() -> None:
    assert sized_inputs([Input("x", np.dtype(np.int64), ((4,),))]) == []
    assert sized_inputs([Input("x", FLOAT, ((1, 3, 4, 4),))], ["x"]) == []
