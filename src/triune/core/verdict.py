"""The result of comparing a unit's outputs with the outputs of fp32 on `cpu`."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How far a unit's answers are from those of `cpu` on sample input, and whether it may serve the model.

    Attributes:
        precision: the floating-point format of the unit's computation: "fp32", "bf16", "fp16".
        tolerance: the largest `relative` that is allowed.
        largest: the largest absolute difference of all outputs; infinite if shapes, strings or NaNs differ.
        relative: the largest error of all outputs: for floats the difference divided by the output's largest value,
            for logits by the spread of their row;
            for integers, booleans and strings the fraction of elements that differ.
        agreement: of the rows of scores whose best class is clear, the part in which the unit chooses the same class;
            None if no output is of scores, or no row is clear.
        cosine: of logits, the smallest cosine of two rows, less their means; None of other outputs.
        excess: why the unit does not serve the model; empty if it does.
        cause: the operation that is likely to be the reason for `excess`; empty if it is not known.
        is_kept: whether an earlier start found this, so that nothing was compared now.
    """

    precision: str
    tolerance: float
    largest: float
    relative: float
    agreement: float | None = None
    cosine: float | None = None
    excess: str = ""
    cause: str = ""
    is_kept: bool = field(default=False, compare=False)

    @property
    def reason(self) -> str:
        """`excess` and `cause` in one text; empty if the unit serves the model."""
        return f"{self.excess}; the likely reason is {self.cause}" if self.excess and self.cause else self.excess
