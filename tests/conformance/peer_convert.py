"""Run by the peer's own Python: converts every model of a folder with onnx2coreml, and says what came of each.

Usage: peer_convert.py FOLDER. Reads NAME.onnx, writes NAME.mlpackage; prints `NAME: ` and the reason of a failure.
"""

import logging
import sys
import warnings
from pathlib import Path

logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")

import onnx2coreml  # noqa: E402 - its imports log and warn

for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    target = path.with_suffix(".mlpackage")
    if target.exists():
        continue
    print(f"{path.stem}: ", end="", flush=True)
    try:
        onnx2coreml.convert(str(path), compute_precision="fp32").save(str(target))
        print(flush=True)
    except Exception as error:
        print(" ".join(f"{type(error).__name__}: {error}".split())[:200], flush=True)
