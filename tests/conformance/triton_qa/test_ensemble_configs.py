"""L0_model_config: ensembles whose configs are wrong are refused in the words that Triton's QA expects."""

from collections.abc import Iterator, Mapping

import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from support.ensembles import Mapped, ensemble, tensors, write_ensemble
from support.process import Served, serve
from support.repositories import write_model
from support.triton_lifecycle import EXPLICIT
from support.triton_qa import INT32, zero


def ins(**names: str) -> dict[str, str]:
    return {f"INPUT{own[1:]}": tensor for own, tensor in names.items()}


def outs(**names: str) -> dict[str, str]:
    return {f"OUTPUT{own[1:]}": tensor for own, tensor in names.items()}


def made(
    *steps: Mapped, outputs: tuple[str, ...] = ("prob",), inputs: tuple[str, ...] = ("data",), **options: object
) -> str:
    settings: dict[str, object] = {"dims": 16, "max_batch_size": 2, **options}
    return ensemble(steps, inputs, outputs, **settings)  # pyright: ignore[reportArgumentType]


ONE = ("batch4", ins(_0="data"), outs(_0="t4"))
FAN_OUT = ("batch4_three", ins(_0="data", _1="data", _2="data"), outs(_0="t1", _1="t2", _2="t3"))
FAN_IN = ("batch4_four", ins(_0="t1", _1="t2", _2="t3", _3="t4"), outs(_0="prob"))
PLAIN = ("batch4", ins(_0="data"), outs(_0="prob"))
NO_STEPS = made(PLAIN).split("ensemble_scheduling")[0]

