from pathlib import Path

import pytest

from triune.hardware.nvidia import read_nvidia

INFORMATION = """Model: \t\t {}
IRQ:   \t\t 42
GPU UUID: \t GPU-00000000-0000-0000-0000-000000000000
"""


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ([], ""),
        (["NVIDIA H200"], "NVIDIA H200"),
        (["NVIDIA H200", "NVIDIA H200"], "2 x NVIDIA H200"),
        (["NVIDIA L4", "NVIDIA H200"], "NVIDIA L4, NVIDIA H200"),
    ],
)
def test_gpus_are_those_of_the_driver(models: list[str], told: str, tmp_path: Path) -> None:
    for index, model in enumerate(models):
        (tmp_path / f"0000:0{index}:00.0").mkdir()
        (tmp_path / f"0000:0{index}:00.0" / "information").write_text(INFORMATION.format(model))
    assert read_nvidia(tmp_path) == told


def test_a_file_that_names_no_model_is_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "information").write_text("Bus Location: 0000:00:05.0\n")
    assert read_nvidia(tmp_path) == ""
    assert read_nvidia(tmp_path / "none") == ""
