"""Which folders are models of the transformer engine, and what their configs become."""

from pathlib import Path

import pytest

from triune.config.configure import read_source
from triune.config.model_config import ModelConfig
from triune.config.settings import Completion
from triune.config.stamps import Stamp
from triune.config.transformer import TRANSFORMER, configure_transformer, named_unit, read_transformer_options
from triune.config.unsupported import hints_without_effect
from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError
from triune.core.units import Presence, Unit, UnitStatus
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.runtimes.machine import Machine


class Runtime:
    """OpenVINO's units, without it."""

    name = "openvino"
    option_names = ()
    default_filenames = ()

    def __init__(self, *units: Unit) -> None:
        self._units = units

    def units(self) -> tuple[Unit, ...]:
        return self._units


def machine(*units: Unit) -> Machine:
    present = tuple(UnitStatus(unit, Presence.PRESENT) for unit in units)
    return Machine({"openvino": Runtime(*units)}, present, 4)  # type: ignore[dict-item]


MACHINE = machine(Unit.AMX, Unit.CPU)


def model(root: Path, *files: str, config: str = "") -> Path:
    folder = root / "m"
    (folder / "1").mkdir(parents=True)
    for name in files:
        (folder / "1" / name).parent.mkdir(exist_ok=True)
        (folder / "1" / name).write_bytes(b"")
    if config:
        (folder / "config.pbtxt").write_text(config)
    return folder


def read(folder: Path, completion: Completion | None = None) -> ModelConfigMessage:
    supports = ["model_transaction_policy.decoupled"]
    completion = completion or Completion()
    return read_source("m", folder, Stamp(), completion=completion, supports=lambda _: supports).message


def configured(folder: Path, on: Machine = MACHINE) -> ModelConfig:
    return configure_transformer(read(folder), "m", folder / "1", on, "openvino")


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'


@pytest.mark.parametrize(
    ("files", "config", "is_one"),
    [
        (["model.gguf"], "", True),
        (["config.json", "model.safetensors"], "", True),
        (["config.json", "model-00001-of-00002.safetensors"], "", True),
        (["config.json"], "", False),
        (["model.safetensors"], "", False),
        (["model.onnx", "config.json", "model.safetensors"], "", False),
        (["model.gguf"], 'backend: "onnxruntime"', False),
        (["model.gguf"], 'platform: "onnxruntime_onnx"', False),
        (["smol.gguf"], 'default_model_filename: "smol.gguf"', True),
        (["smol.onnx"], 'default_model_filename: "smol.onnx"', False),
        (["anything"], 'backend: "transformer"', True),
        (["model.gguf"], 'platform: "ensemble" ensemble_scheduling { step { model_name: "a" } }', False),
    ],
)
def test_what_is_recognised(tmp_path: Path, files: list[str], config: str, is_one: bool) -> None:
    folder = model(tmp_path, *files, config=config)
    supports = ["model_transaction_policy.decoupled", "ensemble_scheduling"]
    message = read_source("m", folder, Stamp(), supports=lambda _: supports).message
    assert (message.backend == TRANSFORMER) is is_one


def test_without_completion_a_config_must_name_the_backend(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="must specify 'platform' or 'backend'"):
        read(model(tmp_path, "model.gguf"), Completion(is_off=True))


def test_a_config_is_completed_as_by_the_vllm_backend(tmp_path: Path) -> None:
    config = configured(model(tmp_path, "model.gguf"))
    assert config.path == tmp_path / "m" / "1" / "model.gguf"
    assert [(each.name, each.datatype.value, each.dims, each.is_optional) for each in config.inputs.values()] == [
        ("text_input", "BYTES", (1,), False),
        ("stream", "BOOL", (1,), True),
        ("sampling_parameters", "BYTES", (1,), True),
        ("exclude_input_in_output", "BOOL", (1,), True),
        ("return_finish_reason", "BOOL", (1,), True),
        ("return_cumulative_logprob", "BOOL", (1,), True),
        ("return_logprobs", "BOOL", (1,), True),
        ("return_num_input_tokens", "BOOL", (1,), True),
        ("return_num_output_tokens", "BOOL", (1,), True),
        ("return_prompt_logprobs", "BOOL", (1,), True),
    ]
    assert [(each.name, each.datatype.value, each.dims) for each in config.outputs.values()] == [
        ("text_output", "BYTES", (-1,)),
        ("finish_reason", "BYTES", (-1,)),
        ("cumulative_logprob", "FP32", (-1,)),
        ("logprobs", "BYTES", (-1,)),
        ("num_input_tokens", "UINT32", (1,)),
        ("num_output_tokens", "UINT32", (-1,)),
        ("prompt_logprobs", "BYTES", (1,)),
    ]
    assert config.is_decoupled
    assert config.message.model_transaction_policy.decoupled
    assert (config.units, config.num_instances) == ((Unit.AMX,), 1)
    assert config.message.backend == TRANSFORMER
    assert hints_without_effect(config.message, MACHINE) == []


