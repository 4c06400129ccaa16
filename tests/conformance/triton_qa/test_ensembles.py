"""L0_simple_ensemble, and the ensembles of L0_infer."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from onnx import helper

from support.ensembles import ensemble, write_ensemble
from support.ensembles import tensors as tensor_fields
from support.process import Served, serve
from support.repositories import add_sub, write_model
from support.triton_lifecycle import until
from support.triton_qa import FP32, INT32, MODULES, STRING, cases_of, model_bytes, zero
from support.triton_tensors import tensors

simple = cases_of("L0_simple_ensemble/ensemble_test.py::")
infer = cases_of("L0_infer/infer_test.py::")

IN, OUT = {"INPUT0": "INPUT0", "INPUT1": "INPUT1"}, {"OUTPUT0": "OUTPUT0", "OUTPUT1": "OUTPUT1"}
TWO_OF_EACH = {"inputs": ("INPUT0", "INPUT1"), "outputs": ("OUTPUT0", "OUTPUT1"), "dims": 16, "max_batch_size": 8}


def casting(given: int, wanted: int) -> bytes:
    """Triton's `onnx_int32_float32_float32` and its like: a sum and a difference, of one type and in another."""
    middle = FP32 if FP32 in (given, wanted) else INT32
    nodes = [helper.make_node("Cast", [f"INPUT{each}"], [f"a{each}"], to=middle) for each in (0, 1)]
    for each, op in enumerate(("Add", "Sub")):
        nodes.append(helper.make_node(op, ["a0", "a1"], [f"b{each}"]))
        nodes.append(helper.make_node("Cast", [f"b{each}"], [f"OUTPUT{each}"], to=wanted))
    inputs = [helper.make_tensor_value_info(f"INPUT{each}", given, ["batch", 16]) for each in (0, 1)]
    outputs = [helper.make_tensor_value_info(f"OUTPUT{each}", wanted, ["batch", 16]) for each in (0, 1)]
    return model_bytes(helper.make_graph(nodes, "casting", inputs, outputs))


def six_steps() -> str:
    """L0_simple_ensemble's `ensemble_add_sub`: OUTPUT0 of the newest `simple` alone, OUTPUT1 of version 1 alone."""
    steps = []
    for version, name, output in (("", "INPUT0", "OUTPUT0"), (":1", "INPUT1", "OUTPUT1")):
        model, number = f"simple{version}", name[-1]
        last = (
            {"INPUT0": "input0_val", "INPUT1": "INPUT1"}
            if number == "0"
            else {"INPUT0": "INPUT0", "INPUT1": "input1_val"}
        )
        steps += [
            (model, {"INPUT0": name, "INPUT1": name}, {"OUTPUT0": f"double_input{number}"}),
            (model, {"INPUT0": f"double_input{number}", "INPUT1": name}, {"OUTPUT1": f"input{number}_val"}),
            (model, last, {output: output}),
        ]
    return ensemble(steps, **TWO_OF_EACH, datatype="TYPE_INT32")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("ensembles")
    both = "max_batch_size: 8 version_policy { all { } }"
    write_model(folder, "simple", both, v1=add_sub(), v2=add_sub())
    write_ensemble(folder, "ensemble_add_sub", six_steps())
    for name, given, wanted in (
        ("onnx_int32_int32_int32", INT32, INT32),
        ("onnx_int32_object_object", INT32, STRING),
        ("onnx_object_int32_int32", STRING, INT32),
        ("onnx_int32_float32_float32", INT32, FP32),
        ("onnx_float32_float32_float32", FP32, FP32),
    ):
        write_model(folder, name, "max_batch_size: 8", v1=casting(given, wanted))
    labelled = "max_batch_size: 8 " + tensor_fields("input", ("INPUT0", "INPUT1"), "TYPE_FP32", 16)
    labelled += 'output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: 16 label_filename: "labels.txt" } ]'
    labelled += tensor_fields("output", ("OUTPUT1",), "TYPE_FP32", 16)
    put_labels(write_model(folder, "labelled", labelled, v1=casting(FP32, FP32)), "label")
    write_ensemble(folder, "mix_type", mix("onnx_int32_float32_float32", "labelled"))
    write_ensemble(folder, "mix_ensemble", mix("mix_type", "labelled"))
    override = ensemble([("mix_type", IN, OUT)], **TWO_OF_EACH, datatype="TYPE_INT32").replace(
        tensor_fields("output", ("OUTPUT0", "OUTPUT1"), "TYPE_INT32", 16),
        'output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: 16 label_filename: "labels.txt" }, '
        '{ name: "OUTPUT1" data_type: TYPE_FP32 dims: 16 } ]',
    )
    put_labels(write_ensemble(folder, "label_override", override), "own")
    nobatch = "max_batch_size: 0 " + "".join(
        tensor_fields(kind, (name,), "TYPE_FP32", "[ -1, -1 ]")
        for kind, name in (("input", "INPUT0"), ("output", "OUTPUT0"))
    )
    write_model(folder, "nobatch", nobatch, v1=zero(dims=("m", "n"), batch=False))
    write_model(folder, "batch", "max_batch_size: 8", v1=zero())
    for name, steps in batches():
        write_ensemble(folder, name, ensemble(steps, **TWO_OF_EACH))
        config = ensemble(steps, **{**TWO_OF_EACH, "dims": "[ 8, 16 ]", "max_batch_size": 0})
        if name != "mix_nobatch_batch":
            write_ensemble(folder, f"{name}_nobatch", config)
    with serve(folder) as running:
        yield running


