"""Which nodes of attention compute in fp32: as few as can be."""

from support.half_cases import CASES
from triune.graph.half import Fitted, fit_half
from triune.graph.normalize import normalize
from triune.graph.passes.narrow import Narrow
from triune.graph.weight_files import WeightFile


def _fitted(name: str) -> Fitted:
    (case,) = (case for case in CASES if case.name == name)
    file = WeightFile()
    return fit_half(Narrow(file)(normalize(case.model, file=file)), file)


def _kept(fitted: Fitted) -> set[str]:
    return {node.op_type for node in fitted.model.graph.node if not fitted.wide.isdisjoint(node.output)}


def test_masked_scores_and_their_softmax_stay_in_fp16() -> None:
    for name in ("inverted", "causal_and_inverted", "constant_lowest", "given_infinite", "attention_causal_and_given"):
        assert _kept(_fitted(name)).isdisjoint({"MatMul", "Softmax"})


def test_a_softmax_whose_masks_are_not_told_from_its_scores_computes_in_fp32_with_its_sum_and_a_note() -> None:
    fitted = _fitted("sum_of_given")
    assert _kept(fitted) == {"Add", "Softmax"}
    assert "its masks are beyond fp16" in fitted.notes[0]


def test_scores_are_scaled_before_their_product_which_stays_in_fp16() -> None:
    for name in ("divided_by_what_is_given", "reshaped_and_scaled", "summed_and_scaled"):
        fitted = _fitted(name)
        operators = [node.op_type for node in fitted.model.graph.node]
        assert min(operators.index(scale) for scale in ("Mul", "Div") if scale in operators) < operators.index("MatMul")
        assert _kept(fitted).isdisjoint({"MatMul", "Softmax"})
