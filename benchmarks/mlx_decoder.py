"""The engine over MLX's decoder, and mlx-lm where it is installed, in turn: prefill, and decoding of n sequences.

Usage: mlx_decoder.py FILE.gguf [--precision bf16] [--rounds 3] [--tokens 64] [--batches 64,32,8,1] [--spread 0]
                      [--seconds S] [--no-prefill] [--plain] [--described] [--also NAME=VALUE ...] [--joules S]

Rates are tokens a second, medians of the rounds:
- prefill: 512 tokens of one prompt, until its first token is known;
- decode n: greedy continuations of n prompts of 64 tokens, without the time of the prompts. With --spread S, prompts
  are up to S tokens shorter, each by another number: MLX then needs a mask.

Each figure is printed as it comes; round 0, in which kernels are compiled, is not among them. With --seconds no
further round begins when that time is over: for machines that are lent for minutes. With --plain the engine reads each
step's tokens before it begins the next one; with --described no step is compiled as a whole.
Each peer has a process, of which one computes at a time. --also adds both with a variable of the environment, which MLX
reads when it starts: MLX_USE_CUDA_GRAPHS=0. With --joules S each decodes at each size for S seconds more, and the
tokens of a joule by NVML are printed: all energy of the GPU, that of the prompts too, over the tokens that were made.

mlx-lm has the same weights, quantized anew by its own function, to 4 bits in groups of 32.
"""

import argparse
import importlib.util
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from processes import Joules
from processes import Peer as Process

PREFILL, PROMPT = 512, 64

Peer = Callable[[np.random.Generator, list[int]], tuple[float, float]]
"""Reads prompts of these lengths and continues them: the seconds of the prompts, and of the tokens after the first."""


