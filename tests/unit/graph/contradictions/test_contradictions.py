"""Models without a right answer are refused by name, and those beside them are not."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto

from support.graphs import model_of
from triune.core.errors import InvalidArgumentError
from triune.coreai.lowering import lower as lower_to_core_ai
from triune.coreml.lowering import lower as lower_to_core_ml
from triune.graph.normalize import normalize

# Of each: the inputs, the nodes, and what the message holds. All have the output y.
INVALID = {
    "Softmax": ("float[2,3] x", "y = Softmax <axis = 5> (x)", r"Softmax 'y': 'axis' must be in \[-2 *, *1\].* 5"),
    "Transpose": ("float[2,3] x", "y = Transpose <perm = [0, 0]> (x)", r"Transpose 'y': 'perm' is \[0, 0\]"),
    "Gather": ("float[2,3] x", "i = Constant <value_ints = [7]> () y = Gather (x, i)", "index 7, and 'x' .* has 2"),
    "a shape's Gather": (
        "float[2,3] x",
        "s = Shape (x) i = Constant <value_int = 2> () n = Gather (s, i) y = Cast <to = 1> (n)",
        "index 2, and 's'",
    ),
    "Expand": ("float[2,3] x", "s = Constant <value_ints = [5, 5]> () y = Expand (x, s)", "cannot be broadcast with"),
    "TopK": (
        "float[2,3] x",
        "k = Constant <value_ints = [9]> () y, i = TopK (x, k)",
        "is 9, and of 'x' .* from 0 to 3",
    ),
    "Squeeze": ("float[2,3] x", "a = Constant <value_ints = [0]> () y = Squeeze (x, a)", "axis 0 of 'x' .* of size 2"),
    "Range": (
        "float[2,3] x",
        "a = Constant <value_float = 1.0> () b = Constant <value_float = 9.0> () z = Constant <value_float = 0.0> () "
        "r = Range (a, b, z) s = Size (r) f = Cast <to = 1> (s) y = Add (x, f)",
        "the step 'z' is 0",
    ),
    "BatchNormalization": ("float[2,3] x", "y = BatchNormalization (x, x, x, x, x)", r"has to be of shape \(3\)"),
    "reflect": (
        "float[2,3] x",
        'p = Constant <value_ints = [9, 0, 0, 0]> () y = Pad <mode = "reflect"> (x, p)',
        "padded by 9 and 0 along axis 0, and mode 'reflect' can add up to 1",
    ),
    "negative Pad": ("float[2,3] x", "p = Constant <value_ints = [0, -2, 0, -2]> () y = Pad (x, p)", "more away than"),
    "Concat": ("float[2,3] x, float[3,3] z", "y = Concat <axis = 1> (x, z)", "differ along axis 0"),
    "Split": ("float[2,3] x", "s = Constant <value_ints = [1, 1]> () y, z = Split <axis = 1> (x, s)", r"\[1, 1\] have"),
    "Reshape": ("float[2,3] x", "s = Constant <value_ints = [4, -1]> () y = Reshape (x, s)", "has not the elements"),
    "a free Reshape": (
        "float[2,N,3] x",
        "s = Constant <value_ints = [0, 0, 4]> () y = Reshape (x, s)",
        r"has not the elements of the shape \(2, \?, 4\)",
    ),
    "Slice": (
        "float[2,3] x",
        "a = Constant <value_ints = [0]> () s = Constant <value_ints = [0]> () y = Slice (x, a, a, a, s)",
        r"a step is any number but 0",
    ),
    "OneHot": (
        "int64[2] x",
        "d = Constant <value_int = 3> () v = Constant <value_floats = [0.0, 1.0, 2.0]> () y = OneHot (x, d, v)",
        r"'v' \(3\) has to be of shape \(2\)",
    ),
    "DepthToSpace": ("float[1,6,2,2] x", "y = DepthToSpace <blocksize = 2> (x)", "multiple of 'blocksize' squared, 4"),
    "SpaceToDepth": ("float[1,1,3,4] x", "y = SpaceToDepth <blocksize = 2> (x)", "multiples of 'blocksize', 2"),
    "Conv": ("float[1,3,5,5] x, float[4,2,3,3] w", "y = Conv (x, w)", "'x' .* has 3 channels, and 'w' .* takes 2"),
    "the groups of Conv": (
        "float[1,4,5,5] x, float[3,2,3,3] w",
        "y = Conv <group = 2> (x, w)",
        "the 3 filters of 'w' .* have to be a multiple of group 2",
    ),
    "the bias of Conv": (
        "float[1,3,5,5] x, float[4,3,3,3] w, float[3] b",
        "y = Conv (x, w, b)",
        r"'b' \(3\) has to be of shape \(4\)",
    ),
    "ConvTranspose": (
        "float[1,3,5,5] x, float[4,3,3,3] w",
        "y = ConvTranspose (x, w)",
        "3 channels, and 'w' .* takes 4",
    ),
    "a pool's pads": (
        "float[1,1,5,5] x",
        "y = MaxPool <kernel_shape = [2, 2], pads = [2, 0, 0, 0]> (x)",
        "axis 2 is padded by 2, which has to be less than the 2 of a window",
    ),
    "ScatterND": ("float[4,3] x, int64[2,1] i, float[2,4] u", "y = ScatterND (x, i, u)", r"'u' .* of shape \(2, 3\)"),
    "GatherND": ("float[4,3] x, int64[2,3] i", "y = GatherND (x, i)", "the last size of 'i'"),
    "an index of GatherND": (
        "float[4,3] x",
        "i = Constant <value = int64[1,2] {1, 3}> () y = GatherND (x, i)",
        "the index 3, and 'x' .* has 3 elements along axis 1",
    ),
    "ScatterElements": (
        "float[4,3] x, int64[2,3] i, float[2,2] u",
        "y = ScatterElements (x, i, u)",
        r"'u' \(2, 2\) has to be of shape \(2, 3\)",
    ),
    "GatherElements": ("float[4,3] x, int64[2,5] i", "y = GatherElements (x, i)", "larger than 'x' .* along axis 1"),
    "Einsum": ("float[2,3] x, float[4,5] z", 'y = Einsum <equation = "ij,jk->ik"> (x, z)', "'j' is 3 elsewhere and 4"),
    "Resize": (
        "float[1,1,2,2] x",
        "s = Constant <value_floats = [1.0, 1.0, 2.0]> () y = Resize (x, , s)",
        "the scales .* have to be 4 numbers",
    ),
    "sizes of Resize": (
        "float[1,1,2,2] x",
        "s = Constant <value_ints = [1, 1, 0, 2]> () y = Resize (x, , , s)",
        "have to be 1 or more",
    ),
    "ConstantOfShape": (
        "float[2,3] x",
        "s = Constant <value_ints = [-2, 3]> () c = ConstantOfShape (s) y = Add (x, c)",
        "holds a negative size",
    ),
    "Tile": (
        "float[2,3] x",
        "r = Constant <value_ints = [2]> () y = Tile (x, r)",
        "have to be one number for each axis",
    ),
    "DFT": ("float[1,8,3] x", "y = DFT (x)", "the last size of 'x' .* for real numbers 1 and for complex ones 2"),
    "CumSum": ("float[2,3] x", "a = Constant <value_int = 2> () y = CumSum (x, a)", "'axis' is 2, and 'x'"),
    "MatMul": ("float[2,3] x, float[2,3] z", "y = MatMul (x, z)", "MatMul 'y'"),
    "Gemm": (
        "float[2,3] x, float[3,4] w, float[3] b",
        "y = Gemm (x, w, b)",
        r"'b' \(3\) cannot be broadcast to \(2, 4\)",
    ),
    "Add": ("float[2,3] x, float[4] z", "y = Add (x, z)", "Add 'y'"),
    "LayerNormalization": (
        "float[2,3] x, float[4] w",
        "y = LayerNormalization (x, w)",
        r"'w' \(4\) cannot be broadcast to \(2, 3\)",
    ),
    "GroupNormalization": (
        "float[1,4,2] x, float[4] w",
        "y = GroupNormalization <num_groups = 3> (x, w, w)",
        "the 4 channels of 'x' .* multiple of 'num_groups' 3",
    ),
    "LSTM": (
        "float[3,2,4] x, float[1,20,4] w, float[1,20,5] r, float[1,3,5] h",
        "n, y = LSTM <hidden_size = 5> (x, w, r, , , h)",
        r"'h' \(1, 3, 5\) has to be of shape \(1, 2, 5\)",
    ),
    "Attention": (
        "float[1,2,3,4] x, float[1,2,5,6] k, float[1,2,5,4] v",
        "y = Attention (x, k, v)",
        "heads of 'x' .* are of size 4, and those of 'k' .* of 6",
    ),
    "DequantizeLinear": (
        "uint8[2,3] x, float[4] s",
        "y = DequantizeLinear <axis = 1> (x, s)",
        r"'s' \(4\) has to be of shape \(3\)",
    ),
    "NonMaxSuppression": (
        "float[1,6,4] x, float[1,1,5] s",
        "k = Constant <value_int = 2> () i = NonMaxSuppression (x, s, k) y = Cast <to = 1> (i)",
        "differ in the number of images or of boxes",
    ),
}

# The same operators at their limits.
VALID = {
    "Softmax": ("float[2,3] x", "y = Softmax <axis = -2> (x)"),
    "Gather": ("float[2,3] x", "i = Constant <value_ints = [-2, 1]> () y = Gather (x, i)"),
    "Expand": ("float[2,1] x", "s = Constant <value_ints = [4, 1, 5]> () y = Expand (x, s)"),
    "TopK": ("float[2,3] x", "k = Constant <value_ints = [3]> () y, i = TopK (x, k)"),
    "reflect": ("float[2,3] x", 'p = Constant <value_ints = [1, 2, 1, 2]> () y = Pad <mode = "reflect"> (x, p)'),
    "negative Pad": ("float[2,3] x", "p = Constant <value_ints = [0, -1, 0, -1]> () y = Pad (x, p)"),
    "Split": ("float[2,7] x", "y, z = Split <axis = 1, num_outputs = 2> (x)"),
    "a free Reshape": ("float[2,N,3] x", "s = Constant <value_ints = [-1, 6]> () y = Reshape (x, s)"),
    "a Reshape that keeps": ("float[N,M,6] x", "s = Constant <value_ints = [0, 0, 2, 3]> () y = Reshape (x, s)"),
    "a Reshape of free sizes": ("float[N,M,6] x", "s = Constant <value_ints = [4, -1]> () y = Reshape (x, s)"),
    "groups": ("float[1,4,5,5] x, float[6,2,3,3] w", "y = Conv <group = 2> (x, w)"),
    "Gemm": ("float[2,3] x, float[3,4] w, float[2,1] b", "y = Gemm (x, w, b)"),
    "one scale": ("uint8[2,3] x, float[1] s", "y = DequantizeLinear (x, s)"),
    "limits that are vectors": (
        "float[2,3] x",
        """a = Constant <value_floats = [0.0]> () b = Constant <value_floats = [2.0]> ()
        c = Constant <value_floats = [1.0]> () r = Range (a, b, c) y = MatMul (r, x)""",
    ),
    "a batched index": (
        "float[2,4,3] x",
        "i = Constant <value = int64[2,1] {-4, 3}> () y = GatherND <batch_dims = 1> (x, i)",
    ),
    "a node that nothing reads": ("float[2,3] x", "y = Relu (x) z = Transpose <perm = [0, 0]> (x)"),
    "a branch that is not taken": (
        "float[2,3] x",
        """s = Shape (x) i = Constant <value_int = 0> () n = Gather (s, i) o = Constant <value_int = 1> ()
        c = Equal (n, o)
        y = If (c) <then_branch = t () => (float[a,b] p) { a = Constant <value_ints = [0]> () q = Squeeze (x, a)
                                                           d = Constant <value_ints = [0]> () p = Unsqueeze (q, d) },
                    else_branch = e () => (float[a,b] r) { r = Relu (x) }>""",
    ),
}
FORMS = {"mlpackage": lower_to_core_ml, "aimodel": lower_to_core_ai}


def model(inputs: str, nodes: str) -> ModelProto:
    # ONNX Runtime has no DequantizeLinear of newer operator sets.
    made = model_of(f"g ({inputs}) => (float y) {{ {nodes} }}", opset=24)
    made.graph.output[0].type.tensor_type.ClearField("shape")
    return made


def by_onnx_runtime(made: ModelProto) -> Any:
    """The answer for inputs of ones, free sizes being 2."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = {TensorProto.FLOAT: np.float32, TensorProto.INT64: np.int64, TensorProto.UINT8: np.uint8}
    feeds = {
        value.name: np.ones(
            [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim], kinds[value.type.tensor_type.elem_type]
        )
        for value in made.graph.input
    }
    return session.run(None, feeds)[0]


