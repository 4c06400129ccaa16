"""Which nodes leave int32 surely, perhaps, and not at all."""

import pytest
from onnx import TensorProto

from support.graphs import model_of
from triune.core.errors import UnsupportedError
from triune.graph.conversion.options import ConversionOptions
from triune.graph.conversion.prepare import prepare
from triune.graph.normalize import normalize
from triune.graph.overflows import Overflow, find_overflows
from triune.graph.weight_files import WeightFile


def found(body: str, constants: str = "", inputs: str = "int64[4] x, int64[4] z, float[N,4] f") -> list[str]:
    kind = "int32[4]" if "int32" in inputs else "int64[?]"
    text = f"agraph ({inputs}) => ({kind} y) <int64 big = {{100000}}{constants}> {{ {body} }}"
    model = model_of(text)
    return [each.node for each in find_overflows(normalize(model).graph)]


@pytest.mark.parametrize(
    ("body", "nodes"),
    [
        ("y = Mul (x, z)", ["Mul 'y'"]),
        ("a = Mul (x, big)  y = Add (a, z)", ["Mul 'a'", "Add 'y'"]),
        ("y = Add (x, z)", ["Add 'y'"]),
        ("n = Neg (z)  y = Sub (x, n)", ["Sub 'y'"]),
        ("b = Cast <to = 9> (x)  c = Cast <to = 7> (b)  m = Mul (c, most)  y = Sub (m, z)", ["Sub 'y'"]),
        ("y = Add (x, thousand_thousands)", ["Add 'y'"]),
        ("y = Mul (x, two)", ["Mul 'y'"]),
        ("y = Pow (x, z)", ["Pow 'y'"]),
        ("y = CumSum (x, zero)", ["CumSum 'y'"]),
        ("y = Add (x, most)", ["Add 'y'"]),
        ("y = ReduceSum <keepdims = 1> (x)", ["ReduceSum 'y'"]),
        ('y = ScatterElements <reduction = "add"> (x, z, x)', ["ScatterElements 'y'"]),
        ('i = Unsqueeze (z, ones)  y = ScatterND <reduction = "mul"> (x, i, x)', ["ScatterND 'y'"]),
    ],
)
def test_what_may_grow_far_beyond_is_named(body: str, nodes: list[str]) -> None:
    constants = ", int64 two = {2}, int64 zero = {0}, int64 most = {2147483647}, int64 thousand_thousands = {2000000}"
    constants += ", int64[1] ones = {1}"
    size = 4 if "Reduce" not in body and "CumSum" not in body else 16
    assert found(body, constants, f"int64[{size}] x, int64[{size}] z") == nodes


@pytest.mark.parametrize(
    "body",
    [
        "y = Add (x, thousand)",
        "r = Mul (x, thousand)  i = Add (r, z)  y = Gather (numbers, i)",
        "c = Clip (x, zero, big)  d = Mod (z, thousand)  y = Mul (c, d)",
        "b = Less (x, z)  i = Cast <to = 7> (b)  s = CumSum (i, zero)  y = Mul (s, i)",
        "u = Cast <to = 2> (x)  v = Cast <to = 7> (u)  y = Mul (v, thousand)",
        "n = Shape (f)  p = ReduceProd <keepdims = 1> (n)  y = Mul (n, p)",
        "m = ArgMax <axis = 1, keepdims = 0> (f)  n = Shape (f)  y = Mul (m, n)",
        "a = Abs (x)  d = Div (a, big)  y = Mul (d, thousand)",
        "t = Min (x, thousand)  q = Max (t, zero)  y = Mul (q, q)",
    ],
)
def test_what_surely_fits_and_sizes_are_not(body: str) -> None:
    assert found(body, ", int64 zero = {0}, int64 thousand = {1000}, int64[3] numbers = {1, 2, 3}") == []


@pytest.mark.parametrize(
    "body",
    [
        "c = Clip (x, big)  y = Mul (c, big)",
        "s = Sign (x)  a = Abs (s)  m = Max (a, big)  y = Mul (m, big)",
    ],
)
def test_what_surely_leaves_is_refused(body: str) -> None:
    with pytest.raises(UnsupportedError, match="Mul 'y' gives integers beyond int32.*10000000000"):
        found(body)


def test_int32_wraps_in_the_source_too() -> None:
    assert found("y = Mul (x, z)", inputs="int32[4] x, int32[4] z") == []


