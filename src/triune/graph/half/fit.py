"""A graph made fit for fp16."""

from collections.abc import Collection
from dataclasses import dataclass

from onnx import ModelProto, TensorProto

from triune.graph.half.masks import fit_masks
from triune.graph.half.norms import fit_norms
from triune.graph.half.scores import scale_before
from triune.graph.half.variances import fold_variances
from triune.graph.half.weights import make_whole
from triune.graph.half.wide import find_wide, told
from triune.graph.passes.conv_affine import ConvAffine
from triune.graph.passes.infer import Infer
from triune.graph.passes.tidy import Tidy
from triune.graph.values import Values
from triune.graph.weight_files import WeightFile
from triune.graph.weights import Large

_FP32 = TensorProto.FLOAT


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model that is to compute in fp16.

    Attributes:
        model: in core operators.
        wide: the nodes that are to compute in fp32, each by its first result.
        notes: what a user is told of it.
    """

    model: ModelProto
    wide: frozenset[str]
    notes: tuple[str, ...]


def _drop_idle_casts(model: ModelProto) -> None:
    """Given casts of fp32 to fp32, between scores and their Softmax for instance. Result: none."""
    values = Values(model.graph)
    for node in model.graph.node:
        if node.op_type == "Cast" and values.elem_type(node.input[0]) == values.elem_type(node.output[0]) == _FP32:
            node.op_type = "Identity"
            del node.attribute[:]
    Tidy()(model)


def fit_half(model: ModelProto, file: WeightFile, *, is_laid_out: bool = False, keep: Collection[str] = ()) -> Fitted:
    """Have a model's numbers within fp16, and find the nodes for which that cannot be.

    Args:
        model: normalized and narrowed; changed.
        file: takes large weights that are made.
        is_laid_out: its transformers are in the layout of the Neural Engine, which computes in nothing but fp16: norms
            are written such that they stay in it, and no mask is infinite.
        keep: nodes and operators that the user keeps in fp32.
    """
    notes = make_whole(model, file)
    fold_variances(model)
    _drop_idle_casts(model)
    if not is_laid_out:
        model = ConvAffine(file)(model)
    scale_before(model, file)
    if is_laid_out:
        fit_norms(model, keep)
    masks = fit_masks(model, is_finite=is_laid_out)
    model = _typed(model, file)
    kept = {each.value: each for each in find_wide(model.graph, masks.softmaxes)}
    return Fitted(model, masks.wide | set(kept), (*told(kept.values()), *notes))


def fit_halves(model: ModelProto, file: WeightFile) -> ModelProto:
    """Have norms of values that are of fp16 in the model itself within fp16, though it is to compute in fp32 elsewhere.

    ONNX has LayerNormalization of fp16 compute in fp32; in the layout of the Neural Engine it is written out.

    Args:
        model: in the layout of the Neural Engine, and narrowed; changed.
        file: takes large weights that are made.
    """
    fit_norms(model, of_halves_alone=True)
    return _typed(model, file)


def _typed(model: ModelProto, file: WeightFile) -> ModelProto:
    large = Large(file)
    large.take(model)
    model = Infer()(Tidy()(model))
    large.give_back(model)
    return model
