"""What a request's values and sizes make a model take: within a limit, given back, and at nobody else's cost."""

import ctypes
import gc
import itertools
import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.runtime import Executable
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit
from triune.hosting import HostedExecutable
from triune.runtimes.onnxruntime import OnnxRuntime
from triune.runtimes.onnxruntime.memory import RunMemory

LIMIT = 256 << 20
MIB = 1 << 20
Load = Callable[..., Executable]


def rss() -> int:
    return psutil.Process().memory_info().rss


def settled() -> int:
    """As `rss`, once what earlier tests freed is returned: else that happens while a test measures."""
    gc.collect()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
    return rss()


def until_below(num_bytes: int) -> None:
    """Return once the process takes no more than so much."""
    deadline = time.monotonic() + 60
    while rss() > num_bytes:
        assert time.monotonic() < deadline, f"{rss() >> 20} MiB are taken, more than {num_bytes >> 20}"
        time.sleep(0.05)


def model(
    nodes: list[onnx.NodeProto], inputs: dict[str, np.ndarray], opset: int = 18, **constants: Any
) -> onnx.ModelProto:
    """A model of nodes that give `y`, for inputs of these types and ranks, whatever their sizes."""
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(each.dtype), _sizes(name, each))
        for name, each in inputs.items()
    ]
    kind = TensorProto.INT64 if nodes[-1].op_type == "Range" else TensorProto.FLOAT
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    outputs = [helper.make_tensor_value_info("y", kind, None)]
    graph = helper.make_graph(nodes, "g", given, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _sizes(name: str, array: np.ndarray) -> list[int | None]:
    return list(array.shape) if name == "s" else [None] * array.ndim


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def number(value: int) -> np.ndarray:
    return np.array(value, np.int64)


def node(op: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [output], name=f"{op} of {output}", **attributes)


MATRIX, IMAGE = np.ones((8, 8), np.float32), np.ones((1, 1, 8, 8), np.float32)
RANGE = model([node("Range", "a", "n", "d")], {"n": number(0)}, a=number(0), d=number(1))
OUTER = [node("Unsqueeze", "x", "axis", output="u"), node("Mul", "x", "u", output="m"), node("ReduceSum", "m")]
TURN = helper.make_graph(
    [node("Identity", "go", output="still"), node("Concat", "v", "v", output="next", axis=0)],
    "turn",
    [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("v", TensorProto.FLOAT, [None]),
    ],
    [
        helper.make_tensor_value_info("still", TensorProto.BOOL, []),
        helper.make_tensor_value_info("next", TensorProto.FLOAT, [None]),
    ],
)

# Of each operator whose values decide sizes: a model, the inputs that fit it, and which of them is varied how.
CASES: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray], list[np.ndarray], dict[str, Any]]] = {
    "CenterCropPad": ([node("CenterCropPad", "x", "s")], {"x": MATRIX}, [ints(10**5, 10**5), ints(2**62, 2**62)], {}),
    "ConstantOfShape": ([node("ConstantOfShape", "s")], {}, [ints(10**5, 10**5), ints(2**62, 2**62)], {}),
    "DFT": ([node("DFT", "x", "s", axis=1)], {"x": np.ones((1, 8, 1), np.float32)}, [number(10**9)], {}),
    "Expand": ([node("Expand", "x", "s")], {"x": MATRIX}, [ints(10**7, 8, 8), ints(2**62, 8, 8)], {}),
    "HannWindow": ([node("HannWindow", "s")], {}, [number(10**9), number(2**62)], {}),
    "Loop": ([node("Loop", "s", "", "v0", body=TURN)], {}, [number(40), number(2**62)], {"v0": floats(1)}),
    "MaxUnpool": (
        [node("MaxUnpool", "x", "at", "s", kernel_shape=[1, 1])],
        {"x": IMAGE, "at": np.zeros((1, 1, 8, 8), np.int64)},
        [ints(1, 1, 10**5, 10**5), ints(1, 1, 2**62, 2**62)],
        {},
    ),
    "MelWeightMatrix": (
        [node("MelWeightMatrix", "s", "bins", "rate", "low", "high")],
        {},
        [number(10**8)],
        {"bins": number(64), "rate": number(16000), "low": np.float32(0), "high": np.float32(8000)},
    ),
    "OneHot": (
        [node("OneHot", "at", "s", "v")],
        {"at": ints(1, 2)},
        [number(10**9), number(2**62)],
        {"v": floats(0, 1)},
    ),
    "Pad": ([node("Pad", "x", "s")], {"x": MATRIX}, [ints(0, 0, 10**5, 10**5), ints(0, 0, 2**62, 2**62)], {}),
    "Range": ([node("Range", "a", "s", "d")], {}, [number(10**9), number(2**62)], {"a": number(0), "d": number(1)}),
    "Resize by sizes": (
        [node("Resize", "x", "", "", "s", mode="linear")],
        {"x": IMAGE},
        [ints(1, 1, 10**5, 10**5), ints(1, 1, 2**62, 2**62)],
        {},
    ),
    "Resize by scales": (
        [node("Resize", "x", "", "s")],
        {"x": IMAGE},
        [floats(1, 1, 1e4, 1e4), floats(1, 1, 1e9, 1e9), floats(1, 1, np.inf, 1)],
        {},
    ),
    "STFT": (
        [node("STFT", "x", "step", "", "s")],
        {"x": np.ones((1, 10**5, 1), np.float32)},
        [number(50_000), number(2**62)],
        {"step": number(1)},
    ),
    "Tile": ([node("Tile", "x", "s")], {"x": MATRIX}, [ints(10**4, 10**4), ints(2**62, 2**62)], {}),
    "a shape, not a value": (OUTER, {}, [np.ones(20_000, np.float32)], {"axis": ints(1)}),
}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    numbers = itertools.count()

    def load(proto: onnx.ModelProto, limit: int | None = LIMIT, **options: str) -> Executable:
        path = tmp_path / f"{next(numbers)}.onnx"
        onnx.save(proto, path)
        return OnnxRuntime(limit).load(path, unit=Unit.CPU, num_threads=1, options=options)

    return load


