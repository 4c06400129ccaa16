"""Whatever a system prints, reading it never raises, and what it does not say is unavailable."""

import dataclasses
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from support.recorded_machines import NAMES, recorded
from triune.hardware.caches import parse_caches, parse_perflevel_caches
from triune.hardware.describe import describe_units
from triune.hardware.facts import units_json
from triune.hardware.macos import parse_displays, parse_neural_engine
from triune.hardware.nvml import parse_nvml
from triune.hardware.tiles import parse_tiles

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(NAMES), st.data())
def test_a_recorded_text_that_is_damaged_anywhere(name: str, data: st.DataObject) -> None:
    outputs = recorded(name)
    key = data.draw(st.sampled_from(sorted(outputs.texts)))
    text = outputs.text(key)
    start, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 40))
    damaged = text[:start] + data.draw(st.text(max_size=20)) + text[start + length :]
    units = describe_units(
        dataclasses.replace(outputs, texts={**outputs.texts, key: damaged}), is_installed=lambda _: True
    )
    json.dumps(units_json(units), allow_nan=False)


@given(st.text(max_size=200))
def test_texts_of_anything(text: str) -> None:
    parse_displays(text)
    parse_neural_engine(text)
    parse_nvml(text)
    parse_tiles(text)
    parse_caches(text)
    parse_perflevel_caches(text)


@given(st.sampled_from(["sppci_cores", "sppci_model", "_name"]), json_values)
def test_strange_values_of_displays(key: str, value: Any) -> None:
    gpu = parse_displays(json.dumps({"SPDisplaysDataType": [{"sppci_model": "Apple M1", key: value}]}))
    assert isinstance(gpu.name, str)
    assert (gpu.num_cores is None) == bool(gpu.reason)


@given(
    st.sampled_from(
        ["name", "driver", "memory_bytes", "num_cores", "compute_capability", "bus_width_bits", "core_clock_mhz"]
    ),
    json_values,
)
def test_strange_values_of_nvml(key: str, value: Any) -> None:
    gpus, reason = parse_nvml(json.dumps({"gpus": [{"name": "NVIDIA H200", key: value}]}))
    assert bool(gpus) != bool(reason)
    for gpu in gpus:
        assert gpu.gb_per_s is None or gpu.gb_per_s > 0
        assert gpu.fp32_tflops is None or gpu.fp32_tflops > 0


@given(json_values)
def test_json_of_anything(value: Any) -> None:
    text = json.dumps(value)
    assert parse_displays(text).num_cores is None
    assert parse_nvml(text)[0] == ()
