"""Shortens the pauses of Python's garbage collector, which stops every thread while it looks at all objects."""

import contextlib
import gc
from collections.abc import Generator


@contextlib.contextmanager
def existing_objects_kept() -> Generator[None]:
    """Within the block, exclude all objects that exist at its beginning from garbage collection. Most of them belong to
    imported modules, and are never freed.

    A full collection would take a second or more for each million of these objects, most often while many calls begin.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
