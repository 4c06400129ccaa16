"""Run by the peer's own Python: converts every model of a folder with coreai-onnx, and says what came of each.

Usage: peer_convert_coreai.py FOLDER. Reads NAME.onnx, writes NAME.aimodel; prints `NAME: ` and the reason of a failure.
"""

import logging
import sys
import warnings
from pathlib import Path

logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")

import coreai_onnx  # noqa: E402 - its imports log and warn

for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    target = path.with_suffix(".aimodel")
    if target.exists():
        continue
    print(f"{path.stem}: ", end="", flush=True)
    try:
        coreai_onnx.convert(str(path)).save_asset(target)
        print(flush=True)
    except Exception as error:
        print(" ".join(f"{type(error).__name__}: {error}".split())[:200], flush=True)
