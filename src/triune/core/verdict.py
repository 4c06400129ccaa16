"""The result of comparing a unit's outputs with the outputs of fp32 on `cpu`."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How far a unit's answers are from those of `cpu` on sample input, and whether it may serve the model.

    Attributes:
        precision: the floating-point format of the unit's computation: "fp32", "bf16", "fp16".
        tolerance: the largest `relative` that is allowed.
        largest: the largest absolute difference of all outputs; infinite if shapes, strings or NaNs differ.
        relative: the largest error of all outputs: for floats the difference divided by the output's largest value;
            for logits the difference divided by the spread of their row, which is the largest logit minus the smallest;
            for integers, booleans and strings the fraction of elements that differ.
        agreement: the fraction of score rows in which the unit chooses the same best class as `cpu`, among rows whose
            best class leads by a clear margin. None if no output has scores, or no row has such a margin.
        cosine: for outputs that are logits, the smallest cosine similarity of a row and the same row of `cpu`, after
            subtracting their means; None for other outputs.
        excess: why the unit does not serve the model; empty if it does.
        cause: the operation that is likely to be the reason for `excess`; empty if it is not known.
        is_kept: whether this verdict was stored by an earlier start, so that nothing was compared now.
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
