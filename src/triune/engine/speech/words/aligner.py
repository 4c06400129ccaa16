"""Finds the times of the words of a window."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from triune.core.clock import Clock
from triune.core.datatypes import Array
from triune.core.energy import Account, Bill
from triune.core.runtime import Executable
from triune.engine.memory import Memory
from triune.engine.speech.metered import Meter, computed
from triune.engine.speech.tokens import SpeechTokens
from triune.engine.speech.words.alignment import first_frames
from triune.engine.speech.words.split import Word, split

_FRAMES_A_SECOND: Final = 50
"""The number of frames per second in the encoder's output."""


class Aligner:
    """Runs a window's text through the decoder again, for its cross-attention weights. Any thread may use it.

    The graph has its own copy of the decoder's weights, so that it is compiled only when times of words are first
    requested.
    """

    def __init__(
        self, load: Callable[[], Executable], special: SpeechTokens, token_bytes: Callable[[], Sequence[bytes]]
    ) -> None:
        """Args:
        load: compiles the graph of `write_whisper_alignment`.
        special: the special tokens.
        token_bytes: gives the bytes of each token of the vocabulary.
        """
        self._load = load
        self._special = special
        self._token_bytes = token_bytes
        self._lock = threading.Lock()
        self._executable: Executable | None = None
        self._meter: Meter | None = None

    def charge(self, account: Account, clock: Clock) -> None:
        """Charge the energy of all texts from now on to `account`."""
        self._meter = Meter(account, clock)

    def words(
        self,
        memory: Memory,
        tokens: Sequence[int],
        language: str,
        *,
        translates: bool,
        seconds: float,
        bills: list[Bill] | None = None,
    ) -> list[Word]:
        """The words of a window's text with their times in the window. Punctuation marks are separate words.

        Args:
            memory: the encoder's output.
            tokens: the text's tokens, without times.
            language: the code of the language.
            translates: whether the text is a translation.
            seconds: the length of the sound in the window.
            bills: the bill of this computation is appended to it; None for no bill.

        Raises:
            TriuneError: the graph cannot be compiled, or the runtime failed.
        """
        special = self._special
        if not tokens:
            return []
        prompt = special.prompt((), language, translates=translates, has_stamps=False)
        ids = np.array([[*prompt, *tokens, special.end]], np.int64)
        found = self._run({"input_ids": ids, "next_ids": np.roll(ids, -1), **memory}, bills)
        # The rows begin at the last token of the prompt, which predicts the first token of the text.
        rows = slice(len(prompt) - 1, len(prompt) + len(tokens))
        num_frames = max(1, min(round(seconds * _FRAMES_A_SECOND), found["scores"].shape[-1]))
        starts = first_frames(found["scores"][:, rows], num_frames) / _FRAMES_A_SECOND
        probabilities = found["probabilities"][0, rows]
        words: list[Word] = []
        at = 0
        for text, count in split(tokens, self._token_bytes(), language):
            start, end = float(starts[at]), float(starts[at + count])
            words.append(Word(start, end, text, count, float(probabilities[at : at + count].mean())))
            at += count
        return words

    def close(self) -> None:
        """Free the executable. No call may be running, and none may follow."""
        with self._lock:
            if self._executable is not None:
                self._executable.close()
                self._executable = None

    def _run(self, inputs: Mapping[str, Array], bills: list[Bill] | None) -> Mapping[str, Array]:
        with self._lock:
            if self._executable is None:
                self._executable = self._load()
            return computed(self._executable, inputs, ["scores", "probabilities"], self._meter, bills)
