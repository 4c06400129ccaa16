"""Every block of docs/coreml.md runs, in its order, in one folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "coreml.md"
BLOCKS = re.findall(r"^```(bash|python)(?: title=\"(.+?)\")?\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.timeout(300)
def test_the_blocks_run_in_order(tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    outputs: list[str] = []
    for language, title, code in BLOCKS:
        if title:
            (tmp_path / title).write_text(code)
            continue
        command = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert result.returncode == 0, f"{code}\n{result.stdout}\n{result.stderr}"
        outputs.append(result.stdout)
    assert any("largest error" in output for output in outputs)
    assert any("1 passed" in output for output in outputs)
