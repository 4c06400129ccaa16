"""Write architectures of transformers as ONNX graphs. Each file has one architecture."""

from collections.abc import Sequence

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.explicit_cache import ExplicitSize
from triune.engine.models.bert import write_bert
from triune.engine.models.builder import Weights
from triune.engine.models.encoder_forms import EncoderFormName
from triune.engine.models.forms import FormName
from triune.engine.models.gpt2 import write_gpt2
from triune.engine.models.llama import write_llama
from triune.engine.models.t5 import write_t5_decoder, write_t5_encoder
from triune.engine.models.whisper import write_whisper_decoder, write_whisper_encoder
from triune.engine.weights.config import BertConfig, Gpt2Config, LlamaConfig, ModelConfig, T5Config, WhisperConfig
from triune.engine.weights.lora import Adapter
from triune.graph.held import HeldModel

__all__ = ["EncoderFormName", "FormName", "write_encoder", "write_explicit", "write_model"]


def write_model(
    config: ModelConfig,
    weights: Weights,
    form: FormName,
    *,
    num_positions: int | None = None,
    adapters: Sequence[Adapter] = (),
) -> HeldModel:
    """Write a decoder as an ONNX graph in a form: `engine.models.forms` describes the inputs and outputs of each.

    Args:
        config: a checkpoint's config.
        weights: the checkpoint.
        form: "paged" for a cache of blocks, "plain" for none.
        num_positions: the longest context in tokens; None takes the model's own.
        adapters: LoRA adapters; each token may have one of them. Without adapters, the graph has no inputs and nodes
            for them.

    Raises:
        UnsupportedError: the architecture has no decoder, or none with adapters.
        InvalidArgumentError: the model has fewer learned positions than `num_positions`.
    """
    if adapters and not isinstance(config, LlamaConfig | Gpt2Config):
        raise UnsupportedError(f"{_name(config)} is not written with LoRA adapters; LLaMA's family and GPT-2 are")
    match config:
        case LlamaConfig():
            return write_llama(config, weights, form, num_positions or config.max_position_embeddings, adapters)
        case Gpt2Config():
            _require_positions(config.n_positions, num_positions)
            return write_gpt2(config, weights, form, num_positions or config.n_positions, adapters)
        case T5Config():
            return write_t5_decoder(config, weights, form, num_positions or 0)
        case WhisperConfig():
            _require_positions(config.max_target_positions, num_positions)
            return write_whisper_decoder(config, weights, form, num_positions or config.max_target_positions)
        case _:
            raise UnsupportedError(f"{_name(config)} cannot be written as a decoder")


def write_explicit(config: ModelConfig, weights: Weights, size: ExplicitSize, *, num_positions: int) -> HeldModel:
    """Write a decoder as an ONNX graph for one sequence with an explicit cache (`engine.models.explicit`).

    Args:
        config: a checkpoint's config.
        weights: the checkpoint.
        size: the number of tokens that the cache can hold, and the number of new tokens in a call.
        num_positions: the longest context in tokens. It must be the same for all sizes between which sequences move,
            since tables of positions may depend on it.

    Raises:
        UnsupportedError: the architecture is not written in this form.
        InvalidArgumentError: the model has fewer learned positions than `num_positions`, or the cache holds more than
            that.
    """
    if size.context > num_positions:
        raise InvalidArgumentError(
            f"a cache of {size.context} tokens is asked for; the context has {num_positions} at most"
        )
    match config:
        case LlamaConfig():
            return write_llama(config, weights, size, num_positions)
        case Gpt2Config():
            _require_positions(config.n_positions, num_positions)
            return write_gpt2(config, weights, size, num_positions)
        case _:
            raise UnsupportedError(
                f"{_name(config)} is not written with an explicit cache; LLaMA's family and GPT-2 are"
            )


def write_encoder(
    config: ModelConfig, weights: Weights, form: EncoderFormName, *, gives_memory: bool = False
) -> HeldModel:
    """Write an encoder as an ONNX graph in a form. `engine.models.encoder_forms` describes the inputs of each form, and
    the functions of the architectures, such as `write_bert`, describe the outputs.

    Args:
        config: a checkpoint's config.
        weights: the checkpoint.
        form: "packed" for the tokens of many texts one after the other, "plain" for texts of equal length.
        gives_memory: whether the outputs are those that a decoder in the paged form reads (`DecoderStep.memory`).

    Raises:
        UnsupportedError: the architecture has no encoder, or none with the requested outputs.
    """
    if gives_memory and not isinstance(config, T5Config | WhisperConfig):
        raise UnsupportedError(f"{_name(config)} has no decoder that reads an encoder")
    match config:
        case BertConfig():
            return write_bert(config, weights, form)
        case T5Config():
            return write_t5_encoder(config, weights, form, gives_memory=gives_memory)
        case WhisperConfig():
            if form != "plain":
                raise UnsupportedError("Whisper reads frames of sound, which are not packed: take the plain form")
            return write_whisper_encoder(config, weights, gives_memory=gives_memory)
        case _:
            raise UnsupportedError(f"{_name(config)} cannot be written as an encoder")


def _require_positions(most: int, wanted: int | None) -> None:
    """Check that a model with learned positions has as many positions as requested. Raises InvalidArgumentError."""
    if wanted is not None and wanted > most:
        raise InvalidArgumentError(
            f"a context of {wanted} tokens is asked for; the model has an embedding for each of {most} positions and "
            "no more"
        )


def _name(config: ModelConfig) -> str:
    return type(config).__name__.removesuffix("Config")
