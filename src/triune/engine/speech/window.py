"""Transcribe one window: take the most probable text, and if that is doubtful, try again with sampling at higher
temperatures (openai/whisper, `transcribe.py`).
"""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from triune.engine.job import Job
from triune.engine.memory import Memory
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sequence import Ending
from triune.engine.sequence import Sequence as Computed
from triune.engine.speech.jobs import Jobs
from triune.engine.speech.rules import FirstLook, WindowRules, compression_ratio, mean_logprob
from triune.engine.speech.segments import SpeechRequest
from triune.engine.speech.tokens import SpeechTokens
from triune.engine.weights.config import WhisperConfig
from triune.engine.weights.tokenizer.tokenizer import Tokenizer

_TEMPERATURES: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_MOST_COMPRESSED: Final = 2.4
_LEAST_LOGPROB: Final = -1.0
_SILENCE: Final = 0.6
_CERTAIN_SILENCE: Final = 0.9
"""A window is silent if the probability of no speech is above this, whatever the probability of its words. In
silence and in a hum Whisper tiny.en writes "you" with a mean log-probability of -0.7, as for real words, and a
no-speech probability of 0.92 to 0.96; for speech, even faint speech, that probability is below 0.15. With
openai/whisper's two thresholds alone, the "you" would stay.
"""


@dataclass(frozen=True, slots=True)
class WindowText:
    """The text of a window.

    Attributes:
        tokens: the tokens, without the end token.
        temperature: the temperature of the accepted attempt.
        mean_logprob: the mean log-probability of its tokens.
        compression_ratio: the compression ratio of its text.
        no_speech: the probability that the window has no speech.
        language: the code of the language.
        num_prompt_tokens: the number of prompt tokens, in all attempts.
        num_tokens: the number of generated tokens, in all attempts.
    """

    tokens: tuple[int, ...]
    temperature: float
    mean_logprob: float
    compression_ratio: float
    no_speech: float
    language: str
    num_prompt_tokens: int
    num_tokens: int

    @property
    def is_silent(self) -> bool:
        """Whether the window is silent, so that its text is dropped."""
        if self.no_speech > _CERTAIN_SILENCE:
            return True
        return self.no_speech > _SILENCE and self.mean_logprob < _LEAST_LOGPROB

    @property
    def is_doubtful(self) -> bool:
        """Whether to try again at a higher temperature: the text repeats itself, or its tokens are improbable."""
        if self.is_silent:
            return False
        return self.compression_ratio > _MOST_COMPRESSED or self.mean_logprob < _LEAST_LOGPROB


class WindowReader:
    """Transcribes windows with one model."""

    def __init__(
        self, jobs: Jobs, config: WhisperConfig, special: SpeechTokens, tokenizer: Tokenizer, context_tokens: int
    ) -> None:
        """Args:
        jobs: the object that computes the sequences.
        config: the model's config.
        special: the model's special tokens.
        tokenizer: the model's tokenizer.
        context_tokens: the most tokens of prompt and text together.
        """
        self._jobs = jobs
        self._config = config
        self._special = special
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens

    async def read(self, memory: Memory, request: SpeechRequest, before: Sequence[int], language: str) -> WindowText:
        """Transcribe a window.

        Args:
            memory: the keys and values that the encoder computed.
            request: the request.
            before: the tokens of the text before the window.
            language: the code of the language; if empty, it is detected.

        Raises:
            TriuneError: the model failed.
        """
        salt = secrets.token_bytes(16)
        before = before[-(self._context_tokens // 2 - 1) :]
        look = FirstLook(self._special)
        begin = [self._special.previous, *before] if before else []
        looking = Job(
            [*begin, self._special.start],
            SamplingParameters(temperature=0),
            Ending(1, frozenset({self._special.end})),
            rules=look,
            memory=memory,
            salt=salt,
        )
        temperatures = _TEMPERATURES if request.temperature == 0 else (request.temperature,)
        if not language and self._special.languages:
            await self._run(looking, request)
            language = look.language
            text = await self._try(memory, request, before, language, temperatures[0], salt)
        else:
            # The detection of speech and the first try are computed in the same steps.
            trying = self._try(memory, request, before, language, temperatures[0], salt)
            tasks = asyncio.ensure_future(self._run(looking, request)), asyncio.ensure_future(trying)
            try:
                _, text = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
        num_tokens = len(text.tokens) + 1
        for temperature in temperatures[1:]:
            text = _with(text, look, num_tokens)
            if not text.is_doubtful:
                break
            text = await self._try(memory, request, before, language, temperature, salt)
            num_tokens += len(text.tokens) + 1
        return _with(text, look, num_tokens)

    async def _run(self, job: Job, request: SpeechRequest) -> Computed:
        """Compute a job of a request, and charge its energy to the request's bills. Raises the errors of `Jobs.run`."""
        sequence = await self._jobs.run(job)
        if request.bills is not None and sequence.bill is not None:
            request.bills.append(sequence.bill)
        return sequence

    async def _try(
        self,
        memory: Memory,
        request: SpeechRequest,
        before: Sequence[int],
        language: str,
        temperature: float,
        salt: bytes,
    ) -> WindowText:
        special = self._special
        prompt = special.prompt(before, language, translates=request.translates, has_stamps=request.has_stamps)
        rules = WindowRules(self._config, special, has_stamps=request.has_stamps)
        job = Job(
            prompt,
            SamplingParameters(temperature=temperature, seed=0),
            Ending(min(self._context_tokens // 2, self._context_tokens - len(prompt)), frozenset({special.end})),
            rules=rules,
            memory=memory,
            salt=salt,
        )
        sequence = await self._run(job, request)
        tokens = tuple(each for each in sequence.tokens[len(prompt) :] if each != special.end)
        text = self._tokenizer.decode(special.text_tokens(tokens)).strip()
        ratio, logprob = compression_ratio(text), mean_logprob(rules.logprob, tokens)
        return WindowText(tokens, temperature, logprob, ratio, 0.0, language or "en", len(prompt), 0)


def _with(text: WindowText, look: FirstLook, num_tokens: int) -> WindowText:
    return replace(text, no_speech=look.no_speech, num_tokens=num_tokens)
