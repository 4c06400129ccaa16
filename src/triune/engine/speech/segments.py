"""The request and the answer of a speech model, and how a window's tokens become segments."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triune.core.energy import Bill
from triune.engine.generation import Placement
from triune.engine.model_servable import ServedModel
from triune.engine.speech.audio import Content
from triune.engine.speech.mel import WINDOW_SECONDS
from triune.engine.speech.tokens import SECONDS_A_STAMP, SpeechTokens
from triune.engine.speech.words.split import Word


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """A request to transcribe an audio file.

    Attributes:
        language: the code of the spoken language, such as "de"; None detects it in the first window.
        translates: whether to translate the speech to English.
        prompt: a text that might precede the transcript, whose style and spelling the model continues.
        temperature: the sampling temperature. With 0 the most probable text is taken, and higher temperatures are tried
            if it repeats itself or is improbable.
        has_stamps: whether the model computes times. Without them each segment is a window of 30 s.
        has_words: whether the times of words are computed too.
        bills: the bills of the request's windows and texts are appended to it; None if the client did not ask for the
            energy.
    """

    language: str | None = None
    translates: bool = False
    prompt: str = ""
    temperature: float = 0.0
    has_stamps: bool = True
    has_words: bool = False
    bills: list[Bill] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a transcript.

    Attributes:
        start: its start, in seconds.
        end: its end, in seconds.
        text: its text, with the leading space.
        tokens: the tokens of the text and of the times.
        seek: the start of its window, in frames of 10 ms.
        temperature: the sampling temperature of the window.
        mean_logprob: the mean logarithm of the probability of the window's tokens.
        compression_ratio: the compression ratio of the window's text.
        no_speech: the probability that the window has no speech.
        language: the code of the language.
        words: its words with their times, if the request wants them.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    seek: int
    temperature: float
    mean_logprob: float
    compression_ratio: float
    no_speech: float
    language: str
    words: tuple[Word, ...] = ()


class SpeechModel(Protocol):
    """A loaded model that transcribes speech. Used on the event loop's thread; slow work is done in other threads."""

    @property
    def placement(self) -> Placement:
        """Where the model runs."""
        ...

    @property
    def languages(self) -> Sequence[str]:
        """The codes of the languages that the model knows; only "en" for English-only models, which cannot
        translate.
        """
        ...

    async def seconds_of(self, content: Content) -> float:
        """The length of an audio file in seconds, according to its headers.

        Raises:
            InvalidArgumentError: the content is not an audio file of a known format.
            PayloadTooLargeError: the audio is longer than the model's limit.
        """
        ...

    def transcribe(self, content: Content | NDArray[np.float32], request: SpeechRequest) -> AsyncGenerator[Segment]:
        """Transcribe an audio file, or FP32 [samples] at 16 kHz, and yield its segments as soon as they are known.
        Closing the generator cancels the transcription.

        Raises:
            InvalidArgumentError: the file cannot be decoded, or the request asks for a language or task that the model
                does not support.
            PayloadTooLargeError: the audio is longer than the model's limit.
            UnavailableError: too many requests wait, or the model is being unloaded.
            InternalError: the model failed.
        """
        ...


class ServedSpeechModel(SpeechModel, ServedModel, Protocol):
    """A speech model, with the further properties that the server reads."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a window's tokens with its times, in seconds after the window's beginning."""

    start: float
    end: float
    tokens: tuple[int, ...]


def cut(tokens: Sequence[int], special: SpeechTokens, seconds: float) -> tuple[list[Piece], float]:
    """Cut a window's tokens into segments at its timestamps.

    Args:
        tokens: the generated tokens, without the end token.
        special: the special tokens.
        seconds: the length of the sound in the window.

    Returns:
        the pieces, and the number of seconds of the window that they cover: the next window begins there.
    """
    first = special.first_stamp
    is_stamp = [each >= first for each in tokens]
    ends = [at + 1 for at in range(len(tokens) - 1) if is_stamp[at] and is_stamp[at + 1]]
    has_single_end = is_stamp[-2:] == [False, True]
    if not ends:
        last = next((each for each in reversed(tokens) if each > first), None)
        end = seconds if last is None else min(_time(last, first), seconds)
        return [Piece(0.0, end, tuple(tokens))], seconds
    if has_single_end:
        ends.append(len(tokens))
    pieces: list[Piece] = []
    begin = 0
    for end in ends:
        part = tuple(tokens[begin:end])
        pieces.append(Piece(_time(part[0], first), _time(part[-1], first), part))
        begin = end
    # A single timestamp at the end means that nothing is spoken after it, so the pieces cover the whole window.
    return pieces, seconds if has_single_end else _time(tokens[begin - 1], first)


def _time(token: int, first: int) -> float:
    return min((token - first) * SECONDS_A_STAMP, float(WINDOW_SECONDS))
