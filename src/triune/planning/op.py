"""An operation for the cost model: its arithmetic, the bytes that it reads and writes, and its shape."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from triune.hardware.rules import Facts


class OpClass(Enum):
    """Classes of operations: those of one class have one efficiency curve on a unit."""

    CONV = "conv"
    """A convolution whose channels are mixed; 1x1 convolutions among them."""
    DEPTHWISE = "depthwise"
    """A convolution with few input channels for each output channel."""
    MATMUL = "matmul"
    """A product with constant weights."""
    PRODUCT = "product"
    """A product of two values that are both computed, attention among them."""
    REDUCE = "reduce"
    """Norms, softmax, reductions and pools."""
    ELEMENTWISE = "elementwise"
    MOVE = "move"
    """What moves elements: transposes, concatenations, gathers, resizes."""
    VIEW = "view"
    """What changes only the shape, and costs nothing."""
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
        weight_bits: the bits of a stored weight, its share of scales among them; None if weights are stored in the
            precision of the unit.
        read: the elements of computed values that it reads.
        written: the elements that it writes.
        scratch: the elements between its steps, such as attention's scores, that a unit without a fused form writes
            and reads.
        rows: the rows of a product, or the positions of a convolution: how often each weight is used.
        inner: the inner dimension of a product; of a convolution the input channels of a group times the kernel.
        columns: the columns of a product; of a convolution the output channels of a group.
        is_fused: whether units compute it within the operation before: it is launched with that, and reads what that
            has at hand.
        inputs: the names of computed values that it reads.
        outputs: the names of the values that it writes.
        facts: what the rules of units ask of it.
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
        """Whether it multiplies matrices or convolves."""
        return self.op_class in PRODUCTS


def group_of(ops: Sequence[Op]) -> str:
    """The class of models whose predictions a model's operations share the error with: "convolution", "encoder"."""
    flops = sum(op.flops for op in ops)
    convolved = sum(op.flops for op in ops if op.op_class in (OpClass.CONV, OpClass.DEPTHWISE))
    return "convolution" if convolved > flops / 2 else "encoder"


PRODUCTS = frozenset({OpClass.CONV, OpClass.DEPTHWISE, OpClass.MATMUL, OpClass.PRODUCT})
"""The classes whose operations multiply matrices or convolve."""