def ask_for_too_much(name: str, folder: Path) -> None:
    nodes, inputs, bad, constants = CASES[name]
    varied = "x" if name.startswith("a shape") else "s"
    path = folder / "model.onnx"
    onnx.save(model(nodes, {**inputs, varied: bad[0]}, **constants), path)
    executable = OnnxRuntime(LIMIT).load(path, unit=Unit.CPU, num_threads=1, options={})
    if name == "Loop":
        # The first run of all makes what the library keeps.
        executable.run({"s": number(1)}, ["y"])
    before = settled()
    for value in bad:
        with pytest.raises(InvalidArgumentError) as caught:
            executable.run({**inputs, varied: value}, ["y"])
        if value is bad[0] and name != "Tile":  # which ONNX Runtime refuses by a limit of its own
            assert f"of the {LIMIT} bytes that a run may take in all, by --run-memory-bytes" in str(caught.value)
    until_below(before + 50 * MIB)
    executable.close()


@pytest.mark.parametrize("name", CASES)
def test_what_values_ask_for_has_a_limit(tmp_path: Path, name: str) -> None:
    # In a process of its own: the heap of this one was cut to pieces by other tests, and gives back less.
    process = multiprocessing.get_context("spawn").Process(target=ask_for_too_much, args=(name, tmp_path))
    process.start()
    process.join(120)
    assert process.exitcode == 0, "what it printed tells why"


def count(executable: Executable, size: int) -> np.ndarray:
    return executable.run({"n": number(size)}, ["y"])["y"]


def test_what_a_run_took_is_given_back_when_its_answer_is_gone(load: Load) -> None:
    executable = load(RANGE, 1 << 30)
    count(executable, 10)
    before = settled()
    answer = count(executable, 50 * MIB)
    assert rss() > before + 390 * MIB
    assert answer[-1] == 50 * MIB - 1
    del answer
    count(executable, 10)
    until_below(before + 50 * MIB)
    executable.close()


