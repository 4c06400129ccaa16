"""Run the encoder of an encoder-decoder model, a compiled graph."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InternalError, TriuneError, defect_of
from triune.core.runtime import Executable
from triune.engine.encoder import pack
from triune.engine.encoder_steps import MAX_TOKENS, steps_of
from triune.engine.memory import Memory
from triune.engine.source import Source


class SourceEncoder:
    """A `SourceReader` that runs the graph of `write_encoder` in the packed form, with `gives_memory`."""

    def __init__(self, executable: Executable) -> None:
        """`executable` is the compiled encoder. `close` closes it."""
        self._executable = executable
        self._inputs = {spec.name for spec in executable.signature.inputs}
        self._outputs = [spec.name for spec in executable.signature.outputs]

    def read(self, sources: Seq[Source]) -> Seq[Memory | TriuneError]:
        """Implements `SourceReader.read`. Texts of similar length are read together, packed."""
        found: dict[int, Memory | TriuneError] = {}
        for step in steps_of([len(each) for each in sources], lambda: MAX_TOKENS):
            texts = [np.array(sources[at], np.int64) for at in step]
            try:
                given = {name: array for name, array in pack(texts).items() if name in self._inputs}
                memories = _parted(self._executable.run(given, self._outputs), [len(each) for each in texts])
            except BaseException as error:  # noqa: BLE001 - it fails those texts, and no other answer
                failure = error if isinstance(error, TriuneError) else defect_of("the encoder failed", error)
                found |= dict.fromkeys(step, failure)
            else:
                found |= dict(zip(step, memories, strict=True))
        return [found[at] for at in range(len(sources))]

    def close(self) -> None:
        """Free the executable."""
        self._executable.close()


def _parted(rows: Mapping[str, Array], counts: Seq[int]) -> list[Memory | TriuneError]:
    """Split the encoder's rows, [tokens of all texts, width], into [1, tokens, width] of each text. `counts` has the
    number of tokens of each text. Each part is copied, since a view would hold the memory of all texts. A part with NaN
    or infinity becomes an error.
    """
    found: list[Memory | TriuneError] = []
    begin = 0
    for count in counts:
        memory = {name: each[np.newaxis, begin : begin + count].copy() for name, each in rows.items()}
        begin += count
        if all(np.isfinite(each).all() for each in memory.values()):
            found.append(memory | {"cross_mask": np.ones((1, count, 1), np.float32)})
        else:
            found.append(
                InternalError("the encoder gave numbers that are not finite; its weights or precision do not suit")
            )
    return found
