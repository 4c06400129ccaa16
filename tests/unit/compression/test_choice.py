"""The form that a unit gains from."""

import pytest
from onnx import ModelProto, TensorProto, helper

from support.compressible import matrix, model_of, perceptron
from triune.compression.choice import decoder_form_for, form_for
from triune.compression.options import Activations, Method, Options, WeightForm
from triune.core.errors import UnsupportedError
from triune.core.units import Unit

STATIC = Options(WeightForm.INT8, activations=Activations.INT8)


def convolution() -> ModelProto:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    weight = matrix(16, 144).reshape(16, 16, 3, 3)
    return model_of(nodes, {"x": (TensorProto.FLOAT, [1, 16, 8, 8])}, ["y"], {"w": weight})


def test_the_cpu_and_its_matrix_unit() -> None:
    assert form_for(Unit.CPU, convolution(), is_program=False) == STATIC
    assert form_for(Unit.AMX, convolution(), is_program=False) == STATIC
    dynamic = Options(WeightForm.INT8, activations=Activations.DYNAMIC)
    assert form_for(Unit.CPU, perceptron(), is_program=False) == dynamic
    smooth = Options(WeightForm.INT8, activations=Activations.INT8, method=Method.SMOOTHQUANT)
    assert form_for(Unit.AMX, perceptron(), is_program=False) == smooth


def test_decoders_get_four_bits_where_they_run() -> None:
    assert decoder_form_for(Unit.GPU) == Options(WeightForm.INT4, group=64)
    with pytest.raises(UnsupportedError, match="no decoder runs"):
        decoder_form_for(Unit.ANE)
