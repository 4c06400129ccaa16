"""Checkpoints of transformers as sources of conversions: their graphs in the plain form, as ONNX."""

import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnx import ModelProto
from onnx.reference import ReferenceEvaluator

from triune.api.conversions import ConversionResult, Given, Tell
from triune.backends.libraries import require_libraries
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.held import HeldModel
from triune.graph.load import load
from triune.graph.precision import TOLERANCES
from triune.graph.verify import OnnxModel, OutputVerdict, check_given, samples_of, verify

_MOST_BYTES_INLINE = 2**31 - 2**20


def is_checkpoint(source: Path) -> bool:
    """Whether `source` is a transformer's checkpoint: a GGUF file, or a directory with a config.json."""
    return source.suffix == ".gguf" or (source / "config.json").is_file()


def checkpoint_to_onnx(source: Path, output: Path, function: str | None, tell: Tell, given: Given) -> ConversionResult:
    """Convert a checkpoint to ONNX. Packed weights that ONNX has no form for are unpacked, which changes no number.

    The comparison is between ONNX Runtime and ONNX's reference evaluator, which computes with numpy.

    Args:
        source: a GGUF file, or a directory in Hugging Face's form.
        output: the ONNX file; weights of more than 2 GiB go to a second file beside it.
        function: "encoder" or "decoder", for models that have both.
        tell: called with a message at each step.
        given: inputs for a comparison; None for none.

    Raises:
        InvalidArgumentError: `function` is missing, or is not one of the model's.
        UnsupportedError: the architecture has no graph, or libraries are missing; the errors of `open_checkpoint` are
            raised too.
    """
    graph = _write(source, function, tell)
    tell("saving")
    if graph.weight_bytes > _MOST_BYTES_INLINE:
        graph.save(output)
    else:
        output.write_bytes(graph.whole().SerializeToString())
    if given is None:
        return ConversionResult()
    tell("running both")
    return ConversionResult(verdicts=_verified(load(output), graph, given))


def left_out_of(source: Path) -> tuple[str, ...]:
    """The parts of a checkpoint that its graphs do not have, a sentence for each. Raises the errors of
    `open_checkpoint`.
    """
    from triune.engine.weights import open_checkpoint
    from triune.engine.weights.left_out import left_out

    return left_out(open_checkpoint(source))


@contextmanager
def graph_of(source: Path, function: str | None, tell: Tell) -> Generator[Path]:
    """A context with the path of a checkpoint's graph, as an ONNX file that exists until the context ends. Raises the
    errors of `checkpoint_to_onnx`.
    """
    with tempfile.TemporaryDirectory(prefix="triune-checkpoint-") as folder:
        path = Path(folder) / "model.onnx"
        _write(source, function, tell).save(path)
        yield path


def _write(source: Path, function: str | None, tell: Tell) -> HeldModel:
    require_libraries()
    from triune.engine.models import write_encoder, write_model
    from triune.engine.weights import open_checkpoint
    from triune.engine.weights.config import BertConfig, T5Config, WhisperConfig

    tell("reading the checkpoint")
    checkpoint = open_checkpoint(source)
    config = checkpoint.config
    parts: dict[str, Callable[[], HeldModel]] = {}
    if isinstance(config, BertConfig | T5Config | WhisperConfig):
        parts["encoder"] = lambda: write_encoder(config, checkpoint, "plain")
    if not isinstance(config, BertConfig):
        parts["decoder"] = lambda: write_model(config, checkpoint, "plain")
    if function is None and len(parts) > 1:
        raise InvalidArgumentError(f"{source.name} has the functions {' and '.join(parts)}; choose one (--function)")
    if function is not None and function not in parts:
        raise InvalidArgumentError(f"{source.name} has no function '{function}'; it has {' and '.join(parts)}")
    tell("writing the graph")
    return parts[function or next(iter(parts))]()


def _verified(model: ModelProto, graph: HeldModel, given: Mapping[str, Array]) -> list[OutputVerdict]:
    """Compare the outputs of `model` in ONNX Runtime with those of `graph` in ONNX's reference evaluator (numpy)."""
    check_given(model, given)
    evaluator: Any = ReferenceEvaluator(graph.whole())
    names = [value.name for value in model.graph.output]

    def source(arrays: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return dict(zip(names, evaluator.run(None, dict(arrays)), strict=True))
        # ONNX's reference evaluator lets every error of numpy through, of any type.
        except Exception as error:
            raise UnsupportedError(f"numpy does not compute the graph on these inputs: {error}") from error

    result = OnnxModel(model, TOLERANCES["fp32"])
    sets = samples_of(model, {}, given, is_half=False)
    return verify(sets, source, result.run, result, TOLERANCES["fp32"])
