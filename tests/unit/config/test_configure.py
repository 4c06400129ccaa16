"""Completion and checking of configs against real ONNX files."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from contract.runtimes.models import node
from support.repositories import FP32, STRING, Bench, add_sub, affine, identity, scaled_by_scalar, write_model
from triune.config.complete import complete_tensors
from triune.config.configure import configure, read_source
from triune.config.model_config import ModelConfig, TensorConfig
from triune.config.parse import parse_text
from triune.config.policy import QueuePolicy, TimeoutAction
from triune.config.reshape import reshape_to_client, reshape_to_model
from triune.config.samples import MAX_WARMUP_RUNS, sample_inputs, warmup_inputs
from triune.config.settings import DEFAULT_COMPLETION, Completion
from triune.config.stamps import Stamp
from triune.config.tensors import translate_tensors
from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Unit
from triune.protos.model_config_pb2 import TYPE_INT32, TYPE_STRING, ModelInstanceGroup
from triune.runtimes.onnx.file import read_signature


def configured(
    path: Path,
    config: str | None = None,
    model: bytes | None = None,
    bench: Bench | None = None,
    completion: Completion = DEFAULT_COMPLETION,
) -> ModelConfig:
    write_model(path, "m", config, v1=affine() if model is None else model)
    source = read_source("m", path / "m", Stamp())
    return configure(source, source.versions[-1], (bench or Bench()).machine, completion)


def test_everything_is_completed_from_the_file(tmp_path: Path) -> None:
    config = configured(tmp_path, None, add_sub())
    message = config.message
    assert (config.name, config.backend, message.platform, config.path.name) == (
        "m",
        "onnxruntime",
        "onnxruntime_onnx",
        "model.onnx",
    )
    assert message.max_batch_size == config.batching.max_batch_size == 4
    assert message.HasField("dynamic_batching")
    assert config.batching.is_dynamic
    assert config.batching.preferred_batch_sizes == (4,)
    assert message.version_policy.latest.num_versions == 1
    assert [each.name for each in message.input] == list(config.inputs) == ["INPUT0", "INPUT1"]
    assert [each.name for each in message.output] == list(config.outputs) == ["OUTPUT0", "OUTPUT1"]
    assert message.input[0].data_type == TYPE_INT32
    assert list(message.input[0].dims) == [16]
    assert config.inputs["INPUT0"].dims == (16,)
    assert (config.units, config.num_instances) == ((Unit.CPU,), 1)
    assert [(each.kind, each.count) for each in message.instance_group] == [(ModelInstanceGroup.KIND_CPU, 1)]


def test_the_config_as_written_is_not_changed(tmp_path: Path) -> None:
    write_model(tmp_path, "m", "max_batch_size: 2", v1=affine())
    source = read_source("m", tmp_path / "m", Stamp())
    before = source.message.SerializeToString(deterministic=True)
    configure(source, 1, Bench().machine)
    assert source.message.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("shape", "config", "max_batch_size", "is_dynamic", "dims"),
    [
        (["b", 4], None, 4, True, (4,)),
        (["b", 4], "max_batch_size: 16", 16, True, (4,)),
        (["b", 4], "max_batch_size: 1", 1, False, (4,)),
        ([1, 4], None, 0, False, (1, 4)),
        (["b"], None, 4, True, (1,)),
        (["b", "s", 8], None, 4, True, (-1, 8)),
        # With inputs and outputs given, Triton completes neither max_batch_size nor the scheduler.
        (
            ["b", 4],
            "input { name: 'x' data_type: TYPE_FP32 dims: [ -1, 4 ] } "
            "output { name: 'y' data_type: TYPE_FP32 dims: [ -1, 4 ] }",
            0,
            False,
            (-1, 4),
        ),
        (
            ["b", 4],
            "max_batch_size: 8 input { name: 'x' data_type: TYPE_FP32 dims: 4 } "
            "output { name: 'y' data_type: TYPE_FP32 dims: 4 }",
            8,
            False,
            (4,),
        ),
        (["b", 4], "max_batch_size: 8 input { name: 'x' data_type: TYPE_FP32 dims: 4 }", 8, True, (4,)),
    ],
)
def test_batching_is_completed_by_tritons_rules(
    tmp_path: Path,
    shape: list[object],
    config: str | None,
    max_batch_size: int,
    is_dynamic: bool,
    dims: tuple[int, ...],
) -> None:
    found = configured(tmp_path, config, affine(shape=shape))
    assert found.batching.max_batch_size == max_batch_size
    assert found.batching.is_dynamic == is_dynamic
    assert found.inputs["x"].dims == dims


@pytest.mark.parametrize(
    ("nodes", "output", "is_batched"),
    [
        # The names of the file: alike, or not.
        ([node("Relu", "x", "y")], ["b", 4], True),
        # What ONNX infers where names say nothing of it.
        ([node("Relu", "x", "y")], ["unk__12", 4], True),
        ([node("Relu", "x", "y")], [None, 4], True),
        # A detector: as many rows as it finds, whatever it calls them.
        ([node("NonZero", "x", "i"), node("Transpose", "i", "t"), node("Cast", "t", "y", to=FP32)], ["n", 2], False),
        ([node("NonZero", "x", "i"), node("Transpose", "i", "t"), node("Cast", "t", "y", to=FP32)], ["b", 2], False),
        # As many rows as it has columns.
        ([node("Transpose", "x", "y")], ["n", "m"], False),
    ],
)
def test_only_what_has_one_number_of_rows_is_batched(
    tmp_path: Path, nodes: list[NodeProto], output: list[str | int | None], is_batched: bool
) -> None:
    file = model_of(nodes, {"x": ["b", 4]}, {"y": output})
    assert configured(tmp_path, None, file).batching.max_batch_size == (4 if is_batched else 0)


def test_what_finds_rows_runs_alone_whatever_its_config_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nodes = [node("NonZero", "x", "i"), node("Transpose", "i", "t"), node("Cast", "t", "y", to=FP32)]
    text = "max_batch_size: 8 dynamic_batching { }"
    config = configured(tmp_path, text, model_of(nodes, {"x": ["b", 4]}, {"y": ["b", 2]}))
    assert config.batching.max_batch_size == 8
    assert not config.batching.is_dynamic
    assert "its requests run one by one" in caplog.text


@pytest.mark.parametrize(
    ("dims", "nodes"),
    [
        # Two rows, whatever the batch is: a batch of two would give each client half of the answer of the first.
        (["b", 2], [node("Transpose", "x", "y")]),
        (["b", "n"], [node("Transpose", "x", "y")]),
    ],
)
@pytest.mark.parametrize("config", [None, "max_batch_size: 8 dynamic_batching { }"])
def test_rows_that_are_no_rows_of_the_inputs_are_not_batched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dims: list[str | int], nodes: list[NodeProto], config: str | None
) -> None:
    """Though the file calls the first dimension of its output as it calls that of its input."""
    found = configured(tmp_path, config, model_of(nodes, {"x": dims}, {"y": ["b", None]}))
    assert not found.batching.is_dynamic
    assert found.batching.max_batch_size == (8 if config else 0)
    assert ("its requests run one by one" in caplog.text) == bool(config)


def model_of(
    nodes: list[NodeProto], inputs: dict[str, list[str | int]], outputs: dict[str, list[str | int | None]]
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        *(
            [helper.make_tensor_value_info(name, FP32, shape) for name, shape in each.items()]
            for each in (inputs, outputs)
        ),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def test_default_max_batch_size_is_the_servers(tmp_path: Path) -> None:
    for size, is_dynamic in ((32, True), (1, False)):
        found = configured(tmp_path, completion=Completion({"": size}))
        assert (found.batching.max_batch_size, found.batching.is_dynamic) == (size, is_dynamic)


def test_a_file_without_batch_cannot_be_batched(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"does not support batching.*x: FP32\[1,4\].*set max_batch_size to 0"
    ):
        configured(tmp_path, "max_batch_size: 8", affine(shape=[1, 4]))
    tensors = "input { name: 'x' data_type: TYPE_FP32 dims: 4 } output { name: 'y' data_type: TYPE_FP32 dims: 4 }"
    with pytest.raises(InvalidArgumentError, match=r"first dimension must be -1.*\[1,4\]"):
        configured(tmp_path, f"max_batch_size: 8 {tensors}", affine(shape=[1, 4]))


def test_a_tensor_that_is_only_named_is_completed(tmp_path: Path) -> None:
    config = configured(tmp_path, "max_batch_size: 2 input { name: 'INPUT1' } input { name: 'INPUT0' }", add_sub())
    assert list(config.inputs) == ["INPUT1", "INPUT0"]
    assert config.inputs["INPUT1"].datatype is DataType.INT32
    assert config.inputs["INPUT1"].dims == (16,)


def test_a_config_may_serve_some_outputs_only(tmp_path: Path) -> None:
    assert list(configured(tmp_path, "output { name: 'OUTPUT1' }", add_sub()).outputs) == ["OUTPUT1"]


def test_a_row_without_dimensions_is_reshaped(tmp_path: Path) -> None:
    config = configured(tmp_path, None, affine(shape=["b"]))
    assert (config.inputs["x"].dims, config.inputs["x"].reshape) == ((1,), ())
    assert config.message.input[0].HasField("reshape")
    array = np.zeros((3, 1), np.float32)
    model_array = reshape_to_model(array, config.inputs["x"], has_batch=True)
    assert model_array.shape == (3,)
    assert reshape_to_client(model_array, config.outputs["y"], has_batch=True).shape == (3, 1)


def test_a_scalar_without_batch_is_shown_as_one_element(tmp_path: Path) -> None:
    config = configured(tmp_path, None, scaled_by_scalar())
    assert config.batching.max_batch_size == 0
    assert list(config.message.input[1].dims) == [1]
    assert (config.inputs["rate"].dims, config.inputs["rate"].reshape) == ((1,), ())
    assert sample_inputs(config, 1)["rate"].shape == ()


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ("name: 'other'", InvalidArgumentError, ["unexpected directory name 'm'", "'other'"]),
        ("platform: 'tensorrt_plan'", UnsupportedError, ["tensorrt_plan", "onnxruntime, openvino", "model to ONNX ("]),
        ("backend: 'tensorrt'", UnsupportedError, ["tensorrt", "onnxruntime, openvino", "model to ONNX ("]),
        ("backend: 'vllm'", UnsupportedError, ["backend 'vllm'", "GGUF file", "leave the backend out: 'transformer'"]),
        ("backend: 'mine'", UnsupportedError, ["backend 'mine' of model 'm' is not available; backends here:"]),
        ("platform: 'onnxruntime_onnx' backend: 'openvino'", InvalidArgumentError, ["onnxruntime_onnx, openvino"]),
        ("default_model_filename: 'best.onnx'", InvalidArgumentError, ["best.onnx", "backend"]),
        (
            "backend: 'onnxruntime' default_model_filename: 'best.onnx'",
            InvalidArgumentError,
            ["unable to find", "best.onnx"],
        ),
        (
            "backend: 'onnxruntime' default_model_filename: '../../m/1/model.onnx'",
            InvalidArgumentError,
            ["stays within"],
        ),
        ("max_batch_size: -1", InvalidArgumentError, ["max_batch_size", "-1"]),
        ("input { name: 'z' data_type: TYPE_FP32 dims: 4 }", InvalidArgumentError, ["'z'", "which has x"]),
        ("input { data_type: TYPE_FP32 dims: 4 }", InvalidArgumentError, ["must specify 'name'"]),
        ("output { name: 'z' data_type: TYPE_FP32 dims: 4 }", InvalidArgumentError, ["'z'", "which has y"]),
        ("input { name: 'x' data_type: TYPE_INT64 dims: 4 }", InvalidArgumentError, ["INT64", "model provides FP32"]),
        ("input { name: 'x' data_type: TYPE_FP32 dims: 5 }", InvalidArgumentError, ["[-1,4]", "[-1,5]"]),
        ("input { name: 'x' data_type: TYPE_FP32 dims: -1 }", InvalidArgumentError, ["[-1,4]", "[-1,-1]"]),
        (
            "input { name: 'x' data_type: TYPE_FP32 dims: [4, 1] }",
            InvalidArgumentError,
            ["2 dimensions", "3 dimensions"],
        ),
        ("output { name: 'y' data_type: TYPE_FP32 dims: 5 }", InvalidArgumentError, ["'y'", "[-1,4]", "[-1,5]"]),
        ("input { name: 'x' data_type: TYPE_FP32 dims: 0 }", InvalidArgumentError, ["integer >= 1", "[0]"]),
        ("input { name: 'x' data_type: TYPE_FP32 dims: -2 }", InvalidArgumentError, ["integer >= 1"]),
        ("input { name: 'x' data_type: TYPE_FP32 dims: 8 reshape { shape: 4 } }", InvalidArgumentError, ["[8]", "[4]"]),
        ("input { name: 'x' dims: 4 reshape { shape: 0 } }", InvalidArgumentError, ["reshape dimensions"]),
        (
            "input { name: 'x' data_type: TYPE_FP32 dims: 4 format: FORMAT_NHWC }",
            InvalidArgumentError,
            ["require 3 dims"],
        ),
        ("input { name: 'x' is_shape_tensor: true }", InvalidArgumentError, ["TensorRT"]),
        ("output { name: 'y' is_non_linear_format_io: true }", InvalidArgumentError, ["TensorRT"]),
        ("input [ { name: 'x' }, { name: 'x' } ]", InvalidArgumentError, ["'x' is given twice"]),
        ("output { name: 'y' label_filename: 'none.txt' }", InvalidArgumentError, ["none.txt", "cannot be read"]),
        ("output { name: 'y' label_filename: '../secret' }", InvalidArgumentError, ["stays within"]),
        ("ensemble_scheduling { }", UnsupportedError, ["ensemble_scheduling"]),
        ("platform: 'ensemble'", UnsupportedError, ["ensemble_scheduling"]),
        ("sequence_batching { }", UnsupportedError, ["sequence_batching"]),
        ("batch_input { }", UnsupportedError, ["batch_input"]),
        ("batch_output { }", UnsupportedError, ["batch_output"]),
        (
            "model_transaction_policy { decoupled: true }",
            UnsupportedError,
            ["model_transaction_policy.decoupled", "set it to false"],
        ),
        ("model_operations { op_library_filename: 'a.so' }", UnsupportedError, ["op_library_filename"]),
        ("model_repository_agents { agents { name: 'a' } }", UnsupportedError, ["model_repository_agents"]),
        ("instance_group { kind: KIND_GPU }", UnsupportedError, ["KIND_GPU", "no Metal here", "KIND_CPU"]),
        ("instance_group { kind: KIND_CPU gpus: 0 }", InvalidArgumentError, ["KIND_CPU", "GPUs"]),
        ("instance_group { count: -1 }", InvalidArgumentError, ["-1"]),
        ("instance_group { count: 2000000000 }", InvalidArgumentError, ["2000000000", "1024"]),
        ("instance_group { profile: '0' }", InvalidArgumentError, ["profile"]),
        ("instance_group { passive: true }", UnsupportedError, ["passive"]),
        ("instance_group { secondary_devices { } }", UnsupportedError, ["secondary_devices"]),
        (
            "parameters { key: 'units' value { string_value: 'npu' } }",
            InvalidArgumentError,
            ["npu", "cpu, amx, gpu, ane"],
        ),
        ("parameters { key: 'units' value { string_value: '' } }", InvalidArgumentError, ["units"]),
        ("parameters { key: 'units' value { string_value: 'cpu,cpu' } }", InvalidArgumentError, ["twice"]),
        (
            "parameters { key: 'units' value { string_value: 'ane' } }",
            UnsupportedError,
            ["absent", "no Neural Engine here"],
        ),
        ("dynamic_batching { preferred_batch_size: 5 }", InvalidArgumentError, ["5 > 4"]),
        ("dynamic_batching { preferred_batch_size: 0 }", InvalidArgumentError, ["positive"]),
        ("dynamic_batching { priority_levels: 2 }", InvalidArgumentError, ["[1, 2]", "found 0"]),
        ("dynamic_batching { priority_levels: 2 default_priority_level: 3 }", InvalidArgumentError, ["[1, 2]"]),
        (
            "dynamic_batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 } }",
            InvalidArgumentError,
            ["[1, 2]", "found 3"],
        ),
        ("dynamic_batching { default_priority_level: 1 }", InvalidArgumentError, ["priority_levels is 0"]),
        (
            "dynamic_batching { preserve_ordering: true priority_levels: 2 default_priority_level: 1 }",
            InvalidArgumentError,
            ["Only one priority level"],
        ),
        (
            "dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY "
            "default_timeout_microseconds: 1 } }",
            InvalidArgumentError,
            ["DELAY"],
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, config: str, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        configured(tmp_path, config)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("bound", ["nan", "inf", "-inf"])
def test_buckets_are_finite(tmp_path: Path, bound: str) -> None:
    buckets = f"histogram_options {{ buckets: [ 1, {bound} ] }}"
    with pytest.raises(InvalidArgumentError, match=f"model 'm' has the bucket {bound} in 'model_metrics'; bounds"):
        configured(tmp_path, f"model_metrics {{ metric_control {{ {buckets} }} }}")
    configured(tmp_path, f"model_metrics {{ metric_control {{ {buckets.replace(bound, '2')} }} }}")


def test_missing_inputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"expects 1 inputs, model provides 2; add INPUT1: INT32\[-1,16\]"):
        configured(tmp_path, "input { name: 'INPUT0' }", add_sub())


def test_a_file_without_outputs(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no outputs"):
        configured(tmp_path, None, onnx.ModelProto(ir_version=9).SerializeToString())


def test_a_model_without_inputs_has_nothing_to_batch(tmp_path: Path) -> None:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("RandomNormal", [], ["y"], shape=[3])],
        "random",
        [],
        [onnx.helper.make_tensor_value_info("y", FP32, ["n"])],
    )
    model = onnx.helper.make_model(graph, ir_version=9).SerializeToString()
    assert configured(tmp_path, None, model).batching.max_batch_size == 0
    with pytest.raises(InvalidArgumentError, match="it has no inputs"):
        configured(tmp_path, "max_batch_size: 2", model)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="not an ONNX model"):
        configured(tmp_path, None, b"not a model")


def test_a_backend_that_nothing_tells(tmp_path: Path) -> None:
    (tmp_path / "m/1").mkdir(parents=True)
    source = read_source("m", tmp_path / "m", Stamp())
    with pytest.raises(
        InvalidArgumentError, match=r"could not determine backend for model 'm'.*no model\.onnx.* model\.gguf"
    ):
        configure(source, 1, Bench().machine)


def test_an_onnx_file_means_onnx_runtime_whatever_else_reads_it(tmp_path: Path) -> None:
    bench = Bench()
    bench.runtimes["onnxruntime"] = bench.runtimes.pop("onnxruntime")
    assert list(bench.runtimes) == ["openvino", "onnxruntime"]
    assert configured(tmp_path, bench=bench).backend == "onnxruntime"
    assert configured(tmp_path, "default_model_filename: 'model.onnx'", bench=bench).backend == "onnxruntime"


def test_a_large_model_may_be_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "m/1/model.onnx"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(affine())
    config = configure(read_source("m", tmp_path / "m", Stamp()), 1, Bench().machine)
    assert config.backend == "onnxruntime"
    assert config.path == folder / "model.onnx"


def test_dynamic_batching_is_translated(tmp_path: Path) -> None:
    batching = configured(
        tmp_path,
        """max_batch_size: 8
        dynamic_batching { preferred_batch_size: [ 4, 2, 4 ] max_queue_delay_microseconds: 100
          priority_levels: 3 default_priority_level: 2
          default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5 }
          priority_queue_policy { key: 1 value { allow_timeout_override: true max_queue_size: 9 } } }""",
    ).batching
    assert batching.preferred_batch_sizes == (2, 4)
    assert (batching.max_batch_size, batching.max_queue_delay_us) == (8, 100)
    assert (batching.num_priority_levels, batching.default_priority_level) == (3, 2)
    assert batching.policy_of(2) == QueuePolicy(TimeoutAction.DELAY, 5)
    assert batching.policy_of(1) == QueuePolicy(TimeoutAction.REJECT, 0, allow_timeout_override=True, max_queue_size=9)
    assert not batching.preserve_ordering
    assert configured(tmp_path, "dynamic_batching { preserve_ordering: true }").batching.preserve_ordering


def test_without_a_batch_dimension_the_queue_rules_hold_but_nothing_is_joined(tmp_path: Path) -> None:
    text = "dynamic_batching { default_queue_policy { max_queue_size: 3 } }"
    batching = configured(tmp_path, text, affine(shape=[1, 4])).batching
    assert not batching.is_dynamic
    assert batching.default_queue_policy.max_queue_size == 3


def test_ragged_inputs_labels_and_the_rest(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/labels.txt").write_bytes("cat\r\nKüken\n\ndog".encode())
    config = configured(
        tmp_path,
        """max_batch_size: 4 input { name: 'x' allow_ragged_batch: true }
        output { name: 'y' label_filename: 'labels.txt' }
        metric_tags { key: 'team' value: 'vision' } parameters { key: 'level' value { string_value: '3' } }
        parameters { key: 'units' value { string_value: ' AMX , cpu' } }""",
        affine(shape=["b", "s"]),
    )
    assert config.batching.ragged_inputs == {"x"}
    assert config.outputs["y"].labels == ("cat", "Küken", "", "dog")
    assert dict(config.metric_tags) == {"team": "vision"}
    assert dict(config.parameters) == {"level": "3"}
    assert config.units == (Unit.AMX, Unit.CPU)
    (tmp_path / "m/labels.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidArgumentError, match="not UTF-8"):
        configured(tmp_path, "output { name: 'y' label_filename: 'labels.txt' }")


def test_reshape_moves_fixed_dimensions_between_free_ones(tmp_path: Path) -> None:
    text = """max_batch_size: 2
      input { name: 'x' data_type: TYPE_FP32 dims: [ 6, -1 ] reshape { shape: [ 2, 3, -1 ] } }
      output { name: 'y' data_type: TYPE_FP32 dims: [ 6, -1 ] reshape { shape: [ 2, 3, -1 ] } }"""
    config = configured(tmp_path, text, affine(shape=["b", 2, 3, "n"]))
    array = np.arange(2 * 6 * 5, dtype=np.float32).reshape(2, 6, 5)
    assert reshape_to_model(array, config.inputs["x"], has_batch=True).shape == (2, 2, 3, 5)


@pytest.mark.parametrize(
    ("config", "units", "num_instances"),
    [
        ("", (Unit.CPU,), 1),
        ("instance_group { kind: KIND_CPU count: 3 }", (Unit.CPU,), 3),
        ("instance_group [ { kind: KIND_CPU count: 2 }, { kind: KIND_AUTO } ]", (Unit.CPU,), 3),
        ("instance_group { kind: KIND_MODEL }", (Unit.CPU,), 1),
        ("parameters { key: 'units' value { string_value: 'cpu,amx' } }", (Unit.CPU, Unit.AMX), 1),
        (
            "instance_group { kind: KIND_GPU count: 2 } parameters { key: 'units' value { string_value: 'amx' } }",
            (Unit.AMX,),
            2,
        ),
        ("backend: 'openvino'", (Unit.AMX,), 1),
        ("backend: 'openvino' instance_group { kind: KIND_CPU }", (Unit.CPU,), 1),
    ],
)
def test_units(tmp_path: Path, config: str, units: tuple[Unit, ...], num_instances: int) -> None:
    found = configured(tmp_path, config)
    assert (found.units, found.num_instances) == (units, num_instances)
    assert all(group.count and group.name for group in found.message.instance_group)
    assert ModelInstanceGroup.KIND_AUTO not in {group.kind for group in found.message.instance_group}


def test_a_stand_in_that_is_not_installed_says_how_to_get_it(tmp_path: Path) -> None:
    bench = Bench()
    del bench.runtimes["openvino"]
    with pytest.raises(UnsupportedError, match=r"pip install 'triune\[openvino\]'"):
        configured(tmp_path, "parameters { key: 'units' value { string_value: 'amx' } }", bench=bench)


def test_strings(tmp_path: Path) -> None:
    config = configured(tmp_path, None, identity(STRING, ["b", 2]))
    assert config.inputs["x"].datatype is DataType.BYTES
    assert config.message.input[0].data_type == TYPE_STRING
    assert sample_inputs(config, 2)["x"].tolist() == [[b"1", b"1"], [b"1", b"1"]]


def warmup(text: str) -> str:
    return f"max_batch_size: 4 model_warmup {{ name: 'w' {text} }}"


def x(text: str) -> str:
    return f"inputs {{ key: 'x' value {{ {text} }} }}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("batch_size: 5 " + x("data_type: TYPE_FP32 dims: 4 zero_data: true"), ["batch_size 5", "at most 4"]),
        ("batch_size: 1", ["no data for input x"]),
        ("batch_size: 1 " + x("data_type: TYPE_FP32 dims: 4"), ["zero_data, random_data, input_data_file"]),
        ("batch_size: 1 " + x("data_type: TYPE_INT8 dims: 4 zero_data: true"), ["INT8", "FP32"]),
        ("batch_size: 1 " + x("dims: 4 zero_data: true"), ["data_type"]),
        ("batch_size: 1 " + x("data_type: TYPE_FP32 dims: 5 zero_data: true"), ["[5]", "[4]"]),
        ("batch_size: 1 " + x("data_type: TYPE_FP32 dims: -1 zero_data: true"), ["variable-size", "[-1]"]),
        ("batch_size: 1 " + x("data_type: TYPE_FP32 dims: 4 input_data_file: '../../x'"), ["stays within"]),
        (
            "batch_size: 1 "
            + x("data_type: TYPE_FP32 dims: 4 zero_data: true")
            + "inputs { key: 'q' value { data_type: TYPE_FP32 dims: 4 zero_data: true } }",
            ["unexpected input 'q'"],
        ),
    ],
)
def test_wrong_warmup_samples(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        configured(tmp_path, warmup(text))
    for word in words:
        assert word in str(caught.value)


def test_too_many_warmup_runs(tmp_path: Path) -> None:
    sample = x("data_type: TYPE_FP32 dims: 4 zero_data: true") + "batch_size: 1 count: "
    assert configured(tmp_path / "a", warmup(sample + str(MAX_WARMUP_RUNS))).warmup[0].num_runs == MAX_WARMUP_RUNS
    with pytest.raises(InvalidArgumentError, match="have 2000000000 runs together; 10000 are the limit"):
        configured(tmp_path / "b", warmup(sample + "2000000000"))


def test_a_warmup_sample_larger_than_memory(tmp_path: Path) -> None:
    text = warmup("batch_size: 1 " + x("data_type: TYPE_FP32 dims: 4000000000000 zero_data: true"))
    with pytest.raises(InvalidArgumentError, match="16000000000000 bytes"):
        configured(tmp_path, text, affine(shape=["b", "n"]))


def test_warmup_data(tmp_path: Path) -> None:
    (tmp_path / "m/warmup").mkdir(parents=True)
    row = np.array([1, 2, 3, 4], np.float32)
    (tmp_path / "m/warmup/zero").write_bytes(row.tobytes() + b"more is fine")
    samples = " ".join(
        f"model_warmup {{ name: '{name}' batch_size: {batch} count: {count} "
        + x(f"data_type: TYPE_FP32 dims: 4 {source}")
        + "}"
        for name, batch, count, source in [
            ("z", 2, 0, "zero_data: true"),
            ("r", 1, 3, "random_data: false"),
            ("f", 3, 1, "input_data_file: 'zero'"),
            ("skipped", 0, 1, "zero_data: true"),
        ]
    )
    config = configured(tmp_path, f"max_batch_size: 4 {samples}")
    assert [(each.name, each.batch_size, each.num_runs) for each in config.warmup] == [
        ("z", 2, 1),
        ("r", 1, 3),
        ("f", 3, 1),
    ]
    zero, random, file = (warmup_inputs(each, config, tmp_path / "m")["x"] for each in config.warmup)
    assert zero.shape == (2, 4)
    assert not zero.any()
    assert random.shape == (1, 4)
    assert random.any()
    assert np.array_equal(file, np.stack([row] * 3))
    (tmp_path / "m/warmup/zero").write_bytes(row.tobytes()[:-1])
    with pytest.raises(InvalidArgumentError, match="16 bytes.* only has 15 bytes"):
        warmup_inputs(config.warmup[2], config, tmp_path / "m")
    (tmp_path / "m/warmup/zero").unlink()
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        warmup_inputs(config.warmup[2], config, tmp_path / "m")


def test_warmup_strings(tmp_path: Path) -> None:
    (tmp_path / "m/warmup").mkdir(parents=True)
    (tmp_path / "m/warmup/s").write_bytes(b"\x02\0\0\0hi\0\0\0\0")
    sample = "model_warmup { name: 'w' batch_size: 1 " + x("data_type: TYPE_STRING dims: 2 input_data_file: 's'") + "}"
    config = configured(tmp_path, sample, identity(STRING, ["b", 2]))
    assert warmup_inputs(config.warmup[0], config, tmp_path / "m")["x"].tolist() == [[b"hi", b""]]
    (tmp_path / "m/warmup/s").write_bytes(b"\x02\0\0\0hi\xff\xff\xff\xff")
    with pytest.raises(InvalidArgumentError, match="string 1 of 2"):
        warmup_inputs(config.warmup[0], config, tmp_path / "m")


def test_sample_inputs_are_the_same_each_time_and_small_integers(tmp_path: Path) -> None:
    config = configured(tmp_path, None, identity(TensorProto.INT64, ["b", "s"]))
    first, second = sample_inputs(config, 3, 8)["x"], sample_inputs(config, 3, 8)["x"]
    assert first.shape == (3, 8)
    assert first.dtype == np.int64
    assert np.array_equal(first, second)
    assert set(first.ravel().tolist()) == {0, 1}
    assert (first[:, 0] == 1).all()


@pytest.mark.parametrize(
    "datatype", [TensorProto.BOOL, TensorProto.BFLOAT16, TensorProto.FLOAT16, FP32, TensorProto.UINT8]
)
def test_every_datatype_has_samples(tmp_path: Path, datatype: int) -> None:
    config = configured(tmp_path, None, identity(datatype, ["b", 4]))
    array = sample_inputs(config, 2)["x"]
    assert array.shape == (2, 4)
    assert DataType.of(array) is config.inputs["x"].datatype


def test_completion_can_be_turned_off(tmp_path: Path) -> None:
    off = Completion(is_off=True)
    write_model(tmp_path, "m", v1=affine())
    given = (
        ("", "must specify 'platform' or 'backend'"),
        ("backend: 'onnxruntime'", "must specify one or more 'input's"),
        ("backend: 'onnxruntime' input { name: 'x' dims: 4 }", "input 'x' must specify 'data_type'"),
        ("backend: 'onnxruntime' input { name: 'x' data_type: TYPE_FP32 }", "input 'x' must specify 'dims'"),
        (
            "backend: 'onnxruntime' input { name: 'x' data_type: TYPE_FP32 dims: 4 }",
            "must specify one or more 'output's",
        ),
    )
    for config, reason in given:
        write_model(tmp_path, "m", config)
        with pytest.raises(InvalidArgumentError, match=reason):
            read_source("m", tmp_path / "m", Stamp(), completion=off)
    whole = f"{config} max_batch_size: 2 output {{ name: 'y' data_type: TYPE_FP32 dims: 4 }}"
    write_model(tmp_path, "m", whole)
    source = read_source("m", tmp_path / "m", Stamp(), completion=off)
    assert configure(source, 1, Bench().machine).batching.max_batch_size == 2


def test_a_config_of_another_name_is_taken_where_there_is_one(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "m", "max_batch_size: 2", v1=affine())
    h100 = Completion(config_name="h100")
    assert read_source("m", folder, Stamp(), completion=h100).message.max_batch_size == 2
    (folder / "configs").mkdir()
    (folder / "configs" / "h100.pbtxt").write_text("max_batch_size: 3")
    assert read_source("m", folder, Stamp(), completion=h100).message.max_batch_size == 3
    assert read_source("m", folder, Stamp()).message.max_batch_size == 2
    with pytest.raises(InvalidArgumentError, match="must be a path that stays within"):
        read_source("m", folder, Stamp(), completion=Completion(config_name="../../x"))


def test_hints_load_with_a_note(tmp_path: Path) -> None:
    bench = Bench()
    hints = "response_cache { enable: true } optimization { cuda { graphs: true graph_spec { } } }"
    write_model(tmp_path, "m", hints, v1=affine())
    (found,) = bench.repository(tmp_path).check()
    assert found.problems == ()
    assert found.hints == (
        "response_cache (the server has no cache: start it with --cache-config=local,size=BYTES)",
        "optimization.cuda",
    )


@pytest.mark.parametrize("levels", [1, 2**16 + 1, 2**63, 2**64 - 1])
def test_any_number_of_priority_levels(tmp_path: Path, levels: int) -> None:
    config = configured(
        tmp_path,
        f"""max_batch_size: 4 dynamic_batching {{ priority_levels: {levels} default_priority_level: {levels}
        priority_queue_policy {{ key: {levels} value: {{ max_queue_size: 3 }} }} }}""",
        affine(),
    )
    assert config.batching.num_priority_levels == levels
    assert config.batching.policy_of(levels).max_queue_size == 3


def test_an_input_of_unknown_rank_takes_the_configs_dims(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "any",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    signature = read_signature(path)

    def complete(text: str) -> dict[str, TensorConfig]:
        message = parse_text(f"name: 'm' {text}".encode(), "config.pbtxt")
        complete_tensors(message, signature, Completion())
        return translate_tensors(message, signature, {})[0]

    output = "output { name: 'y' data_type: TYPE_FP32 dims: [ 2, 3 ] }"
    given = complete(f"input {{ name: 'x' data_type: TYPE_FP32 dims: [ 2, 3 ] }} {output}")
    assert (given["x"].dims, given["x"].reshape) == ((2, 3), None)
    one = complete("input { name: 'x' dims: 1 } output { name: 'y' dims: 1 }")
    assert one["x"].reshape is None, "a shape of one element is no scalar, where the file does not say so"
    batched = complete(f"max_batch_size: 8 input {{ name: 'x' dims: [ -1, 3 ] }} {output}")
    assert batched["x"].dims == (-1, 3)
    for text in ("", f"input {{ name: 'x' }} {output}"):
        with pytest.raises(InvalidArgumentError, match="how many dimensions 'x' has: give its 'dims'"):
            complete(text)


def test_a_config_that_would_hold_up_all_others_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "m", "# said\n".ljust(256 << 10), v1=affine())
    assert read_source("m", folder, Stamp()).versions == (1,)
    with (folder / "config.pbtxt").open("a") as file:
        file.write(" ")
    why = "it has 262145 bytes; at most 262144 are read: a larger one would hold up the requests of all models"
    with pytest.raises(InvalidArgumentError, match=why):
        read_source("m", folder, Stamp())
