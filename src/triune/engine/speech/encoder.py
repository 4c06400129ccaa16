"""The encoder: from a window's samples to what the decoder reads."""

import threading

import numpy as np
from numpy.typing import NDArray

from triune.core.errors import InternalError
from triune.core.runtime import Executable
from triune.engine.memory import Memory
from triune.engine.speech.mel import log_mel


class SpeechEncoder:
    """Computes windows, one at a time. Any thread may use it."""

    def __init__(self, executable: Executable, num_bands: int) -> None:
        """Args:
        executable: the graph of `write_whisper_encoder` with `gives_memory`; closed by `close`.
        num_bands: the bands of its spectrograms.
        """
        self._executable = executable
        self._num_bands = num_bands
        self._names = [spec.name for spec in executable.signature.outputs]
        self._lock = threading.Lock()

    def memory(self, samples: NDArray[np.float32]) -> Memory:
        """What a sequence reads of a window, FP32 [samples] at 16 kHz and at most 30 s.

        Raises:
            InternalError: the runtime failed, or gave numbers that are none.
        """
        features = log_mel(samples, self._num_bands)[np.newaxis]
        with self._lock:
            found = self._executable.run({"input_features": features}, self._names)
        if not all(np.isfinite(each).all() for each in found.values()):
            raise InternalError("the encoder gave numbers that are not finite; its weights or precision do not suit")
        return found

    def close(self) -> None:
        """Wait for a window that is computed, and free the executable."""
        with self._lock:
            self._executable.close()
