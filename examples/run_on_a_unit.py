"""Run a model on one unit of this machine, by the unit's name.

python examples/run_on_a_unit.py demo/minilm/1/model.onnx cpu
"""

import argparse
import time
from pathlib import Path

import numpy as np

import triune


def main() -> None:
    """Embed a sentence of 12 tokens on the unit, and print what it computes in and how long a call takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="MiniLM as ONNX")
    parser.add_argument("unit", help="cpu, amx, gpu or ane")
    options = parser.parse_args()
    ids = np.array([[101, 1037, 4937, 7719, 2006, 1996, 13523, 1998, 25175, 2015, 1012, 102]])
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    with triune.load(options.model, unit=options.unit) as model:
        embedding = model.run(inputs)["sentence_embedding"]
        times = []
        for _ in range(20):
            began = time.perf_counter()
            model.run(inputs)
            times.append(time.perf_counter() - began)
        print(model)
    print(f"{embedding.shape[1]} numbers, the first {embedding[0, 0]:.4f}; {np.median(times) * 1e3:.2f} ms a call")


if __name__ == "__main__":
    main()