def put_labels(folder: Path, word: str) -> None:
    (folder / "labels.txt").write_text("".join(f"{word}{index}\n" for index in range(16)))


def mix(floats: str, last: str) -> str:
    """L0_infer's `mix_type` and `mix_ensemble`: by way of strings and of floats, and the sum and difference again."""
    strings, numbers = "onnx_int32_object_object", "onnx_object_int32_int32"
    steps = [
        ("onnx_int32_int32_int32:1", IN, {"OUTPUT0": "sum"}),
        (f"{strings}:1", {"INPUT0": "sum", "INPUT1": "INPUT1"}, {"OUTPUT1": "object0"}),
        (f"{strings}:1", {"INPUT0": "sum", "INPUT1": "INPUT0"}, {"OUTPUT1": "object1"}),
        (f"{numbers}:1", {"INPUT0": "object0", "INPUT1": "object1"}, {"OUTPUT0": "again"}),
        (f"{floats}:1", {"INPUT0": "again", "INPUT1": "INPUT1"}, {"OUTPUT1": "float0"}),
        (f"{floats}:1", {"INPUT0": "again", "INPUT1": "INPUT0"}, {"OUTPUT1": "float1"}),
        (f"{last}:1", {"INPUT0": "float0", "INPUT1": "float1"}, OUT),
    ]
    return ensemble(steps, **TWO_OF_EACH, datatype="TYPE_INT32").replace(
        tensor_fields("output", ("OUTPUT0", "OUTPUT1"), "TYPE_INT32", 16),
        tensor_fields("output", ("OUTPUT0", "OUTPUT1"), "TYPE_FP32", 16),
    )


def batches() -> Sequence[tuple[str, Sequence[tuple[str, dict[str, str], dict[str, str]]]]]:
    def one(model: str, given: str, wanted: str) -> tuple[str, dict[str, str], dict[str, str]]:
        return model, {"INPUT0": given}, {"OUTPUT0": wanted}

    both = "onnx_float32_float32_float32:1"
    return (
        (
            "batch_to_nobatch",
            [
                (both, IN, {"OUTPUT0": "t0", "OUTPUT1": "t1"}),
                one("nobatch", "t0", "OUTPUT0"),
                one("nobatch", "t1", "OUTPUT1"),
            ],
        ),
        (
            "nobatch_to_batch",
            [
                one("nobatch", "INPUT0", "t0"),
                one("nobatch", "INPUT1", "t1"),
                (both, {"INPUT0": "t0", "INPUT1": "t1"}, OUT),
            ],
        ),
        (
            "mix_nobatch_batch",
            [
                one("batch", "INPUT0", "t0"),
                one("nobatch", "t0", "t1"),
                (both, {"INPUT0": "t1", "INPUT1": "INPUT1"}, OUT),
            ],
        ),
    )