def test_what_a_config_leaves_out_is_added_but_not_what_a_request_must_have(tmp_path: Path) -> None:
    given = 'input { name: "text_input" data_type: TYPE_STRING dims: 1 } '
    given += 'output { name: "text_output" data_type: TYPE_STRING dims: -1 }'
    config = configured(model(tmp_path, "model.gguf", config=given))
    assert len(config.inputs) == 10
    assert len(config.outputs) == 7
    given = 'input { name: "stream" data_type: TYPE_BOOL dims: 1 optional: true }'
    with pytest.raises(InvalidArgumentError, match="add text_input"):
        configured(model(tmp_path / "other", "model.gguf", config=given))


def test_a_directory_is_the_path(tmp_path: Path) -> None:
    folder = model(tmp_path, "config.json", "a.safetensors")
    assert configured(folder).path == folder / "1"


@pytest.mark.parametrize(
    ("config", "on", "unit"),
    [
        ("", machine(Unit.CPU), Unit.CPU),
        (parameter("units", "cpu"), MACHINE, Unit.CPU),
        (parameter("precision", "fp32"), MACHINE, Unit.CPU),
        (parameter("reproducible", "true"), MACHINE, Unit.CPU),
        (parameter("precision", "bf16"), MACHINE, Unit.AMX),
        (parameter("precision", "bf16"), machine(Unit.CPU), Unit.CPU),
        (parameter("precision", "bf16") + parameter("units", "cpu"), MACHINE, Unit.CPU),
        ("instance_group { kind: KIND_CPU }", MACHINE, Unit.CPU),
    ],
)
def test_the_unit(tmp_path: Path, config: str, on: Machine, unit: Unit) -> None:
    assert configured(model(tmp_path, "model.gguf", config=config), on).units == (unit,)


