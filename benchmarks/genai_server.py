"""OpenVINO GenAI's pipeline with continuous batching, behind the part of OpenAI's API that `text_load.py` asks for.

GenAI has no server in its Python package. This one adds as little as it can: a process computes steps and sends the new
tokens of each step in one message (the pipeline holds Python's lock while it computes one); another process detokenizes
and writes server-sent events.

Usage: genai_server.py FILE.gguf PORT THREADS, with a Python that has openvino-genai, and nothing else
"""

import asyncio
import itertools
import json
import multiprocessing
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import openvino
import openvino_genai

NUM_BLOCKS = 1024
"""Blocks of 32 tokens: as many tokens as Triune's cache has by default."""
NUM_SEQUENCES = 64
STEP_TOKENS = 512

News = tuple[list[int], bool]
"""New tokens of an answer, and whether it has ended."""


def compute(path: str, num_threads: int, pipe: Connection) -> None:
    """Compute steps as long as there are answers. The pipe brings answers to begin, (number, prompt, num_tokens), and
    to cancel, (number, None, 0); it takes the news of each step by number.
    """
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks, scheduler.max_num_seqs = NUM_BLOCKS, NUM_SEQUENCES
    scheduler.max_num_batched_tokens, scheduler.enable_prefix_caching = STEP_TOKENS, False
    properties = {"INFERENCE_NUM_THREADS": num_threads}
    pipeline: Any = openvino_genai.ContinuousBatchingPipeline(path, scheduler, "CPU", properties)
    running: dict[int, tuple[Any, int]] = {}
    pipe.send({})
    while True:
        while pipe.poll(0 if running else None):
            number, prompt, num_tokens = pipe.recv()
            if prompt is None:
                if number in running:
                    running.pop(number)[0].cancel()
                continue
            config = openvino_genai.GenerationConfig()
            config.max_new_tokens, config.ignore_eos, config.do_sample = num_tokens, True, False
            ids = openvino.Tensor(np.array([prompt], np.int64))
            running[number] = pipeline.add_request(number, ids, config), num_tokens
        if pipeline.has_non_finished_requests():
            pipeline.step()
        news: dict[int, News] = {}
        for number, (handle, num_left) in [*running.items()]:
            tokens: list[int] = []
            while handle.can_read():
                (output,) = handle.read().values()
                tokens += output.generated_ids
            if tokens:
                news[number] = tokens, num_left == len(tokens)
                running[number] = handle, num_left - len(tokens)
                if num_left == len(tokens):
                    del running[number]
        pipe.send(news)


class Steps:
    """The process that computes steps, as the event loop sees it."""

    def __init__(self, path: str, num_threads: int) -> None:
        self.tokenizer: Any = openvino_genai.Tokenizer(path)
        # The libraries have threads of their own, which a fork would lose.
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        context.Process(target=compute, args=(path, num_threads, other), daemon=True).start()
        other.close()
        self._pipe.recv()
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._read)
        self._numbers = itertools.count()
        self._queues: dict[int, asyncio.Queue[News]] = {}

    def ask(self, prompt: list[int], num_tokens: int) -> tuple[int, "asyncio.Queue[News]"]:
        """Begin an answer of exactly `num_tokens` greedy tokens; its number, and where its tokens arrive."""
        number, queue = next(self._numbers), asyncio.Queue[News]()
        self._queues[number] = queue
        self._pipe.send((number, prompt, num_tokens))
        return number, queue

    def leave(self, number: int) -> None:
        """Cancel an answer that nobody reads any more."""
        if self._queues.pop(number, None) is not None:
            self._pipe.send((number, None, 0))

    def _read(self) -> None:
        for number, news in self._pipe.recv().items():
            if number in self._queues:
                (self._queues.pop if news[1] else self._queues.__getitem__)(number).put_nowait(news)


async def answer(steps: Steps, asked: Mapping[str, Any], writer: asyncio.StreamWriter) -> None:
    """Write the events of one answer."""
    number, queue = steps.ask(asked["prompt"], asked["max_tokens"])
    num_tokens, is_done = 0, False
    _write(writer, None)
    try:
        while not is_done:
            new, is_done = await queue.get()
            num_tokens += len(new)
            text = steps.tokenizer.decode(new)
            choice = {"index": 0, "text": text, "finish_reason": "length" if is_done else None}
            _write(writer, {"id": f"cmpl-{number}", "choices": [choice]})
            await writer.drain()
        usage = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": num_tokens, "total_tokens": 0}
        _write(writer, {"id": f"cmpl-{number}", "choices": [], "usage": usage})
    except BaseException:
        steps.leave(number)
        raise
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


def _write(writer: asyncio.StreamWriter, event: Mapping[str, Any] | None) -> None:
    """Write the head of an answer (None), or an event as one chunk of it."""
    if event is None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        return
    common = {"object": "text_completion", "created": 0, "model": "genai"}
    data = f"data: {json.dumps(common | dict(event))}\n\n".encode()
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


async def main() -> None:
    steps = Steps(sys.argv[1], int(sys.argv[3]))

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                head = (await reader.readuntil(b"\r\n\r\n")).lower() if line else b""
                if line.startswith(b"GET"):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                else:
                    length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
                    await answer(steps, json.loads(await reader.readexactly(length)), writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", int(sys.argv[2])) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
