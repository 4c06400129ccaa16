"""The audio of a request, decoded only as far as it is read: an hour of samples would take hundreds of megabytes."""

import numpy as np
from numpy.typing import NDArray

from triune.core.threads import in_thread
from triune.engine.speech.audio import AudioDecoder, Content, checked_samples
from triune.engine.speech.mel import FRAME_SAMPLES, WINDOW_SAMPLES


class HeldAudio:
    """Reads audio forward, window by window. Used on the event loop's thread; the files are decoded in other
    threads.
    """

    def __init__(self, content: Content | NDArray[np.float32], max_seconds: float) -> None:
        """Args:
        content: the bytes of a file, or FP32 [samples] at 16 kHz.
        max_seconds: the longest audio that is accepted, in seconds.
        """
        self._content = content
        self._max_seconds = max_seconds
        self._decoder: AudioDecoder | None = None
        self._is_whole = False
        # The samples that were decoded but not read yet, and the index of the first of them.
        self._samples: NDArray[np.float32] = np.empty(0, np.float32)
        self._start = 0

    async def window(self, at: int) -> NDArray[np.float32]:
        """The window that begins at sample `at`, FP32 [samples] at 16 kHz: 30 s, or what remains. `at` must not be
        before the previous window's beginning.

        Raises:
            InvalidArgumentError: the file is damaged, or not an audio file.
            PayloadTooLargeError: the audio is longer than `max_seconds`.
        """
        await self._decode_to(at + WINDOW_SAMPLES)
        self._samples = self._samples[at - self._start :].copy()
        self._start = at
        return self._samples[:WINDOW_SAMPLES]

    async def has_more(self, at: int) -> bool:
        """Whether the audio has at least one more spectrogram frame from sample `at` on. Raises the errors of
        `window`.
        """
        await self._decode_to(at + FRAME_SAMPLES)
        return self._start + len(self._samples) >= at + FRAME_SAMPLES

    async def _decode_to(self, end: int) -> None:
        # Decode part by part: if the client disconnects, only the current part is finished.
        while not self._is_whole and self._start + len(self._samples) < end:
            await in_thread(self._decode)

    def _decode(self) -> None:
        if isinstance(self._content, np.ndarray):
            self._samples, self._is_whole = checked_samples(self._content, self._max_seconds), True
            return
        if self._decoder is None:
            self._decoder = AudioDecoder(self._content, self._max_seconds)
        self._is_whole = not self._decoder.decode_part()
        self._samples = np.concatenate([self._samples, self._decoder.take()])
