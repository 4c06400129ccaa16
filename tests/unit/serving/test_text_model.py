"""Text models of a server: who gets one, and what of the others."""

from pathlib import Path

import numpy as np
import pytest

from support.repositories import affine, write_model
from support.text_models import write_text_model
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError, NotFoundError, UnavailableError, UnsupportedError
from triune.core.requests import InferenceRequest
from triune.engine.generation import Generation
from triune.repository.repository import Repository
from triune.repository.settings import RepositorySettings
from triune.runtimes.machine import this_machine
from triune.serving.server import Server

pytest.importorskip("openvino")


async def test_a_server_gives_text_models_and_no_others(tmp_path: Path) -> None:
    write_text_model(tmp_path / "tiny" / "1")
    write_model(tmp_path, "tensors", v1=affine(2.0))
    repository = Repository(RepositorySettings(folders=(tmp_path,)), this_machine(), MonotonicClock())
    await repository.open()
    server = Server(repository)
    model = server.text_model("tiny")
    request = Generation("hello", max_tokens=5, is_end_ignored=True)
    assert len([token async for delta in model.generate(request) for token in delta.tokens]) == 5
    assert server.text_model("tiny", 1) is model
    assert server.model("tiny").statistics.success.count == 1
    with pytest.raises(InvalidArgumentError, match=r"'tensors' does not generate text: it takes the tensors x: FP32"):
        server.text_model("tensors")
    with pytest.raises(NotFoundError):
        server.text_model("other")
    inference = InferenceRequest("tiny", {"text_input": np.array([b"hello"], np.object_)})
    with pytest.raises(UnsupportedError, match="decoupled"):
        server.infer(inference)
    responses = [each async for each in server.stream(inference)]
    assert responses[0].outputs["text_output"][0].startswith(b"hello")
    await server.drain()
    with pytest.raises(UnavailableError, match="stopping"):
        server.text_model("tiny")
    await repository.close()
    with pytest.raises(UnavailableError, match="unloaded"):
        await anext(model.generate(Generation("hello")))
