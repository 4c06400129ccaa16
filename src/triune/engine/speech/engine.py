"""The speech engine: a `SpeechModel` with Whisper's encoder and decoder."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from triune.config.policy import QueueLimits
from triune.core.clock import Clock
from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError
from triune.core.fair_slots import FairSlots
from triune.core.statistics import ModelStatistics
from triune.core.threads import in_thread, in_thread_or_here, in_thread_to_its_end
from triune.engine.admission import Admission, Ticket
from triune.engine.core import EngineCore
from triune.engine.generation import Placement, Usage
from triune.engine.memory import Memory
from triune.engine.speech.audio import RATE, Content, audio_seconds
from triune.engine.speech.encoder import SpeechEncoder
from triune.engine.speech.held_audio import HeldAudio
from triune.engine.speech.jobs import Jobs
from triune.engine.speech.mel import FRAME_SAMPLES
from triune.engine.speech.segments import Segment, SpeechRequest, cut
from triune.engine.speech.tokens import SpeechTokens
from triune.engine.speech.window import WindowReader, WindowText
from triune.engine.speech.words.aligner import Aligner
from triune.engine.speech.words.segments import with_words
from triune.engine.weights.config import WhisperConfig
from triune.engine.weights.tokenizer.tokenizer import Tokenizer

_PROMPT_CHARACTERS: Final = 8192
"""The largest number of characters of a prompt that are read, counted from its end: the model reads 223 tokens of
it.
"""

_FORGETTING_TEMPERATURE: Final = 0.5
"""A window that was decoded at a higher temperature is not part of the next window's prompt."""


class _Window(NamedTuple):
    """The result of decoding a window of a file."""

    text: WindowText
    segments: Sequence[Segment]
    is_last: bool


