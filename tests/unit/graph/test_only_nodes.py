from support.graphs import model_of
from triune.graph.only_nodes import only_nodes


def test_by_operator_what_its_one_node_is_called() -> None:
    model = model_of(
        """g (bool c, float[n] x) => (float[n] y) {
        r = Relu(x) s = Abs(r) t = Abs(s)
        y = If(c) <then_branch = a () => (float[n] u) { u = Neg(t) }, else_branch = b () => (float[n] v) { v = Exp(t) }>
        }"""
    )
    model.graph.node[0].name = "first"
    assert only_nodes(model) == {"Relu": "first", "If": "y", "Neg": "u", "Exp": "v"}


def test_what_functions_hold_is_not_told_apart() -> None:
    model = model_of(
        """g (float[n] x) => (float[n] y) { r = Relu(x) y = own.f(r) }
        <domain: "own", opset_import: ["" : 17]> f (a) => (b) { b = Relu(a) }""",
        imports=', "own" : 1',
    )
    assert only_nodes(model) == {"f": "y"}
