"""Chooses the compressed form from which a unit gains most, as measured or published."""

from dataclasses import replace

from onnx import ModelProto

from triune.compression.options import Activations, Method, Options, WeightForm
from triune.core.errors import UnsupportedError
from triune.core.units import Unit


def form_for(unit: Unit, model: ModelProto, *, is_program: bool) -> Options:
    """The form of weights and activations with which a unit is fastest.

    - cpu: ONNX Runtime multiplies in 8 bits (VNNI). Convolutional networks gain from activation ranges observed
      beforehand; products of matrices gain most from the range of each run. If only the weights have 8 or 4 bits, each
      run unpacks them, which is slower than fp32 (docs/compress.md has the figures).
    - amx: OpenVINO multiplies in 8 bits, with observed ranges. The rate is 1.6 times that of bf16 for wide products and
      for ResNet-50's convolutions, 1.2 times for EfficientNet's convolutions, and the same as bf16 for MiniLM's
      products, which are small. In models without convolutions SmoothQuant is applied, with which MiniLM loses only a
      third as much accuracy.
    - gpu: reading weights from memory is the bottleneck, so they have 4 bits, in groups of 64.
    - ane: it reads weights of 8 bits with a scale for each channel, and computes in fp16 (coremltools' guide to
      optimization). Palettes are smaller, and lose more.

    Args:
        unit: the unit.
        model: the model.
        is_program: whether the result is one of Apple's programs, for which 8-bit activations are not supported here.
    """
    has_convolutions = any(node.op_type == "Conv" for node in model.graph.node)
    static = Options(WeightForm.INT8, activations=Activations.INT8)
    match unit:
        case Unit.CPU if not is_program:
            return static if has_convolutions else Options(WeightForm.INT8, activations=Activations.DYNAMIC)
        case Unit.AMX if not is_program:
            return static if has_convolutions else replace(static, method=Method.SMOOTHQUANT)
        case Unit.GPU:
            return Options(WeightForm.INT4, group=64)
        case _:
            return Options(WeightForm.INT8)


def decoder_form_for(unit: Unit) -> Options:
    """The fastest form of a decoder's weights on a unit: 4 bits in groups of 64. A decoding step of one text reads all
    weights once, which takes longer than the multiplications on every unit that runs decoders.

    Raises:
        UnsupportedError: the unit runs no decoders.
    """
    if unit is Unit.ANE:
        raise UnsupportedError("no decoder runs on the unit 'ane' here: name another one, or a form (--weights int8)")
    return Options(WeightForm.INT4, group=64)
