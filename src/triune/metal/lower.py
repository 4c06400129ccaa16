"""Lowers an ONNX model to a program for MLX."""

from typing import Literal, TypeAlias

from onnx import ModelProto

from triune.graph.conversion.options import ConversionOptions
from triune.graph.conversion.options import Precision as Converted
from triune.graph.conversion.prepare import prepare, silent, translated_failures
from triune.graph.conversion.unknown import empty_unknown
from triune.graph.fused.attention import FuseAttention
from triune.graph.fused.rms_norm import FuseRmsNorm
from triune.graph.normalize import normalize
from triune.graph.own_names import give_own_names
from triune.graph.passes.halve import Halve
from triune.graph.passes.merge_projections import MergeProjections
from triune.graph.passes.recover_gelu import RecoverGelu
from triune.graph.passes.recover_norms import RecoverLayerNorm
from triune.graph.passes.run import run_passes
from triune.graph.weight_files import WeightFile
from triune.metal import joined
from triune.metal.library import exclusive, mx, start_kernels
from triune.metal.plan import BEYOND_CORE
from triune.metal.program import Program

Precision: TypeAlias = Literal["source", "bf16", "fp16"]
"""The type in which fp32 values are computed: fp32 ("source"), or a type of 16 bits."""


def lower(model: ModelProto, precision: Precision = "source", *, most_bytes: int | None = None) -> Program:
    """Make a program that computes a model.

    Args:
        model: any ONNX model, which is not changed. If it has external data, `graph.load` must have set the paths of
            its files, which are read now, and not needed afterwards.
        precision: with fp16, nodes that fp16 cannot compute stay in fp32, integers are narrowed to int32, and inputs
            with a default become constants.
        most_bytes: see `Program`.

    Raises:
        InvalidArgumentError: the model is not valid ONNX.
        UnsupportedError: nodes cannot be computed: one message names each with its reason.
    """
    start_kernels(in_graphs=False)
    with exclusive(), WeightFile() as file, translated_failures(model):
        if precision == "fp16":
            prepared = prepare(model, ConversionOptions(precision=Converted.FP16), None, silent, file)
            core = Halve((), prepared.wide, file)(prepared.model)
        else:
            copy = ModelProto()
            copy.CopyFrom(model)
            empty_unknown(copy)
            give_own_names(copy.graph)
            core = normalize(copy, keep=BEYOND_CORE, file=file)
        # Layer normalizations are recovered first: they contain the pattern of an RMS normalization.
        recovered = (RecoverLayerNorm(), RecoverGelu(), MergeProjections(file))
        fewer = (*recovered, FuseRmsNorm(file), FuseAttention(file), joined.JoinNeighbours())
        core = run_passes(core, fewer, None)
        kind = mx.bfloat16 if precision == "bf16" else mx.float32
        return Program(core.graph, float_type=kind, more=joined.TABLE, most_bytes=most_bytes)
