from typing import Any

import numpy as np
import pytest

from triune.core.errors import (
    InternalError,
    InvalidArgumentError,
    NoMemoryError,
    TriuneError,
    UnavailableError,
    UnitLostError,
)
from triune.runtimes.failures import lost_unit, reason_of, run_failure

NONE: dict[str, Any] = {}
NODE = "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running {} node. Name:'{}' Status Message: "
ARENA = (
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal("
    "size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size {}"
)

REFUSALS = {
    NODE.format("MatMul", "") + "matmul_helper.h:59 Compute MatMul dimension mismatch": (
        "MatMul: MatMul dimension mismatch"
    ),
    NODE.format("Resize", "up") + "upsamplebase.h:540 ScalesValidation Scale value must be finite.": (
        "Resize 'up': Scale value must be finite"
    ),
    NODE.format("CumSum", "_token_2")
    + "/onnxruntime_src/onnxruntime/core/providers/common.h:31 int64_t onnxruntime::HandleNegativeAxis(int64_t, int)"
    " IsAxisInRange(axis, tensor_rank) was false. axis 7 is not in valid range [-3,2]\n": (
        "CumSum: axis 7 is not in valid range [-3,2]"
    ),
    NODE.format("If", "")
    + "Non-zero status code returned while running GatherElements node. Name:'it's' Status Message: /onnxruntime_src/"
    "onnxruntime/core/providers/cpu/tensor/gather_elements.cc:150 void onnxruntime::core_impl(const Tensor*, "
    "concurrency::ThreadPool*) [with Tin = long int; int64_t = long int] GatherElements op: Out of range value": (
        "GatherElements 'it's': GatherElements op: Out of range value"
    ),
    NODE.format("Pad", "p")
    + "/onnxruntime_src/onnxruntime/core/framework/op_kernel.cc:87 virtual OrtValue* onnxruntime::OpKernelContext::"
    "OutputMLValue(int, const onnxruntime::TensorShape&) [ONNXRuntimeError] : 1 : FAIL : tensor.cc:57 "
    "CalculateTensorStorageSize Tensor shape.Size() must be >= 0\n": "Pad 'p': a size would be below 0",
    NODE.format("Range", "r")
    + "/onnxruntime_src/onnxruntime/core/common/safeint.h:17 static void SafeIntExceptionHandler<onnxruntime::"
    "OnnxRuntimeException>::SafeIntOnOverflow() Integer overflow\n": (
        "Range 'r': a size or a count of bytes is beyond 64 bits"
    ),
    NODE.format("DFT", "d") + "dft.cc:431 discrete_fourier_transform DFT axis must refer to a signal dimension, not "
    "the last (real/imag) dimension.": (
        "DFT 'd': DFT axis must refer to a signal dimension, not the last (real/imag) dimension"
    ),
    NODE.format("Mod", "")
    + "element_wise_ops.cc:2421 operator() Integer modulo by zero": "Mod: Integer modulo by zero",
    NODE.format("Cast", "c") + "stoll": "Cast 'c': a string is not an integer, or is out of range",
    NODE.format("ArgMax", "a"): "ArgMax 'a'",
    NODE.format("Div", "Conv 'y' takes no size of 0") + "element_wise_ops.cc:703 Compute Integer division by zero": (
        "Conv 'y' takes no size of 0"
    ),
    NODE.format("Div", "y/guarded/5/Div") + "element_wise_ops.cc:703 Compute Integer division by zero": (
        "Div 'y': Integer division by zero"
    ),
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Invalid rank for input: x Got: 1 Expected: 2 Please fix either the "
    "inputs/outputs or the model.": (
        "Invalid rank for input: x Got: 1 Expected: 2 Please fix either the inputs/outputs or the model"
    ),
    "Exception from src/inference/src/cpp/infer_request.cpp:224:\n"
    "Exception from src/plugins/intel_cpu/src/node.cpp:794:\n"
    "[CPU] MatMul node with name 'y' Check 'k_lhs == k_rhs' failed at src/plugins/intel_cpu/src/shape_inference/custom/"
    "matmul.cpp:45:\nMatmul input shapes are incompatible shape A: (3.4) shape B: (3.4)\n\n\n": (
        "MatMul 'y': Matmul input shapes are incompatible shape A: (3.4) shape B: (3.4)"
    ),
    "Exception from src/inference/src/cpp/infer_request.cpp:224:\n"
    "[CPU] Slice node with name 'y' Check 'step != 0' failed at src/core/shape_inference/include/slice.hpp:12:\n"
    "While validating node 'opset8::Slice y (opset1::Parameter x[0]:f32[?,?,?]) -> (f32[?,?,?])' with friendly_name "
    "'y':\nStep must be non-zero\n": "Slice 'y': Step must be non-zero",
    "Exception from src/inference/src/cpp/infer_request.cpp:224:\n"
    "Node y of type ReverseSequence\nCheck 'a[i] <= b[c]' failed at src/nodes/reverse_sequence.cpp:1:\n"
    "Incorrect input 'seq_lengths' values!\n": "ReverseSequence 'y': Incorrect input 'seq_lengths' values!",
    "array is too big; `arr.size * arr.dtype.itemsize` is larger than the maximum possible size.": (
        "a size or a count of bytes is beyond 64 bits"
    ),
    "operands could not be broadcast together with shapes (4,) (3,)": (
        "operands could not be broadcast together with shapes (4,) (3,)"
    ),
}
DEFECTS = [
    "Exception from src/plugins/intel_cpu/src/node.cpp:794:\n[CPU] Reshape node with name 'a_shape' primitive failed",
    "the stream is broken",
    "",
]


@pytest.mark.parametrize("message", REFUSALS, ids=REFUSALS.values())
def test_what_an_operator_cannot_take_is_the_senders_fault(message: str) -> None:
    error = run_failure(RuntimeError(message), NONE)
    assert isinstance(error, InvalidArgumentError)
    assert str(error) == (
        f"the model cannot compute these inputs: {REFUSALS[message]}; send values and shapes that it takes"
    )


@pytest.mark.parametrize("message", DEFECTS)
def test_anything_else_is_a_defect(message: str) -> None:
    assert isinstance(run_failure(RuntimeError(message), NONE), InternalError)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(NODE.format("ConstantOfShape", "") + ARENA.format(4096)),
        RuntimeError("std::bad_alloc"),
        MemoryError("Unable to allocate 8.00 KiB for an array with shape (1024,) and data type float64"),
        MemoryError(),
    ],
    ids=str,
)
def test_memory_that_is_not_there_is_nobodys_fault(error: Exception) -> None:
    assert isinstance(run_failure(error, NONE), UnavailableError)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(NODE.format("Tile", "t") + ARENA.format(2**60)),
        MemoryError("Unable to allocate 8.00 PiB for an array with shape (1125899906842624,) and data type float64"),
    ],
    ids=str,
)
def test_memory_that_the_machine_never_had_is_the_senders(error: Exception) -> None:
    failure = run_failure(error, NONE)
    assert isinstance(failure, InvalidArgumentError)
    assert "this machine has" in str(failure)


