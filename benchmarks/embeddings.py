"""Sentences a second of MiniLM: the server's model of texts beside ONNX Runtime and OpenVINO with nothing around them.

Usage: embeddings.py [--rounds 5] [--seconds 3]
All read the same sentences, out of this repository's pages, and tokenize them. The bare runtimes get batches in the
order of the sentences, filled up to the longest. The arms take turns; a figure is the median of its rounds. Where other
work runs on the machine, compare sentences per second of CPU time.
"""

import argparse
import asyncio
import itertools
import re
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from triune.core.clock import MonotonicClock
from triune.core.units import Unit
from triune.engine.generation import EmbeddingModel
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.repository.repository import Repository
from triune.repository.settings import RepositorySettings
from triune.runtimes import available
from triune.runtimes.machine import this_machine
from triune.serving.server import Server
from triune.zoo.repository import build_repository

TEXTS, GRAPH = "all-minilm-l6-v2", "minilm"
SIZES = (1, 32)

Arm = Callable[[Sequence[str]], Awaitable[object]]


def sentences() -> list[str]:
    """Sentences of 20 to 400 characters of the documentation."""
    pages = Path(__file__).parents[1].glob("docs/**/*.md")
    text = " ".join(page.read_text() for page in sorted(pages))
    found = [" ".join(each.split()) for each in re.split(r"(?<=[.:;])\s+", text)]
    return [each for each in found if 20 <= len(each) <= 400]


def bare(tokenizer: Tokenizer, run: Callable[[dict[str, NDArray[np.int64]]], object]) -> Arm:
    """A batch that is filled up to its longest sentence."""

    async def embed(batch: Sequence[str]) -> object:
        encoded = tokenizer.encode_batch_fast(list(batch))
        ids = np.array([each.ids for each in encoded])
        mask = np.array([each.attention_mask for each in encoded])
        return run({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})

    return embed


def clients(model: EmbeddingModel) -> Arm:
    """Each sentence is the request of a client of its own."""

    async def embed(batch: Sequence[str]) -> object:
        return await asyncio.gather(*(model.embed([each]) for each in batch))

    return embed


async def rate(arm: Arm, batches: Iterator[Sequence[str]], seconds: float) -> tuple[float, float]:
    """Sentences a second, and sentences a second of CPU time."""
    count, begin, begin_cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        batch = next(batches)
        await arm(batch)
        count += len(batch)
    return count / (time.perf_counter() - begin), count / (time.process_time() - begin_cpu)


async def measure(folder: Path, rounds: int, seconds: float) -> None:
    cpu = read_cpu()
    tokenizer: Any = Tokenizer.from_file(str(folder / GRAPH / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    arms: dict[str, Arm] = {}
    for name, runtime in available(detect_units(cpu)).items():
        for unit in (Unit.CPU, Unit.AMX):
            if name in ("onnxruntime", "openvino") and unit in runtime.units():
                graph = folder / GRAPH / "1" / "model.onnx"
                executable = runtime.load(graph, unit=unit, num_threads=cpu.num_cores, options={})
                arms[f"{name}, {unit.value}, {executable.precision}"] = bare(
                    tokenizer, lambda feed, run=executable.run: run(feed, ["sentence_embedding"])
                )
    repository = Repository(RepositorySettings(folders=(folder,)), this_machine(), MonotonicClock())
    await repository.open()
    model = Server(repository).embedding_model(TEXTS)
    where = "; ".join(f"{each.runtime}, {each.unit.value}, {each.precision}" for each in model.placements)
    arms[f"triune ({where}), one client"] = lambda batch: model.embed(batch)
    arms[f"triune ({where}), a client for each sentence"] = clients(model)
    texts = sentences()
    num_tokens = sum(sum(each.attention_mask) for each in tokenizer.encode_batch_fast(texts))
    print(f"{len(texts)} sentences of {num_tokens / len(texts):.0f} tokens")
    for size in SIZES:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
        whole = [texts[begin : begin + size] for begin in range(0, len(texts) - size + 1, size)]
        for arm in arms.values():
            await rate(arm, itertools.cycle(whole), 0.5)
        for number in range(rounds):
            for name, arm in arms.items():
                start = number * len(whole) // rounds
                found[name].append(await rate(arm, itertools.cycle(whole[start:] + whole[:start]), seconds))
        medians = {
            name: [statistics.median(each) for each in zip(*values, strict=True)] for name, values in found.items()
        }
        best = [max(values[at] for name, values in medians.items() if "triune" not in name) for at in (0, 1)]
        print(f"\nbatch {size}: sentences a second | to the best bare runtime | a second of CPU time | to the best")
        for name, (wall, busy) in medians.items():
            print(f"{name:60} {wall:8.1f} {wall / best[0]:6.2f} {busy:8.1f} {busy / best[1]:6.2f}")
    await repository.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build_repository(Path(folder), models=[TEXTS, GRAPH])
        asyncio.run(measure(Path(folder), options.rounds, options.seconds))


if __name__ == "__main__":
    main()
