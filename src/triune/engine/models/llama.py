"""LLaMA and its family as a graph: LLaMA 2 and 3, Mistral, Qwen 2 and 3, SmolLM, Gemma 1 to 3. Their configs say how
they differ.

Touvron et al., 2023 (arXiv:2302.13971); grouped heads: Ainslie et al., 2023 (arXiv:2305.13245).
"""

from collections.abc import Sequence

from triune.engine.models.builder import ModelBuilder, Weights
from triune.engine.models.forms import Form, FormChoice, form_of
from triune.engine.weights.config import Layer, LlamaConfig
from triune.engine.weights.lora import Adapter
from triune.graph.held import HeldModel


def write_llama(
    config: LlamaConfig, weights: Weights, form_choice: FormChoice, num_positions: int, adapters: Sequence[Adapter] = ()
) -> HeldModel:
    """Write the graph of a model of LLaMA's family in the form `form_choice`, for contexts of up to `num_positions`
    tokens. `forms` describes the inputs and outputs.
    """
    graph = ModelBuilder(config.model_type, weights, adapters)
    form = form_of(form_choice, graph, num_positions)
    x = graph.embedding(form.ids, "model.embed_tokens")
    if config.embedding_multiplier != 1:
        x = graph.op("Mul", x, graph.scalar(config.embedding_multiplier))
    for index, layer in enumerate(config.layers):
        x = _layer(graph, form, config, layer, f"model.layers.{index}", x)
    x = _norm(graph, config, "model.norm", form.wanted(x))
    logits = graph.linear(x, "model.embed_tokens" if config.tie_word_embeddings else "lm_head")
    form.put_logits(graph.softcap(logits, config.final_logit_softcapping), config.vocab_size)
    return graph.build()


def _layer(graph: ModelBuilder, form: Form, config: LlamaConfig, layer: Layer, name: str, x: str) -> str:
    attended = _attention(
        graph, form, config, layer, f"{name}.self_attn", _norm(graph, config, f"{name}.input_layernorm", x)
    )
    if config.has_post_norms:
        attended = _norm(graph, config, f"{name}.post_attention_layernorm", attended)
    x = graph.op("Add", x, attended)
    before = "pre_feedforward_layernorm" if config.has_post_norms else "post_attention_layernorm"
    made = _mlp(graph, config, f"{name}.mlp", _norm(graph, config, f"{name}.{before}", x))
    if config.has_post_norms:
        made = _norm(graph, config, f"{name}.post_feedforward_layernorm", made)
    return graph.op("Add", x, made)


def _attention(graph: ModelBuilder, form: Form, config: LlamaConfig, layer: Layer, name: str, x: str) -> str:
    heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    projections = [f"{name}.{kind}_proj" for kind in ("q", "k", "v")]
    query, key, value = graph.linears(x, projections, has_bias=config.attention_bias)
    if config.qk_norm:
        query = form.join_heads(_norm(graph, config, f"{name}.q_norm", form.split_heads(query, heads, size)))
        key = form.join_heads(_norm(graph, config, f"{name}.k_norm", form.split_heads(key, kv_heads, size)))
    if layer.rope is not None:
        query, key = form.rotate(query, heads, size, layer.rope), form.rotate(key, kv_heads, size, layer.rope)
    attended = form.attend(
        query,
        key,
        value,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=size,
        scale=config.attention_scale,
        sliding_window=layer.sliding_window,
        softcap=config.attn_logit_softcapping,
    )
    return graph.linear(attended, f"{name}.o_proj", has_bias=config.attention_output_bias)


def _mlp(graph: ModelBuilder, config: LlamaConfig, name: str, x: str) -> str:
    gate, up = graph.linears(x, [f"{name}.gate_proj", f"{name}.up_proj"], has_bias=config.mlp_bias)
    gate = graph.activation(gate, config.hidden_act)
    return graph.linear(graph.op("Mul", gate, up), f"{name}.down_proj", has_bias=config.mlp_bias)


def _norm(graph: ModelBuilder, config: LlamaConfig, name: str, x: str) -> str:
    return graph.rms_norm(x, name, config.rms_norm_eps, config.norm_weight_offset)
