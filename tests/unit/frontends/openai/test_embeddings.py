"""What an answer with embeddings tells of itself."""

from triune.core.energy import Bill
from triune.core.units import Unit
from triune.engine.generation import Placement
from triune.frontends.openai.embeddings import embedding_report

PLACEMENTS = (
    Placement(Unit.CPU, "onnxruntime", "fp32", "it was expected to answer first"),
    Placement(Unit.AMX, "openvino", "bf16", "it was expected to answer first"),
)


async def test_the_unit_is_the_one_that_computed_the_most_inputs() -> None:
    bill = Bill()
    bill.ran_on(Unit.CPU, 2)
    bill.ran_on(Unit.AMX, 3)
    bill.ran_on(Unit.AMX, 1)
    report = await embedding_report(PLACEMENTS, bill)
    assert (report["unit"], report["runtime"], report["precision"]) == ("amx", "openvino", "bf16")
    assert report["units"] == {"cpu": 2, "amx": 4}


async def test_of_one_unit_there_are_no_parts() -> None:
    bill = Bill()
    bill.ran_on(Unit.AMX, 3)
    report = await embedding_report(PLACEMENTS, bill)
    assert report["unit"] == "amx"
    assert "units" not in report
