"""Which backend builds a model, and what is the same of all of them."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from support.repositories import Bench, NoModels, affine, write_model
from support.table_backend import TableBackend
from triune.backends.attempt import Attempt
from triune.backends.registry import ENSEMBLE, Backends
from triune.backends.tensor.backend import TensorBackend
from triune.config.configure import Source, read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import InternalError, InvalidArgumentError, NotFoundError, UnsupportedError
from triune.scheduling.response_cache import CachedServable, ResponseCache


def backends_of(bench: Bench, others: Mapping[str, TableBackend], cache: ResponseCache | None = None) -> Backends:
    return Backends(TensorBackend(bench.machine, MonotonicClock()), MonotonicClock(), others=others, cache=cache)


def failing(bench: Bench, error: Exception) -> TableBackend:
    def fail() -> None:
        raise error

    table = TableBackend(bench)
    table.on_build = fail
    return table


def source_of(path: Path, backends: Backends, config: str) -> Source:
    write_model(path, "m", config, v1=affine())
    return read_source("m", path / "m", stamp(path / "m"), supports=backends.supports)


@pytest.mark.parametrize(
    ("config", "is_other"),
    [
        ('platform: "ensemble"', True),
        ("ensemble_scheduling { step { model_name: 'a' model_version: -1 } }", True),
        ('backend: "openvino"', True),
        ('backend: "onnxruntime"', False),
        ("", False),
    ],
)
def test_the_config_chooses(tmp_path: Path, config: str, is_other: bool) -> None:
    bench = Bench()
    table = TableBackend(bench)
    backends = backends_of(bench, {ENSEMBLE: table, "openvino": table})
    write_model(tmp_path, "m", config, v1=affine())
    anything = {"ensemble_scheduling"}
    source = read_source("m", tmp_path / "m", stamp(tmp_path / "m"), supports=lambda _: anything)
    assert (backends.of(source.message) is table) == is_other


def test_a_field_is_refused_but_by_the_backend_that_supports_it(tmp_path: Path) -> None:
    bench = Bench()
    backends = backends_of(bench, {"openvino": TableBackend(bench)})
    source_of(tmp_path, backends, 'backend: "openvino" sequence_batching { }')
    with pytest.raises(UnsupportedError, match="does not support 'sequence_batching'; give the model's state"):
        source_of(tmp_path, backends, 'backend: "onnxruntime" sequence_batching { }')
    with pytest.raises(UnsupportedError, match="does not support 'batch_input'"):
        source_of(tmp_path, backends, 'backend: "openvino" batch_input { }')


def test_a_build_of_another_backend_is_not_taken_over(tmp_path: Path) -> None:
    bench = Bench()
    table = TableBackend(bench)
    backends = backends_of(bench, {"openvino": table})
    first = backends.build(source_of(tmp_path, backends, ""), 1, None, Attempt())
    other = source_of(tmp_path, backends, 'backend: "openvino"')
    second = backends.build(other, 1, first, Attempt())
    backends.build(other, 1, second, Attempt())
    assert table.previous == [None, second]
    first.close()
    second.close()


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError("too deep")], ids=repr)
def test_whatever_a_backend_raises_is_an_error_of_the_load(
    tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    backends = backends_of(bench, {"openvino": failing(bench, error)})
    with pytest.raises(InternalError, match=f"unexpected {type(error).__name__} while loading"):
        backends.build(source_of(tmp_path, backends, 'backend: "openvino"'), 1, None, Attempt())
    assert "Traceback" in caplog.text


def test_a_file_that_a_version_lacks_is_a_wrong_model(tmp_path: Path) -> None:
    """It is no unknown model, for which a client would look under another name."""
    bench = Bench()
    backends = backends_of(bench, {"openvino": failing(bench, NotFoundError("the weights are not there"))})
    with pytest.raises(InvalidArgumentError, match="the weights are not there"):
        backends.build(source_of(tmp_path, backends, 'backend: "openvino"'), 1, None, Attempt())


@pytest.mark.parametrize("is_enabled", [True, False])
async def test_answers_of_any_backend_are_kept_where_its_config_says_so(tmp_path: Path, is_enabled: bool) -> None:
    bench = Bench()
    table = TableBackend(bench)
    backends = backends_of(bench, {"openvino": table}, ResponseCache(1 << 20))
    text = f'backend: "openvino" response_cache {{ enable: {str(is_enabled).lower()} }}'
    models = NoModels()
    loaded = backends.assemble(backends.build(source_of(tmp_path, backends, text), 1, None, Attempt()), models)
    assert isinstance(loaded.servable, CachedServable) == is_enabled
    assert table.models == [models]
    await loaded.servable.close()