class SpeechEngine:
    """A `SpeechModel`. Made and used on the event loop's thread.

    The windows of all requests are decoded together. A request has one window at a time, since the times in a window's
    text determine where the next window begins. At most `max_running` requests are read at the same time. If there are
    more, they take turns, one window each.

    Attributes:
        placement: where the model runs.
    """

    def __init__(
        self,
        core: EngineCore,
        encoder: SpeechEncoder,
        aligner: Aligner,
        config: WhisperConfig,
        tokenizer: Tokenizer,
        special: SpeechTokens,
        placement: Placement,
        clock: Clock,
        *,
        name: str,
        statistics: ModelStatistics,
        max_running: int,
        max_seconds: float,
        limits: QueueLimits,
        close_decoder: Callable[[], None],
    ) -> None:
        """Args:
        core: the engine core, which belongs to the speech engine from now on.
        encoder: the encoder, which is closed with the engine.
        aligner: finds the times of words. It is closed with the engine.
        config: the model's config.
        tokenizer: the model's tokenizer.
        special: the model's special tokens.
        placement: where the model runs.
        clock: the clock of all measurements.
        name: the model's name, for errors.
        statistics: the counters.
        max_running: the most requests that are read at the same time.
        max_seconds: the length of the longest audio file that is accepted.
        limits: how many more requests may wait, and how long.
        close_decoder: frees the decoder; called in a thread by `close`.

        Raises:
            NoThreadError: the system cannot start a thread. The caller still owns encoder and decoder then.
        """
        self.placement = placement
        self._encoder = encoder
        self._aligner = aligner
        self._tokenizer = tokenizer
        self._special = special
        self._clock = clock
        self._name = name
        self._max_seconds = max_seconds
        self._close_decoder = close_decoder
        self._admission = Admission(name, clock, statistics, max_running, limits)
        self._places = FairSlots(max_running)
        self._jobs = Jobs(core, self._admission, placement.unit, clock, name)
        self._reader = WindowReader(self._jobs, config, special, tokenizer, core.context_tokens)

    @property
    def statistics(self) -> ModelStatistics:
        """Triton's counters: a file counts as one request, and a step of the engine as a batch of the windows that it
        computes.
        """
        return self._admission.statistics

    @property
    def languages(self) -> Sequence[str]:
        """Implements `SpeechModel.languages`."""
        return tuple(self._special.languages) or ("en",)

    async def seconds_of(self, content: Content) -> float:
        """Implements `SpeechModel.seconds_of`."""
        return await in_thread(audio_seconds, content, self._max_seconds)

    async def transcribe(
        self, content: Content | NDArray[np.float32], request: SpeechRequest
    ) -> AsyncGenerator[Segment]:
        """Implements `SpeechModel.transcribe`."""
        self._require_known(request)
        ticket = self._admission.enter(1)
        failure: TriuneError | None = None
        usages: list[Usage] = []
        try:
            begun_ns = num_read = num_written = 0
            async with aclosing(self._windows(HeldAudio(content, self._max_seconds), request)) as windows:
                is_last = False
                while not is_last:
                    # The slot is held only while a window is computed, so that a client that reads slowly does not
                    # block other requests.
                    async with self._places.slot(1):
                        if not ticket.has_begun:
                            self._admission.require_open()
                            self._admission.begin(ticket)
                            begun_ns = self._clock.now_ns()
                        text, segments, is_last = await anext(windows)
                    num_read += text.num_prompt_tokens
                    num_written += text.num_tokens
                    for segment in segments:
                        yield segment
            usages.append(self._usage(ticket, begun_ns, num_read, num_written))
        except TriuneError as error:
            failure = error
            raise
        finally:
            self._admission.leave(ticket)
            if usages:
                self._admission.succeed(ticket, usages, self.placement.unit)
            else:
                self._admission.fail(ticket, failure)

    def refuse(self) -> None:
        """Refuse waiting and new requests; those that have begun go on."""
        if not self._admission.refusal:
            self._admission.refusal = (
                f"model '{self._name}' is being unloaded and takes no new requests; try again later"
            )

    async def drain(self) -> None:
        """Wait until no request waits or runs."""
        await self._admission.until_empty()

    async def close(self) -> None:
        """Refuse waiting and new requests, wait for the running ones, and free everything."""
        self.refuse()
        await self.drain()
        self._jobs.stop()
        await in_thread_or_here(self._free)

    def _free(self) -> None:
        self._jobs.join()
        self._encoder.close()
        self._aligner.close()
        self._close_decoder()

    def _require_known(self, request: SpeechRequest) -> None:
        language = request.language
        if language is not None and language not in self.languages:
            raise InvalidArgumentError(
                f"language is '{language[:32]}'; model '{self._name}' knows {', '.join(self.languages)}"
            )
        if request.translates and not self._special.languages:
            raise UnsupportedError(f"model '{self._name}' knows English only, so that it cannot translate")

    async def _windows(self, audio: HeldAudio, request: SpeechRequest) -> AsyncGenerator[_Window]:
        """Transcribe one window after another. The text of earlier windows is a part of each window's prompt."""
        before = await self._prompt_tokens(request.prompt)
        language = request.language or ""
        at = 0
        is_last = False
        while not is_last:
            window = await audio.window(at)
            memory = await in_thread_to_its_end(self._encoder.memory, window, request.bills)
            text = await self._reader.read(memory, request, before, language)
            language = text.language
            segments, num_samples = ([], len(window)) if text.is_silent else self._cut(text, at, len(window))
            if request.has_words and segments:
                segments = await in_thread_to_its_end(self._with_words, segments, memory, request, at, len(window))
            is_last = not await audio.has_more(at + num_samples)
            yield _Window(text, segments, is_last)
            before = [*before, *(token for segment in segments for token in segment.tokens)]
            if text.temperature > _FORGETTING_TEMPERATURE:
                before = []
            at += num_samples

    def _cut(self, text: WindowText, at: int, num_samples: int) -> tuple[list[Segment], int]:
        """The segments of a window of `num_samples` samples that begins at sample `at`, and the number of samples that
        they cover: the next window begins there.
        """
        pieces, seconds = cut(text.tokens, self._special, num_samples / RATE)
        segments: list[Segment] = []
        for piece in pieces:
            words = self._tokenizer.decode(self._special.text_tokens(piece.tokens))
            if piece.end > piece.start and words.strip():
                segments.append(
                    Segment(
                        at / RATE + piece.start,
                        at / RATE + piece.end,
                        words,
                        piece.tokens,
                        at // FRAME_SAMPLES,
                        text.temperature,
                        text.mean_logprob,
                        text.compression_ratio,
                        text.no_speech,
                        text.language,
                    )
                )
        num_read = round(seconds * RATE)
        return segments, min(num_read, num_samples) if num_read > 0 else num_samples

    def _with_words(
        self, segments: list[Segment], memory: Memory, request: SpeechRequest, at: int, num_samples: int
    ) -> list[Segment]:
        """The segments of a window of `num_samples` samples that begins at sample `at`, with the times of their
        words.
        """
        tokens = [token for segment in segments for token in self._special.text_tokens(segment.tokens)]
        words = self._aligner.words(
            memory,
            tokens,
            segments[0].language,
            translates=request.translates,
            seconds=num_samples / RATE,
            bills=request.bills,
        )
        return with_words(segments, words, self._special, at / RATE)

    async def _prompt_tokens(self, prompt: str) -> list[int]:
        words = prompt.strip()[-_PROMPT_CHARACTERS:]
        if not words:
            return []
        found = await in_thread(partial(self._tokenizer.encode, f" {words}", add_special_tokens=False))
        return self._special.text_tokens(found)

    def _usage(self, ticket: Ticket, begun_ns: int, num_read: int, num_written: int) -> Usage:
        total_ns = self._clock.now_ns() - ticket.arrived_ns
        queue_ns = begun_ns - ticket.arrived_ns
        return Usage(num_read, 0, num_written, queue_ns, total_ns, total_ns)
