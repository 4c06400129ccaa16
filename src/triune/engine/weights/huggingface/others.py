"""config.json of GPT-2, BERT, T5 and Whisper. Defaults are those of Hugging Face's config classes."""

from typing import Final

from triune.core.errors import UnsupportedError
from triune.engine.weights.config import BertConfig, Gpt2Config, SpecialTokens, T5Config, WhisperConfig
from triune.engine.weights.fields import MAX_LAYERS, Fields

_GPT2_ACTIVATIONS: Final = {
    "gelu_new": "gelu_new",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_MAX_LABELS: Final = 1 << 16
_MAX_DISTANCE: Final = 1 << 16
"""The largest distance for which T5 may have a bias of its own: the bias of each distance is written into the graph."""


def read_gpt2(fields: Fields, tokens: SpecialTokens) -> Gpt2Config:
    """Read the config of GPT-2. Raises the same errors as `Fields`, as do the other functions here."""
    width = fields.whole("n_embd", 768)
    activation = fields.choice("activation_function", _GPT2_ACTIVATIONS, "gelu_new")
    return Gpt2Config(
        vocab_size=fields.whole("vocab_size", 50257),
        n_positions=fields.whole("n_positions", 1024),
        n_embd=width,
        n_layer=fields.whole("n_layer", 12, most=MAX_LAYERS),
        n_head=fields.whole("n_head", 12),
        n_inner=fields.whole("n_inner", 4 * width),
        activation_function=activation,  # pyright: ignore[reportArgumentType]
        layer_norm_epsilon=fields.number("layer_norm_epsilon", 1e-5, above=0),
        scale_attn_weights=fields.flag("scale_attn_weights", True),
        scale_attn_by_inverse_layer_idx=fields.flag("scale_attn_by_inverse_layer_idx", False),
        tie_word_embeddings=fields.flag("tie_word_embeddings", True),
        tokens=tokens,
    )


def read_bert(fields: Fields, tokens: SpecialTokens, pooling: str | None, is_normalized: bool) -> BertConfig:
    """Read the config of BERT as if the model had a head; whether it has one is known later, by its tensors. `pooling`
    and `is_normalized` come from sentence-transformers' files.
    """
    fields.choice("position_embedding_type", {"absolute": "absolute"}, "absolute")
    # Read `tie_word_embeddings`, so that it does not count as unknown. It matters only for the masked-language-model
    # head, which is not served.
    fields.flag("tie_word_embeddings", True)
    if fields.flag("is_decoder", False):
        raise UnsupportedError(f"{fields.where}: is_decoder is true; a BERT that decodes is not known here")
    return BertConfig(
        vocab_size=fields.whole("vocab_size", 30522),
        hidden_size=fields.whole("hidden_size", 768),
        num_hidden_layers=fields.whole("num_hidden_layers", 12, most=MAX_LAYERS),
        num_attention_heads=fields.whole("num_attention_heads", 12),
        intermediate_size=fields.whole("intermediate_size", 3072),
        max_position_embeddings=fields.whole("max_position_embeddings", 512),
        type_vocab_size=fields.whole("type_vocab_size", 2),
        hidden_act=fields.choice("hidden_act", _GPT2_ACTIVATIONS, "gelu"),  # pyright: ignore[reportArgumentType]
        layer_norm_eps=fields.number("layer_norm_eps", 1e-12, above=0),
        labels=_labels(fields),
        is_multi_label=fields.text("problem_type", "") == "multi_label_classification",
        pooling=pooling,  # pyright: ignore[reportArgumentType]
        is_normalized=is_normalized,
        tokens=tokens,
    )


def _labels(fields: Fields) -> tuple[str, ...]:
    """The names of the classes that a head would have. If the file has none, there are two classes: transformers omits
    this default.
    """
    names = fields.inner("id2label")
    labels: list[str] = []
    while names is not None and len(labels) < _MAX_LABELS and str(len(labels)) in names:
        labels.append(names.text(str(len(labels))))
    return tuple(labels) or ("LABEL_0", "LABEL_1")


def read_t5(fields: Fields, tokens: SpecialTokens) -> T5Config:
    """Read the config of T5."""
    activations = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_new", "silu": "silu"}
    given = fields.text("feed_forward_proj", "relu")
    is_gated = given.startswith("gated-")
    # In "gated-gelu" the GELU is the tanh approximation, as in transformers.
    name = "gelu_new" if given == "gated-gelu" else given.removeprefix("gated-")
    activation = Fields({"feed_forward_proj": name}, fields.where).choice("feed_forward_proj", activations)
    num_layers = fields.whole("num_layers", 6, most=MAX_LAYERS)
    for derived in ("dense_act_fn", "is_gated_act"):
        fields.get(derived)
    is_tied = fields.flag("tie_word_embeddings", True)
    num_buckets = fields.whole("relative_attention_num_buckets", 32, least=4, most=_MAX_DISTANCE)
    return T5Config(
        vocab_size=fields.whole("vocab_size", 32128),
        d_model=fields.whole("d_model", 512),
        d_kv=fields.whole("d_kv", 64),
        d_ff=fields.whole("d_ff", 2048),
        num_layers=num_layers,
        num_decoder_layers=fields.whole("num_decoder_layers", num_layers, most=MAX_LAYERS),
        num_heads=fields.whole("num_heads", 8),
        relative_attention_num_buckets=num_buckets,
        # The decoder has one bucket for each of the first num_buckets / 2 distances, and other buckets for ranges of
        # distances beyond them. So the largest distance must be larger than num_buckets / 2.
        relative_attention_max_distance=fields.whole(
            "relative_attention_max_distance", 128, least=num_buckets // 2 + 1, most=_MAX_DISTANCE
        ),
        layer_norm_epsilon=fields.number("layer_norm_epsilon", 1e-6, above=0),
        activation=activation,  # pyright: ignore[reportArgumentType]
        is_gated_act=is_gated,
        tie_word_embeddings=is_tied,
        scale_decoder_outputs=fields.flag("scale_decoder_outputs", is_tied),
        n_positions=fields.whole("n_positions", 512),
        tokens=tokens,
    )


def read_whisper(fields: Fields, tokens: SpecialTokens) -> WhisperConfig:
    """Read the config of Whisper. Its setting `scale_embedding` is ignored, since transformers never applies it."""
    fields.flag("scale_embedding", False)
    activations = {"gelu": "gelu", "relu": "relu", "silu": "silu"}
    if not fields.flag("tie_word_embeddings", True):
        raise fields.wrong("tie_word_embeddings", "true, as in every Whisper")
    return WhisperConfig(
        vocab_size=fields.whole("vocab_size", 51865),
        num_mel_bins=fields.whole("num_mel_bins", 80),
        d_model=fields.whole("d_model", 384),
        encoder_layers=fields.whole("encoder_layers", 4, most=MAX_LAYERS),
        encoder_attention_heads=fields.whole("encoder_attention_heads", 6),
        encoder_ffn_dim=fields.whole("encoder_ffn_dim", 1536),
        decoder_layers=fields.whole("decoder_layers", 4, most=MAX_LAYERS),
        decoder_attention_heads=fields.whole("decoder_attention_heads", 6),
        decoder_ffn_dim=fields.whole("decoder_ffn_dim", 1536),
        max_source_positions=fields.whole("max_source_positions", 1500),
        max_target_positions=fields.whole("max_target_positions", 448),
        activation_function=fields.choice("activation_function", activations, "gelu"),  # pyright: ignore[reportArgumentType]
        suppress_tokens=fields.ids("suppress_tokens"),
        begin_suppress_tokens=fields.ids("begin_suppress_tokens"),
        tokens=tokens,
    )
