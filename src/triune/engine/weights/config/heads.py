"""Refuse configs whose numbers of heads contradict their widths, since no graph could be written with them."""

from collections.abc import Iterator

from triune.core.errors import InvalidArgumentError
from triune.engine.weights.config.bert import BertConfig
from triune.engine.weights.config.gpt2 import Gpt2Config
from triune.engine.weights.config.llama import LlamaConfig
from triune.engine.weights.config.t5 import T5Config
from triune.engine.weights.config.whisper import WhisperConfig


def require_heads(config: LlamaConfig | Gpt2Config | BertConfig | T5Config | WhisperConfig, where: str) -> None:
    """Check that the number of heads divides the width, and the number of heads of keys that of queries.

    Args:
        config: the config, whose numbers are at least 1.
        where: names the file in errors.

    Raises:
        InvalidArgumentError: a number of heads is wrong.
    """
    for what, num_heads, width, of in _divisors(config):
        if num_heads < 1 or width % num_heads:
            raise InvalidArgumentError(
                f"{where}: {num_heads} {what} do not divide the {of} {width}; correct the number of heads"
            )


def _divisors(
    config: LlamaConfig | Gpt2Config | BertConfig | T5Config | WhisperConfig,
) -> Iterator[tuple[str, int, int, str]]:
    match config:
        case LlamaConfig():
            yield "heads of keys", config.num_key_value_heads, config.num_attention_heads, "number of heads of queries,"
        case Gpt2Config():
            yield "heads", config.n_head, config.n_embd, "width"
        case BertConfig():
            yield "heads", config.num_attention_heads, config.hidden_size, "width"
        case WhisperConfig():
            yield "heads", config.encoder_attention_heads, config.d_model, "width"
            yield "heads", config.decoder_attention_heads, config.d_model, "width"
        case T5Config():
            # T5 states the width of a head (d_kv), so it need not follow from the width of the model.
            return
