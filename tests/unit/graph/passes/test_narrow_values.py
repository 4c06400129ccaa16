"""Constants beyond int32: the ends of int32 where those say the same of whole numbers within it, else refused."""

import numpy as np
import onnxruntime as ort
import pytest

from support.graphs import model_of
from triune.core.errors import UnsupportedError
from triune.graph.check import evaluate
from triune.graph.normalize import normalize
from triune.graph.passes.narrow import Narrow

ENDS = np.iinfo(np.int32)
CONSTANTS = (
    "<int64 most = {9223372036854775807}, int64 least = {-9223372036854775808}, int64 big = {4294967296}, "
    "int64[1] most1 = {9223372036854775807}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, "
    "int64 next = {2147483648}, int64 last = {-2147483649}, int64[6] ends = {2147483648, 3, -1, 0, 2147483647, -4}, "
    "int64[6] starts = {-2147483648, -9223372036854775808, -1, 0, -2147483649, -4}, "
    "int64[6] both = {-2147483648, -9223372036854775808, -1, 0, 4294967296, -4}, bool[1] yes = {1}>"
)


def _model(body: str) -> str:
    return f"agraph (int64[6] x, bool[6] c) => (int64[6] y) {CONSTANTS} {{ {body} }}"


@pytest.mark.parametrize(
    "body",
    [
        "y = Clip (x, least, most)",
        "y = Clip (x, , big)",
        "y = Min (x, most)",
        "y = Min (most, x)",
        "y = Max (least, x)",
        *(f"b = {op} (x, most)  y = Cast <to = 7> (b)" for op in ("Greater", "LessOrEqual")),
        *(f"b = {op} (x, least)  y = Cast <to = 7> (b)" for op in ("Less", "GreaterOrEqual")),
        "w = Where (c, most, x)  y = Min (w, x)",
        "e = Where (yes, most1, two)  y = Slice (x, zero, e, zero)",
        "j = Concat <axis = 0> (two, most1)  m = Max (j, two)  e = Gather (m, one)  y = Slice (x, zero, e, zero)",
        *(f"b = {op} (most, x)  y = Cast <to = 7> (b)" for op in ("Less", "GreaterOrEqual")),
        *(f"b = {op} (least, x)  y = Cast <to = 7> (b)" for op in ("Greater", "LessOrEqual")),
        *(
            f"b = {op} ({operands})  y = Cast <to = 7> (b)"
            for op in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")
            for limit in ("most", "least", "big", "next", "last", "ends", "starts")
            for operands in (f"x, {limit}", f"{limit}, x")
        ),
        "b = Equal (x, both)  y = Cast <to = 7> (b)",
    ],
)
def test_limits_that_no_number_within_int32_meets_are_those_of_int32(body: str) -> None:
    model = model_of(_model(body))
    x, c = np.array([ENDS.min, ENDS.min + 1, -1, 0, ENDS.max - 1, ENDS.max]), np.zeros(6, np.bool_)
    (expected,) = evaluate(model, {"x": x, "c": c})
    narrow = Narrow()(normalize(model))
    session = ort.InferenceSession(narrow.SerializeToString(), providers=["CPUExecutionProvider"])
    (answer,) = session.run(["y"], {"x": x.astype(np.int32)} | ({"c": c} if len(session.get_inputs()) > 1 else {}))
    assert answer.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("y = Clip (x, most)", "9223372036854775807"),
        ("y = Clip (x, , least)", "-9223372036854775808"),
        ("y = Min (x, least)", "-9223372036854775808"),
        ("y = Max (x, most)", "9223372036854775807"),
        ("y = Where (c, x, most)", "9223372036854775807"),
        ("b = Less (x, both)  y = Cast <to = 7> (b)", "-9223372036854775808"),
        # What is compared may itself be beyond int32.
        ("w = Where (c, most, x)  b = Less (w, most)  y = Cast <to = 7> (b)", "9223372036854775807"),
        ("w = Where (c, most, x)  b = Equal (w, big)  y = Cast <to = 7> (b)", "9223372036854775807"),
        ("w = Where (c, most, x)  y = Add (w, x)", "9223372036854775807"),
        ("w = Where (c, most, x)  y = Slice (w, zero, two, zero)", "9223372036854775807"),
        # The same constant is a limit of one, and an element of the other.
        ("m = Min (x, most)  y = Where (c, m, most)", "9223372036854775807"),
    ],
)
def test_what_is_beyond_int32_and_means_something_is_refused(body: str, found: str) -> None:
    with pytest.raises(UnsupportedError, match=f"holds {found}, which does not fit into int32"):
        Narrow()(normalize(model_of(_model(body))))


def _branches(then: str, otherwise: str) -> str:
    return f"""agraph (int64[6] x, bool d) => (int64[6] y) {CONSTANTS} {{
      y = If (d) <then_branch = a () => (int64[6] p) {{ {then} }}, else_branch = b () => (int64[6] q) {{ {otherwise} }}>
    }}"""


def test_a_limit_that_a_branch_reads_is_that_of_int32() -> None:
    model = model_of(_branches("p = Slice (x, zero, most1, zero)", "m = Min (x, most)  q = Max (m, least)"))
    x = np.array([ENDS.min, ENDS.min + 1, -1, 0, ENDS.max - 1, ENDS.max])
    session = ort.InferenceSession(Narrow()(normalize(model)).SerializeToString(), providers=["CPUExecutionProvider"])
    for branch in (True, False):
        (answer,) = session.run(["y"], {"x": x.astype(np.int32), "d": np.array(branch)})
        assert answer.tolist() == x.tolist()


@pytest.mark.parametrize(
    "then", ["p = Add (x, most1)", "p = Expand (most, six)", "p = Identity (x)  most2 = Neg (most)"]
)
def test_a_limit_that_means_something_in_a_branch_is_refused(then: str) -> None:
    text = _branches(f"six = Constant <value = int64[1] {{6}}> ()  {then}", "q = Min (x, most)")
    with pytest.raises(UnsupportedError, match="does not fit into int32"):
        Narrow()(model_of(text))


def test_a_limit_that_is_an_output_is_refused() -> None:
    text = f"agraph (int64[6] x) => (int64[6] y, int64 most) {CONSTANTS} {{ y = Min (x, most) }}"
    with pytest.raises(UnsupportedError, match="does not fit into int32"):
        Narrow()(normalize(model_of(text)))


def test_a_limit_of_floats_beyond_fp32_is_refused() -> None:
    text = "agraph (double[2] x) => (double[2] y) <double most = {1e300}> { y = Min (x, most) }"
    with pytest.raises(UnsupportedError, match="does not fit into fp32"):
        Narrow()(normalize(model_of(text)))