def test_the_values_of_small_inputs_are_told() -> None:
    given = {
        "x": np.zeros((3, 4), np.float32),
        "s": np.array([1, np.nan], np.float32),
        "t": np.array([b"\xffab" * 40], object),
        "k": np.array(7),
    }
    error = run_failure(RuntimeError("no"), given, is_refusal=True)
    text = ("\ufffdab" * 11)[:32]
    assert f"no (given s = [1.0, nan], t = ['{text}'], k = 7); send" in str(error)
    many = {name: np.array(1) for name in "abcdefg"}
    assert "(given a = 1, b = 1, c = 1, d = 1, ...)" in str(run_failure(RuntimeError("no"), many, is_refusal=True))


def test_the_only_node_of_an_operator_is_named() -> None:
    error = RuntimeError(NODE.format("Resize", "") + "no")
    assert ": Resize 'y': no;" in str(run_failure(error, NONE, only_nodes={"Resize": "y", "Pad": "z"}))
    assert ": Resize: no;" in str(run_failure(error, NONE, only_nodes={"Pad": "z"}))


def test_a_library_that_blames_the_arguments_itself_is_believed() -> None:
    assert isinstance(run_failure(RuntimeError("no"), NONE, is_refusal=True), InvalidArgumentError)


def test_what_a_model_calls_its_nodes_commands_no_terminal() -> None:
    error = RuntimeError(NODE.format("Resize", "up\n\x1b[31m") + "n\x1bo")
    assert "Resize 'up\\n\\x1b[31m': n\\x1bo;" in str(run_failure(error, NONE))
    assert reason_of(RuntimeError("a\x1b[2Jb")) == "a\\x1b[2Jb"


def test_a_reason_is_one_line_without_traces() -> None:
    for message in [*REFUSALS, *DEFECTS, ARENA]:
        reason = reason_of(RuntimeError(message))
        assert reason
        for noise in ("\n", "Exception from", "[ONNXRuntimeError]", ".cpp:", ".h:59", "AllocateRawInternal"):
            assert noise not in reason
    assert reason_of(RuntimeError("")) == "RuntimeError"
    assert len(reason_of(RuntimeError("x" * 10_000))) == 600


GPU_INPUTS = {"a": np.ones((300, 1), np.float32), "n": np.array([7])}


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            "[metal::malloc] Attempting to allocate 90000 bytes which is greater than the maximum allowed buffer "
            "size of 80000 bytes.",
            InvalidArgumentError,
            r"\(given n = \[7\]\) \(of shapes a \[300,1\]\); send .* whose arrays take at most 80000 bytes",
        ),
        (
            "[malloc] Unable to allocate 400000000000000 bytes.",
            InvalidArgumentError,
            r"a \[300,1\].*bytes of memory: send",
        ),
        ("[malloc] Unable to allocate 4000 bytes.", NoMemoryError, r"a \[300,1\]\); send the request later"),
        ("cudaMallocAsync(&data, size, stream) failed: out of memory", NoMemoryError, r"a \[300,1\]"),
        (
            "[METAL] Command buffer execution failed: Insufficient Memory "
            "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
            NoMemoryError,
            r"a \[300,1\]",
        ),
    ],
)
def test_errors_of_gpus(text: str, kind: type[TriuneError], message: str) -> None:
    error = run_failure(RuntimeError(text), GPU_INPUTS)
    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error


@pytest.mark.parametrize(
    "text",
    [
        "[METAL] Command buffer execution failed: Device was removed "
        "(0000000b:kIOGPUCommandBufferCallbackErrorDeviceRemoved)",
        "cudaGraphLaunch failed: an illegal memory access was encountered",
        "cudaGetDeviceCount failed: no CUDA-capable device is detected",
        "cudaSetDevice failed: CUDA-capable device(s) is/are busy or unavailable",
    ],
)
def test_a_gpu_that_is_lost(text: str) -> None:
    error = lost_unit(RuntimeError(text))
    assert isinstance(error, UnitLostError)
    assert "computes nothing for this process any more" in str(error)
    assert lost_unit(RuntimeError("[malloc] Unable to allocate 4000 bytes.")) is None
    # Of libraries that read texts, an error may hold a client's words.
    assert not isinstance(run_failure(RuntimeError(text), {}), UnitLostError)
