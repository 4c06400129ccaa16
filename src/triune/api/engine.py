"""`triune.Engine`: a model that generates text, without a server."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar, Unpack, cast, overload

from triune.api.answers import Answer, Message, Options, checked_messages, joined, request_of
from triune.api.model_folders import newest_version
from triune.api.unit_names import named_units
from triune.backends.attempt import Attempt
from triune.backends.libraries import require_libraries
from triune.config.configure import Source
from triune.config.parameters import UNITS_PARAMETER
from triune.config.settings import DEFAULT_SETTINGS
from triune.config.stamps import Stamp
from triune.config.transformer import GGUF_FILENAME, TRANSFORMER, Speculation, configure_transformer, named_unit
from triune.core.clock import MonotonicClock
from triune.core.decoder import CacheType
from triune.core.energy import Account, report_of
from triune.core.errors import NotFoundError, UnavailableError
from triune.core.threads import start_thread
from triune.core.units import Unit
from triune.engine.generation import Delta, Generation, Placement
from triune.hardware.energy.metering import metered
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.runtimes.decoders import decoder_runtime
from triune.runtimes.machine import this_machine

_T = TypeVar("_T")


class TextStream(Iterator[str]):
    """An iterator of the pieces of an answer while it is generated. Closing it cancels the generation.

    Attributes:
        answer: the whole answer, once the iterator has ended; None before.
    """

    def __init__(self, engine: "Engine", deltas: AsyncGenerator[Delta]) -> None:
        """`deltas` yields the new parts of the answer. It is iterated on the engine's event loop."""
        self._engine = engine
        self._deltas = deltas
        self._collected: list[Delta] = []
        self.answer: Answer | None = None

    def __next__(self) -> str:
        """The next piece of text, which is not empty. Raises the errors of `Engine.generate`."""
        while self.answer is None:
            try:
                delta = self._engine.wait(_next(self._deltas))
            # Catch BaseException, so that a KeyboardInterrupt cancels the generation, too.
            except BaseException:
                self.close()
                raise
            if delta is None:
                self.answer = joined(self._collected)
                break
            self._collected.append(delta)
            if delta.text:
                return delta.text
        raise StopIteration

    def close(self) -> None:
        """Cancel the generation, if it has not ended."""
        self._engine.wait(self._deltas.aclose())


