"""SmolLM2's answers under an open-loop load: Triune's server and its peers, in turn, on the same GGUF file.

Usage: text_load.py [--genai PYTHON] [--llama PATH [--no-repack]] [--seconds 40] [--percents 50 80 95] [--rounds 1]
                    [--traces fixed mixed]
    PYTHON: an interpreter that has openvino-genai, whose pipeline `genai_server.py` serves; left out without it
    PATH: llama-server, built for this machine; left out without it
    --no-repack: llama-server keeps weights in the file's form; build 11434 ends with SIGSEGV in its own AMX kernels

Requests arrive at times drawn once (exponential pauses, seeded), whether or not earlier ones were answered; all
servers get the same requests at the same times, through the `openai` client, streamed. Prompts are random tokens, so
that no prefix cache helps.

- fixed: 128 tokens in, 128 out.
- mixed: 32 to 512 in and 16 to 256 out, uniform in the logarithm.

The capacity is what Triune answers with 32 requests always under way. The load is a percentage of that for all
servers. Printed are medians over the rounds:
- first: from the time at which a request arrives to its first token, ms;
- between: from one token of an answer to the next, ms, over all tokens of all answers;
- tokens a second: all tokens of answers, from the first arrival to the last token.
"""

import argparse
import asyncio
import contextlib
import itertools
import math
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import uvloop
from openai import AsyncOpenAI

from servers import ENVIRONMENT, heading, triune
from triune.core.units import Presence, Unit
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.zoo.repository import build_repository

SEED = 11
NUM_UNDER_WAY = 32
LLAMA_PORT = 19100
GENAI_PORT = 19101
VOCABULARY = range(100, 49_000)
MODEL = "smollm2"


@dataclass(frozen=True)
class Asked:
    """A request: when it arrives, in seconds after the first; its prompt's token ids; the tokens of its answer."""

    arrival: float
    prompt: list[int]
    num_tokens: int


@dataclass
class Seen:
    """What the clients saw, in seconds."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    num_tokens: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.num_tokens / self.seconds


def lengths(trace: str, rng: random.Random) -> tuple[int, int]:
    """The tokens of a prompt and of its answer."""
    if trace == "fixed":
        return 128, 128
    return (
        round(math.exp(rng.uniform(math.log(32), math.log(512)))),
        round(math.exp(rng.uniform(math.log(16), math.log(256)))),
    )


def requests(trace: str, seed: int) -> Iterator[tuple[list[int], int]]:
    """Prompts and lengths of answers without end, the same ones for each seed."""
    rng = random.Random(f"{SEED} {trace} {seed}")
    while True:
        num_in, num_out = lengths(trace, rng)
        yield rng.choices(VOCABULARY, k=num_in), num_out


def arrivals(trace: str, rate: float, seconds: float, seed: int) -> list[Asked]:
    """Requests of `seconds` that arrive at `rate` a second on average."""
    rng, now, found = random.Random(f"{SEED} arrivals {seed}"), 0.0, list[Asked]()
    for prompt, num_tokens in requests(trace, seed):
        if now > seconds:
            return found
        found.append(Asked(now, prompt, num_tokens))
        now += rng.expovariate(rate)
    raise AssertionError


async def ask(client: AsyncOpenAI, prompt: list[int], num_tokens: int, arrived: float, seen: Seen) -> None:
    """Send a request and note its times."""
    stream = await client.completions.create(
        model=MODEL,
        prompt=prompt,
        max_tokens=num_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    last = None
    async for chunk in stream:
        if chunk.usage is not None:
            seen.num_tokens += chunk.usage.completion_tokens
        if not chunk.choices:
            continue
        now = time.perf_counter()
        if last is None:
            seen.first.append(now - arrived)
        else:
            seen.between.append(now - last)
        last = now


async def open_loop(url: str, asked: Sequence[Asked]) -> Seen:
    """Send each request when it arrives."""
    seen = Seen()
    async with AsyncOpenAI(base_url=url, api_key="none", timeout=600, max_retries=0) as client:
        begin = time.perf_counter()

        async def one(each: Asked) -> None:
            await asyncio.sleep(max(0.0, begin + each.arrival - time.perf_counter()))
            await ask(client, each.prompt, each.num_tokens, begin + each.arrival, seen)

        await asyncio.gather(*map(one, asked))
        seen.seconds = time.perf_counter() - begin
    return seen


async def capacity(url: str, trace: str, seconds: float) -> float:
    """Requests a second with `NUM_UNDER_WAY` always under way, over those that end after the first ones and in time."""
    endless, ends = requests(trace, -1), list[float]()
    async with AsyncOpenAI(base_url=url, api_key="none", timeout=600, max_retries=0) as client:

        async def one_after_another() -> None:
            for prompt, num_tokens in endless:
                await ask(client, prompt, num_tokens, time.perf_counter(), Seen())
                ends.append(time.perf_counter())

        workers = [asyncio.ensure_future(one_after_another()) for _ in range(NUM_UNDER_WAY)]
        done, _ = await asyncio.wait(workers, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for worker in done:
            worker.result()
    ends = sorted(ends)[NUM_UNDER_WAY:]
    if len(ends) < 2:
        raise SystemExit(f"{len(ends) + NUM_UNDER_WAY} answers in {seconds} s are too few: ask for more --seconds")
    return (len(ends) - 1) / (ends[-1] - ends[0])


@contextlib.contextmanager
def llama(program: Path, model: Path, *, repacks: bool) -> Iterator[str]:
    """llama-server with a slot of 1,024 tokens for each of the requests under way; its address."""
    command = [
        str(program), "-m", str(model), "--port", str(LLAMA_PORT), "-np", str(NUM_UNDER_WAY),
        "-c", str(NUM_UNDER_WAY * 1024), "-t", "2", "--alias", MODEL, "--repack" if repacks else "--no-repack",
    ]  # fmt: skip
    with _peer(command, LLAMA_PORT) as url:
        yield url


@contextlib.contextmanager
def genai(python: str, model: Path) -> Iterator[str]:
    """OpenVINO GenAI behind `genai_server.py`; its address."""
    with _peer(
        [python, str(Path(__file__).with_name("genai_server.py")), str(model), str(GENAI_PORT), "2"], GENAI_PORT
    ) as url:
        yield url


@contextlib.contextmanager
def _peer(command: Sequence[str], port: int) -> Iterator[str]:
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process)
        yield f"{url}/v1"
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"a peer ended with {process.returncode}: {process.args}")
        with contextlib.suppress(OSError), urlopen(f"{url}/health", timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"a peer was not ready in 120 s: {process.args}")


@contextlib.contextmanager
def ours(repository: Path) -> Iterator[str]:
    """Triune's server; its address."""
    with triune(repository) as running:
        yield f"http://{running.host}:{running.http_port}/v1"


