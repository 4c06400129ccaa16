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