@pytest.mark.parametrize("what", INVALID)
def test_a_contradiction_is_told_with_the_node_and_the_limit(what: str) -> None:
    inputs, nodes, message = INVALID[what]
    with pytest.raises(InvalidArgumentError, match=f"(?s)no runtime can compute it.*{message}.*correct it"):
        normalize(model(inputs, nodes))


@pytest.mark.parametrize("what", INVALID)
def test_onnx_runtime_refuses_it_too(what: str) -> None:
    inputs, nodes, _ = INVALID[what]
    # Its errors have no common root.
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        by_onnx_runtime(model(inputs, nodes))


@pytest.mark.parametrize("what", VALID)
def test_the_limit_itself_is_taken(what: str) -> None:
    made = model(*VALID[what])
    normalize(made)
    # ONNX Runtime is stricter: it looks into nodes and branches that are not computed.
    if what not in ("a node that nothing reads", "a branch that is not taken", "limits that are vectors"):
        by_onnx_runtime(made)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", ["Softmax", "Gather", "BatchNormalization", "a pool's pads"])
def test_both_conversions_refuse_it(what: str, form: str, tmp_path: Path) -> None:
    inputs, nodes, message = INVALID[what]
    with pytest.raises(InvalidArgumentError, match=message):
        FORMS[form](model(inputs, nodes), tmp_path / f"m.{form}")


def test_several_are_told_at_once() -> None:
    made = model("float[2,3] x", "a = Softmax <axis = 5> (x) b = Softmax <axis = 6> (x) y = Add (a, b)")
    with pytest.raises(InvalidArgumentError, match="(?s)Softmax 'a'.*Softmax 'b'"):
        normalize(made)


def test_the_body_of_a_branch_that_may_be_taken_is_looked_into() -> None:
    made = model(
        "bool c, float[2,3] x",
        """y = If (c) <then_branch = t () => (float[a,b] p) { p = Transpose <perm = [1, 1]> (x) },
                    else_branch = e () => (float[a,b] r) { r = Relu (x) }>""",
    )
    with pytest.raises(InvalidArgumentError, match="Transpose 'p'"):
        normalize(made)
