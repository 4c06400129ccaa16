"""LLaMA and its family: Mistral, Qwen 2 and 3, SmolLM, Gemma 1 to 3, Phi-3. They differ in settings only."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from triune.engine.weights.config.rope import Rope
from triune.engine.weights.config.tokens import NO_TOKENS, SpecialTokens

Activation: TypeAlias = Literal["silu", "gelu", "gelu_pytorch_tanh"]
"""The activations. `gelu` is the exact one, by erf."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The settings that may differ between the layers of a model.

    Attributes:
        sliding_window: the number of tokens that a token attends to: itself and those before it; 0 if it attends to
            all.
        rope: the rotary embedding of queries and keys; None if the layer has none.
    """

    sliding_window: int
    rope: Rope | None


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The sizes and settings of a model of LLaMA's family.

    Weights, [out, in]: `model.embed_tokens`, `model.layers.N.{input_layernorm, post_attention_layernorm,
    self_attn.{q_proj, k_proj, v_proj, o_proj}, mlp.{gate_proj, up_proj, down_proj}}`, `model.norm`, `lm_head` (not with
    tied embeddings). With `qk_norm` also `self_attn.{q_norm, k_norm}`; with `has_post_norms` the norms around the MLP
    are `pre_feedforward_layernorm` and `post_feedforward_layernorm`, and `post_attention_layernorm` is applied to the
    attention's output, before it is added. Matrices that a file has joined (`qkv_proj`, `gate_up_proj`) are split.

    Attributes:
        model_type: as in config.json: "llama", "qwen2", "gemma3_text".
        vocab_size: rows of the embedding. The tokenizer may know fewer tokens.
        hidden_size: the width.
        intermediate_size: the width of the gated MLP.
        num_attention_heads: the number of heads of queries.
        num_key_value_heads: the number of heads of keys and of values, a divisor of the number of heads of queries.
        head_dim: the width of a head; not always hidden_size / num_attention_heads.
        max_position_embeddings: the longest context, in tokens.
        layers: one entry a layer.
        hidden_act: the activation of the MLP's gate.
        rms_norm_eps: added to the mean square in every norm.
        norm_weight_offset: added to every norm's weight: 1 for Gemma's safetensors files, which store the weights minus
            1; else 0.
        tie_word_embeddings: whether the embedding is the output's matrix, too.
        attention_bias: whether q_proj, k_proj and v_proj have biases.
        attention_output_bias: whether o_proj has a bias.
        mlp_bias: whether the MLP's three matrices have biases.
        qk_norm: whether each head's queries and keys are normalized, before the rotary embedding.
        has_post_norms: whether the outputs of attention and MLP are normalized before they are added (Gemma 2 and 3).
        attention_scale: the factor of the attention's scores.
        attn_logit_softcapping: the cap of attention's scores, which become cap * tanh(score / cap); 0 if they have no
            cap.
        final_logit_softcapping: the cap of the logits, which become cap * tanh(logit / cap); 0 if they have no cap.
        embedding_multiplier: the factor of the embeddings; the square root of the width for Gemma, else 1.
        tokens: the special tokens: bos, eos and pad.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    layers: tuple[Layer, ...]
    attention_scale: float
    hidden_act: Activation = "silu"
    rms_norm_eps: float = 1e-6
    norm_weight_offset: float = 0.0
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    attention_output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    has_post_norms: bool = False
    attn_logit_softcapping: float = 0.0
    final_logit_softcapping: float = 0.0
    embedding_multiplier: float = 1.0
    tokens: SpecialTokens = NO_TOKENS

    def context_note(self, num_positions: int) -> str:
        """The note of `Rope.context_note`, of the first layer with a rotary embedding that has one; "" if none has."""
        notes = (layer.rope.context_note(num_positions) for layer in self.layers if layer.rope is not None)
        return next(filter(None, notes), "")

    @property
    def num_hidden_layers(self) -> int:
        """The number of layers."""
        return len(self.layers)