def percentile_ms(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent)) * 1e3


def measure(
    servers: Mapping[str, Callable[[], contextlib.AbstractContextManager[str]]], options: argparse.Namespace
) -> tuple[dict[str, float], dict[tuple[str, int, str], list[Seen]]]:
    """The capacity of the first server for each trace, and what was seen by trace, percentage and server."""
    capacities = dict[str, float]()
    found = dict[tuple[str, int, str], list[Seen]]()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for round_number, (name, serve) in itertools.product(range(options.rounds), servers.items()):
            with serve() as url:
                runner.run(open_loop(url, [Asked(0.0, [100] * 16, 4)]))
                for trace in options.traces:
                    if trace not in capacities:
                        rate = capacities[trace] = runner.run(capacity(url, trace, options.seconds))
                        print(f"{trace}: {name} answers {rate:.2f} requests a second at most", flush=True)
                    for percent in options.percents:
                        asked = arrivals(trace, capacities[trace] * percent / 100, options.seconds, round_number)
                        seen = runner.run(open_loop(url, asked))
                        found.setdefault((trace, percent, name), []).append(seen)
                        print(f"{trace} {percent}% {name}: {seen.rate:.1f} tokens a second", flush=True)
    return capacities, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genai")
    parser.add_argument("--llama", type=Path)
    parser.add_argument("--no-repack", action="store_true")
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--percents", type=int, nargs="+", default=[50, 80, 95])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--traces", nargs="+", choices=["fixed", "mixed"], default=["fixed", "mixed"])
    options = parser.parse_args()
    print(heading("SmolLM2 under load"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        has_amx = any(each.unit is Unit.AMX and each.presence is Presence.PRESENT for each in detect_units(read_cpu()))
        build_repository(Path(folder), models=[MODEL], units=[Unit.AMX if has_amx else Unit.CPU])
        servers: dict[str, Callable[[], contextlib.AbstractContextManager[str]]] = {
            "triune": lambda: ours(Path(folder))
        }
        path = Path(folder, MODEL, "1", "model.gguf")
        if options.genai is not None:
            servers["genai"] = lambda: genai(options.genai, path)
        if options.llama is not None:
            servers["llama-server"] = lambda: llama(options.llama, path, repacks=not options.no_repack)
        capacities, found = measure(servers, options)
    for (trace, percent, name), seen in sorted(found.items()):
        rounds = [
            (
                *(percentile_ms(each.first, percentage) for percentage in (50, 99)),
                *(percentile_ms(each.between, percentage) for percentage in (50, 99)),
                each.rate,
            )
            for each in seen
        ]
        first_50, first_99, between_50, between_99, rate = map(statistics.median, zip(*rounds, strict=True))
        print(
            f"{trace:5} {percent:3}% of {capacities[trace]:.2f}/s  {name:12}  "
            f"first p50 {first_50:7.0f} p99 {first_99:7.0f}   between p50 {between_50:6.1f} p99 {between_99:6.1f} ms   "
            f"{rate:6.1f} tokens a second"
        )


if __name__ == "__main__":
    main()
