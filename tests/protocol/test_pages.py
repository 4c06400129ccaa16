"""Every block of the pages on Core ML, Core AI and ensembles runs, in its order, in one folder a page."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(bash|python)(?: title=\"(.+?)\")?\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("page", "library", "told"),
    [
        ("coreml.md", "coremltools", ["verdict", "right", "1 passed"]),
        ("coreai.md", "coreai", ["verdict", "right", "interpreter"]),
        ("ensembles.md", "onnx", ["ensemble", "0.989967:1:green"]),
    ],
)
def test_the_blocks_run_in_order(page: str, library: str, told: list[str], tmp_path: Path) -> None:
    pytest.importorskip(library)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    outputs: list[str] = []
    for language, title, code in _BLOCK.findall((DOCS / page).read_text()):
        if title:
            (tmp_path / title).write_text(code)
            continue
        command = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert result.returncode == 0, f"{code}\n{result.stdout}\n{result.stderr}"
        outputs.append(result.stdout)
    for words in told:
        assert any(words in output for output in outputs)


_EXTRAS = {"torch": ("import torch", "model.pt2"), "skl2onnx": ("import sklearn", "from sklearn")}
"""Of libraries that may be missing, the words of the blocks that need them."""


@pytest.mark.timeout(600)
def test_the_blocks_on_frameworks_and_custom_operators_run(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    page = (DOCS / "frameworks.md").read_text()
    outputs: list[str] = []
    for language, title, code in re.findall(
        r"^```(sh|python)(?: title=\"(.+?)\")?\n(.*?)^```", page, re.DOTALL | re.MULTILINE
    ):
        if title:
            (tmp_path / title).write_text(code)
            continue
        absent = [name for name in _EXTRAS if importlib.util.find_spec(name) is None]
        if any(word in code for name in absent for word in _EXTRAS[name]):
            continue
        command = ["bash", "-euo", "pipefail", "-c", code] if language == "sh" else [sys.executable, "-c", code]
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert result.returncode == 0, f"{code}\n{result.stdout}\n{result.stderr}"
        outputs.append(result.stdout)
    told = "\n".join(outputs)
    assert "body and numpy function differ by" in told
    # Of 0.5, -1, 3 and 2: which is the smallest, and so on.
    assert re.search(r"1 0 3 2", told), told
