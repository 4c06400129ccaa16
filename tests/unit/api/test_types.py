"""The public names as an editor sees them: pyright's own word for each."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SEEN = {
    "triune.load('m.onnx', 'cpu')": "UnitModel",
    "triune.load('m.onnx', units=['ane', 'cpu']).run({'x': [1]})": "dict[str, Any]",
    "triune.load('m.onnx').unit": "Unit",
    "triune.load('m.onnx').signature.inputs": "tuple[TensorSpec, ...]",
    "triune.load('m.onnx').make_state()": "State",
    "triune.predict('m.onnx', {'x': [1]})": "dict[str, Any]",
    "triune.convert('m.onnx', 'm.mlpackage', precision='fp16', shapes={'x': (1, (1, 8))}).path": "Path | None",
    "triune.convert('m.onnx', 'm.mlpackage').verdict": "Verdict | None",
    "triune.compress('m.onnx', 's.onnx', weights='int8').report.agreement": "float",
    "triune.units()": "Sequence[UnitFacts]",
    "triune.coreml.load('m.mlpackage').predict({'x': 1})": "dict[str, Any]",
    "triune.InvalidArgumentError('why')": "InvalidArgumentError",
}


def test_public_names_have_types(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    lines = ["import triune", "import triune.coreml", *(f"reveal_type({code})" for code in SEEN)]
    lines += ["with triune.load('m.onnx') as model:", "    reveal_type(model)", "triune.load('m.onnx', 1)"]
    (tmp_path / "user.py").write_text("\n".join(lines))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(tmp_path / "user.py")]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False).stdout
    found = re.findall(r'Type of ".*?" is "(.*?)"$', shown, re.MULTILINE)
    assert found == [*SEEN.values(), "UnitModel"], shown
    # The one mistake is seen, and nothing else.
    assert len(re.findall(r" - error: ", shown)) == 1, shown
