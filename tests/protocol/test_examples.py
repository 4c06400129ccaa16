"""The examples that need no server: they load the zoo's models themselves."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.text_models import write_text_model
from triune.backends.transformer.backend import missing_for_transformers

ROOT = Path(__file__).parents[2]

needs_transformers = pytest.mark.skipif(bool(missing_for_transformers()), reason=missing_for_transformers())


def example(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True).stdout


def test_a_model_runs_on_a_unit_by_name(models: Path) -> None:
    text = example("run_on_a_unit.py", models / "minilm" / "1" / "model.onnx", "cpu")
    assert "on cpu (fp32)" in text
    assert "384 numbers" in text


@needs_transformers
def test_text_is_generated_with_a_configured_cache(tmp_path: Path) -> None:
    # A small model: the compilation of a real one takes most of the time, and test_text_models.py has what that says.
    model = write_text_model(tmp_path / "tiny", max_position_embeddings=1024)
    text = example("generate_text.py", model, "The capital of France is")
    assert text.startswith("The capital of France is")
    assert "24 tokens in" in text


@needs_transformers
def test_triune_places_a_product_a_convolution_and_a_transformer(models: Path) -> None:
    text = example("place_by_itself.py", models / "smollm2" / "1" / "model.gguf", "--chip", "m2-pro")
    parts = re.split(r"^a ", text, flags=re.M)[1:]
    first_units = [each.splitlines()[1].split(":")[0].strip() for each in parts]
    assert first_units == ["amx", "ane", "gpu", "gpu"]
    assert "ane refuses" in parts[2]
    assert all("predicted" in each and "all on gpu" in each for each in parts)