REFUSED: Mapping[str, tuple[str, str]] = {
    "circular_dependency": (
        made(("circular_dependency_2", {"input": "data"}, {"output": "prob"})),
        "circular dependency between ensembles: circular_dependency -> ... -> circular_dependency_2 -> "
        "circular_dependency",
    ),
    "ensemble_scheduling_no_set": (
        f'name: "ensemble_scheduling_not_set" {NO_STEPS}',
        "ensemble scheduling must be set for ensemble ensemble_scheduling_not_set whose platform is ensemble",
    ),
    "has_backend": (
        made(PLAIN, more='backend: "identity"'),
        "Ensemble model 'has_backend' must have platform type 'ensemble' and empty backend type",
    ),
    "inconsistent_data_type": (
        made(
            ("batch2", ins(_0="data"), outs(_0="prob_2")),
            ("int32", ins(_0="data"), outs(_0="prob")),
            outputs=("prob", "prob_2"),
        ),
        "in ensemble inconsistent_data_type, ensemble tensor data: inconsistent data type: TYPE_FP32 is inferred from "
        "model inconsistent_data_type while TYPE_INT32 is inferred from model int32",
    ),
    "inconsistent_shape": (
        made(("batch4", ins(_0="data"), outs(_0="temp_tensor")), ("dim3", ins(_0="temp_tensor"), outs(_0="prob"))),
        "in ensemble inconsistent_shape, ensemble tensor temp_tensor: inconsistent shape: [-1,16] is inferred from "
        "model batch4 while [-1,16,16,16] is inferred from model dim3",
    ),
    "instance_group_set": (
        made(PLAIN, more="instance_group { kind: KIND_CPU }"),
        "instance group should not be specified for ensemble 'instance_group_set'",
    ),
    "invalid_batch_size": (
        made(("batch4", ins(_0="data"), outs(_0="t")), ("batch2", ins(_0="t"), outs(_0="prob")), max_batch_size=3),
        "ensemble invalid_batch_size allows maximum batch size 3, but it contains model batch2 which only allows "
        "maximum batch size to be 2",
    ),
    "invalid_input_map": (
        made(ONE, FAN_OUT, (FAN_IN[0], {**FAN_IN[1], "invalid_input": "data"}, FAN_IN[2])),
        "in ensemble invalid_input_map, ensemble tensor data is mapping to non-existing input invalid_input in model "
        "batch4_four",
    ),
    "invalid_output_map": (
        made(ONE, (FAN_OUT[0], FAN_OUT[1], {"OUTPUT0": "t1", "invalid_output": "t2", "OUTPUT2": "t3"}), FAN_IN),
        "in ensemble invalid_output_map, ensemble tensor t2 is mapped from non-existing output invalid_output in model "
        "batch4_three",
    ),
    "model_warm_up_set": (
        made(PLAIN, more='model_warmup { name: "sample" batch_size: 1 }'),
        "model_warmup can not be specified for ensemble 'model_warm_up_set'",
    ),
    "no_input_map": (
        made(ONE, ("batch4", {}, outs(_0="prob"))),
        "must specify 'input_map' in step 1 of ensemble 'no_input_map'",
    ),
    "no_model_name": (
        made(ONE, ("", ins(_0="t4"), outs(_0="prob"))),
        "must specify 'model_name' in step 1 of ensemble 'no_model_name'",
    ),
    "no_output_map": (
        made(PLAIN, ("batch4", ins(_0="prob"), {})),
        "must specify 'output_map' in step 1 of ensemble 'no_output_map'",
    ),
    "no_required_version": (
        made(("batch4:2", ins(_0="data"), outs(_0="prob"))),
        "ensemble 'no_required_version' depends on 'batch4' whose required version 2 is not loaded",
    ),
    "no_required_version_2": (
        made(("batch4:1", ins(_0="data"), outs(_0="t")), ("batch4:2", ins(_0="t"), outs(_0="prob"))),
        "ensemble 'no_required_version_2' depends on 'batch4' whose required version 2 is not loaded",
    ),
    "no_required_version_3": (
        made(("batch4", ins(_0="data"), outs(_0="t")), ("batch4:2", ins(_0="t"), outs(_0="prob"))),
        "ensemble 'no_required_version_3' depends on 'batch4' whose required version 2 is not loaded",
    ),
    "no_step": (f"{NO_STEPS} ensemble_scheduling {{ }}", "must specify 'step' for ensemble 'no_step'"),
    "no_step_2": (f"{NO_STEPS} ensemble_scheduling {{ step [ ] }}", "must specify 'step' for ensemble 'no_step_2'"),
    "non_existing_model": (
        made(ONE, FAN_OUT, ("nowhere", FAN_IN[1], FAN_IN[2])),
        "ensemble non_existing_model contains models that are not available or ambiguous: nowhere",
    ),
    "optimization_set": (
        made(PLAIN, more="optimization { priority: PRIORITY_MAX }"),
        "optimization should not be specified for ensemble 'optimization_set'",
    ),
    "output_to_tensor_overmapped": (
        made(ONE, (FAN_OUT[0], FAN_OUT[1], outs(_0="t2", _1="t2", _2="t3")), FAN_IN),
        "ensemble tensor 't2' can appear in an output map only once for ensemble 'output_to_tensor_overmapped'",
    ),
    "redundant_tensor_as_input": (
        made(ONE, ("batch4", ins(_0="t5"), outs(_0="t6")), FAN_OUT, FAN_IN),
        "ensemble tensor 't5' is unused in ensemble 'redundant_tensor_as_input'",
    ),
    "redundant_tensor_as_output": (
        made((FAN_OUT[0], FAN_OUT[1], outs(_0="prob", _1="prob_2", _2="t2")), outputs=("prob", "prob_2")),
        "ensemble tensor 't2' is unused in ensemble 'redundant_tensor_as_output'",
    ),
    "self_circular_dependency": (
        made(ONE, ("self_circular_dependency", {"data": "t4"}, {"prob": "prob"})),
        "circular dependency between ensembles: self_circular_dependency -> ... -> self_circular_dependency -> "
        "self_circular_dependency",
    ),
    "tensor_to_input_overmapped": (
        made(ONE, ("batch4", ins(_0="t4"), outs(_0="t5")), FAN_OUT, FAN_IN),
        "ensemble tensor 't5' is unused in ensemble 'tensor_to_input_overmapped'",
    ),
    "unmapped_input": (
        made(
            (FAN_OUT[0], FAN_OUT[1], outs(_0="t2", _1="t3", _2="t4")),
            (FAN_IN[0], ins(_1="t2", _2="t3", _3="t4"), FAN_IN[2]),
        ),
        "in ensemble unmapped_input, input INPUT0 in model batch4_four is not mapped to any ensemble tensors",
    ),
    "unreachable_input": (
        made(PLAIN, inputs=("data", "data_2")),
        "ensemble input 'data_2' for ensemble unreachable_input' is not used",
    ),
    "unreachable_output": (
        made(PLAIN, outputs=("prob", "prob_2")),
        "ensemble output 'prob_2' for ensemble unreachable_output' is not used",
    ),
    "unreachable_output_2": (
        made(PLAIN, ("batch4", ins(_0="prob_2"), outs(_0="prob_2")), outputs=("prob", "prob_2")),
        "output 'prob_2' for ensemble 'unreachable_output_2' is not written",
    ),
    "unreachable_output_3": (
        made(PLAIN, ("batch4", ins(_0="not_written"), outs(_0="prob_2")), outputs=("prob", "prob_2")),
        "output 'prob_2' for ensemble 'unreachable_output_3' is not written: at least one of its depending tensors, "
        "'not_written', is not connected",
    ),
    "ensemble_scheduling_set": (
        made(PLAIN).replace('platform: "ensemble"', 'platform: "onnxruntime_onnx"'),
        "ensemble scheduling cannot be set for model 'ensemble_scheduling_set' whose platform is not ensemble",
    ),
}

