"""Run Whisper's encoder: from the samples of a window (at most 30 s of sound) to the keys and values that the decoder
reads.
"""

import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from triune.arbiter.blocking import BlockingShare
from triune.core.clock import Clock
from triune.core.datatypes import Array
from triune.core.energy import Account, Bill
from triune.core.errors import InternalError
from triune.core.runtime import Executable
from triune.core.units import Unit
from triune.engine.memory import Memory
from triune.engine.speech.mel import log_mel
from triune.engine.speech.metered import Meter, computed


class SpeechEncoder:
    """Runs Whisper's encoder on one window (30 s of sound) at a time. Any thread may use it."""

    def __init__(self, executable: Executable, num_bands: int) -> None:
        """Args:
        executable: the compiled graph of `write_whisper_encoder` with `gives_memory`; `close` closes it.
        num_bands: the number of mel bands of the spectrograms that the model reads.
        """
        self._executable = executable
        self._num_bands = num_bands
        self._names = [spec.name for spec in executable.signature.outputs]
        self._lock = threading.Lock()
        self._meter: Meter | None = None
        self._share: BlockingShare | None = None

    @property
    def unit(self) -> Unit:
        """The compute unit that runs the encoder."""
        return self._executable.unit

    def charge(self, account: Account, clock: Clock) -> None:
        """Charge the energy of all windows from now on to `account`."""
        self._meter = Meter(account, clock)

    def take_turns(self, share: BlockingShare | None) -> None:
        """Wait for a turn on the hardware before each window from now on; `close` closes the share. With None it waits
        for no turn, since no other model computes there.
        """
        self._share = share

    def memory(self, samples: NDArray[np.float32], bills: list[Bill] | None = None) -> Memory:
        """The keys and values that the decoder's cross attention reads of one window of sound.

        Args:
            samples: FP32 [samples] at 16 kHz, at most 30 s.
            bills: the window's bill is appended to it; None if the client did not ask for the energy.

        Raises:
            InternalError: the runtime failed, or gave NaN or infinity.
        """
        found = self.memory_unchecked(samples, bills)
        if not is_finite(found):
            raise InternalError("the encoder gave numbers that are not finite; its weights or precision do not suit")
        return found

    def memory_unchecked(self, samples: NDArray[np.float32], bills: list[Bill] | None = None) -> Memory:
        """Compute as `memory` does, but without checking for NaN and infinities. Raises InternalError if the runtime
        failed.
        """
        features = log_mel(samples, self._num_bands)[np.newaxis]
        with self._lock:
            return self._computed(features, bills)

    def _computed(self, features: NDArray[np.float32], bills: list[Bill] | None) -> Mapping[str, Array]:
        share = self._share
        if share is not None:
            share.begin()
        try:
            return computed(self._executable, {"input_features": features}, self._names, self._meter, bills)
        finally:
            if share is not None:
                share.end(1, has_more=False)

    def close(self) -> None:
        """Wait until a running computation has ended, and free the executable."""
        with self._lock:
            self._executable.close()
            if self._share is not None:
                self._share.close()
                self._share = None


def is_finite(memory: Memory) -> bool:
    """Whether keys and values hold neither NaN nor infinity."""
    return all(bool(np.isfinite(each).all()) for each in memory.values())
