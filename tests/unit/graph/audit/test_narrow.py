"""Narrow inputs are near a number or near each other."""

import numpy as np

from support.graphs import model_of
from triune.graph.audit import Input, inputs_of_model, narrow_inputs

FLOAT = np.dtype(np.float32)


def test_inputs_of_one_shape_are_nearly_equal_in_some_sets() -> None:
    sets = narrow_inputs([Input("a", FLOAT, ((3, 4),)), Input("b", FLOAT, ((3, 4),))])
    assert all(each.is_narrow for each in sets)
    (pair,) = (each for each in sets if each.name == "nearly equal inputs near 50, 0.001 apart")
    difference = np.abs(pair.arrays["a"] - pair.arrays["b"]).max()
    assert 0 < difference < 0.01
    assert np.abs(pair.arrays["a"]).max() > 10


def test_inputs_are_on_both_sides_of_a_constant() -> None:
    sets = {each.name: each.arrays["x"] for each in narrow_inputs([Input("x", FLOAT, ((16,),), numbers=(700.0,))])}
    above, below = sets["numbers just above 700"], sets["numbers just below 700"]
    assert above.min() > 700 > below.max()
    assert above.max() - below.min() < 10


def test_inputs_are_near_what_is_subtracted_from_them() -> None:
    text = """g (float[3,2] x, float[3,2] z) => (float[3,2] y) <float[2] c = {52.5, 13.5}> {
        i = Identity (x) a = Sub (i, c) b = Add (z, c) y = Mul (a, b) }"""
    sets = {each.name: each.arrays for each in narrow_inputs(inputs_of_model(model_of(text)))}
    found = sets["numbers within 0.001 of what is subtracted from them"]
    center = np.array([52.5, 13.5])
    for name, sign in (("x", 1), ("z", -1)):
        distance = np.abs(found[name] - sign * center)
        assert 0 < distance.max() < 0.5


def test_inputs_that_are_scaled_first_are_near_what_is_subtracted_then() -> None:
    text = """g (float[3,2] x, float[3,2] z) => (float[3,2] y)
      <float k = {0.25}, float[2] c = {52.5, 13.5}, float[2] s = {2, 4}, float one = {1}> {
        m = Mul (k, x) a = Sub (m, c) d = Div (z, s) b = Add (d, one) y = Mul (a, b) }"""
    sets = {each.name: each.arrays for each in narrow_inputs(inputs_of_model(model_of(text)))}
    found = sets["numbers within 0.001 of what is subtracted from them"]
    for name, center in (("x", np.array([210, 54])), ("z", np.array([-2, -4]))):
        distance = np.abs(found[name] - center)
        assert 0 < distance.max() < 2


def test_there_are_none_without_floats() -> None:
    assert narrow_inputs([Input("x", np.dtype(np.int64), ((4,),))]) == []


def test_inputs_that_are_moved_are_near_what_is_subtracted_from_their_elements() -> None:
    text = """g (float[3,2] x) => (float[2,3] y) <float[2,1] c = {52.5, 13.5}, float one = {1}> {
        l = Log (x) t = Transpose <perm = [1, 0]> (l) a = Sub (t, one) r = Transpose (x) y = Sub (r, c) }"""
    sets = {each.name: each.arrays for each in narrow_inputs(inputs_of_model(model_of(text)))}
    for which, center in (("", np.exp(np.ones(2))), (" (2)", np.array([52.5, 13.5]))):
        found = sets[f"numbers within 0.001 of what is subtracted from them{which}"]
        assert 0 < np.abs(found["x"] - center).max() < 0.5


def test_inputs_are_near_one_of_several_numbers_that_are_subtracted() -> None:
    text = """g (float[4,1] x) => (float[4,3] y) <float[3] c = {10, 20, 40}> { y = Sub (x, c) }"""
    sets = {each.name: each.arrays for each in narrow_inputs(inputs_of_model(model_of(text)))}
    found = sets["numbers within 0.001 of what is subtracted from them"]["x"]
    assert np.abs(found - np.array([10, 20, 40])).min(axis=1).max() < 0.5


def test_elements_that_are_compared_with_a_row_of_constants_have_no_number_of_their_own() -> None:
    text = """g (float[2,5] x) => (float[2,5,3] y) <float[3] c = {50, 60, 70}, int64[1] a = {2}> {
        u = Unsqueeze (x, a) y = Sub (u, c) }"""
    sets = {each.name: each.arrays["x"] for each in narrow_inputs(inputs_of_model(model_of(text)))}
    assert all(each.shape == (2, 5) for each in sets.values())
    found = sets["numbers within 0.001 of what is subtracted from them"]
    assert np.abs(found[..., None] - np.array([50, 60, 70])).min(axis=-1).max() < 0.5