class Engine:
    """A model that generates text, loaded in this process. Many threads may use it at the same time. Answers that run
    at the same time are computed together, as in the server.

    ```python
    with triune.Engine("model.gguf") as engine:
        for text in engine.stream("The capital of France is", max_tokens=20):
            print(text, end="")
    ```

    Attributes:
        path: the file or directory of the checkpoint.
        placement: the unit, the runtime and the precision of the computation.
        context_tokens: the most tokens of prompt and answer together.
        adapters: the names of the LoRA adapters.
    """

    def __init__(
        self,
        path: str | Path,
        unit: str | None = None,
        *,
        precision: str | None = None,
        context_tokens: int | None = None,
        cache_bytes: int | None = None,
        cache_type: CacheType | None = None,
        adapters: Mapping[str, str | Path] | None = None,
        reproducible: bool = False,
        speculation: Speculation | None = None,
        draft: str | Path | None = None,
        draft_unit: str | None = None,
    ) -> None:
        """Load a checkpoint.

        Args:
            path: a GGUF file, a directory of Hugging Face's form, or a decoder that was exported to ONNX, with its
                config and tokenizer.json beside it.
            unit: the unit to run on, or several, as in "cpu,amx"; None takes the fastest unit of this machine.
            precision: "fp32" or "bf16"; None means the fastest precision on the unit.
            context_tokens: the most tokens of prompt and answer together, or of each if an encoder reads the prompt;
                None takes the model's own limit.
            cache_bytes: the memory of the cache of keys and values; None means a fraction of the machine's memory.
            cache_type: the type of keys and values: "fp32", "fp16", "bf16" or "int8"; None means the runtime's default.
            adapters: folders of LoRA adapters in PEFT's format, by the names that the option `adapter` uses. Adapters
                in the folder `adapters` beside the checkpoint are found without an entry.
            reproducible: whether answers are the same regardless of what else is computed at the same time; this needs
                fp32 on the unit "cpu".
            speculation: the method of speculative decoding, which changes no answer. "ngram" proposes the tokens that
                followed the same tokens earlier in the text, "draft" uses the draft model, and "off" proposes none.
                None means "draft" if there is a draft model, else "off".
            draft: the checkpoint of a draft model: a small model with the same vocabulary, which proposes the next
                tokens.
            draft_unit: the unit on which the draft model runs, if not that of the model.

        Raises:
            NotFoundError: there is no such file or directory.
            InvalidArgumentError: a file is broken, or an argument is out of range.
            UnsupportedError: the architecture is unknown, or a library is missing. The message has the command that
                installs it.
        """
        require_libraries()
        from triune.backends.resources import Resources
        from triune.backends.transformer.assemble import assemble_transformer
        from triune.backends.transformer.build import build_transformer

        self.path: Final = checkpoint_in(Path(path))
        if not self.path.exists():
            raise NotFoundError(f"'{path}': there is no such file or directory")
        guesser = None if draft is None else checkpoint_in(Path(draft))
        if guesser is not None and not guesser.exists():
            raise NotFoundError(f"the draft model '{draft}': there is no such file or directory")
        options = {
            UNITS_PARAMETER: unit,
            "precision": precision,
            "context_tokens": context_tokens,
            "cache_bytes": cache_bytes,
            "cache_type": cache_type,
            "reproducible": "true" if reproducible else None,
            "speculation": speculation,
            "draft_model": None if guesser is None else guesser.name,
            "draft_unit": draft_unit,
        }
        message = ModelConfigMessage(backend=TRANSFORMER)
        for name, value in options.items():
            if value is not None:
                message.parameters[name].string_value = str(value)
        if not self.path.is_dir():
            message.default_model_filename = self.path.name
        folder = self.path if self.path.is_dir() else self.path.parent
        name = self.path.stem
        machine, clock = this_machine(), MonotonicClock()
        runtime = decoder_runtime(machine, named_unit(message))
        if unit is not None:
            for named in named_units(unit.split(",")):
                machine.runtime_for(runtime, named)
        config = configure_transformer(message, name, folder, machine, runtime)
        source = Source(name, folder, message, (1,), Stamp())
        folders = {name: Path(each) for name, each in (adapters or {}).items()}
        build = build_transformer(
            config, source, 1, machine, clock, Attempt(), is_trial=False, adapters=folders, draft=guesser
        )
        self._loop = asyncio.new_event_loop()
        self._thread = start_thread(self._loop.run_forever, f"triune-{name}")
        self._is_closed = False
        self._lock = threading.Lock()

        self._metering = contextlib.ExitStack()
        ledger = self._metering.enter_context(metered(machine.units))
        accounts: dict[Unit, Account] = {}
        if ledger is not None:
            for found in build.units:
                accounts[found] = ledger.account(name, 1, found, is_emulated=found in build.emulated)

        async def assemble() -> Any:
            return assemble_transformer(build, Resources(DEFAULT_SETTINGS, clock, accounts))

        try:
            self._servable = self.wait(assemble())
        except BaseException:
            build.close()
            self._stop()
            raise
        self._model: Any = self._servable.model
        self.placement: Final[Placement] = self._model.placement
        self.context_tokens: Final[int] = self._model.context_tokens
        self.adapters: Final[tuple[str, ...]] = tuple(self._model.adapters)

    def __repr__(self) -> str:
        where = self.placement
        return f"<triune.Engine '{self.path.name}' on {where.unit.value} ({where.runtime}, {where.precision})>"

    @overload
    def generate(self, prompts: str, **options: Unpack[Options]) -> Answer: ...

    @overload
    def generate(self, prompts: list[str] | tuple[str, ...], **options: Unpack[Options]) -> list[Answer]: ...

    def generate(self, prompts: str | list[str] | tuple[str, ...], **options: Unpack[Options]) -> Answer | list[Answer]:
        """Continue a text, or several texts at the same time.

        Raises:
            InvalidArgumentError: a prompt is empty or longer than the context, or an option is out of range.
            InternalError: the model failed.
        """
        if isinstance(prompts, str):
            return self.wait(self._whole(request_of(prompts, options)))
        requests = [request_of(prompt, options) for prompt in prompts]
        return self.wait(_gathered([self._whole(request) for request in requests]))

    def stream(self, prompt: str, **options: Unpack[Options]) -> TextStream:
        """Continue a text. The iterator yields each piece as soon as it is generated. The first piece raises the errors
        of `generate`.
        """
        return TextStream(self, self._opened(request_of(prompt, options)))

    def chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> Answer:
        """Answer a conversation by the model's chat template.

        Raises:
            UnsupportedError: the model has no chat template.
            InvalidArgumentError: the template refuses the messages, or `generate` raised it.
        """
        return self.wait(self._whole(request_of("", options), checked_messages(messages)))

    def stream_chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> TextStream:
        """Answer a conversation. The iterator yields each piece as soon as it is generated. The first piece raises the
        errors of `chat`.
        """
        return TextStream(self, self._opened(request_of("", options), checked_messages(messages)))

    def energy(self, answer: Answer) -> Mapping[str, Any]:
        """The energy of an answer of this engine: `kind` is "measured", "estimated" or "unavailable"; then `joules`,
        `prefill_joules` and `decode_joules`, or the `reason`.
        """
        bill = answer.usage.bill
        return self.wait(report_of([bill] if bill is not None else []))

    async def generate_async(self, prompt: str, **options: Unpack[Options]) -> Answer:
        """Continue a text, in the caller's own event loop. Cancelling the caller cancels the answer."""
        return await self._elsewhere(self._whole(request_of(prompt, options)))

    async def stream_async(self, prompt: str, **options: Unpack[Options]) -> AsyncIterator[str]:
        """Continue a text piece by piece, in the caller's own event loop. Closing the iterator cancels the
        generation.
        """
        deltas = self._opened(request_of(prompt, options))
        try:
            while (delta := await self._elsewhere(_next(deltas))) is not None:
                if delta.text:
                    yield delta.text
        finally:
            await self._elsewhere(deltas.aclose())

    def close(self) -> None:
        """Let running answers finish, and free the model. A second `close` does nothing."""
        with self._lock:
            if self._is_closed:
                return
            self.wait(self._servable.close())
            self._is_closed = True
            self._stop()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the engine's loop, and wait for its result; interrupting the wait cancels it.

        Raises:
            UnavailableError: the engine is closed.
        """
        future = self._started(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _started(self, work: Coroutine[Any, Any, _T]) -> Any:
        if self._is_closed:
            work.close()
            raise UnavailableError(f"the engine of '{self.path.name}' is closed; make a new one")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _elsewhere(self, work: Coroutine[Any, Any, _T]) -> _T:
        return cast("_T", await asyncio.wrap_future(self._started(work)))

    async def _opened(self, request: Generation, messages: Sequence[Message] | None = None) -> AsyncGenerator[Delta]:
        if messages is not None:
            request = replace(request, prompt=await self._model.render(messages), is_templated=True)
        deltas: AsyncGenerator[Delta] = self._model.generate(request)
        try:
            async for delta in deltas:
                yield delta
        finally:
            await deltas.aclose()

    async def _whole(self, request: Generation, messages: Sequence[Message] | None = None) -> Answer:
        return joined([delta async for delta in self._opened(request, messages)])

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._metering.close()


def checkpoint_in(path: Path) -> Path:
    """The checkpoint at a path: the newest version's checkpoint if the path is a model's folder in a repository, else
    the path itself.
    """
    newest = newest_version(path)
    if newest is None:
        return path
    return newest / GGUF_FILENAME if (newest / GGUF_FILENAME).exists() else newest


async def _next(deltas: AsyncGenerator[Delta]) -> Delta | None:
    return await anext(deltas, None)


async def _gathered(work: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Wait for the results of all coroutines. If one raises an error, the others are cancelled, and the error is
    raised.
    """
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
