"""A small file from which gigabytes of constants follow takes no such memory when it is loaded."""

import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from support.graphs import model_of
from triune.core.errors import UnsupportedError
from triune.core.units import Presence, Unit, UnitStatus
from triune.runtimes.registry import available

LONG = 1 << 27
TEXT = f"""g (float[1] x) => (float[1] y) {{
    half = Constant <value = float {{{LONG // 2}}}> ()  two = Constant <value = float {{2}}> ()
    zero = Constant <value = float {{0}}> ()  one = Constant <value = float {{1}}> ()
    end = Mul(half, two)  r = Range(zero, end, one)  s = Mul(r, x)  m = ReduceMax <keepdims = 0> (s)  y = Add(m, x)
}}"""
UNITS = [UnitStatus(Unit.CPU, Presence.PRESENT), UnitStatus(Unit.GPU, Presence.EMULATED)]


REFUSALS = {
    "openvino": rf"values .* take {4 * LONG + 4} bytes, .* raise the environment variable TRIUNE_FOLDED_BYTES",
    "mlx": f"a vector of {LONG} elements, and one that a model makes has at most",
}


@pytest.mark.parametrize(
    ("backend", "unit"), [("onnxruntime", Unit.CPU), ("openvino", Unit.CPU), ("mlx", Unit.GPU)], ids=str
)
def test_it_is_not_made_at_the_load(backend: str, unit: Unit, tmp_path: Path) -> None:
    runtimes = available(UNITS, run_bytes=4 << 30)
    if backend not in runtimes:
        pytest.skip("it is not installed")
    path = tmp_path / "model.onnx"
    onnx.save(model_of(TEXT, opset=18), path)
    before = psutil.Process().memory_info().rss
    if backend in REFUSALS:
        with pytest.raises(UnsupportedError, match=REFUSALS[backend]):
            runtimes[backend].load(path, unit=unit, num_threads=1, options={})
        assert psutil.Process().memory_info().rss - before < 2 * LONG
        return
    executable = runtimes[backend].load(path, unit=unit, num_threads=1, options={})
    assert psutil.Process().memory_info().rss - before < 2 * LONG
    found = executable.run({"x": np.ones(1, np.float32)}, ["y"])["y"]
    # ONNX Runtime counts in fp32, in which nothing comes after 2**24.
    assert found.item() == 1 << 24
    # Its memory is given back soon.
    del found
    until = time.monotonic() + 60
    while psutil.Process().memory_info().rss - before > 2 * LONG:
        assert time.monotonic() < until
        time.sleep(0.05)
    executable.close()
