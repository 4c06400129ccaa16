"""The names of sizes."""

import pytest

from support.graphs import model_of
from triune.core.errors import InvalidArgumentError
from triune.graph.sizes import Sizes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("y = Transpose <perm = [0, 2, 1]> (x)", "Transpose 'y' does not take inputs of these ranks, 'x' of rank 2"),
        (
            "y = Concat <axis = 0> (z, z)",
            "Concat 'y' does not take inputs of these ranks, 'z' of rank 0, 'z' of rank 0",
        ),
    ],
)
def test_nodes_that_do_not_take_such_operands_are_told(text: str, reason: str) -> None:
    """What is inlined from functions, and decided by values, reaches it unchecked."""
    model = model_of(f"agraph (float[2,3] x, float z) => (float[?,?] y) {{ {text} }}")
    with pytest.raises(InvalidArgumentError, match=reason):
        Sizes(model.graph, lambda _: None, {})


@pytest.mark.parametrize("name", ["None", "unknown", "?"])
def test_words_for_unknown_sizes_are_no_names(name: str) -> None:
    model = model_of("agraph (float[a,b] x) => (float[c,d] y) { y = Abs (x) }")
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.dim_param = name
    first, second = Sizes(model.graph, lambda _: None, {}).get("x") or ()
    assert first != second


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("y = Tile (x, one_two)", ("a", None, 8)),
        ("y = GatherElements <axis = 2> (x, i)", ("c", "d", 2)),
        ("y = Gather <axis = 1> (x, i)", ("a", "c", "d", 2, 4)),
        ("y, z = TopK <axis = 2> (x, k)", ("a", "b", None)),
        ("y = MaxPool <kernel_shape = [2]> (x)", ("a", "b", None)),
        ("y = Conv (x, w)", ("a", None, None)),
    ],
)
def test_names_of_sizes_are_kept(text: str, shape: tuple[object, ...]) -> None:
    """A size that no rule knows has a name of its own."""
    model = model_of(
        f"agraph (float[a,b,4] x, int64[c,d,2] i, int64[1] k, float[n,m,3] w) => (float[?] v) "
        f"<int64[3] one_two = {{1, 2, 2}}> {{ {text} v = Identity (y) }}",
    )
    constants = {"one_two": [1, 2, 2]}
    sizes = Sizes(model.graph, constants.get, {"one_two": (3,)}).get("y")
    assert sizes is not None
    for found, wanted in zip(sizes, shape, strict=True):
        assert found == wanted if wanted is not None else found not in ("a", "b")


@pytest.mark.parametrize("op", ["Mul", "Sub", "Div"])
def test_arithmetic_of_unknown_elements_is_unknown(op: str) -> None:
    """They were taken for a tensor without elements, and Reshapes got shapes of fewer axes."""
    model = model_of(
        f"agraph (int64[1] a, int64[1] b, float[n,m] x) => (float[?,?] y) "
        f"<int64[1] one = {{1}}> {{ size = {op} (a, b) shape = Concat <axis = 0> (one, size) y = Reshape (x, shape) }}",
    )
    sizes = Sizes(model.graph, {"one": [1]}.get, {"one": (1,)})
    assert sizes.elements("size") is None
    assert sizes.elements("shape") is None
