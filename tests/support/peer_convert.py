"""A program for the Python of another project's converter (a "peer"): converts every model in a folder, and prints the
result of each.

Usage: peer_convert.py PEER FOLDER. Reads NAME.onnx; writes NAME.mlpackage with onnx2coreml, NAME.aimodel with
coreai_onnx; prints `NAME: ` and the reason of a failure, if it failed.
"""

import importlib
import logging
import sys
import warnings
from pathlib import Path

logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")

PEERS = {
    "onnx2coreml": (".mlpackage", lambda peer, path, to: peer.convert(path, compute_precision="fp32").save(str(to))),
    "coreai_onnx": (".aimodel", lambda peer, path, to: peer.convert(path).save_asset(to)),
}

suffix, convert = PEERS[sys.argv[1]]
peer = importlib.import_module(sys.argv[1])  # The peer prints log messages and warnings when it is imported.

for path in sorted(Path(sys.argv[2]).glob("*.onnx")):
    target = path.with_suffix(suffix)
    if target.exists():
        continue
    print(f"{path.stem}: ", end="", flush=True)
    try:
        convert(peer, str(path), target)
        print(flush=True)
    except Exception as error:
        print(" ".join(f"{type(error).__name__}: {error}".split())[:200], flush=True)
