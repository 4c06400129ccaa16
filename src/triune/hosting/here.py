"""Which process this is."""

import sys


def is_worker_process() -> bool:
    """Is this a worker process? What it loads need not be hosted by another one."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name == "triune.hosting.child"
