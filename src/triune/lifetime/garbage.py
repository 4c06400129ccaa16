"""Python's garbage collector, which stops every thread while it looks at all objects."""

import contextlib
import gc
from collections.abc import Generator


@contextlib.contextmanager
def existing_objects_kept() -> Generator[None]:
    """Within the block, collect no object that exists at its begin: those of imported modules, which stay anyway.

    A full collection takes a second or more for each million of objects. They are most frequent while many calls begin.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
