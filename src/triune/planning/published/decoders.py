"""Text decoders: one step over some new tokens, with earlier tokens in the cache."""

from dataclasses import dataclass

from triune.planning.published.sketch import Sketch


@dataclass(frozen=True, slots=True)
class DecoderSize:
    """The sizes of a decoder, from its checkpoint's config.

    Attributes:
        width: the width of the hidden states.
        layers: the number of layers.
        heads: the number of heads of queries.
        kv_heads: the number of heads of keys and values.
        hidden: the width of the feed-forward network, or of each expert.
        vocabulary: the number of tokens.
        head_size: the number of elements of a head; 0 means width / heads.
        is_gated: whether the feed-forward network has a gate, as LLaMA's has.
        experts: how many experts a layer holds; 0 for none.
        used_experts: the number of experts that compute each token, including shared experts.
        is_assumed: whether sizes are assumed to fit the number of parameters in the model's name.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    vocabulary: int
    head_size: int = 0
    is_gated: bool = True
    experts: int = 0
    used_experts: int = 0
    is_assumed: bool = False


DECODERS = {
    "GPT-2": DecoderSize(768, 12, 12, 12, 3072, 50257, is_gated=False),
    "Llama-2-7B": DecoderSize(4096, 32, 32, 32, 11008, 32000),
    "Llama-2-70B": DecoderSize(8192, 80, 64, 8, 28672, 32000),
    "Llama-3-8B": DecoderSize(4096, 32, 32, 8, 14336, 128256),
    "Llama-3.1-8B": DecoderSize(4096, 32, 32, 8, 14336, 128256),
    "DeepSeek-R1-8B": DecoderSize(4096, 32, 32, 8, 14336, 128256),
    "Llama-3-70B": DecoderSize(8192, 80, 64, 8, 28672, 128256),
    "Llama-3.1-70B": DecoderSize(8192, 80, 64, 8, 28672, 128256),
    "Llama-3.2-1B": DecoderSize(2048, 16, 32, 8, 8192, 128256),
    "Llama-3.2-3B": DecoderSize(3072, 28, 24, 8, 8192, 128256, 128),
    "Qwen2.5-14B": DecoderSize(5120, 48, 40, 8, 13824, 152064),
    "Qwen3-14B": DecoderSize(5120, 40, 40, 8, 17408, 151936),
    "Ministral-3-3B": DecoderSize(3072, 26, 32, 8, 9216, 131072, 128),
    "gpt-oss-20b": DecoderSize(2880, 24, 64, 8, 2880, 201088, 64, experts=32, used_experts=4),
    "gpt-oss-120b": DecoderSize(2880, 36, 64, 8, 2880, 201088, 64, experts=128, used_experts=4),
    # The compressed attention of DeepSeek-R1 reads about as much data as 16 heads of keys. The first three layers are
    # dense.
    "DeepSeek-R1-671B": DecoderSize(7168, 61, 128, 16, 2048, 129280, 128, experts=257, used_experts=9, is_assumed=True),
    # Qwen3.5 alternates linear and full attention, whose weights have the same size.
    "Qwen3.5-0.8B": DecoderSize(1024, 24, 8, 2, 3584, 248320, 256, is_assumed=True),
    "Qwen3.5-2B": DecoderSize(2048, 24, 8, 2, 6144, 248320, 256, is_assumed=True),
    "Qwen3.5-4B": DecoderSize(2560, 32, 16, 4, 9216, 248320, 256, is_assumed=True),
    "Qwen3.5-9B": DecoderSize(4096, 32, 16, 4, 12288, 248320, 256, is_assumed=True),
    # Two billion parameters take part in computation. The embeddings of each layer are looked up as rows.
    "Gemma 4 E2B": DecoderSize(1536, 35, 8, 1, 8192, 262144, 256, is_assumed=True),
}


def decoder_step(name: str, tokens: int, past: int) -> Sketch:
    """One step of a decoder: `tokens` new tokens after `past` earlier ones, and the logits of the last."""
    size = DECODERS[name]
    net = Sketch()
    head = size.head_size or size.width // size.heads
    net.move(tokens * size.width)
    for _ in range(size.layers):
        net.norm(tokens * size.width)
        net.linear(tokens, size.width, (size.heads + 2 * size.kv_heads) * head)
        net.pointwise(tokens * (size.heads + size.kv_heads) * head)
        # With causal attention, a token attends to half of the new tokens on average.
        net.attention(tokens, past + (tokens + 1) / 2, size.heads, head, size.kv_heads)
        net.linear(tokens, size.heads * head, size.width)
        net.pointwise(tokens * size.width, 2)
        net.norm(tokens * size.width)
        wide = (2 if size.is_gated else 1) * size.hidden
        if size.experts:
            net.linear(tokens, size.width, size.experts, 16)
            net.experts(tokens, size.width, wide, size.used_experts, size.experts)
            net.experts(tokens, size.hidden, size.width, size.used_experts, size.experts)
        else:
            net.linear(tokens, size.width, wide)
            net.pointwise(tokens * size.hidden, 2)
            net.linear(tokens, size.hidden, size.width)
        net.pointwise(tokens * size.width, 2)
    net.norm(size.width)
    net.linear(1, size.width, size.vocabulary)
    return net
