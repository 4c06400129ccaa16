"""A model and another model's LoRA adapter that have one name: what is loaded first keeps it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.repositories import affine, write_model
from support.text_models import write_adapter, write_text_model
from triune.app import make_repository
from triune.backends.transformer.backend import missing_for_transformers
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.engine.servable import TextServable
from triune.frontends.text.models import text_model_of
from triune.repository.model import ModelState
from triune.repository.names import with_bases_first
from triune.repository.repository import Repository
from triune.repository.settings import ControlMode, RepositorySettings
from triune.serving.server import Server

if reason := missing_for_transformers():
    pytest.skip(reason, allow_module_level=True)

READY, UNAVAILABLE = ModelState.READY, ModelState.UNAVAILABLE
UNITS = 'parameters { key: "units" value { string_value: "cpu" } }\n'
ADAPTER = "the LoRA adapter 'poet' of the model 'tiny'"


def write_base(root: Path, *adapters: str) -> None:
    folder = write_text_model(root / "tiny" / "1")
    (root / "tiny" / "config.pbtxt").write_text(UNITS)
    for each in adapters:
        write_adapter(folder / "adapters" / each)


def write_other(root: Path) -> None:
    write_model(root, "tiny:poet", v1=affine())


@asynccontextmanager
async def opened(root: Path, mode: ControlMode, *startup_models: str) -> AsyncIterator[Repository]:
    repository = make_repository(
        RepositorySettings((root,), control_mode=mode, startup_models=startup_models, poll_seconds=1e6)
    )
    await repository.open()
    try:
        yield repository
    finally:
        await repository.close()


async def requested(repository: Repository, name: str) -> tuple[object, str | None]:
    """The model that clients of the APIs for text get by a name, and its adapter."""
    return await text_model_of(Server(repository), name)


def reasons(repository: Repository) -> dict[str, tuple[ModelState | None, str]]:
    return {each.name: (each.state, each.reason) for each in repository.index()}


async def test_a_model_does_not_take_the_name_of_an_adapter(tmp_path: Path) -> None:
    write_base(tmp_path, "poet")
    async with opened(tmp_path, ControlMode.EXPLICIT, "tiny") as repository:
        model, adapter = await requested(repository, "tiny:poet")
        assert adapter == "poet"
        write_other(tmp_path)
        for _ in range(2):
            with pytest.raises(
                InvalidArgumentError,
                match=f"failed to load 'tiny:poet': requests for 'tiny:poet' are answered by {ADAPTER}, and would be "
                "requests for the model 'tiny:poet', too: rename one of them, or unload the model that has the name",
            ):
                await repository.load("tiny:poet")
            assert await requested(repository, "tiny:poet") == (model, "poet")
        await repository.load("tiny")
        await repository.unload("tiny")
        await repository.load("tiny:poet")
        assert repository.is_ready("tiny:poet")


async def test_an_adapter_does_not_take_the_name_of_a_model(tmp_path: Path) -> None:
    write_base(tmp_path)
    write_other(tmp_path)
    async with opened(tmp_path, ControlMode.EXPLICIT, "*") as repository:
        model, _ = await requested(repository, "tiny")
        write_base(tmp_path, "bard", "poet")
        with pytest.raises(
            InvalidArgumentError,
            match="failed to load 'tiny': .*'tiny:poet' are answered by the model 'tiny:poet', and would be requests "
            f"for {ADAPTER}, too",
        ):
            await repository.load("tiny")
        assert await requested(repository, "tiny") == (model, None), "what was loaded before serves on"
        assert repository.is_ready("tiny:poet")
        await repository.unload("tiny:poet")
        await repository.load("tiny")
        assert (await requested(repository, "tiny:poet"))[1] == "poet"


async def test_at_the_start_models_come_before_what_has_a_name_of_theirs(tmp_path: Path) -> None:
    write_base(tmp_path, "poet")
    write_other(tmp_path)
    for mode, names in ((ControlMode.NONE, ()), (ControlMode.POLL, ()), (ControlMode.EXPLICIT, ("tiny:poet", "tiny"))):
        async with opened(tmp_path, mode, *names) as repository:
            state, reason = reasons(repository)["tiny:poet"]
            assert (state, ADAPTER in reason) == (UNAVAILABLE, True)
            assert (await requested(repository, "tiny:poet"))[1] == "poet"


@pytest.mark.parametrize("is_adapter_first", [True, False])
async def test_while_folders_are_polled(tmp_path: Path, *, is_adapter_first: bool) -> None:
    write_base(tmp_path, *(["poet"] if is_adapter_first else []))
    if not is_adapter_first:
        write_other(tmp_path)
    async with opened(tmp_path, ControlMode.POLL) as repository:
        if is_adapter_first:
            write_other(tmp_path)
        else:
            write_base(tmp_path, "poet")
        for _ in range(2):
            await repository.poll()
            if is_adapter_first:
                assert ADAPTER in reasons(repository)["tiny:poet"][1]
                assert (await requested(repository, "tiny:poet"))[1] == "poet"
            else:
                assert repository.is_ready("tiny:poet")
                assert isinstance(repository.get("tiny").servable, TextServable)
                assert not repository.get("tiny").servable.model.adapters  # type: ignore[attr-defined]


async def test_a_folder_that_is_not_loaded_hides_no_adapter(tmp_path: Path) -> None:
    write_base(tmp_path, "poet")
    write_other(tmp_path)
    async with opened(tmp_path, ControlMode.EXPLICIT, "tiny") as repository:
        assert (await requested(repository, "tiny:poet"))[1] == "poet"
        await repository.unload("tiny")
        with pytest.raises(UnavailableError, match="'tiny:poet' has no available versions: not loaded; load it first"):
            await requested(repository, "tiny:poet")


def test_what_may_be_the_name_of_an_adapter_comes_later() -> None:
    assert with_bases_first(["a:b:c", "b:a", "a", "a:b", "a"]) == (["b:a", "a"], ["a:b:c", "a:b"])