def test_a_large_answer_of_any_model_is_given_back(load: Load) -> None:
    executable = load(model([node("Add", "x", "x")], {"x": MATRIX}), 1 << 30)
    assert executable.is_steady
    x = np.ones((100, MIB), np.float32)
    executable.run({"x": x[:1]}, ["y"])
    before = settled()
    answer = executable.run({"x": x}, ["y"])
    assert rss() > before + 390 * MIB
    del answer
    until_below(before + 50 * MIB)
    executable.close()


def test_answers_that_are_large_together_are_given_back(load: Load) -> None:
    executable = load(model([node("Add", "x", "x")], {"x": MATRIX}), 1 << 30)
    x = np.ones((8, MIB), np.float32)
    executable.run({"x": x[:1]}, ["y"])
    before = settled()
    answers = [executable.run({"x": x}, ["y"]) for _ in range(10)]
    assert before + 310 * MIB < rss() < before + 400 * MIB, "regions do not double beyond what is needed"
    del answers
    until_below(before + 50 * MIB)
    executable.close()


def test_what_one_request_took_is_not_missing_to_the_next(load: Load) -> None:
    executable = load(RANGE)
    for mebibytes in (100, 150, 200, 250):
        answer = count(executable, mebibytes * MIB // 8)
        del answer
        with pytest.raises(InvalidArgumentError):
            count(executable, LIMIT)
    executable.close()


def test_answers_that_are_still_in_use_are_no_fault_of_the_next_request(load: Load) -> None:
    executable = load(RANGE)
    kept = count(executable, 20 * MIB)
    with pytest.raises(UnavailableError, match=r"responses that clients have not read yet hold 167772160 .*try again"):
        count(executable, 20 * MIB)
    assert count(executable, 10)[-1] == 9
    del kept
    assert count(executable, 20 * MIB)[-1] == 20 * MIB - 1
    executable.close()


def test_closing_waits_while_the_arena_shrinks() -> None:
    """A thread inside the library when the interpreter ends would abort the process."""
    inside, go_on = threading.Event(), threading.Event()

    class Session:
        def run(self, *_: object) -> None:
            inside.set()
            assert go_on.wait(60)

    spec = TensorSpec("x", DataType.FP32, (4,))
    memory = RunMemory(Session(), Signature((spec,), (spec,)), 1024, is_returned=True)
    error = RuntimeError("Available memory of 8 is smaller than requested bytes of 16")
    shrinking = threading.Thread(target=memory.makes_room, args=(error,))
    closing = threading.Thread(target=memory.close)
    shrinking.start()
    assert inside.wait(60)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    go_on.set()
    closing.join(20)
    shrinking.join(20)
    assert not closing.is_alive()
    inside.clear()
    memory.makes_room(error)
    assert not inside.is_set()


def test_each_session_has_its_own(load: Load) -> None:
    with ThreadPoolExecutor(4) as threads:
        executables = list(threads.map(load, [RANGE] * 4))
    kept = [count(each, 20 * MIB) for each in executables]
    assert [each[-1] for each in kept] == [20 * MIB - 1] * 4
    for each in executables:
        each.close()


def test_a_closed_session_leaves_nothing(load: Load) -> None:
    load(RANGE, 1 << 30).close()
    before = settled()
    for _ in range(3):
        executable = load(RANGE, 1 << 30)
        count(executable, 50 * MIB)
        executable.close()
        del executable
        gc.collect()
    until_below(before + 50 * MIB)


def test_without_an_arena_the_limit_is_that_of_a_process(load: Load) -> None:
    executable = load(RANGE, enable_mem_arena="0")
    assert isinstance(executable, HostedExecutable)
    pid = executable.pid
    assert count(executable, 20 * MIB)[-1] == 20 * MIB - 1
    with pytest.raises(InvalidArgumentError, match=f"more than the {LIMIT} bytes of memory .*--run-memory-bytes"):
        count(executable, 50 * MIB)
    assert count(executable, 20 * MIB)[-1] == 20 * MIB - 1
    assert executable.pid == pid
    executable.close()


SEEN = np.array([b"x" * MIB], np.object_)

# Of what multiplies strings: the operator, the input that says how often, and what it is for as many copies as asked.
MULTIPLY: dict[str, tuple[str, Callable[[int], np.ndarray]]] = {
    "Tile": ("Tile", lambda times: ints(times)),
    "Expand": ("Expand", lambda times: ints(times)),
    "Gather": ("Gather", lambda times: np.zeros(times, np.int64)),
    "GatherND": ("GatherND", lambda times: np.zeros((times, 1), np.int64)),
    "Where": ("Where", lambda times: np.ones(times, np.bool_)),
}


@pytest.mark.parametrize("name", MULTIPLY)
def test_strings_that_are_multiplied_have_a_limit(load: Load, name: str) -> None:
    op, given = MULTIPLY[name]
    inputs = ["s", "x", "x"] if op == "Where" else ["x", "s"]
    kind = TensorProto.BOOL if op == "Where" else TensorProto.INT64
    values = [
        helper.make_tensor_value_info("x", TensorProto.STRING, [None]),
        helper.make_tensor_value_info("s", kind, [None, 1] if op == "GatherND" else [None]),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["y"])],
        "g",
        values,
        [helper.make_tensor_value_info("y", TensorProto.STRING, None)],
    )
    executable = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    assert isinstance(executable, HostedExecutable)
    pid = executable.pid
    for _ in range(2):
        before = settled()
        with pytest.raises(InvalidArgumentError, match=f"more than the {LIMIT} bytes of memory .*--run-memory-bytes"):
            executable.run({"x": SEEN, "s": given(4096)}, ["y"])
        assert rss() < before + 50 * MIB
        answer = executable.run({"x": SEEN, "s": given(5)}, ["y"])["y"]
        assert answer.tolist() == [SEEN[0]] * 5
    assert executable.pid == pid
    executable.close()


