"""What coremltools does with the gates open: the files of `inside`, in a process of their own, through the plugin.

The rest of the suite never runs with the gates open.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "inside"


def test_inside(tmp_path: Path) -> None:
    files = [str(each) for each in sorted(FOLDER.glob("check_*.py"))]
    assert len(files) == 4
    command = [sys.executable, "-m", "pytest", "-p", "triune.coreml.pytest_plugin", "-p", "no:cacheprovider", "-v"]
    done = subprocess.run([*command, *files], capture_output=True, text=True, cwd=tmp_path, timeout=110)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    # The header says whose answers these are.
    assert "coremltools predicts with Triune (onnxruntime), not with Core ML" in done.stdout


def test_a_quiet_run_says_whose_answers_these_are(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_one(): pass\n")
    command = [sys.executable, "-m", "pytest", "-p", "triune.coreml.pytest_plugin", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=110)
    assert done.stdout.count("not Core ML's") == 1