def triune(checkpoint: Any, precision: str, num_tokens: int, most: int, *, runs_ahead: bool, compiles: bool) -> Peer:
    """The engine, over a cache that holds all sequences."""
    from triune.core.clock import MonotonicClock
    from triune.engine.core import EngineCore
    from triune.engine.models import write_model
    from triune.engine.sampling.parameters import SamplingParameters
    from triune.engine.scheduler import SchedulerLimits
    from triune.engine.sequence import Ending
    from triune.runtimes.mlx.decoder import MlxDecoder

    num_blocks = most * -(-(max(PREFILL, PROMPT) + num_tokens) // 16)
    decoder = MlxDecoder(
        write_model(checkpoint.config, checkpoint, "paged"), num_blocks=num_blocks, precision=precision
    )
    decoder.can_run_ahead = runs_ahead
    decoder.compiled = decoder.compiled if compiles else None
    limits = SchedulerLimits(step_tokens=max(PREFILL, most * PROMPT), sequences=most)

    def run(rng: np.random.Generator, lengths: list[int]) -> tuple[float, float]:
        vocab_size = checkpoint.config.vocab_size
        engine = EngineCore(decoder, vocab_size, MonotonicClock(), limits)
        prompts = [rng.integers(100, vocab_size - 100, length).tolist() for length in lengths]
        begin = time.perf_counter()
        for prompt in prompts:
            engine.add(prompt, SamplingParameters(temperature=0), Ending(num_tokens))
        engine.step()
        read = time.perf_counter()
        while not engine.is_idle:
            engine.step()
        return read - begin, time.perf_counter() - read

    return run


def mlx_lm(checkpoint: Any, precision: str, num_tokens: int) -> Peer:
    """mlx-lm's own model and its generator of batches."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.models.llama import Model, ModelArgs

    config = checkpoint.config
    model = Model(
        ModelArgs(
            model_type="llama",
            hidden_size=config.hidden_size,
            num_hidden_layers=len(config.layers),
            intermediate_size=config.intermediate_size,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.rms_norm_eps,
            vocab_size=config.vocab_size,
            rope_theta=config.layers[0].rope.rope_theta,
            tie_word_embeddings=config.tie_word_embeddings,
        )
    )
    kind = {"fp32": mx.float32, "bf16": mx.bfloat16, "fp16": mx.float16}[precision]
    names = [name for name, _ in tree_flatten(model.parameters())]
    model.load_weights([(name, mx.array(checkpoint.tensor(name).dequantize()).astype(kind)) for name in names])
    nn.quantize(model, group_size=32, bits=4)
    mx.eval(model.parameters())

    def run(rng: np.random.Generator, lengths: list[int]) -> tuple[float, float]:
        ids = [rng.integers(100, config.vocab_size - 100, length).tolist() for length in lengths]
        count = len(ids)
        begin = time.perf_counter()
        generator = BatchGenerator(model, max_tokens=num_tokens, completion_batch_size=count, prefill_batch_size=count)
        left = set(generator.insert(ids))
        started: set[int] = set()
        read = begin
        while left:
            for response in generator.next_generated():
                started.add(response.uid)
                left -= {response.uid} if response.finish_reason else set()
            if len(started) == count and read == begin:
                read = time.perf_counter()
        return read - begin, time.perf_counter() - read

    return run


def serve(name: str, options: argparse.Namespace, most: int) -> Callable[[int, list[int]], tuple[float, float]]:
    """In a peer's process: reads random prompts of these lengths by a seed, and continues them, as `Peer` does."""
    from triune.engine.weights.open import open_checkpoint

    checkpoint = open_checkpoint(options.file, inexact="offsets")
    if name.startswith("mlx-lm"):
        run = mlx_lm(checkpoint, options.precision, options.tokens)
    else:
        compiles, runs_ahead = not options.described, not options.plain
        run = triune(checkpoint, options.precision, options.tokens, most, runs_ahead=runs_ahead, compiles=compiles)
    return lambda seed, lengths: run(np.random.default_rng([seed, len(lengths)]), lengths)


def peers(options: argparse.Namespace, most: int) -> dict[str, Process]:
    """Triune's engine, and mlx-lm where it is installed, also with other environments."""
    names = ["triune"] + ["mlx-lm"] * (importlib.util.find_spec("mlx_lm") is not None)
    return {
        f"{name} {also}".strip(): Process(
            serve, name, options, most, environment=dict([also.split("=", 1)]) if also else {}
        )
        for also in ["", *options.also]
        for name in names
    }


def joules(found: dict[str, Process], batches: list[int], options: argparse.Namespace) -> None:
    """Print the tokens of a joule."""
    meter = Joules()
    for count in batches:
        for name, process in found.items():

            def work(process: Process = process, count: int = count) -> float:
                begin, made = time.perf_counter(), 0
                while time.perf_counter() - begin < options.joules:
                    process(made, [PROMPT] * count)
                    made += count * options.tokens
                return made

            done, watts = meter.per_joule(work)
            print(f"decode {count}: {name}: {done:.2f} tokens a joule at {watts:.0f} W", flush=True)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batches", default="64,32,8,1")
    parser.add_argument("--spread", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--no-prefill", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--described", action="store_true")
    parser.add_argument("--also", nargs="*", default=[])
    parser.add_argument("--joules", type=float, default=0.0)
    options = parser.parse_args()
    began = time.perf_counter()
    batches = [int(each) for each in options.batches.split(",")]
    both = peers(options, max(batches))
    found: dict[str, dict[str, list[float]]] = {name: {} for name in both}
    kinds = [(f"decode {count}", count) for count in batches] + [(f"prefill {PREFILL}", 0)] * (not options.no_prefill)
    sizes = {
        count: [PROMPT - place % (options.spread + 1) for place in range(count)] or [PREFILL] for _, count in kinds
    }
    for lengths in sizes.values():
        # Side by side: most of it is the compilation of kernels.
        for process in both.values():
            process.begin(0, lengths)
        for process in both.values():
            process.end()
    for what, count in kinds:
        lengths = sizes[count]
        for attempt in range(1, options.rounds + 1):
            for name, run in both.items():
                if time.perf_counter() - began > options.seconds:
                    continue
                read, rest = run(attempt, lengths)
                rate = count * (options.tokens - 1) / rest if count else PREFILL / read
                spent = time.perf_counter() - began
                print(f"{spent:.0f} s, round {attempt}: {name} {what}: {rate:,.0f} tokens a second", flush=True)
                found[name].setdefault(what, []).append(rate)
    if options.joules:
        joules(both, batches, options)
    names = list(found)
    print("| tokens a second | " + " | ".join(names) + " |\n| --- |" + " ---: |" * len(names))
    for what, _ in kinds:
        rates = [found[name].get(what) for name in names]
        print(f"| {what} | " + " | ".join(f"{statistics.median(each):,.0f}" if each else "" for each in rates) + " |")


if __name__ == "__main__":
    main()