def test_a_list_that_grows_with_each_turn_has_a_limit(load: Load) -> None:
    turn = helper.make_graph(
        [node("Identity", "go", output="still"), node("ConstantOfShape", "none", output="empty")],
        "turn",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("empty", TensorProto.FLOAT, [None]),
        ],
    )
    executable = load(model([node("Loop", "n", "", body=turn)], {"n": number(0)}, none=ints(0)), 32 * MIB)
    assert isinstance(executable, HostedExecutable)
    assert executable.run({"n": number(7)}, ["y"])["y"].shape == (7, 0)
    with pytest.raises(InvalidArgumentError, match=r"--run-memory-bytes"):
        executable.run({"n": number(2**62)}, ["y"])
    assert executable.run({"n": number(7)}, ["y"])["y"].shape == (7, 0)
    executable.close()


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.BOOL])
def test_inputs_of_any_kind_let_memory_be_given_back(load: Load, kind: int) -> None:
    is_text = kind == TensorProto.STRING
    nodes = [
        node("Identity", "t", output="x") if is_text else node("Cast", "t", output="x", to=TensorProto.FLOAT),
        node("Size", "x", output="size"),
        node("Cast", "size", output="many", to=TensorProto.FLOAT),
        node("Expand", "many", "s"),
    ]
    proto = model(nodes, {"s": ints(1)})
    proto.graph.input.append(helper.make_tensor_value_info("t", kind, [2]))
    executable = load(proto, 1 << 30)
    spec = next(each for each in executable.signature.inputs if each.name == "t")
    values = np.array([b"a", b"b"], object) if is_text else np.zeros(2, spec.datatype.dtype)
    executable.run({"t": values, "s": ints(1)}, ["y"])
    before = settled()
    answer = executable.run({"t": values, "s": ints(100 * MIB)}, ["y"])
    assert rss() > before + 390 * MIB
    del answer
    until_below(before + 50 * MIB)
    executable.close()
