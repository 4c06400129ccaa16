"""An operation for the cost model: its arithmetic, the bytes that it reads and writes, and its shape."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from triune.hardware.rules import Facts


class OpClass(Enum):
    """Classes of operations. The operations of a class have the same efficiency curve on a unit."""

    CONV = "conv"
    """A convolution that mixes the channels of its input, such as a 1x1 convolution."""
    DEPTHWISE = "depthwise"
    """A convolution with few input channels for each output channel."""
    MATMUL = "matmul"
    """A product with constant weights."""
    PRODUCT = "product"
    """A product of two values that are both computed, such as the products of attention."""
    REDUCE = "reduce"
    """Norms, softmax, reductions and pools."""
    ELEMENTWISE = "elementwise"
    MOVE = "move"
    """Operations that move elements: transposes, concatenations, gathers, resizes."""
    VIEW = "view"
    """Operations that change only the shape, and cost nothing."""
    SERIAL = "serial"
    """The class of operations that compute step after step, such as an LSTM, or element by element, such as NonZero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation. Sizes are numbers of elements, so that they hold for every precision.

    Attributes:
        name: unique in its model.
        op_type: ONNX's operator.
        op_class: its class.
        flops: floating-point operations; a multiply-add is two.
        weights: the elements of its constants.
        weight_bits: the bits of a stored weight, including its share of scales; None if weights are stored in the
            precision of the unit.
        read: the elements of computed values that it reads.
        written: the number of elements that it writes.
        scratch: the number of intermediate elements, such as attention's scores, that a unit without a fused operation
            writes and reads.
        rows: the rows of a product, or the positions of a convolution. Each weight is used this many times.
        inner: the inner dimension of a product; for a convolution, the input channels of a group times the kernel's
            elements.
        columns: the columns of a product; for a convolution, the output channels of a group.
        is_fused: whether units fuse it with the previous operation, so that it has no launch of its own and does not
            read that operation's result from memory.
        inputs: the names of computed values that it reads.
        outputs: the names of the values that it writes.
        facts: what the rules of units (`hardware.rules`) ask of it.
    """

    name: str
    op_type: str
    op_class: OpClass
    flops: float = 0
    weights: float = 0
    weight_bits: float | None = None
    read: float = 0
    written: float = 0
    scratch: float = 0
    rows: float = 1
    inner: float = 1
    columns: float = 1
    is_fused: bool = False
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    facts: Facts = field(default_factory=lambda: Facts(op=""))

    @property
    def is_product(self) -> bool:
        """Whether the operation is a matrix product or a convolution."""
        return self.op_class in PRODUCTS


def group_of(ops: Sequence[Op]) -> str:
    """The class of a model with these operations, by which the expected error of predictions is looked up:
    "convolution" or "encoder".
    """
    flops = sum(op.flops for op in ops)
    convolved = sum(op.flops for op in ops if op.op_class in (OpClass.CONV, OpClass.DEPTHWISE))
    return "convolution" if convolved > flops / 2 else "encoder"


PRODUCTS = frozenset({OpClass.CONV, OpClass.DEPTHWISE, OpClass.MATMUL, OpClass.PRODUCT})
"""The classes whose operations multiply matrices or convolve."""
