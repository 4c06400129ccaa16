"""Encoders of texts and of sound."""

from dataclasses import dataclass

from triune.planning.published.sketch import Sketch
from triune.planning.published.vision import transformer_block


def bert(
    tokens: int, width: int = 768, layers: int = 12, hidden: int = 3072, *, has_convolutions: bool = False
) -> Sketch:
    """BERT (arXiv:1810.04805). BERT base has 12 layers of width 768, DistilBERT (arXiv:1910.01108) 6 of 768, MiniLM 6
    of 384. `hidden` is the width of the MLPs; with `has_convolutions` linear layers are 1x1 convolutions.
    """
    net = Sketch()
    net.move(tokens * width)
    net.norm(tokens * width)
    for _ in range(layers):
        heads = width // 64 if width >= 768 else 12
        transformer_block(net, tokens, width, heads, hidden, has_convolutions=has_convolutions)
    return net


@dataclass(frozen=True, slots=True)
class WhisperSize:
    """The sizes of a Whisper checkpoint (arXiv:2212.04356, table 1)."""

    width: int
    layers: int
    decoder_layers: int
    bins: int = 80


WHISPER = {
    "tiny": WhisperSize(384, 4, 4),
    "base": WhisperSize(512, 6, 6),
    "small": WhisperSize(768, 12, 12),
    "medium": WhisperSize(1024, 24, 24),
    "large-v2": WhisperSize(1280, 32, 32),
    "large-v3": WhisperSize(1280, 32, 32, 128),
    "large-v3-turbo": WhisperSize(1280, 32, 4, 128),
}


def whisper_encoder(name: str, tokens: int = 1500) -> Sketch:
    """Whisper's encoder of 30 s of sound: 3,000 frames, convolved to 1,500 tokens."""
    size = WHISPER[name]
    net = Sketch()
    net.conv(size.bins, size.width, (1, 3), 1, 2 * tokens)
    net.conv(size.width, size.width, (1, 3), 1, tokens)
    net.pointwise(tokens * size.width)
    for _ in range(size.layers):
        transformer_block(net, tokens, size.width, size.width // 64, 4 * size.width)
    net.norm(tokens * size.width)
    return net


def fast_conformer(frames: int, width: int = 1024, layers: int = 24, kernel: int = 9) -> Sketch:
    """FastConformer XL (arXiv:2305.05084), as in Parakeet 0.6B: conformer blocks over one token for each eight
    frames.
    """
    net = Sketch()
    channels, tokens, bins = 256, frames // 2, 40
    net.conv(1, channels, 3, tokens, bins)
    for _ in range(2):
        tokens, bins = tokens // 2, bins // 2
        net.conv(channels, channels, 3, tokens, bins, channels)
        net.conv(channels, channels, 1, tokens, bins)
    net.linear(tokens, channels * bins, width)
    for _ in range(layers):
        for _ in range(2):
            net.norm(tokens * width)
            net.linear(tokens, width, 4 * width)
            net.linear(tokens, 4 * width, width)
            net.pointwise(tokens * width, 2)
        net.norm(tokens * width)
        net.linear(tokens, width, 3 * width)
        # Relative positions: a product with the encodings of all 2n - 1 distances.
        net.linear(2 * tokens - 1, width, width)
        net.product(width // 128, tokens, 128, 2 * tokens - 1)
        net.attention(tokens, tokens, width // 128, 128)
        net.linear(tokens, width, width)
        net.norm(tokens * width)
        net.linear(tokens, width, 2 * width)
        net.conv(width, width, (1, kernel), 1, tokens, width)
        net.linear(tokens, width, width)
        net.pointwise(tokens * width, 2)
        net.norm(tokens * width)
    return net
