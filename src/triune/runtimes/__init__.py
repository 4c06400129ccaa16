"""One adapter a vendor library: each loads a model file on a unit. `registry` has a row for each."""

from triune.runtimes.registry import available, missing

__all__ = ["available", "missing"]
