"""The transformer engine and its peers, in turn on the same GGUF file: prefill, and decoding of 1, 8 and 32 sequences.

Usage:
    llm.py compare FILE.gguf [--rounds 3] [--threads 2] [--genai PYTHON] [--llama FOLDER [--no-repack]]
        PYTHON: an interpreter that has openvino-genai; FOLDER: holds llama-bench and llama-batched-bench
        --no-repack: llama.cpp keeps weights in the file's form; build 11434 ends with SIGSEGV in its own AMX kernels
    llm.py triune | genai FILE.gguf THREADS      one peer, as JSON; `compare` calls these

A rate is in tokens a second:
- prefill: 512 tokens of one prompt, over the time until the first token of the answer is known;
- decode: 64 tokens for each of n prompts of 64 tokens, over the time after the prompts were read;
- together: the same, over the time from the first prompt to the last token. (GenAI tells no times of its own for
  several prompts, so this is what it is compared by.)
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PREFILL = 512
PROMPT = ANSWER = 64
SEQUENCES = (1, 8, 32)
SEED = 7


def prompts(count: int, length: int, round_number: int, num_tokens: int) -> list[list[int]]:
    """Random token ids, others in each round, so that no prefix cache helps. Ids below 100 may be special tokens."""
    import numpy as np

    rng = np.random.default_rng([SEED, round_number, length, count])
    return rng.integers(100, num_tokens - 100, (count, length)).tolist()


def triune(path: Path, num_threads: int) -> dict[str, float]:
    """Triune's engine in this process, through OpenVINO."""
    from triune.core.clock import MonotonicClock
    from triune.core.units import Presence, Unit
    from triune.engine.core import EngineCore
    from triune.engine.models import write_model
    from triune.engine.sampling.parameters import SamplingParameters
    from triune.engine.scheduler import SchedulerLimits
    from triune.engine.sequence import Ending
    from triune.engine.weights.open import open_checkpoint
    from triune.hardware.cpu import read_cpu
    from triune.hardware.units import detect_units
    from triune.runtimes.openvino.decoder import OpenVinoDecoder

    has_amx = any(each.unit is Unit.AMX and each.presence is Presence.PRESENT for each in detect_units(read_cpu()))
    checkpoint = open_checkpoint(path, inexact="offsets")
    decoder = OpenVinoDecoder(
        write_model(checkpoint.config, checkpoint, "paged"),
        unit=Unit.AMX if has_amx else Unit.CPU,
        num_threads=num_threads,
        num_blocks=400,
    )
    vocab_size = checkpoint.config.vocab_size
    rates: dict[str, float] = {}
    for attempt in range(2):  # the first one warms up
        core = EngineCore(decoder, vocab_size, MonotonicClock(), SchedulerLimits())
        begin = time.perf_counter()
        core.add(prompts(1, PREFILL, attempt, vocab_size)[0], SamplingParameters(temperature=0), Ending(1))
        while not core.is_idle:
            core.step()
        rates["prefill"] = PREFILL / (time.perf_counter() - begin)
        for count in SEQUENCES:
            begin = time.perf_counter()
            sequences = [
                core.add(prompt, SamplingParameters(temperature=0), Ending(ANSWER))
                for prompt in prompts(count, PROMPT, attempt, vocab_size)
            ]
            while not all(each.num_answered for each in sequences):
                core.step()
            read = time.perf_counter()
            num_before = sum(each.num_answered for each in sequences)
            while not core.is_idle:
                core.step()
            end = time.perf_counter()
            rates[f"decode {count}"] = (count * ANSWER - num_before) / (end - read)
            rates[f"together {count}"] = count * ANSWER / (end - begin)
    decoder.close()
    return rates


def genai(path: Path, num_threads: int) -> dict[str, float]:
    """OpenVINO GenAI's pipeline with continuous batching."""
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = 400
    scheduler.max_num_batched_tokens = 512
    scheduler.enable_prefix_caching = False
    pipeline: Any = openvino_genai.LLMPipeline(
        str(path), "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=num_threads
    )
    tokenizer = pipeline.get_tokenizer()

    def run(count: int, length: int, answer: int, attempt: int) -> float:
        texts = [tokenizer.decode(ids) for ids in prompts(count, length, attempt, 49_152)]
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = answer
        config.ignore_eos = True
        config.apply_chat_template = False
        begin = time.perf_counter()
        pipeline.generate(texts, config)
        return time.perf_counter() - begin

    rates: dict[str, float] = {}
    for attempt in range(2):
        rates["prefill"] = PREFILL / run(1, PREFILL, 1, attempt)
        for count in SEQUENCES:
            rates[f"together {count}"] = count * ANSWER / run(count, PROMPT, ANSWER, attempt)
    return rates


def llama(folder: Path, path: Path, num_threads: int, *, repacks: bool) -> dict[str, float]:
    """llama.cpp's own benchmarks."""
    bench = [str(folder / "llama-bench"), "-m", str(path), "-p", str(PREFILL), "-n", str(ANSWER)]
    rows = json.loads(_output([*bench, "-t", str(num_threads), "-r", "2", "-o", "json", "--repack", f"{repacks:d}"]))
    rates = {"prefill" if row["n_prompt"] else "decode 1": row["avg_ts"] for row in rows}
    batched = [str(folder / "llama-batched-bench"), "-m", str(path), "-c", "16384", "-npp", str(PROMPT)]
    batched += [] if repacks else ["--no-repack"]
    counts = ",".join(map(str, SEQUENCES))
    lines = _output([*batched, "-ntg", str(ANSWER), "-npl", counts, "-t", str(num_threads), "--output-format", "jsonl"])
    for line in lines.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            rates[f"decode {row['pl']}"] = row["speed_tg"]
            rates[f"together {row['pl']}"] = row["pl"] * row["tg"] / row["t"]
    return rates


def compare(options: argparse.Namespace) -> None:
    """Run the peers in turn, and print the medians and Triune's ratio to each."""
    rates: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for name, python in (("triune", sys.executable), ("genai", options.genai)):
            if python:
                command = [python, __file__, name, str(options.file), str(options.threads)]
                rates.setdefault(name, []).append(json.loads(_output(command).splitlines()[-1]))
        if options.llama:
            rates.setdefault("llama.cpp", []).append(
                llama(options.llama, options.file, options.threads, repacks=not options.no_repack)
            )
    names = list(rates)
    print(f"{'tok/s':12}" + "".join(f"{name:>12}" for name in names) + "   Triune / peer")
    for key in ("prefill", *(f"{what} {count}" for what in ("decode", "together") for count in SEQUENCES)):
        medians = {
            name: statistics.median(each[key] for each in rates[name]) for name in names if key in rates[name][0]
        }
        ratios = [f"{medians['triune'] / medians[name]:.2f} {name}" for name in medians if name != "triune"]
        print(
            f"{key:12}"
            + "".join(f"{medians.get(name, float('nan')):12.1f}" for name in names)
            + "   "
            + ", ".join(ratios)
        )


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Read the command line."""
    if len(sys.argv) == 4 and sys.argv[1] in ("triune", "genai"):
        measure = triune if sys.argv[1] == "triune" else genai
        print(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--genai")
    parser.add_argument("--llama", type=Path)
    parser.add_argument("--no-repack", action="store_true")
    compare(parser.parse_args())


if __name__ == "__main__":
    main()
