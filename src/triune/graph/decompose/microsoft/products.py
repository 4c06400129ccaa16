"""Matrix products of com.microsoft that are fused with transposes, scales, sums and activations."""

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.decompose.microsoft.activations import activated


def _transposed(c: Context, index: int, is_transposed: bool, is_batch_transposed: bool) -> str | None:
    """Build an operand with its last two axes swapped, its first axis moved after the other batch axes, or both; None
    if its rank is not known.
    """
    name = c.input(index)
    if not (is_transposed or is_batch_transposed):
        return name
    rank = c.values.rank(name)
    if rank is None:
        return None
    order = list(range(rank))
    if is_batch_transposed and rank > 2:
        order = [*order[1:-1], 0, order[-1]]
    if is_transposed and rank > 1:
        order[-2:] = reversed(order[-2:])
    return c.build.op("Transpose", name, perm=order)


def _product(c: Context) -> str | None:
    """Build alpha * (A @ B), where each operand may be transposed; None if a type or rank is not known."""
    b = c.build
    flags = c.attributes
    left = _transposed(c, 0, flags.get("transA", 0), flags.get("transBatchA", 0))
    right = _transposed(c, 1, flags.get("transB", 0), flags.get("transBatchB", 0))
    elem_type, alpha = c.values.elem_type(c.input(0)), flags.get("alpha", 1.0)
    if left is None or right is None or not elem_type:
        return None
    product = b.op("MatMul", left, right)
    return product if alpha == 1 else b.op("Mul", product, b.typed(alpha, elem_type))


def fused_mat_mul(c: Context) -> bool:
    """FusedMatMul: alpha * (A @ B)."""
    product = _product(c)
    if product is None:
        return False
    c.give(product)
    return True


def fused_mat_mul_activation(c: Context) -> bool:
    """FusedMatMulActivation: activation(alpha * (A @ B))."""
    product, flags = _product(c), c.attributes
    if product is None:
        return False
    parameters = {name: flags[f"activation_{name}"] for name in ("alpha", "beta") if f"activation_{name}" in flags}
    c.give(activated(c.build, product, flags["activation"], parameters, c.values.elem_type(c.input(0))))
    return True


def fused_gemm(c: Context) -> bool:
    """FusedGemm: activation(alpha * (A @ B) + beta * C)."""
    flags, elem_type = c.attributes, c.values.elem_type(c.input(0))
    if not elem_type:
        return False
    own = {name: flags[name] for name in ("alpha", "beta", "transA", "transB") if name in flags}
    inputs = [each for each in (c.input(0), c.input(1), c.input(2)) if each]
    parameters = {name: flags[f"activation_{name}"] for name in ("alpha", "beta") if f"activation_{name}" in flags}
    product = c.build.op("Gemm", *inputs, **own)
    c.give(activated(c.build, product, flags.get("activation", ""), parameters, elem_type))
    return True


def c_dist(c: Context) -> bool:
    """CDist: the distance between each row of A and each row of B, or its square."""
    b = c.build
    difference = b.op("Sub", b.op("Unsqueeze", c.input(0), b.ints(1)), b.op("Unsqueeze", c.input(1), b.ints(0)))
    square = b.op("ReduceSum", b.op("Mul", difference, difference), b.ints(2), keepdims=0)
    match metric := c.attributes.get("metric", "sqeuclidean"):
        case "sqeuclidean":
            c.give(square)
        case "euclidean":
            c.give(b.op("Sqrt", square))
        case _:
            raise Refusal(f"its metric is '{metric}'; ONNX Runtime has sqeuclidean and euclidean")
    return True


TABLE: dict[str, Decomposition] = {
    "CDist": c_dist,
    "FusedMatMul": fused_mat_mul,
    "TransposeMatMul": fused_mat_mul,
    "FusedMatMulActivation": fused_mat_mul_activation,
    "FusedGemm": fused_gemm,
}
