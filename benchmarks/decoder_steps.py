"""Steps of OpenVINO's decoder in each of its forms, in turn in one process: sequences decoded together, and prompts.

Usage: decoder_steps.py FILE.gguf [--steps 1,8,32,p512] [--rounds 9] [--threads 2] [--cpu-time]
STEPS: 8 is a step of 8 sequences with one new token each behind 96 others; p512 a prompt of 512 tokens.
With --cpu-time the CPU's time is measured instead of the clock's: other work of the machine changes it less. Take one
thread then: several wait for each other, and that counts.

Printed are tokens a second in the median, and how many times as fast as the first form a step is: the median of the
ratios of neighbouring runs. The last line says how a decoder without options chooses.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from triune.core.decoder import DecoderStep
from triune.core.units import Unit
from triune.engine.models import write_model
from triune.engine.weights.open import open_checkpoint
from triune.runtimes.openvino import program
from triune.runtimes.openvino.decoder import OpenVinoDecoder, has_bf16

PAST = 96
BLOCK = 32
NUM_BLOCKS = 320


def step_of(text: str) -> DecoderStep:
    """The step of this name."""
    is_prompt = text.startswith("p")
    count, length, past = (1, int(text[1:]), 0) if is_prompt else (int(text), 1, PAST)
    per_sequence = -(-(past + length) // BLOCK)
    begins = np.arange(count + 1, dtype=np.int32)
    return DecoderStep(
        np.random.default_rng(7).integers(100, 1000, count * length),
        np.tile(np.arange(past, past + length), count),
        np.full(count, past, np.int32),
        begins * np.int32(length),
        np.arange(count * per_sequence, dtype=np.int32),
        begins * np.int32(per_sequence),
        begins[1:].astype(np.int64) * length - 1,
    )


def forms(load: Callable[..., OpenVinoDecoder]) -> dict[str, OpenVinoDecoder]:
    """The decoders to compare, all of them with a cache in 8 bits."""
    found = {"bf16": load(precision="bf16")} if has_bf16() else {}
    found["fp32"] = load(precision="fp32", is_exact=True)
    found["8-bit activations"] = load(precision="fp32")
    whole = program.make_zero_points_whole
    program.make_zero_points_whole = lambda _: 0
    found["zero points as they are"] = load(precision="fp32")
    program.make_zero_points_whole = whole
    return found


def median_ratio(one: list[float], other: list[float]) -> float:
    """The median of the ratios of times that were measured next to each other."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def main() -> None:
    """Measure each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", default="1,8,32,p512")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    checkpoint = open_checkpoint(options.file, inexact="offsets")
    model = write_model(checkpoint.config, checkpoint, "paged")

    def load(**form: object) -> OpenVinoDecoder:
        return OpenVinoDecoder(
            model, unit=Unit.CPU, num_threads=options.threads, num_blocks=NUM_BLOCKS, cache_type="int8", **form
        )

    clock = time.process_time if options.cpu_time else time.perf_counter
    decoders = forms(load)
    for text in options.steps.split(","):
        step = step_of(text)
        num_tokens = len(step.input_ids)
        repeats = max(1, 32 // num_tokens)
        times: dict[str, list[float]] = {name: [] for name in decoders}
        for turn in range(options.rounds + 1):
            for name, decoder in decoders.items():
                begin = clock()
                for _ in range(repeats):
                    decoder.run(step)
                if turn:  # the first one makes kernels
                    times[name].append((clock() - begin) / repeats)
        first = next(iter(times.values()))
        parts = [
            f"{name} {num_tokens / statistics.median(each):7.1f} ({median_ratio(first, each):.2f})"
            for name, each in times.items()
        ]
        print(f"{text:>5}: {', '.join(parts)}", flush=True)
    chosen = load()
    print(f"chosen: fp32 up to {chosen.num_few_tokens} tokens, {chosen.precision} for longer steps")


if __name__ == "__main__":
    main()
