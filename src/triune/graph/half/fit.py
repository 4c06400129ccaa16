"""Prepare a model to compute in fp16."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from triune.graph.check import Check
from triune.graph.half.fp32_nodes import find_fp32_nodes, fp32_note
from triune.graph.half.idle_casts import DropIdleCasts
from triune.graph.half.masks import FitMasks
from triune.graph.half.norms import FitNorms
from triune.graph.half.scores import ScaleBefore
from triune.graph.half.variances import FoldVariances
from triune.graph.half.weights import UnpackWeights
from triune.graph.passes.conv_affine import ConvAffine
from triune.graph.passes.run import GraphPass, run_passes
from triune.graph.passes.tidy_and_infer import TidyAndInfer
from triune.graph.weight_files import WeightFile


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model that is to compute in fp16.

    Attributes:
        model: the changed model, in core operators.
        wide: the names of the first results of the nodes that are to compute in fp32.
        notes: messages for the user.
    """

    model: ModelProto
    wide: frozenset[str]
    notes: tuple[str, ...]


def fit_half(
    model: ModelProto,
    file: WeightFile,
    *,
    is_laid_out: bool = False,
    keep: Collection[str] = (),
    check: Mapping[str, NDArray[Any]] | None = None,
) -> Fitted:
    """Rewrite a model so that its numbers stay within fp16, and find the nodes that must compute in fp32.

    Args:
        model: the model, on which `normalize` and the pass `Narrow` have run; it is changed in place.
        file: the scratch file for new large weights.
        is_laid_out: whether `graph.ane` has rewritten the model for the Neural Engine, which computes only in fp16:
            then norms are rewritten to stay within fp16, and masks of -inf become finite.
        keep: names of nodes and operators that the user asked to keep in fp32.
        check: inputs on which ONNX's reference evaluator computes the model in fp32 before and after every pass.

    Raises:
        InternalError: a pass changed what the model computes (only with `check`).
    """
    unpack, masks = UnpackWeights(file), FitMasks(is_finite=is_laid_out)
    passes: Sequence[GraphPass] = (
        unpack,
        # FoldVariances runs before ConvAffine, which folds a BatchNormalization into the weights of the convolution
        # before it.
        FoldVariances(),
        # DropIdleCasts must run before ScaleBefore and FitMasks, whose patterns have no Cast.
        DropIdleCasts(),
        # ConvAffine runs before ScaleBefore: it folds scales into weights, which ScaleBefore then need not move.
        *(() if is_laid_out else (ConvAffine(file),)),
        ScaleBefore(file),
        *((FitNorms(keep),) if is_laid_out else ()),
        # FitMasks runs after ScaleBefore, which also multiplies a mask that is added between the product and the scale.
        masks,
        TidyAndInfer(file),
    )
    model = run_passes(model, passes, None if check is None else Check(model, check))
    kept = {each.value: each for each in find_fp32_nodes(model.graph, masks.softmaxes)}
    return Fitted(model, masks.wide | set(kept), (*fp32_note(kept.values()), *unpack.notes))


def fit_halves(model: ModelProto, file: WeightFile) -> ModelProto:
    """Rewrite normalizations of values that are fp16 in the model file, so that their squares stay within fp16.

    This is for models that are not converted to fp16. ONNX's LayerNormalization computes in fp32 even for fp16
    operands, but `graph.ane` replaces it by several nodes, which compute in fp16.

    Args:
        model: rewritten by `graph.ane`, and narrowed; changed.
        file: the scratch file for new large weights.
    """
    return run_passes(model, (FitNorms(of_halves_alone=True), TidyAndInfer(file)))
