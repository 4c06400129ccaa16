"""Adapters of vendor libraries, one package each. An adapter loads a model file on a unit. `registry` lists them."""

from triune.runtimes.registry import available, missing

__all__ = ["available", "missing"]