def ask(served: Served, protocol: str, model: str, a: np.ndarray, b: np.ndarray, *outputs: str, **more: Any) -> Any:
    module = MODULES[protocol]
    wanted = [module.InferRequestedOutput(name, class_count=more.get("classes", 0)) for name in outputs] or None
    with module.InferenceServerClient(getattr(served, protocol)) as client:
        return client.infer(model, tensors(module, {"INPUT0": a, "INPUT1": b}), outputs=wanted)


def arrays(rows: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(rows)
    a, b = (random.integers(-40, 40, (rows, 16)).astype(dtype) for _ in range(2))
    return a, b


def num_answered(served: Served) -> list[int]:
    with tritonclient.http.InferenceServerClient(served.http) as client:
        found = client.get_inference_statistics("simple")["model_stats"]
    return [each["inference_stats"]["success"]["count"] for each in found]


@simple("test_ensemble_add_sub", "test_ensemble_add_sub_one_output")
def test_only_what_the_outputs_need_runs(served: Served, protocol: str) -> None:
    for outputs, steps in ((("OUTPUT0",), (0, 3)), (("OUTPUT0", "OUTPUT1"), (3, 3)), ((), (3, 3))):
        for rows in (1, 8):
            before = num_answered(served)
            a, b = arrays(rows, np.int32)
            result = ask(served, protocol, "ensemble_add_sub", a, b, *outputs)
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), a + b)
            if "OUTPUT0" in outputs and len(outputs) == 1:
                assert result.as_numpy("OUTPUT1") is None
            else:
                np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), a - b)
            assert [now - then for now, then in zip(num_answered(served), before, strict=True)] == list(steps)


@simple("test_ensemble_sequence_flags")
def test_answers_say_what_the_request_said_of_its_sequence(served: Served) -> None:
    told: list[tuple[int, bool, bool]] = []
    a, b = arrays(1, np.int32)
    wanted = [tritonclient.grpc.InferRequestedOutput("OUTPUT0")]

    def note(result: Any, error: Any) -> None:
        assert error is None
        given = result.get_response().parameters
        told.append(
            (given["sequence_id"].int64_param, *(given[f"sequence_{each}"].bool_param for each in ("start", "end")))
        )

    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        client.start_stream(note)
        for start, end in ((True, False), (False, False), (False, True)):
            client.async_stream_infer(
                "ensemble_add_sub",
                tensors(tritonclient.grpc, {"INPUT0": a, "INPUT1": b}),
                outputs=wanted,
                sequence_id=77,
                sequence_start=start,
                sequence_end=end,
            )
        until(lambda: len(told) == 3)
        client.stop_stream()
    assert told == [(77, True, False), (77, False, False), (77, False, True)]


@infer("test_ensemble_mix_type", "test_ensemble_mix_ensemble")
@pytest.mark.parametrize("model", ["mix_type", "mix_ensemble"])
def test_types_and_ensembles_of_ensembles(served: Served, protocol: str, model: str) -> None:
    for rows in (1, 8):
        a, b = arrays(rows, np.int32)
        result = ask(served, protocol, model, a, b)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), (a + b).astype(np.float32))
        np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), (a - b).astype(np.float32))


@infer("test_ensemble_mix_batch_nobatch")
def test_from_a_batch_to_none_and_back(served: Served, protocol: str) -> None:
    for name, _ in batches():
        models = [(name, 1), (name, 8)] + ([(f"{name}_nobatch", 8)] if name != "mix_nobatch_batch" else [])
        for model, rows in models:
            a, b = arrays(rows, np.float32)
            result = ask(served, protocol, model, a, b)
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), a + b)
            np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), a - b)


@infer("test_ensemble_label_lookup")
@pytest.mark.parametrize(
    ("model", "word"), [("mix_type", "label"), ("mix_ensemble", "label"), ("label_override", "own")]
)
def test_labels_are_those_of_the_model_that_gives_the_output(
    served: Served, protocol: str, model: str, word: str
) -> None:
    a, b = arrays(3, np.int32)
    result = ask(served, protocol, model, a, b, "OUTPUT0", "OUTPUT1", classes=2)
    for row, found in enumerate(result.as_numpy("OUTPUT0")):
        best = int(np.argmax((a + b)[row]))
        assert found[0].decode().split(":")[1:] == [str(best), f"{word}{best}"]
    assert len(result.as_numpy("OUTPUT1")[0, 0].decode().split(":")) == 2, "no labels"
