"""Types and shapes of every value."""

from support.graphs import model_of
from triune.graph.passes.infer import Infer
from triune.graph.values import Values


def test_what_was_said_of_a_value_that_is_a_constant_now_is_forgotten() -> None:
    text = "agraph (float[1,1,8] x) => (float[a,b,c] y) <float[1,1,1] m = {1}, float[1,K,1] m> { y = Add (x, m) }"
    assert Values(Infer()(model_of(text)).graph).static_shape("y") == (1, 1, 8)
