"""The rate of int8 over bf16 in OpenVINO itself, for a stack of nothing but products and Relu: what a model can gain.

Usage: int8_ceiling.py [--rounds 25]

Each product is [rows, width] by [width, width] with random weights, int8 with one scale; activations are quantized once
between two products. Both forms of a stack take turns, call by call, on one thread. Printed are medians of the CPU time
of a call, which hold on a machine that others use.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np
import openvino
from openvino import opset13

from servers import heading

STACKS = ((128, 768, 8), (1024, 768, 8), (512, 2048, 4), (1024, 4096, 2), (2048, 4096, 2))
"""Rows, width, and the number of products."""

SETTINGS = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
HIGH = 4.0
"""The largest activation that is not clipped."""


def number(value: float) -> Any:
    return opset13.constant(np.array(value, np.float32))


def stack(rows: int, width: int, count: int, *, is_int8: bool) -> openvino.Model:
    """The products, one after the other, in fp32 or with weights and activations of int8."""
    rng = np.random.default_rng(0)
    x = value = opset13.parameter([rows, width], np.float32)
    for _ in range(count):
        weights = (rng.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32)
        constant: Any = opset13.constant(weights)
        if is_int8:
            step = float(np.abs(weights).max()) / 127
            codes = opset13.constant(np.clip(np.rint(weights / step), -127, 127).astype(np.int8))
            constant = opset13.multiply(opset13.convert(codes, np.float32), number(step))
            low, high = number(-HIGH), number(HIGH * 127 / 128)
            value = opset13.fake_quantize(value, low, high, low, high, 256)
        value = opset13.relu(opset13.matmul(value, constant, False, True))
    return openvino.Model([opset13.result(value)], [x])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    print(heading("int8_ceiling.py"))
    core = openvino.Core()
    for rows, width, count in STACKS:
        models = [
            core.compile_model(stack(rows, width, count, is_int8=each), "CPU", SETTINGS) for each in (False, True)
        ]
        requests = [each.create_infer_request() for each in models]
        x = np.random.default_rng(1).standard_normal((rows, width)).astype(np.float32)
        times: list[list[float]] = [[], []]
        for _ in range(options.rounds + 3):
            for place, request in enumerate(requests):
                begin = time.process_time()
                request.infer([x])
                times[place].append(time.process_time() - begin)
        # The first calls warm up.
        bf16, int8 = (1e3 * statistics.median(each[3:]) for each in times)
        print(
            f"{rows:5} x {width:5}, {count} products  bf16 {bf16:7.2f} ms  int8 {int8:7.2f} ms  rate {bf16 / int8:.2f}"
        )


if __name__ == "__main__":
    main()
