"""Decoders with explicit caches of several sizes, as functions of one program (a "ladder")."""

from triune.runtimes.ladder.ladder import (
    DECODE,
    PREFILL,
    Held,
    Ladder,
    LadderFunction,
    contexts_up_to,
    function_name,
    functions_of,
)

__all__ = ["DECODE", "PREFILL", "Held", "Ladder", "LadderFunction", "contexts_up_to", "function_name", "functions_of"]
