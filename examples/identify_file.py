"""What kind of file is this? Magika over HTTP, answered with labels by the classification extension.

    python examples/identify_file.py FILE...

All files go in one request, a row each (32 at most).
"""

import argparse
from pathlib import Path

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from triune.zoo.magika import BLOCK_BYTES, NUM_BYTES, PADDING


def main() -> None:
    """Send what the model reads of each file, and print its likeliest kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--url", default="127.0.0.1:8000")
    options = parser.parse_args()

    rows = np.array([read_row(path) for path in options.files], np.int32)
    tensor = InferInput("bytes", list(rows.shape), "INT32")
    tensor.set_data_from_numpy(rows)
    wanted = InferRequestedOutput("target_label", class_count=1)
    with InferenceServerClient(options.url) as client:
        result = client.infer("magika", [tensor], outputs=[wanted])
    for path, (answer,) in zip(options.files, result.as_numpy("target_label"), strict=True):
        probability, _, label = answer.decode().split(":", 2)
        print(f"{path}: {label} ({float(probability):.0%})")


def read_row(path: Path) -> list[int]:
    """The file's first and last bytes without the white space outside, 1024 each; 256 stands where there is none."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        begin = file.read(BLOCK_BYTES)
        file.seek(max(0, size - BLOCK_BYTES))
        end = file.read(BLOCK_BYTES)
    if size <= BLOCK_BYTES:
        begin = end = begin.strip()
    first, last = list(begin.lstrip()[:NUM_BYTES]), list(end.rstrip()[-NUM_BYTES:])
    return [*first, *[PADDING] * (NUM_BYTES - len(first)), *[PADDING] * (NUM_BYTES - len(last)), *last]


if __name__ == "__main__":
    main()
