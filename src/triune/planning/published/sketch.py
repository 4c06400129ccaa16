"""Describes an architecture as operations, in the order in which they run."""

from typing import Any

from triune.hardware.rules import Facts
from triune.planning.op import Op, OpClass


class Sketch:
    """The operations of an architecture. Each method adds operations; sizes are of one call of the model."""

    def __init__(self) -> None:
        self.ops: list[Op] = []

    def conv(
        self, channels: int, filters: int, kernel: int | tuple[int, int], height: int, width: int, groups: int = 1
    ) -> None:
        """Add a convolution with its bias and activation. `height` and `width` are those of the result."""
        high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
        inner, rows = channels // groups * high * wide, height * width
        self._add(
            "Conv",
            OpClass.DEPTHWISE if channels // groups < 8 and groups > 1 else OpClass.CONV,
            flops=2 * rows * filters * inner,
            weights=filters * inner,
            # The input is assumed to be as large as the result, as with stride 1; each element is read once.
            read=channels * rows,
            written=filters * rows,
            rows=rows,
            inner=inner,
            columns=filters // groups,
        )

    def linear(self, rows: float, inner: int, columns: int, weight_bits: float | None = None) -> None:
        """Add a matrix product with constant weights, and its bias."""
        self._add(
            "MatMul",
            OpClass.MATMUL,
            flops=2 * rows * inner * columns,
            weights=inner * columns,
            weight_bits=weight_bits,
            read=rows * inner,
            written=rows * columns,
            rows=rows,
            inner=inner,
            columns=columns,
        )

    def experts(self, rows: float, inner: int, columns: int, used: int, held: int) -> None:
        """Add the products of a mixture of experts: each row is multiplied with the weights [inner, columns] of `used`
        of the model's `held` experts.
        """
        read = min(held, rows * used)
        self._add(
            "MatMul",
            OpClass.MATMUL,
            flops=2 * rows * used * inner * columns,
            weights=read * inner * columns,
            read=rows * inner,
            written=rows * used * columns,
            rows=max(1.0, rows * used / held),
            inner=inner,
            columns=columns,
        )

    def product(self, batch: int, rows: int, inner: int, columns: int) -> None:
        """Add a matrix product of two values that are both computed, not weights."""
        self._add(
            "MatMul",
            OpClass.PRODUCT,
            flops=2 * batch * rows * inner * columns,
            read=batch * (rows + columns) * inner,
            written=batch * rows * columns,
            rows=rows,
            inner=inner,
            columns=columns,
        )

    def attention(self, queries: float, keys: float, heads: int, size: int, kv_heads: int | None = None) -> None:
        """Add attention of `heads` heads of `size` elements."""
        self._add(
            "Attention",
            OpClass.PRODUCT,
            flops=4 * queries * keys * heads * size,
            read=queries * heads * size + 2 * keys * (kv_heads or heads) * size,
            written=queries * heads * size,
            scratch=heads * queries * keys,
            rows=queries,
            inner=size,
            columns=keys,
        )

    def norm(self, elements: float) -> None:
        """Add a norm, a softmax or a pool."""
        self._add("LayerNormalization", OpClass.REDUCE, flops=8 * elements, read=elements, written=elements)

    def pointwise(self, elements: float, num_read: int = 1) -> None:
        """Add an elementwise operation of `num_read` operands."""
        self._add("Add", OpClass.ELEMENTWISE, flops=elements, read=num_read * elements, written=elements)

    def move(self, elements: float) -> None:
        """Add a transpose, a concatenation, a gather or a resize."""
        self._add("Concat", OpClass.MOVE, read=elements, written=elements)

    def extend(self, other: "Sketch") -> None:
        """Append another sketch's operations."""
        for op in other.ops:
            self.ops.append(op)

    def _add(self, op_type: str, op_class: OpClass, **sizes: Any) -> None:
        name = f"{op_type}_{len(self.ops)}"
        facts = Facts(op=op_type, name=name)
        outputs = (name,)
        inputs = self.ops[-1].outputs if self.ops else ()
        self.ops.append(
            Op(name=name, op_type=op_type, op_class=op_class, inputs=inputs, outputs=outputs, facts=facts, **sizes)
        )