def test_parameters(tmp_path: Path) -> None:
    given = {
        "cache_bytes": "1000000",
        "cache_type": "bf16",
        "context_tokens": "512",
        "precision": "fp32",
        "step_tokens": "128",
        "max_sequences": "3",
        "disk_cache_bytes": "2000000",
        "speculation": "draft",
        "draft_model": "small",
    }
    folder = model(tmp_path, "model.gguf", config="".join(parameter(*each) for each in given.items()))
    options = read_transformer_options(configured(folder).message)
    assert {name: str(getattr(options, name)) for name in given} == given


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (
            parameter("cache_tipe", "int8"),
            InvalidArgumentError,
            "'cache_tipe'; backend 'transformer' knows adapters, cache_",
        ),
        (parameter("own_process", "true"), InvalidArgumentError, "'own_process'; backend"),
        (parameter("speculation", "model"), InvalidArgumentError, "must be one of off, ngram, draft"),
        (parameter("speculation", "draft"), InvalidArgumentError, "'draft', and 'draft_model' is missing"),
        (
            parameter("speculation", "ngram") + parameter("draft_model", "small"),
            InvalidArgumentError,
            "'ngram', and 'draft_model' is given",
        ),
        (parameter("draft_unit", "cpu"), InvalidArgumentError, "'draft_unit' is 'cpu', and 'draft_model' is missing"),
        (
            parameter("draft_model", "small") + parameter("draft_unit", "tpu"),
            InvalidArgumentError,
            "'draft_unit' is 'tpu'; it must be one of cpu, amx, gpu, ane",
        ),
        (
            parameter("draft_model", "small") + parameter("draft_unit", "ane"),
            UnsupportedError,
            "'draft_unit' is 'ane', where a cache holds whole sequences",
        ),
        (
            parameter("draft_model", "small") + parameter("draft_unit", "gpu"),
            UnsupportedError,
            "'gpu'.* in parameter 'draft_unit'",
        ),
        (parameter("cache_type", "int7"), InvalidArgumentError, "must be one of fp32, fp16, bf16, int8"),
        (parameter("cache_bytes", "1e9"), InvalidArgumentError, "'1e9'; it must be a whole number"),
        (parameter("cache_bytes", "0"), InvalidArgumentError, "'0'; it must be a whole number of 1 or more"),
        (parameter("cache_bytes", "0" * 5000), InvalidArgumentError, "0'; it must be a whole number of 1 or more"),
        (
            parameter("cache_bytes", "0" * 20 + "1" * 5000),
            InvalidArgumentError,
            "is 1{32}; the most is 9007199254740991",
        ),
        (
            parameter("step_tokens", "9" * 5000),
            InvalidArgumentError,
            "is 9{32}; the most is 131072: a longer prompt is",
        ),
        (
            parameter("max_sequences", "1025"),
            InvalidArgumentError,
            "is 1025; the most is 1024: let more answers wait by",
        ),
        (parameter("precision", "fp8"), InvalidArgumentError, "must be one of fp32, bf16"),
        (parameter("reproducible", "1"), InvalidArgumentError, "must be one of true, false"),
        (
            parameter("reproducible", "true") + parameter("precision", "bf16"),
            InvalidArgumentError,
            "'precision' is 'bf16', and 'reproducible' is 'true', which needs 'fp32'",
        ),
        (
            parameter("reproducible", "true") + parameter("cache_type", "int8"),
            InvalidArgumentError,
            "'cache_type' is 'int8', and 'reproducible' is 'true', which needs 'fp32' or 'fp16'",
        ),
        (
            parameter("precision", "fp32") + parameter("units", "amx"),
            InvalidArgumentError,
            "'fp32', and the unit 'amx' computes in bf16",
        ),
        (parameter("units", "cpu,cpu"), InvalidArgumentError, "'cpu' is named twice"),
        (parameter("units", "cpu,gpu"), UnsupportedError, "'gpu' is absent"),
        (
            parameter("units", "cpu,amx") + parameter("reproducible", "true"),
            InvalidArgumentError,
            "'cpu,amx', and 'reproducible' is 'true': what two units compute differs by rounding",
        ),
        (
            parameter("units", "cpu,amx") + parameter("precision", "fp32"),
            InvalidArgumentError,
            "'fp32', and the unit 'amx' computes in bf16",
        ),
        (parameter("units", "cpu,amx") + "instance_group { count: 2 }", UnsupportedError, "2 instances"),
        (parameter("units", "gpu"), UnsupportedError, "'gpu' is absent"),
        ("instance_group { count: 2 }", UnsupportedError, "2 instances"),
        ("max_batch_size: 8", UnsupportedError, "holds one prompt, and the backend batches and warms up by"),
        ("dynamic_batching { }", UnsupportedError, "has 'dynamic_batching'; a request"),
        ("response_cache { enable: true }", UnsupportedError, "'response_cache'"),
        ('model_warmup { name: "a" batch_size: 1 }', UnsupportedError, "has 'model_warmup'; a request"),
        ('input { name: "prompt" data_type: TYPE_STRING dims: 1 }', InvalidArgumentError, "'prompt' is not in the"),
        ('name: "other"', InvalidArgumentError, "directory name must equal model name"),
        ('default_model_filename: "../m.gguf"', InvalidArgumentError, "stays within the folder"),
        ('default_model_filename: "other.gguf"', InvalidArgumentError, "has no 'other.gguf' in its version folder '1'"),
    ],
)
def test_wrong_configs(tmp_path: Path, config: str, error: type[TriuneError], message: str) -> None:
    with pytest.raises(error, match=message):
        read_transformer_options(configured(model(tmp_path, "model.gguf", config=config)).message)


def test_a_model_may_have_several_units(tmp_path: Path) -> None:
    config = configured(model(tmp_path, "model.gguf", config=parameter("units", "amx, CPU")))
    assert (config.units, config.num_instances) == ((Unit.AMX, Unit.CPU), 1)
    assert len(config.message.instance_group) == 1


def test_a_message_is_not_changed(tmp_path: Path) -> None:
    message = read(folder := model(tmp_path, "model.gguf"))
    before = message.SerializeToString()
    configure_transformer(message, "m", folder / "1", MACHINE, "openvino")
    assert message.SerializeToString() == before


@pytest.mark.parametrize(
    ("config", "unit"),
    [
        ("", None),
        (parameter("units", " GPU"), Unit.GPU),
        (parameter("units", "npu"), None),
        ("instance_group { kind: KIND_GPU }", Unit.GPU),
        ("instance_group { kind: KIND_CPU }", Unit.CPU),
        ("instance_group { kind: KIND_AUTO }", None),
        ("instance_group { kind: KIND_GPU }" + parameter("units", "cpu"), Unit.CPU),
    ],
)
def test_the_unit_that_a_config_names(tmp_path: Path, config: str, unit: Unit | None) -> None:
    assert named_unit(read(model(tmp_path, "model.gguf", config=config))) is unit
