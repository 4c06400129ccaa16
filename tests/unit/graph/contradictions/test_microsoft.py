"""Nodes of com.microsoft that no runtime computes are refused by their own names, before they are replaced."""

from typing import Any

import pytest
from onnx import ModelProto, TensorProto
from onnxruntime.capi import onnxruntime_pybind11_state

from support.contrib import CASES
from support.graphs import model_of
from support.mutated import mutated
from triune.core.errors import InvalidArgumentError, TriuneError
from triune.graph.contradictions.microsoft.signatures import KINDS, REQUIRED, SIGNATURES
from triune.graph.conversion.options import ConversionOptions
from triune.graph.conversion.prepare import prepare, silent
from triune.graph.normalize import normalize
from triune.graph.weight_files import WeightFile

_OPERANDS = "(float[2,3,8] x, float[8,24] w, float[24] b, uint8[2,3] q, float s, int32[2,3] i, bool[2] t)"


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("y = com.microsoft.Attention <num_heads = 0> (x, w, b)", "'num_heads' is 0, and has to be from 1 to"),
        ("y = com.microsoft.Attention (x, w, b)", "the attribute 'num_heads' is missing"),
        ("y = com.microsoft.Attention <num_heads = 5> (x, w, b)", r"the width 8 of 'w' \(8, 24\) has to be a multiple"),
        ("y = com.microsoft.Attention <num_heads = 2> (x, x, b)", r"'x' \(2, 3, 8\) has to be of shape \(8, \?\)"),
        ("y = com.microsoft.Attention <num_heads = 2> (x, w, i)", "'i' is INT32, and has to be floats"),
        ("y = com.microsoft.BiasGelu (x, b)", r"'b' \(24\) has to be of shape \(8\)"),
        ("y = com.microsoft.QLinearSigmoid (q)", "input 1 is missing"),
        ("y = com.microsoft.QLinearAdd (q, s, , t, s, , s)", "'t' is BOOL, and has to be INT8 or UINT8"),
        ("y = com.microsoft.QLinearAveragePool (q, s, , s)", "the attribute 'kernel_shape' is missing"),
        ("y = com.microsoft.QGemm (q, s, q, q, s, q, i, s, q, q)", "it has 10 inputs, and 9 at most"),
        # The type of what an operator of the same domain computes is known only when that was replaced.
        (
            "g = com.microsoft.Gelu (x) y = com.microsoft.QLinearSigmoid (g, s, , s)",
            "'g' is FLOAT, and has to be INT8 or UINT8",
        ),
        # ONNX's own inference finds this in what replaces it.
        ("y = com.microsoft.FusedMatMul (x, b)", "Incompatible dimensions for matrix multiplication"),
    ],
)
def test_a_contradiction_is_told_by_the_operators_own_name(node: str, reason: str) -> None:
    own = node.rpartition("com.microsoft.")[2].split()[0]
    model = model_of(f"agraph {_OPERANDS} => (float[?] y) {{ {node} }}", imports=', "com.microsoft": 1')
    with pytest.raises(InvalidArgumentError, match=f"{own} 'y': {reason}"):
        normalize(model)


def test_what_several_nodes_say_of_the_one_that_they_replace_is_said_once() -> None:
    text = (
        "agraph (float[0,3,8] x, float[8,24] w) => (float[?] y) { y = com.microsoft.Attention <num_heads = 2> (x, w) }"
    )
    with pytest.raises(InvalidArgumentError) as found:
        normalize(model_of(text, imports=', "com.microsoft": 1'))
    assert str(found.value).count("Attention 'y': ") == 1


def test_operands_and_attributes_are_those_of_onnx_runtime() -> None:
    state: Any = onnxruntime_pybind11_state
    schemas = {each.name: each for each in state.get_all_operator_schema() if each.domain == "com.microsoft"}
    for name, signature in SIGNATURES.items():
        schema, tokens = schemas[name], signature.split()
        types = {each.type_param_str: set(each.allowed_type_strs) for each in schema.type_constraints}
        assert [token.endswith("?") for token in tokens] == ["Optional" in str(each.option) for each in schema.inputs]
        for token, operand in zip(tokens, schema.inputs, strict=True):
            taken = types.get(operand.typeStr, {operand.typeStr})
            assert token[0] == "A" or taken <= {f"tensor({_words(each)})" for each in KINDS[token[0]][1]}, name
        required = {each for each, attribute in schema.attributes.items() if attribute.required}
        # The kernel of DynamicQuantizeLSTM asks for its hidden_size, its schema does not.
        assert set(REQUIRED.get(name, ())) - {"hidden_size"} <= required, name


def _words(elem_type: int) -> str:
    return TensorProto.DataType.Name(elem_type).lower()


def test_changed_cases_are_taken_or_refused_in_triunes_words() -> None:
    cases = [case for case in CASES if case.domain == "com.microsoft" and not case.reason][::4]
    told = {case.name: _told(mutated(case.model(), f"{case.name}:1")[0]) for case in cases}
    assert {name: error for name, error in told.items() if "please report" in error} == {}
    assert sum("is not valid ONNX" in error for error in told.values()) > 20


def _told(model: ModelProto) -> str:
    try:
        with WeightFile() as file:
            prepare(model, ConversionOptions(), None, silent, file)
    except TriuneError as error:
        return str(error)
    return ""
