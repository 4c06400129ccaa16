import pytest

from triune.core.errors import InternalError, InvalidArgumentError
from triune.runtimes.failures import reason_of, run_failure

REFUSALS = [
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. Name:'' Status Message: "
    "matmul_helper.h:59 Compute MatMul dimension mismatch",
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Invalid rank for input: x Got: 1 Expected: 2 Please fix either the "
    "inputs/outputs or the model.",
    "Exception from src/inference/src/cpp/infer_request.cpp:224:\n"
    "Exception from src/plugins/intel_cpu/src/node.cpp:794:\n"
    "[CPU] MatMul node with name 'y' Check 'k_lhs == k_rhs' failed at src/plugins/intel_cpu/src/shape_inference/custom/"
    "matmul.cpp:45:\nMatmul input shapes are incompatible shape A: (3.4) shape B: (3.4)\n\n\n",
    "operands could not be broadcast together with shapes (4,) (3,)",
]
DEFECTS = [
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running ConstantOfShape node. Name:'' Status "
    "Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::"
    "AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 9",
    "std::bad_alloc",
    "Exception from src/plugins/intel_cpu/src/node.cpp:794:\n[CPU] Reshape node with name 'a_shape' primitive failed",
    "",
]


@pytest.mark.parametrize("message", REFUSALS)
def test_shapes_are_the_senders_fault(message: str) -> None:
    error = run_failure(RuntimeError(message))
    assert isinstance(error, InvalidArgumentError)


@pytest.mark.parametrize("message", DEFECTS)
def test_anything_else_is_a_defect(message: str) -> None:
    assert isinstance(run_failure(RuntimeError(message)), InternalError)


def test_a_library_that_blames_the_arguments_itself_is_believed() -> None:
    assert isinstance(run_failure(RuntimeError("no"), is_refusal=True), InvalidArgumentError)


def test_a_reason_is_one_line_without_traces() -> None:
    for message in REFUSALS + DEFECTS:
        reason = reason_of(RuntimeError(message))
        assert reason
        for noise in ("\n", "Exception from", "[ONNXRuntimeError]", ".cpp:", ".h:59"):
            assert noise not in reason
    assert reason_of(RuntimeError("")) == "RuntimeError"
    assert len(reason_of(RuntimeError("x" * 10_000))) == 600
