"""The backend of ensembles: shapes of its own, limits and distributions."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from support.ensembles import chain, write_ensemble
from support.repositories import Bench, affine, write_model
from triune.backends.ensemble import EnsembleBackend
from triune.config.configure import read_source
from triune.config.limits import DEFAULT_LIMITS
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.requests import InferenceRequest
from triune.repository.repository import ControlMode


def supports(_: object) -> frozenset[str]:
    return EnsembleBackend.supports


def test_what_it_needs(tmp_path: Path) -> None:
    write_ensemble(tmp_path, "e", chain("a", "b:3", "a:1"))
    backend = EnsembleBackend(MonotonicClock(), DEFAULT_LIMITS)
    source = read_source("e", tmp_path / "e", stamp(tmp_path / "e"), supports=supports)
    assert backend.needs(source) == {"a": {None, 1}, "b": {3}}
    (tmp_path / "e" / "config.pbtxt").write_text(chain("a").replace('value: "y"', 'value: "z"'))
    with pytest.raises(InvalidArgumentError, match="ensemble output 'y' for ensemble e' is not used"):
        backend.needs(read_source("e", tmp_path / "e", stamp(tmp_path / "e"), supports=supports))


async def test_shapes_of_its_own(tmp_path: Path) -> None:
    write_model(tmp_path, "m", "max_batch_size: 4", v1=affine(3))
    config = chain("m").replace("dims: 4", "dims: [ 2, 2 ] reshape { shape: 4 }")
    write_ensemble(tmp_path, "e", config)
    repository = Bench().repository(tmp_path)
    await repository.open()
    x = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    response = await repository.get("e").submit(InferenceRequest("e", {"x": x}))
    np.testing.assert_array_equal(response.outputs["y"], 3 * x)
    with pytest.raises(InvalidArgumentError, match=r"for input 'x' for model 'e'. Expected \[-1,2,2\]"):
        repository.get("e").submit(InferenceRequest("e", {"x": x.reshape(3, 4)}))
    await repository.close()


async def test_a_request_that_is_under_way_when_the_server_closes_has_an_answer(tmp_path: Path) -> None:
    write_model(tmp_path, "m", "max_batch_size: 4 instance_group { count: 2 }", v1=affine(3))
    write_ensemble(tmp_path, "e", chain(*["m"] * 20))
    repository = Bench().repository(tmp_path, mode=ControlMode.EXPLICIT, startup_models=["e"])
    await repository.open()
    x = {"x": np.ones((1, 4), np.float32)}
    futures = [repository.get("e").submit(InferenceRequest("e", x)) for _ in range(8)]
    await asyncio.wait_for(repository.close(), 60)
    for answer in await asyncio.gather(*futures, return_exceptions=True):
        if isinstance(answer, BaseException):
            assert isinstance(answer, UnavailableError)
            assert str(answer).startswith("in ensemble 'e', model 'm' ")
        else:
            assert answer.outputs["y"][0, 0] == np.float32(3.0**20)


async def test_nested_ensembles_ask_a_limited_number_of_models(tmp_path: Path) -> None:
    write_model(tmp_path, "m", "max_batch_size: 4", v1=affine(3))
    inner = "m"
    for index in range(10):
        write_ensemble(tmp_path, f"e{index}", chain(inner, inner))
        inner = f"e{index}"
    repository = Bench().repository(tmp_path)
    await repository.open()
    # e0 asks 1 + 2 models, e1 asks 1 + 2 * 3, and so on: e8 asks 2^10 - 1.
    assert [repository.get(f"e{index}").config.num_runs for index in range(9)] == [2**n - 1 for n in range(2, 11)]
    with pytest.raises(UnavailableError, match="ensemble 'e9' asks 2047 models for each request.* the limit is 1024"):
        repository.get("e9")
    await repository.close()


async def test_ensembles_are_nested_to_a_limited_depth(tmp_path: Path) -> None:
    write_model(tmp_path, "m", "max_batch_size: 4", v1=affine(3))
    inner = "m"
    for level in range(1, 67):
        write_ensemble(tmp_path, f"e{level}", chain(inner))
        inner = f"e{level}"
    repository = Bench().repository(tmp_path)
    await repository.open()
    answer = await repository.get("e64").submit(InferenceRequest("e64", {"x": np.ones((1, 4), np.float32)}))
    assert answer.outputs["y"][0, 0] == 3
    with pytest.raises(UnavailableError, match="ensemble 'e65' has 65 levels of ensembles.* the limit is 64"):
        repository.get("e66")
    await repository.close()


async def test_a_request_has_the_time_limit_of_its_ensembles_config(tmp_path: Path) -> None:
    write_model(
        tmp_path, "m", "max_batch_size: 4 dynamic_batching { max_queue_delay_microseconds: 60000000 }", v1=affine(3)
    )
    limit = 'parameters { key: "run_timeout_secs" value { string_value: "0.05" } }'
    write_ensemble(tmp_path, "e", chain("m", "m") + limit)
    repository = Bench().repository(tmp_path)
    await repository.open()
    future = repository.get("e").submit(InferenceRequest("e", {"x": np.ones((1, 4), np.float32)}))
    with pytest.raises(
        UnavailableError, match="ensemble 'e' did not answer within 0.05 s, and its steps were cancelled"
    ):
        await asyncio.wait_for(future, 60)
    assert repository.get("m").statistics.num_pending == 0
    await repository.close()
