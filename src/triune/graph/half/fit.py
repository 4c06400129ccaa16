"""Prepare a model to compute in fp16."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from triune.graph.check import Check
from triune.graph.half.fp32_nodes import find_fp32_nodes, told
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
        wide: the nodes that are to compute in fp32, each by its first result.
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
        model: normalized and narrowed; changed.
        file: the scratch file for new large weights.
        is_laid_out: whether transformers are in the layout of the Neural Engine, which computes only in fp16: then
            norms are rewritten to stay within fp16, and no mask is infinite.
        keep: names of nodes and operators that the user keeps in fp32.
        check: inputs on which ONNX's reference evaluator computes the model in fp32 before and after every pass.

    Raises:
        InternalError: a pass changed what the model computes (only with `check`).
    """
    unpack, masks = UnpackWeights(file), FitMasks(is_finite=is_laid_out)
    passes: Sequence[GraphPass] = (
        unpack,
        # Before ConvAffine, which takes a BatchNormalization into the weights before it.
        FoldVariances(),
        # Before ScaleBefore and FitMasks, which find no scale and no mask through a Cast.
        DropIdleCasts(),
        # Before ScaleBefore, so that a scale that is weights by now is no longer moved.
        *(() if is_laid_out else (ConvAffine(file),)),
        ScaleBefore(file),
        *((FitNorms(keep),) if is_laid_out else ()),
        # After ScaleBefore, which multiplies masks that are added before the scale.
        masks,
        TidyAndInfer(file),
    )
    model = run_passes(model, passes, None if check is None else Check(model, check))
    kept = {each.value: each for each in find_fp32_nodes(model.graph, masks.softmaxes)}
    return Fitted(model, masks.wide | set(kept), (*told(kept.values()), *unpack.notes))


def fit_halves(model: ModelProto, file: WeightFile) -> ModelProto:
    """Rewrite norms of values that are fp16 in the model itself, so that they stay within fp16.

    It is for models that otherwise compute in fp32. In ONNX, LayerNormalization of fp16 computes in fp32; in the layout
    of the Neural Engine it is written as several nodes.

    Args:
        model: in the layout of the Neural Engine, and narrowed; changed.
        file: the scratch file for new large weights.
    """
    return run_passes(model, (FitNorms(of_halves_alone=True), TidyAndInfer(file)))
