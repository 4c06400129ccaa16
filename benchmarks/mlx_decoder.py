"""The MLX decoder without the engine, and mlx-lm where it is installed, in turn: prefill, and decoding of n sequences.

Usage: mlx_decoder.py FILE.gguf [--precision bf16] [--rounds 3] [--tokens 64] [--batches 1,8,32,64] [--spread 0]

Rates are tokens a second, medians of the rounds:
- prefill: 512 tokens of one prompt, until its logits are known;
- decode n: greedy continuations of n prompts of 64 tokens, without the time of the prompts. With --spread S, prompts
  are up to S tokens shorter, each by another number: MLX then needs a mask.

Each figure is printed as it comes; those of round 0, in which kernels are compiled, are not counted.

mlx-lm has the same weights, quantized anew by its own function, to 4 bits in groups of 32.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

PREFILL, PROMPT = 512, 64

Peer = Callable[[np.random.Generator, list[int]], tuple[float, float]]
"""Reads prompts of these lengths and continues them: the seconds of the prompts, and of the tokens after the first."""


def triune(checkpoint: Any, precision: str, num_tokens: int, most: int) -> Peer:
    """The decoder over a cache that holds all sequences."""
    from triune.core.decoder import DecoderStep
    from triune.engine.models import write_model
    from triune.runtimes.mlx.decoder import MlxDecoder

    per_sequence = -(-(max(PREFILL, PROMPT) + num_tokens) // 16)
    model = write_model(checkpoint.config, checkpoint, "paged")
    decoder = MlxDecoder(model, num_blocks=most * per_sequence, precision=precision)

    def step(ids: list[Any], past: Any) -> Any:
        """The most probable tokens after the next ones of sequences that have `past` tokens, INT32 [n]."""
        new = np.array([len(each) for each in ids], np.int32)
        held = -(-(past + new) // decoder.block_size)
        begins = np.cumsum([0, *new])
        return decoder.run_greedy(
            DecoderStep(
                np.concatenate(ids).astype(np.int64),
                np.concatenate([np.arange(each, each + count) for each, count in zip(past, new, strict=True)]),
                past,
                begins.astype(np.int32),
                np.concatenate([place * per_sequence + np.arange(each) for place, each in enumerate(held)]).astype(
                    np.int32
                ),
                np.cumsum([0, *held]).astype(np.int32),
                begins[1:] - 1,
            )
        )

    def run(rng: np.random.Generator, lengths: list[int]) -> tuple[float, float]:
        ids = [rng.integers(100, checkpoint.config.vocab_size - 100, length) for length in lengths]
        past = np.zeros(len(ids), np.int32)
        begin = time.perf_counter()
        last = step(ids, past)
        read = time.perf_counter()
        past = past + np.array(lengths, np.int32)
        for place in range(num_tokens - 1):
            last = step(list(last[:, None]), past + np.int32(place))
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


def peers(checkpoint: Any, precision: str, num_tokens: int, most: int) -> Iterator[tuple[str, Peer]]:
    """Triune's decoder, and mlx-lm where it is installed."""
    yield "triune", triune(checkpoint, precision, num_tokens, most)
    try:
        yield "mlx-lm", mlx_lm(checkpoint, precision, num_tokens)
    except ImportError as error:
        print(f"without mlx-lm: {error}", flush=True)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batches", default="1,8,32,64")
    parser.add_argument("--spread", type=int, default=0)
    options = parser.parse_args()
    from triune.engine.weights.open import open_checkpoint
    from triune.metal.library import is_gpu

    if not is_gpu():
        print("MLX has no GPU here: these are figures of its build for CPUs, which is for answers only", flush=True)
    batches = [int(each) for each in options.batches.split(",")]
    checkpoint = open_checkpoint(options.file, inexact="offsets")
    both = list(peers(checkpoint, options.precision, options.tokens, max(batches)))
    found: dict[str, dict[str, list[float]]] = {name: {} for name, _ in both}

    def keep(name: str, attempt: int, what: str, rate: float, seconds: float) -> None:
        print(f"round {attempt}: {name} {what}: {rate:,.0f} tokens a second, {seconds:.2f} s in all", flush=True)
        if attempt:
            found[name].setdefault(what, []).append(rate)

    for attempt in range(options.rounds + 1):
        for name, run in both:
            read, rest = run(np.random.default_rng([attempt, 0]), [PREFILL])
            keep(name, attempt, f"prefill {PREFILL}", PREFILL / read, read + rest)
            for count in batches:
                lengths = [PROMPT - place % (options.spread + 1) for place in range(count)]
                read, rest = run(np.random.default_rng([attempt, count]), lengths)
                keep(name, attempt, f"decode {count}", count * (options.tokens - 1) / rest, read + rest)
    names = list(found)
    print("| tokens a second | " + " | ".join(names) + " |\n| --- |" + " ---: |" * len(names))
    for what in found[names[0]]:
        print(f"| {what} | " + " | ".join(f"{statistics.median(found[name][what]):,.0f}" for name in names) + " |")


if __name__ == "__main__":
    main()
