"""Silence coremltools' messages about its own internals. Its warnings about the model stay."""

import contextlib
import logging
import os
import warnings
from collections.abc import Generator

# Parts of messages that are dropped. "Saving value type of" is logged for sizes that are int64 in numpy: MIL has int32,
# and Triune writes int32.
_NOISE = (
    "Failed to load _ML",
    "Saving value type of",
    "has not been tested with coremltools",
    "scikit-learn version",
    "TensorFlow version",
    "Torch version",
    "You may run into unexpected errors",
    "Unable to load CoreML.framework",
)


class _NoiseFilter(logging.Filter):
    """Drops log records that tell nothing about the model."""

    def filter(self, record: logging.LogRecord) -> bool:
        # Drop everything below a warning: passes of coremltools log every constant that they remove.
        if record.levelno < logging.WARNING:
            return False
        text = record.getMessage()
        return not any(noise in text for noise in _NOISE)


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """A context for using coremltools without warnings about missing frameworks and without progress bars.

    It is not thread-safe: it temporarily sets tqdm's environment variable and the warning filters.
    """
    logger = logging.getLogger("coremltools")
    noise_filter = _NoiseFilter()
    logger.addFilter(noise_filter)
    handlers = list(logger.handlers)
    for handler in handlers:
        handler.addFilter(noise_filter)
    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        with warnings.catch_warnings():
            # Ignore numpy's warnings: passes of coremltools compute with constants that may be infinite.
            warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"coremltools\.")
            warnings.filterwarnings("ignore", category=SyntaxWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        logger.removeFilter(noise_filter)
        for handler in handlers:
            handler.removeFilter(noise_filter)
        if before is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = before
