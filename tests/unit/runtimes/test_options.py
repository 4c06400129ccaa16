import pytest

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.requests import Parameter
from triune.core.units import Unit
from triune.runtimes.onnxruntime.options import session_options_of
from triune.runtimes.openvino.options import Settings, read_settings
from triune.runtimes.options import boolean, check_names, choice, integer, num_threads


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", True), ("0", False), ("TRUE", True), ("no", False), (" Yes ", True), (True, True), (0, False)],
)
def test_booleans(value: Parameter, expected: bool) -> None:
    assert boolean("switch", value) is expected


@pytest.mark.parametrize("value", ["", "2", "on", "maybe", 1.0])
def test_what_is_no_boolean(value: Parameter) -> None:
    with pytest.raises(InvalidArgumentError, match="'switch' is .*write 1 or 0"):
        boolean("switch", value)


def test_integers() -> None:
    assert integer("count", "12") == 12
    assert integer("count", 0) == 0
    for value in ("", "x", "1.5", "-1", -1, "0x10"):
        with pytest.raises(InvalidArgumentError, match="'count'.*at least 0"):
            integer("count", value)
    with pytest.raises(InvalidArgumentError, match="at least 1"):
        integer("count", "0", at_least=1)


def test_numbers_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert [num_threads("threads", value) for value in ("0", "3", "64")] == [0, 3, 64]
    with pytest.raises(InvalidArgumentError, match="'threads' is '65'; at most 64 threads .* has 2 cores"):
        num_threads("threads", "65")
    monkeypatch.setattr("os.cpu_count", lambda: 32)
    assert num_threads("threads", "128") == 128
    with pytest.raises(InvalidArgumentError, match="at most 128 threads"):
        num_threads("threads", "5000")


def test_choices() -> None:
    assert choice("hint", "latency", ("LATENCY",)) == "LATENCY"
    with pytest.raises(InvalidArgumentError, match="'hint' is 'speed'; write one of LATENCY, POWER"):
        choice("hint", "speed", ("LATENCY", "POWER"))


def test_an_unknown_name_lists_the_known() -> None:
    check_names("backend", {"a": 1}, ("a", "b"))
    with pytest.raises(InvalidArgumentError, match="'backend' knows no parameter 'c'; it knows a, b"):
        check_names("backend", {"a": 1, "c": 2}, ("a", "b"))


def test_openvino_options_with_an_effect() -> None:
    options = {"INFERENCE_NUM_THREADS": "3", "CPU_BIND_THREAD": "YES"}
    assert read_settings(Unit.CPU, 1, options) == Settings(3, is_pinned=True)
    assert read_settings(Unit.CPU, 4, {"CPU_THREADS_NUM": "0"}) == Settings(4)
    assert read_settings(Unit.CPU, 4, {}) == Settings(4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COMPILATION_NUM_THREADS", "2"),
        ("NUM_STREAMS", "auto"),
        ("NUM_STREAMS", "1"),
        ("PERFORMANCE_HINT", "throughput"),
        ("SKIP_OV_DYNAMIC_BATCHSIZE", "YES"),
        ("SKIP_DYNAMIC_BATCHSIZE", "NO"),
        ("TARGET_DEVICE", "cpu"),
        ("ENABLE_BATCH_PADDING", "NO"),
        ("RESHAPE_IO_LAYERS", "no"),
        ("CPU_EXTENSION_PATH", ""),
        ("ENFORCE_BF16", "NO"),
    ],
)
def test_openvino_options_that_change_nothing(name: str, value: str) -> None:
    assert read_settings(Unit.CPU, 2, {name: value}) == Settings(2)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("NUM_STREAMS", "4", "instance_group"),
        ("CPU_THROUGHPUT_STREAMS", "numa", "instance_group"),
        ("HINT_BF16", "YES", "unit 'cpu' computes in fp32.*'units'"),
        ("TARGET_DEVICE", "GPU", "write CPU"),
        ("ENABLE_BATCH_PADDING", "YES", "free batch dimension"),
        ("CPU_EXTENSION_PATH", "/x.so", "remove it"),
    ],
)
def test_openvino_options_that_triune_does_not_support(name: str, value: str, remedy: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"'{name}' is '{value}'.*{remedy}"):
        read_settings(Unit.CPU, 2, {name: value})


def test_bf16_is_what_amx_computes_in() -> None:
    assert read_settings(Unit.AMX, 2, {"HINT_BF16": "YES"}) == Settings(2)
    with pytest.raises(UnsupportedError, match="unit 'amx' computes in bf16"):
        read_settings(Unit.AMX, 2, {"ENFORCE_BF16": "NO"})


@pytest.mark.parametrize(("name", "value"), [("PERFORMANCE_HINT", "fast"), ("NUM_STREAM", "1"), ("HINT_BF16", "maybe")])
def test_openvino_options_that_are_wrong(name: str, value: str) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        read_settings(Unit.CPU, 2, {name: value})


@pytest.mark.parametrize("name", ["INFERENCE_NUM_THREADS", "CPU_THREADS_NUM", "COMPILATION_NUM_THREADS"])
def test_openvino_starts_no_thousands_of_threads(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"'{name}' is '50000'; at most "):
        read_settings(Unit.CPU, 2, {name: "50000"})


@pytest.mark.parametrize("name", ["intra_op_thread_count", "inter_op_thread_count"])
def test_onnx_runtime_starts_no_thousands_of_threads(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"'{name}' is '50000'; at most "):
        session_options_of(2, {name: "50000"})
