"""Times to the first token of SmolLM2, where 32 prompts begin with the same 1,024 tokens and where they do not.

Usage: prefix_cache.py [--rounds 3]

Each prompt has 16 tokens of its own behind the 1,024. The prompts are sent one after the other and all at once, to
one server and, after it has ended, to a second one over the same files of keys and values (`disk_cache_bytes`).
Printed are medians over the rounds, ms; each round has other tokens and new files.

- others: no prompt shares anything with another.
- shared: all begin alike; the first of them is computed before, and its time is left out.
- shared, after a restart: the same prompts, to the second server.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

from servers import ENVIRONMENT, Running, heading, triune
from triune.core.units import Presence, Unit
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.zoo.repository import build_repository

MODEL = "smollm2"
NUM_PROMPTS, NUM_SHARED, NUM_OWN = 32, 1024, 16
VOCABULARY = range(100, 49_000)
SEED = 13


def prompts(rng: random.Random, *, is_shared: bool) -> list[list[int]]:
    """Prompts of 1,040 random tokens."""
    shared = rng.choices(VOCABULARY, k=NUM_SHARED)
    return [
        (shared if is_shared else rng.choices(VOCABULARY, k=NUM_SHARED)) + rng.choices(VOCABULARY, k=NUM_OWN)
        for _ in range(NUM_PROMPTS)
    ]


def first_token_ms(server: Running, prompt: Sequence[int]) -> float:
    """The time of a completion of one token, which is its first."""
    body = json.dumps({"model": MODEL, "prompt": list(prompt), "max_tokens": 1, "temperature": 0}).encode()
    url = f"http://{server.host}:{server.http_port}/v1/completions"
    began = time.perf_counter()
    with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=600) as answer:
        answer.read()
    return (time.perf_counter() - began) * 1e3


def in_turn(server: Running, asked: Sequence[Sequence[int]]) -> list[float]:
    """The times of prompts that are sent one after the other."""
    return [first_token_ms(server, prompt) for prompt in asked]


def at_once(server: Running, asked: Sequence[Sequence[int]]) -> list[float]:
    """The times of prompts that are sent at the same time."""
    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(lambda prompt: first_token_ms(server, prompt), asked))


def run(repository: Path, rng: random.Random) -> dict[str, tuple[float, float]]:
    """One round: the median and the longest time by scene."""
    found = dict[str, tuple[float, float]]()

    def note(scene: str, times: Sequence[float]) -> None:
        found[scene] = statistics.median(times), max(times)

    shared = {scene: prompts(rng, is_shared=True) for scene in ("in turn", "at once")}
    with triune(repository) as server:
        in_turn(server, prompts(rng, is_shared=False)[:2])
        for scene, send in (("in turn", in_turn), ("at once", at_once)):
            note(f"others, {scene}", send(server, prompts(rng, is_shared=False)))
            first_token_ms(server, shared[scene][0])
            note(f"shared, {scene}", send(server, shared[scene][1:]))
    with triune(repository) as server:
        in_turn(server, prompts(rng, is_shared=False)[:2])
        for scene, send in (("in turn", in_turn), ("at once", at_once)):
            note(f"shared, after a restart, {scene}", send(server, shared[scene][1:]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(heading("SmolLM2's prefix cache"), flush=True)
    rounds = list[dict[str, tuple[float, float]]]()
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as folder:
            # The packages come from the user's own cache, the files of keys and values go into a new one.
            has_amx = any(
                each.unit is Unit.AMX and each.presence is Presence.PRESENT for each in detect_units(read_cpu())
            )
            build_repository(Path(folder), models=[MODEL], units=[Unit.AMX if has_amx else Unit.CPU])
            config = Path(folder, MODEL, "config.pbtxt")
            kept = 'parameters { key: "disk_cache_bytes" value { string_value: "2000000000" } }\n'
            config.write_text(config.read_text() + kept)
            ENVIRONMENT["TRIUNE_CACHE"] = os.fspath(cache)
            rounds.append(run(Path(folder), random.Random(f"{SEED} {number}")))
    for scene in rounds[0]:
        middle, longest = (statistics.median(each[scene][place] for each in rounds) for place in (0, 1))
        print(f"{scene:34} median {middle:8.1f} ms   longest {longest:8.1f} ms")


if __name__ == "__main__":
    main()
