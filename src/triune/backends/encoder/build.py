"""Compile an encoder from its checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from triune.backends.attempt import Attempt
from triune.backends.backend import Build
from triune.backends.encoder.checkpoint import graph_output_of, open_encoder_checkpoint, output_of
from triune.backends.gate.gate import Gate, Judged, describe_shortfall, leave_out
from triune.backends.tensor.compile import compile_one
from triune.backends.tensor.executable import SharedExecutable
from triune.config.configure import Source
from triune.config.encoder import GRAPH_BACKEND
from triune.config.model_config import ModelConfig
from triune.config.placement import place
from triune.core.clock import Clock
from triune.core.datatypes import Array
from triune.core.disk import no_temporary
from triune.core.errors import InvalidArgumentError
from triune.core.runtime import Executable
from triune.core.scratch import HeldFolder
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.engine.encoder import Ids, TextEncoder
from triune.engine.models import write_encoder
from triune.engine.weights.left_out import left_out
from triune.runtimes.machine import Machine

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncoderBuild(Build):
    """A compiled encoder that does not answer requests yet.

    Attributes:
        executables: the executables, ordered by unit, then by instance.
        encoder: the tokenizer, and the description of the graph's output.
        verdicts: how far the answers of each unit except `cpu` differ from those of `cpu`, including units that are not
            used because of that.
        graph: the folder with the graph's file, which worker processes read when they restart; None without such
            processes.
        duration_ns: how long the build took.
    """

    executables: tuple[SharedExecutable, ...]
    encoder: TextEncoder
    verdicts: Mapping[Unit, Verdict]
    graph: HeldFolder | None
    duration_ns: int

    @property
    def precisions(self) -> Mapping[Unit, str]:
        """The floating-point format on each unit."""
        return {each.unit: each.precision for each in self.executables}

    @property
    def shortfall(self) -> str:
        """Why some units of the config are not used; "" if all are used."""
        return describe_shortfall(self.verdicts)

    def process_bytes(self) -> int:
        """The memory of its worker processes: see `Build.process_bytes`."""
        return sum(each.process_bytes() for each in self.executables)

    def close(self) -> None:
        """Free the executables."""
        for executable in self.executables:
            executable.close()
        if self.graph is not None:
            self.graph.remove()

    def __str__(self) -> str:
        units = " and ".join(
            f"{unit.value} ({'emulated, ' if unit in self.emulated else ''}"
            f"{next(each.recipe.runtime for each in self.executables if each.unit is unit)}, {precision})"
            for unit, precision in self.precisions.items()
        )
        return f"on {units}, texts of up to {self.encoder.max_tokens} tokens, in {self.duration_ns / 1e9:.2f} s"


@dataclass(frozen=True, slots=True)
class _TextSample:
    """Some texts, on which the outputs of units are compared.

    Attributes:
        encoder: the tokenizer and a description of the graph's outputs.
        texts: the tokens of each text.
    """

    encoder: TextEncoder
    texts: Sequence[Ids]

    def __call__(self, executable: Executable, /) -> Mapping[str, Array]:
        """Compute a row of output for each text."""
        return {self.encoder.output: self.encoder.compute_unchecked(executable, self.texts)}


def build_encoder(
    config: ModelConfig,
    source: Source,
    version: int,
    machine: Machine,
    clock: Clock,
    attempt: Attempt,
    gate: Gate,
    load_key: str,
) -> EncoderBuild:
    """Build an encoder: see `Backend.build`.

    Args:
        config: the completed config.
        source: the model on disk.
        version: its version.
        machine: the machine.
        clock: the clock.
        attempt: cancels the build.
        gate: compares the outputs of units with those of `cpu`.
        load_key: the key under which the verdicts on its units are stored (`config.load_key`).

    Raises:
        UnsupportedError: the answers of all units are wrong.
    """
    started_ns = clock.now_ns()
    bert, checkpoint = open_encoder_checkpoint(config.path)
    for part in left_out(checkpoint):
        _log.info("model '%s': %s", config.name, part)
    encoder = TextEncoder(
        checkpoint.tokenizer(),
        bert.max_position_embeddings,
        bert.vocab_size,
        graph_output_of(bert),
        output_of(bert).width,
    )
    attempt.check()
    placed = replace(config, backend=GRAPH_BACKEND)
    graph = write_encoder(bert, checkpoint, "packed")
    with ExitStack() as undo:
        try:
            folder = HeldFolder()
            undo.callback(folder.remove)
            path = folder.path / "model.onnx"
            graph.save(path)
        except OSError as error:
            raise no_temporary("the compilation of the graph", error) from error
        del graph
        executables: list[SharedExecutable] = []
        for recipe in place(placed, machine):
            attempt.check()
            executables.append(compile_one(path, recipe, machine))
            undo.callback(executables[-1].close)
            attempt.add(executables[-1])
        sample = _sample(encoder)
        scores = () if bert.head is None else (encoder.output,)
        verdicts = gate.judge(Judged(placed, path, [sample], load_key, scores), executables)
        units, kept = leave_out(verdicts, config, executables)
        for executable in {each.unit: each for each in kept}.values():
            # Check the outputs for NaN: with NaN in the weights, all units give NaN, and their comparison would find no
            # difference.
            if not np.isfinite(encoder.compute_unchecked(executable, sample.texts)).all():
                raise InvalidArgumentError(
                    f"the model's outputs on '{executable.unit.value}' are NaN or infinite; its weights are broken"
                )
        attempt.check()
        undo.pop_all()
    for executable in executables:
        if executable not in kept:
            executable.close()
    config = replace(config, units=units) if units != config.units else config
    is_hosted = any(each.is_hosted for each in kept)
    if not is_hosted:
        folder.remove()
    return EncoderBuild(
        version,
        config,
        source,
        tuple(kept),
        encoder,
        verdicts,
        folder if is_hosted else None,
        clock.now_ns() - started_ns,
        emulated=machine.emulated(config.units),
    )


def _sample(encoder: TextEncoder) -> _TextSample:
    """Create sample texts of different lengths: of one token, of a few, and of some more. Each call returns
    the same.
    """
    rng = np.random.default_rng(0)
    longest = min(encoder.max_tokens, 24)
    return _TextSample(
        encoder, [rng.integers(0, encoder.vocab_size, length) for length in (1, longest // 2 + 1, longest)]
    )