LOADED: Mapping[str, str] = {
    "embedded_ensemble": made(("inner_ensemble", {"data": "data"}, {"prob": "prob"})),
    "inconsistent_shape_success": made(
        ("batch4", ins(_0="data"), outs(_0="t")), ("nobatch", ins(_0="t"), outs(_0="prob"))
    ),
    "inconsistent_shape_2": made(
        ("nobatch", ins(_0="data"), outs(_0="t")),
        ("batch4", ins(_0="t"), outs(_0="prob")),
        dims="[ 4, 16 ]",
        max_batch_size=0,
    ),
    "unmapped_output": made((FAN_OUT[0], FAN_OUT[1], outs(_0="prob"))),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("configs")
    write_model(folder, "batch4", "max_batch_size: 4", v1=zero(dims=[16]))
    write_model(folder, "batch2", "max_batch_size: 2", v1=zero(dims=[16]))
    write_model(folder, "batch4_three", "max_batch_size: 4", v1=zero(num_tensors=3, dims=[16]))
    write_model(folder, "batch4_four", "max_batch_size: 4", v1=zero(num_tensors=4, dims=[16]))
    write_model(folder, "dim3", "max_batch_size: 4", v1=zero(dims=[16, 16, 16]))
    write_model(folder, "int32", "max_batch_size: 4", v1=zero(INT32, dims=[16]))
    shape = "[ -1, 16 ]"
    nobatch = tensors("input", ("INPUT0",), "TYPE_FP32", shape) + tensors("output", ("OUTPUT0",), "TYPE_FP32", shape)
    write_model(folder, "nobatch", f"max_batch_size: 0 {nobatch}", v1=zero(dims=["n", 16], batch=False))
    for name, (config, _) in REFUSED.items():
        write_ensemble(folder, name, config)
    second = ("circular_dependency", {"data": "input"}, {"prob": "output"})
    write_ensemble(folder, "circular_dependency_2", made(second, inputs=("input",), outputs=("output",)))
    for name, config in LOADED.items():
        write_ensemble(folder, name, config)
    write_ensemble(folder, "inner_ensemble", made(PLAIN))
    with serve(folder, EXPLICIT) as running:
        yield running


@pytest.mark.triton(
    "L0_model_config/test.sh::autofill_noplatform/ensemble",
    "L0_model_config/test.sh::noautofill_platform/ensemble_scheduling_set",
)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named(served: Served, name: str) -> None:
    with tritonclient.http.InferenceServerClient(served.http) as client:
        with pytest.raises(InferenceServerException) as raised:
            client.load_model(name)
        assert REFUSED[name][1] in raised.value.message()
        assert not client.is_model_ready(name)


@pytest.mark.triton("L0_model_config/test.sh::autofill_noplatform_success/ensemble")
@pytest.mark.parametrize("name", LOADED)
def test_what_agrees_is_shown_as_it_is_written(served: Served, name: str) -> None:
    with (
        tritonclient.http.InferenceServerClient(served.http) as http,
        tritonclient.grpc.InferenceServerClient(served.grpc) as grpc,
    ):
        http.load_model(name)
        config = http.get_model_config(name)
        steps = grpc.get_model_config(name).config.ensemble_scheduling.step
        assert config["platform"] == http.get_model_metadata(name)["platform"] == "ensemble"
        assert grpc.get_model_metadata(name).platform == "ensemble"
        assert config["version_policy"] == {"latest": {"num_versions": 1}}
        names = [each["model_name"] for each in config["ensemble_scheduling"]["step"]]
        assert names == [each.model_name for each in steps]
        assert not config["model_transaction_policy"]["decoupled"]
        assert config.get("instance_group", []) == []
        assert "optimization" not in config
