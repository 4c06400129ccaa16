"""What may vary: units that are present, and values that the model's config allows."""

from pathlib import Path

from support.repositories import Bench, affine, write_model
from triune.config.configure import configure, read_source
from triune.config.model_config import ModelConfig
from triune.config.stamps import Stamp
from triune.core.units import Unit
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.tuning.axes import Axis, axes_of, changed, describe, is_valid

TOLERANCE = 'parameters { key: "unit_tolerance" value { string_value: "0.5" } }'
Found = tuple[dict[str, Axis], ModelConfigMessage, ModelConfig]


def found(folder: Path, config: str | None, model: bytes = affine()) -> Found:
    machine = Bench(4).machine
    source = read_source("m", write_model(folder, "m", config, v1=model), Stamp())
    completed = configure(source, 1, machine)
    axes = axes_of(source.message, completed, machine, frozenset(Unit))
    return {axis.name: axis for axis in axes}, source.message, completed


def with_values(given: Found, **values: str) -> ModelConfigMessage:
    axes, message, _ = given
    return changed(message, list(axes.values()), tuple(values.get(axis.name, axis.given) for axis in axes.values()))


def is_right(given: Found, **values: str) -> bool:
    axes, _, config = given
    candidate = tuple(values.get(axis.name, axis.given) for axis in axes.values())
    return is_valid(list(axes.values()), candidate, config)


def test_axes_of_a_model(tmp_path: Path) -> None:
    axes, _, _ = found(
        tmp_path, 'max_batch_size: 6 dynamic_batching { } parameters { key: "units" value { string_value: "cpu" } }'
    )
    assert axes["units"].values == ("cpu", "amx", "cpu,amx")
    assert axes["instances"].values == ("1", "2", "4")
    assert axes["max_batch_size"].values == ("1", "4", "6", "8", "16", "32", "64")
    assert axes["max_queue_delay_microseconds"].values == ("off", "0", "500", "2000", "5000")
    assert axes["preferred_batch_size"].given == "none"
    assert axes["optimization_level"].values == ("none", "O2", "O3")
    assert not [name for name in axes if "precision" in name]
    assert next(iter(axes)) == "units"


def test_a_value_that_is_not_usual_is_kept(tmp_path: Path) -> None:
    config = "max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 3, 5 ] max_queue_delay_microseconds: 77 }"
    axes, message, _ = made = found(tmp_path, config + " instance_group [ { kind: KIND_CPU count: 3 } ]")
    assert axes["preferred_batch_size"].given == "3,5"
    assert "3,5" in axes["preferred_batch_size"].values
    assert "77" in axes["max_queue_delay_microseconds"].values
    assert "3" in axes["instances"].values
    assert with_values(made) == message


def test_values_are_set_and_the_rest_is_kept(tmp_path: Path) -> None:
    made = found(
        tmp_path,
        "max_batch_size: 8 dynamic_batching { preserve_ordering: true } " + TOLERANCE,
    )
    message = with_values(made, units="amx", instances="2", max_batch_size="16", max_queue_delay_microseconds="500")
    assert message.parameters["units"].string_value == "amx"
    assert message.parameters["unit_tolerance"].string_value == "0.5"
    assert [each.count for each in message.instance_group] == [2]
    assert message.max_batch_size == 16
    assert message.dynamic_batching.preserve_ordering
    assert message.dynamic_batching.max_queue_delay_microseconds == 500
    # The order of answers would be lost.
    assert "off" not in made[0]["max_queue_delay_microseconds"].values


def test_batching_that_was_completed_stays(tmp_path: Path) -> None:
    made = found(tmp_path, None)
    size = made[2].batching.max_batch_size
    assert size > 1
    assert made[2].message.HasField("dynamic_batching")
    message = with_values(made, max_queue_delay_microseconds="500")
    assert message.max_batch_size == size
    assert with_values(made, max_batch_size="16").HasField("dynamic_batching")
    off = with_values(made, max_queue_delay_microseconds="off")
    assert off.max_batch_size == size
    assert not off.HasField("dynamic_batching")


def test_values_that_do_not_fit(tmp_path: Path) -> None:
    data = "data_type: TYPE_FP32 dims: [ 4 ] random_data: true"
    sample = f'model_warmup [ {{ name: "w" batch_size: 4 inputs {{ key: "x" value {{ {data} }} }} }} ]'
    made = found(tmp_path, f"max_batch_size: 8 dynamic_batching {{ }} {sample}")
    assert is_right(made)
    assert not is_right(made, max_batch_size="1")
    assert is_right(made, preferred_batch_size="8")
    assert not is_right(made, preferred_batch_size="16")
    assert not is_right(made, preferred_batch_size="4", max_queue_delay_microseconds="off")


def test_a_model_without_rows_has_no_batches(tmp_path: Path) -> None:
    axes, _, _ = found(tmp_path, None, affine(shape=(3, 4)))
    assert not {"max_batch_size", "max_queue_delay_microseconds", "preferred_batch_size"} & axes.keys()


def test_words(tmp_path: Path) -> None:
    axes = list(found(tmp_path, "max_batch_size: 8")[0].values())
    given = tuple(axis.given for axis in axes)
    assert describe(axes, given) == "the given config"
    assert describe(axes, ("amx", "2", *given[2:])) == "units=amx instances=2"
