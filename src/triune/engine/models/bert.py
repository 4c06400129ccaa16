"""Write BERT as a graph, with sentence embeddings as in the files of sentence-transformers, and heads that classify
texts or tokens. Devlin et al., 2018 (arXiv:1810.04805); sentence embeddings: Reimers and Gurevych, 2019
(arXiv:1908.10084).
"""

from triune.engine.models.builder import ModelBuilder, Weights
from triune.engine.models.encoder_forms import EncoderForm, EncoderFormName, encoder_form_of
from triune.engine.weights.config import BertConfig
from triune.graph.held import HeldModel


def write_bert(config: BertConfig, weights: Weights, form_name: EncoderFormName) -> HeldModel:
    """Build the graph of a BERT encoder in a form. `encoder_forms` describes its inputs; it also has `token_type_ids`.

    Outputs: `last_hidden_state` FP32 [..., width]. If the config says how texts are pooled, `sentence_embedding` FP32
    [batch, width]; if it has a head, `logits` FP32 [batch, labels] or [..., labels] of tokens; else, if it has a
    pooler and does not say how texts are pooled, `pooler_output` FP32 [batch, width].
    """
    graph = ModelBuilder("bert", weights)
    form = encoder_form_of(form_name, graph)
    x = _embed(graph, form, config)
    for index in range(config.num_hidden_layers):
        x = _layer(graph, form, config, f"encoder.layer.{index}", x)
    graph.result(x, "last_hidden_state", *form.sizes, config.hidden_size)
    if config.pooling is not None:
        graph.result(_pooled(graph, form, config, x), "sentence_embedding", "batch", config.hidden_size)
    if config.head == "token":
        graph.result(graph.linear(x, "classifier", has_bias=True), "logits", *form.sizes, len(config.labels))
    elif config.has_pooler and (config.head or config.pooling is None):
        pooled = graph.op("Tanh", graph.linear(form.first(x), "pooler.dense", has_bias=True))
        if config.head is None:
            graph.result(pooled, "pooler_output", "batch", config.hidden_size)
        else:
            graph.result(graph.linear(pooled, "classifier", has_bias=True), "logits", "batch", len(config.labels))
    return graph.build()


def _embed(graph: ModelBuilder, form: EncoderForm, config: BertConfig) -> str:
    tokens = graph.embedding(form.ids, "embeddings.word_embeddings")
    types = graph.embedding(form.types(), "embeddings.token_type_embeddings")
    places = graph.embedding(form.positions(), "embeddings.position_embeddings")
    x = graph.op("Add", graph.op("Add", tokens, types), places)
    return graph.layer_norm(x, "embeddings.LayerNorm", config.layer_norm_eps)


def _layer(graph: ModelBuilder, form: EncoderForm, config: BertConfig, name: str, x: str) -> str:
    heads = config.num_attention_heads
    query, key, value = (
        graph.linear(x, f"{name}.attention.self.{kind}", has_bias=True) for kind in ("query", "key", "value")
    )
    attended = form.attend(query, key, value, num_heads=heads, scale=(config.hidden_size // heads) ** -0.5)
    attended = graph.linear(attended, f"{name}.attention.output.dense", has_bias=True)
    x = graph.layer_norm(graph.op("Add", attended, x), f"{name}.attention.output.LayerNorm", config.layer_norm_eps)
    wide = graph.activation(graph.linear(x, f"{name}.intermediate.dense", has_bias=True), config.hidden_act)
    narrow = graph.linear(wide, f"{name}.output.dense", has_bias=True)
    return graph.layer_norm(graph.op("Add", narrow, x), f"{name}.output.LayerNorm", config.layer_norm_eps)


def _pooled(graph: ModelBuilder, form: EncoderForm, config: BertConfig, x: str) -> str:
    """The sentence embedding, scaled to length 1 if the config says so."""
    match config.pooling:
        case "cls":
            pooled = form.first(x)
        case "max":
            pooled = form.largest(x)
        case _:
            pooled = form.mean(x)
    if not config.is_normalized:
        return pooled
    length = graph.op("ReduceL2", pooled, graph.ints(1), keepdims=1)
    return graph.op("Div", pooled, graph.op("Max", length, graph.scalar(1e-12)))
