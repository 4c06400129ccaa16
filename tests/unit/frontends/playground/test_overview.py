"""What the page learns of models: which classify pictures, and what is told of those that do not run."""

import asyncio
from typing import Any

import pytest

from support.configs import model_config
from support.page_models import CountedTable, PageModels
from support.table_servable import TableServable
from triune.config.model_config import TensorConfig
from triune.core.datatypes import DataType
from triune.frontends.playground.overview import image_input, overview
from triune.protos.model_config_pb2 import ModelInput
from triune.repository.model import IndexEntry, ModelState
from triune.scheduling.models import LoadedVersion

LABELLED = TensorConfig("scores", DataType.FP32, (2,), labels=("cat", "dog"))


def classifier(dims: tuple[int, ...], form: int, batch: int = 8, **changes: Any) -> LoadedVersion:
    """A version with an input `x` of these dims and this format."""
    inputs = changes.pop("inputs", [TensorConfig("x", changes.pop("datatype", DataType.FP32), dims)])
    config = model_config(inputs, changes.pop("outputs", [LABELLED]), max_batch_size=batch, **changes)
    config.message.input.add(name="x", format=form)  # type: ignore[arg-type]
    return LoadedVersion(1, config, TableServable())


@pytest.mark.parametrize(
    ("dims", "form", "batch", "shape", "layout"),
    [
        ((3, 4, 6), ModelInput.FORMAT_NCHW, 8, [1, 3, 4, 6], "NCHW"),
        ((4, 6, 3), ModelInput.FORMAT_NHWC, 0, [4, 6, 3], "NHWC"),
    ],
)
def test_a_model_that_classifies_pictures(
    dims: tuple[int, ...], form: int, batch: int, shape: list[int], layout: str
) -> None:
    expected = {"input": "x", "shape": shape, "layout": layout, "height": 4, "width": 6, "output": "scores"}
    assert image_input(classifier(dims, form, batch)) == expected


@pytest.mark.parametrize(
    "version",
    [
        classifier((3, 4, 6), ModelInput.FORMAT_NONE),
        classifier((4, 6, 3), ModelInput.FORMAT_NCHW),
        classifier((1, 4, 6), ModelInput.FORMAT_NCHW),
        classifier((3, -1, 6), ModelInput.FORMAT_NCHW),
        classifier((3, 24), ModelInput.FORMAT_NCHW),
        classifier((3, 4, 6), ModelInput.FORMAT_NCHW, datatype=DataType.UINT8),
        classifier((3, 4, 6), ModelInput.FORMAT_NCHW, outputs=[TensorConfig("scores", DataType.FP32, (2,))]),
        classifier(
            (3, 4, 6), ModelInput.FORMAT_NCHW, outputs=[LABELLED, TensorConfig("b", DataType.FP32, (1,), labels=("x",))]
        ),
        classifier((3, 4, 6), ModelInput.FORMAT_NCHW, is_decoupled=True),
        classifier((), ModelInput.FORMAT_NCHW, inputs=[TensorConfig(name, DataType.FP32, (3, 4, 6)) for name in "xy"]),
    ],
)
def test_models_that_take_something_else(version: LoadedVersion) -> None:
    assert image_input(version) is None


async def test_every_model_is_told_with_what_is_known_of_it() -> None:
    document = await overview(PageModels({"teller": CountedTable({}), "mute": CountedTable({}, can_chat=False)}))
    assert document["server"] == {"name": "triune", "version": "9.8.7"}
    teller, mute, adder, broken, idle = document["models"]
    assert (teller["kinds"], mute["kinds"], adder["kinds"]) == (["chat"], ["text"], [])
    assert (teller["tokens"], teller["context_tokens"]) == (0, 4096)
    assert adder["units"][0] == {
        "unit": "amx",
        "precision": "bf16",
        "is_emulated": True,
        "inferences": 0,
        "busy_seconds": 0,
        "error": None,
        "energy": {"kind": "unavailable", "reason": "the server does not meter energy (--energy-interval-ms 0)"},
    }
    assert [each["unit"] for each in adder["placement"]["segments"]] == ["amx", "cpu"]
    assert (adder["requests"], adder["request_seconds"], adder["failures"]) == (3, 0.006, {"REJECTED": 1})
    assert (broken["state"], "requests" in broken) == ("UNAVAILABLE", False)
    assert (idle["state"], idle["version"]) == (None, None)


async def test_thousands_of_models_leave_the_loop_to_others() -> None:
    class Many(PageModels):
        def last_index(self, *, is_ready_only: bool = False) -> list[IndexEntry]:
            return [IndexEntry(f"m{number}", 1, ModelState.LOADING) for number in range(1000)]

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert len((await overview(Many({})))["models"]) == 1000
    task.cancel()
    assert turns >= 10