@pytest.mark.parametrize(
    ("body", "nodes"),
    [
        ("y = Cast <to = 7> (x)", ["Cast 'y'"]),
        ("d = Cast <to = 11> (x)  e = Sqrt (d)  y = Cast <to = 7> (e)", ["Cast 'y'"]),
        ("e = Exp (x)  u = Cast <to = 12> (e)  y = Cast <to = 7> (u)", ["Cast 'u'"]),
        ("i = Cast <to = 7> (x)  a = Gather (t, i)  b = Cast <to = 7> (a)  y = Add (i, b)", ["Cast 'i'"]),
        ("s = Sigmoid (x)  m = Mul (s, thousand)  y = Cast <to = 7> (m)", []),
        ("c = Clip (x, zero, thousand)  y = Cast <to = 7> (c)", []),
        ("f = Cast <to = 1> (z)  h = Div (f, thousand)  y = Cast <to = 7> (h)", []),
        ("n = Shape (x)  f = Cast <to = 1> (n)  h = Mul (f, thousand)  y = Cast <to = 7> (h)", []),
        ("i = Cast <to = 7> (x)  a = Reshape (i, one)  b = Gather (t, a)  y = Cast <to = 7> (b)", []),
        ("y = Cast <to = 6> (x)", []),
    ],
)
def test_floats_that_become_wide_whole_numbers_are_told_of(body: str, nodes: list[str]) -> None:
    """But not where they are known to be within int32, are made of sizes, or are only places."""
    constants = ", float thousand = {1000}, float zero = {0}, float[3] t = {1, 2, 3}, int64[1] one = {-1}"
    kind = "int32[4]" if "to = 6" in body else "int64[?]"
    text = f"agraph (float[4] x, int64[4] z) => ({kind} y) <int64 big = {{9}}{constants}> {{ {body} }}"
    overflows = find_overflows(normalize(model_of(text)).graph)
    # Of elements of a small table the range is known.
    assert [each.node for each in overflows] == nodes
    assert all(each.is_cast for each in overflows)


def test_unsigned_numbers_below_zero_are_told_of() -> None:
    text = """agraph (uint32[4] u, uint32[4] v) => (y, z, w) <uint32 big = {70000}> {
        y = Sub (u, big)  h = Mod (v, big)  z = Sub (big, h)  w = Mul (u, big) }"""
    assert find_overflows(normalize(model_of(text)).graph) == [
        Overflow("Sub 'y'", TensorProto.UINT32, is_cast=False),
        Overflow("Mul 'w'", TensorProto.UINT32, is_cast=False),
    ]


@pytest.mark.parametrize("kind", ["uint32", "uint64"])
@pytest.mark.parametrize(
    ("body", "nodes"),
    [
        ("y = Add (u, v)", ["Add 'y'"]),
        ("y = ReduceSum <keepdims = 1> (u)", ["ReduceSum 'y'"]),
        ("y = Cast <to = TYPE> (x)", ["Cast 'y'"]),
        ("h = Mod (u, few)  k = Mod (v, few)  y = Add (h, k)", []),
        ("y = Cast <to = TYPE> (b)", []),
    ],
)
def test_unsigned_numbers_beyond_int32_are_told_of(kind: str, body: str, nodes: list[str]) -> None:
    body = body.replace("TYPE", "12" if kind == "uint32" else "13")
    inputs = f"{kind}[4] u, {kind}[4] v, int64[4] x, uint8[4] b"
    model = normalize(model_of(f"agraph ({inputs}) => ({kind}[?] y) <{kind} few = {{1000}}> {{ {body} }}"))
    assert [each.node for each in find_overflows(model.graph)] == nodes


def test_the_notes_say_which_type_and_what_becomes_of_it() -> None:
    model = model_of(
        "agraph (float[4] x, uint32[4] u) => (int64[4] y, uint32[4] z) { y = Cast <to = 7> (x)  z = Mul (u, u) }"
    )
    with WeightFile() as file:
        wrapping, casts = prepare(model, ConversionOptions(), None, print, file).notes
    assert wrapping.startswith("UINT32 is computed in int32, where larger numbers wrap around")
    assert casts.startswith("INT64 is stored in int32, so that floats beyond +-2147483647")


def test_a_conversion_tells_of_them_and_of_inputs_with_defaults() -> None:
    model = model_of(
        "agraph (int64[4] x, int64[4] z, int64[4] d) => (int64[?] y) <int64[4] d = {1, 2, 3, 4}> "
        "{ [product] p = Mul (x, z)  y = Mod (p, d) }"
    )
    with WeightFile() as file:
        prepared = prepare(model, ConversionOptions(), None, print, file)
    assert [note.rpartition(" ")[2] for note in prepared.notes] == ["d", "'product'"]
    assert "become constants" in prepared.notes[0]
    assert "wrap" in prepared.notes[1]


@pytest.mark.parametrize(
    ("nodes", "is_named"),
    [
        ("y = CumSum (x, zero)", True),
        ("y = MatMul (x, x)", True),
        ('y = ScatterElements <reduction = "add"> (x, z, x)', True),
        ("y = ScatterElements (x, z, x)", False),
        ("y = Add (x, x)", False),
        ("b = Cast <to = 9> (x)  i = Cast <to = 6> (b)  y = CumSum (i, zero)", False),
    ],
)
def test_sums_of_int32_at_which_core_ai_ends_its_process_are_named(nodes: str, is_named: bool) -> None:
    text = f"agraph (int32[4] x, int64[4] z) => (int32[?] y) <int64 zero = {{0}}> {{ {nodes} }}"
    with WeightFile() as file:
        prepared = prepare(model_of(text), ConversionOptions(), None, lambda _: None, file)
    assert bool(prepared.traps) == is_named
    # On Core ML they wrap around, as in the model.
    assert prepared.notes == ()
