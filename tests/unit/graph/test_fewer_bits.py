"""Which nodes fp32 computes with fewer bits than the source, and what the notes say of them."""

import pytest

from support.graphs import model_of
from triune.graph.conversion.options import ConversionOptions
from triune.graph.conversion.prepare import prepare
from triune.graph.fewer_bits import FewerBits, find_fewer_bits
from triune.graph.normalize import normalize
from triune.graph.weight_files import WeightFile


def found(body: str, result: str = "int64[?] y") -> FewerBits:
    text = f"""agraph (int64[4] n, double[4] d, float[4] f, float[N] g, bool b) => ({result})
        <double s = {{0.29}}, float half = {{0.5}}> {{ {body} }}"""
    return find_fewer_bits(normalize(model_of(text)).graph)


@pytest.mark.parametrize(
    ("body", "doubles", "rounded"),
    [
        ("c = Cast <to = 11> (n)  m = Mul (c, s)  r = Floor (m)  y = Cast <to = 7> (r)", ["Mul 'm'"], ["Floor 'r'"]),
        (
            "h = Shape (g)  c = Cast <to = 11> (h)  m = Mul (c, s)  y = Cast <to = 7> (m)",
            ["Mul 'm'"],
            ["Cast 'y'"],
        ),
        ("m = Add (d, d)  t = Transpose (m)  y = Cast <to = 6> (t)", ["Add 'm'"], ["Cast 'y'"]),
        # The number that is given may be nearer to a whole one than fp32 tells.
        ("r = Ceil (d)  y = Cast <to = 7> (r)", [], ["Ceil 'r'"]),
        ("l = Less (d, s)  y = Cast <to = 7> (l)", ["Less 'l'"], []),
    ],
)
def test_double_that_is_computed_and_made_whole_is_named(body: str, doubles: list[str], rounded: list[str]) -> None:
    kind = "int32[?] y" if "to = 6" in body else "int64[?] y"
    assert found(body, kind) == FewerBits(doubles, rounded, [])


@pytest.mark.parametrize(
    "body",
    [
        "r = Floor (f)  y = Cast <to = 7> (r)",
        "c = Cast <to = 11> (f)  r = Floor (c)  y = Cast <to = 7> (r)",
        "c = Cast <to = 11> (n)  y = Cast <to = 7> (c)",
        # Of a shape that is fixed, the source's own arithmetic is done beforehand.
        "h = Shape (f)  c = Cast <to = 11> (h)  m = Mul (c, s)  y = Cast <to = 7> (m)",
    ],
)
def test_what_fp32_holds_is_not(body: str) -> None:
    assert found(body) == FewerBits()


def test_what_a_branch_rounds_of_what_was_computed_around_it_is_named() -> None:
    body = """m = Mul (d, s)  r = If (b) <then_branch = t () => (double[4] u) { u = Floor (m) },
        else_branch = e () => (double[4] v) { v = Mul (d, m) }>  y = Cast <to = 7> (r)"""
    assert found(body) == FewerBits(["Mul 'm'", "Mul 'v'"], ["Floor 'u'", "Cast 'y'"], [])


def test_whole_numbers_raised_to_a_float_are_named() -> None:
    assert found("y = Pow (n, half)") == FewerBits([], [], ["Pow 'y'"])


def test_the_notes_name_the_nodes_and_what_it_means() -> None:
    model = model_of(
        "agraph (int64[4] n) => (int64[?] y) <double s = {0.29}, float half = {0.5}> "
        "{ c = Cast <to = 11> (n)  m = Mul (c, s)  r = Floor (m)  z = Cast <to = 7> (r)  y = Pow (z, half) }"
    )
    with WeightFile() as file:
        notes = prepare(model, ConversionOptions(), None, print, file).notes
    assert [note.rpartition(": ")[2] for note in notes[-3:]] == ["Mul 'm'", "Floor 'r'", "Pow 'y'"]
    assert "DOUBLE is computed in fp32" in notes[-3]
    assert "one more or one less" in notes[-2]
    assert "powers of integers are computed in fp32" in notes[-1]
