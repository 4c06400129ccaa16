"""Write GPT-2, or a model of one of GPT-3's published sizes, as a graph. Radford et al., "Language Models are
Unsupervised Multitask Learners" (2019).
"""

from collections.abc import Sequence

from triune.engine.models.builder import ModelBuilder, Weights
from triune.engine.models.forms import Form, FormChoice, form_of
from triune.engine.weights.config import Gpt2Config
from triune.engine.weights.lora import Adapter
from triune.graph.held import HeldModel


def write_gpt2(
    config: Gpt2Config, weights: Weights, form_choice: FormChoice, num_positions: int, adapters: Sequence[Adapter] = ()
) -> HeldModel:
    """Write GPT-2's graph in the form `form_choice`, for contexts of up to `num_positions` tokens. `forms` describes
    the inputs and outputs.
    """
    graph = ModelBuilder("gpt2", weights, adapters)
    form = form_of(form_choice, graph, num_positions)
    tokens, places = graph.embedding(form.ids, "transformer.wte"), graph.embedding(form.positions(), "transformer.wpe")
    x = graph.op("Add", tokens, places)
    for index in range(config.n_layer):
        x = _layer(graph, form, config, index, x)
    x = graph.layer_norm(form.wanted(x), "transformer.ln_f", config.layer_norm_epsilon)
    logits = graph.linear(x, "transformer.wte" if config.tie_word_embeddings else "lm_head")
    form.put_logits(logits, config.vocab_size)
    return graph.build()


def _layer(graph: ModelBuilder, form: Form, config: Gpt2Config, index: int, x: str) -> str:
    name, size = f"transformer.h.{index}", config.n_embd // config.n_head
    scale = size**-0.5 if config.scale_attn_weights else 1.0
    if config.scale_attn_by_inverse_layer_idx:
        scale /= index + 1
    normed = graph.layer_norm(x, f"{name}.ln_1", config.layer_norm_epsilon)
    query, key, value = graph.ops(
        "Split", 3, graph.linear(normed, f"{name}.attn.c_attn", has_bias=True), axis=-1, num_outputs=3
    )
    attended = form.attend(
        query, key, value, num_heads=config.n_head, num_kv_heads=config.n_head, head_size=size, scale=scale
    )
    x = graph.op("Add", x, graph.linear(attended, f"{name}.attn.c_proj", has_bias=True))
    normed = graph.layer_norm(x, f"{name}.ln_2", config.layer_norm_epsilon)
    wide = graph.activation(graph.linear(normed, f"{name}.mlp.c_fc", has_bias=True), config.activation_function)
    return graph.op("Add", x, graph.linear(wide, f"{name}.mlp.c_proj", has_bias=True))
