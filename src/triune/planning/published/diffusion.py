"""Stable Diffusion 1 and 2 (arXiv:2112.10752): the denoiser and the decoder of images of 512x512.

Both versions have a denoiser of these sizes; version 2 has another text encoder, which computes once.
"""

from triune.planning.published.encoders import bert
from triune.planning.published.sketch import Sketch

_WIDTHS = (320, 640, 1280, 1280)


def denoiser(batch: int = 2) -> Sketch:
    """One step of the denoiser for `batch` latents of 64x64; with guidance `batch` is 2."""
    net = Sketch()
    side = 64
    rows = batch
    net.conv(4, 320, 3, rows * side, side)
    skips = [320]
    channels = 320
    for level, width in enumerate(_WIDTHS):
        for _ in range(2):
            _residual(net, channels, width, rows, side)
            channels = width
            if level < 3:
                _transformer(net, width, rows, side)
            skips.append(width)
        if level < 3:
            side //= 2
            net.conv(width, width, 3, rows * side, side)
            skips.append(width)
    _residual(net, channels, 1280, rows, side)
    _transformer(net, 1280, rows, side)
    _residual(net, 1280, 1280, rows, side)
    for level, width in reversed(list(enumerate(_WIDTHS))):
        for _ in range(3):
            _residual(net, channels + skips.pop(), width, rows, side)
            channels = width
            if level < 3:
                _transformer(net, width, rows, side)
        if level > 0:
            side *= 2
            net.move(width * rows * side * side)
            net.conv(width, width, 3, rows * side, side)
    net.conv(320, 4, 3, rows * side, side)
    return net


def image_decoder() -> Sketch:
    """The decoder from 64x64 latents to 512x512 pixels."""
    net = Sketch()
    side, channels = 64, 512
    net.conv(4, 512, 3, side, side)
    _residual(net, 512, 512, 1, side)
    net.linear(side * side, 512, 3 * 512)
    net.attention(side * side, side * side, 1, 512)
    net.linear(side * side, 512, 512)
    _residual(net, 512, 512, 1, side)
    for level, width in enumerate((512, 512, 256, 128)):
        for _ in range(3):
            _residual(net, channels, width, 1, side)
            channels = width
        if level < 3:
            side *= 2
            net.move(width * side * side)
            net.conv(width, width, 3, side, side)
    net.conv(128, 3, 3, side, side)
    return net


def text_encoder() -> Sketch:
    """CLIP's text encoder: 77 tokens, 12 layers of width 768."""
    return bert(77)


def _residual(net: Sketch, channels: int, width: int, batch: int, side: int) -> None:
    net.norm(batch * channels * side * side)
    net.conv(channels, width, 3, batch * side, side)
    net.norm(batch * width * side * side)
    net.conv(width, width, 3, batch * side, side)
    if channels != width:
        net.conv(channels, width, 1, batch * side, side)
    net.pointwise(batch * width * side * side, 2)


def _transformer(net: Sketch, width: int, batch: int, side: int) -> None:
    """Add a transformer block: attention to the pixels and to the text, and a feed-forward network.

    Its matrix products are 1x1 convolutions, as Apple's conversion writes them.
    """
    pixels, heads = side * side, 8
    rows, high = batch * pixels, batch * side
    net.norm(rows * width)
    net.conv(width, width, 1, high, side)
    net.norm(rows * width)
    net.conv(width, 3 * width, 1, high, side)
    net.attention(pixels, pixels, batch * heads, width // heads)
    net.conv(width, width, 1, high, side)
    net.norm(rows * width)
    net.conv(width, width, 1, high, side)
    net.conv(768, 2 * width, 1, batch, 77)
    net.attention(pixels, 77, batch * heads, width // heads)
    net.conv(width, width, 1, high, side)
    net.norm(rows * width)
    net.conv(width, 8 * width, 1, high, side)
    net.pointwise(rows * 4 * width, 2)
    net.conv(4 * width, width, 1, high, side)
    net.conv(width, width, 1, high, side)
