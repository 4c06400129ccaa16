"""The server over a real repository."""

from pathlib import Path

import numpy as np
import pytest

from support.repositories import Bench, affine, write_model
from triune.core.errors import InvalidArgumentError
from triune.core.requests import CheckCache, InferenceRequest, RequestedOutput
from triune.repository.settings import ControlMode
from triune.serving.server import Server


def request(check_cache: CheckCache | None, *, num_columns: int = 4, num_classes: int = 0) -> InferenceRequest:
    x = np.ones((1, num_columns), np.float32)
    return InferenceRequest("m", {"x": x}, outputs=(RequestedOutput("y", num_classes),), check_cache=check_cache)


async def test_what_was_found_of_alike_requests_ends_with_the_model_they_were_checked_against(tmp_path: Path) -> None:
    bench = Bench()
    write_model(tmp_path, "m", v1=affine(2.0))
    repository = bench.repository(tmp_path, mode=ControlMode.EXPLICIT, startup_models=["m"])
    await repository.open()
    server, alike = Server(repository), CheckCache()
    for _ in range(3):
        assert (await server.infer(request(alike))).outputs["y"].tolist() == [[2.0] * 4]
    assert alike.result is not None
    write_model(tmp_path, "m", v1=affine(3.0, ("batch", 5)))
    await server.load("m")
    with pytest.raises(InvalidArgumentError, match=r"Expected \[-1,5\] .*, got \[1,4\]"):
        server.infer(request(alike))
    assert (await server.infer(request(CheckCache(), num_columns=5))).outputs["y"].tolist() == [[3.0] * 5]
    await repository.close()


async def test_alike_requests_are_each_classified(tmp_path: Path) -> None:
    bench = Bench()
    write_model(tmp_path, "m", v1=affine(2.0))
    repository = bench.repository(tmp_path)
    await repository.open()
    server, alike = Server(repository), CheckCache()
    for _ in range(3):
        answer = await server.infer(request(alike, num_classes=1))
        assert answer.outputs["y"].tolist() == [[b"2.000000:0"]]
    await repository.close()


async def test_alike_requests_are_each_checked_if_the_first_was_wrong(tmp_path: Path) -> None:
    bench = Bench()
    write_model(tmp_path, "m", v1=affine(2.0))
    repository = bench.repository(tmp_path)
    await repository.open()
    server, alike = Server(repository), CheckCache()
    for _ in range(3):
        with pytest.raises(InvalidArgumentError, match="shape"):
            server.infer(request(alike, num_columns=5))
    await repository.close()
