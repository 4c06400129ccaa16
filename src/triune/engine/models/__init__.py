"""Architectures as ONNX graphs, one a file."""

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.engine.models.bert import write_bert
from triune.engine.models.builder import Weights
from triune.engine.models.encoder_forms import EncoderFormName
from triune.engine.models.forms import FormName
from triune.engine.models.gpt2 import write_gpt2
from triune.engine.models.llama import write_llama
from triune.engine.weights.config import BertConfig, Gpt2Config, LlamaConfig, ModelConfig
from triune.graph.held import HeldModel

__all__ = ["EncoderFormName", "FormName", "write_encoder", "write_model"]


def write_model(
    config: ModelConfig, weights: Weights, form: FormName, *, num_positions: int | None = None
) -> HeldModel:
    """Write a decoder as an ONNX graph in a form: `engine.models.forms` describes the inputs and outputs of each.

    Args:
        config: a checkpoint's config.
        weights: the checkpoint.
        form: "paged" for a cache of blocks, "plain" for none.
        num_positions: the longest context in tokens; None takes the model's own.

    Raises:
        UnsupportedError: the architecture has no decoder.
        InvalidArgumentError: the model has no positions for such a context.
    """
    match config:
        case LlamaConfig():
            return write_llama(config, weights, form, num_positions or config.max_position_embeddings)
        case Gpt2Config():
            if num_positions is not None and num_positions > config.n_positions:
                raise InvalidArgumentError(
                    f"a context of {num_positions} tokens is asked for; GPT-2 has an embedding for each of "
                    f"{config.n_positions} positions and no more"
                )
            return write_gpt2(config, weights, form, num_positions or config.n_positions)
        case _:
            raise UnsupportedError(f"{_name(config)} cannot be written as a decoder")


def write_encoder(config: ModelConfig, weights: Weights, form: EncoderFormName) -> HeldModel:
    """Write an encoder as an ONNX graph in a form: `engine.models.encoder_forms` describes the inputs of each, and the
    function of each architecture its outputs.

    Args:
        config: a checkpoint's config.
        weights: the checkpoint.
        form: "packed" for the tokens of many texts one after the other, "plain" for texts of equal length.

    Raises:
        UnsupportedError: the architecture has no encoder.
    """
    match config:
        case BertConfig():
            return write_bert(config, weights, form)
        case _:
            raise UnsupportedError(f"{_name(config)} cannot be written as an encoder")


def _name(config: ModelConfig) -> str:
    return type(config).__name__.removesuffix("Config")
