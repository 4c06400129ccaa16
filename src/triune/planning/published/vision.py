"""Convolutional networks and vision transformers, for one image."""

from triune.planning.published.sketch import Sketch


def resnet_50(size: int = 224) -> Sketch:
    """ResNet-50 (arXiv:1512.03385, table 1), with the stride in the 3x3 convolutions as torchvision has it."""
    net = Sketch()
    side = size // 2
    net.conv(3, 64, 7, side, side)
    side //= 2
    net.norm(64 * side * side)
    channels = 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            net.conv(channels, width, 1, side, side)
            side //= stride
            net.conv(width, width, 3, side, side)
            net.conv(width, 4 * width, 1, side, side)
            if not block:
                net.conv(channels, 4 * width, 1, side, side)
            net.pointwise(4 * width * side * side, 2)
            channels = 4 * width
    net.norm(channels * side * side)
    net.linear(1, channels, 1000)
    return net


def resnet_34_body(size: int) -> tuple[Sketch, int]:
    """ResNet-34 without its classifier. Returns the operations, and the height and width of the last result."""
    net = Sketch()
    side = size // 2
    net.conv(3, 64, 7, side, side)
    side //= 2
    net.norm(64 * side * side)
    channels = 64
    for width, blocks in [(64, 3), (128, 4), (256, 6), (512, 3)]:
        for block in range(blocks):
            side = side // 2 if width > 64 and not block else side
            net.conv(channels, width, 3, side, side)
            net.conv(width, width, 3, side, side)
            if channels != width:
                net.conv(channels, width, 1, side, side)
            net.pointwise(width * side * side, 2)
            channels = width
    return net, side


def centernet_resnet_34(size: int = 512) -> Sketch:
    """CenterNet (arXiv:1904.07850) over ResNet-34: three transposed convolutions of 256 channels, and three heads.

    Assumed: images of 512x512 and heads of 64 channels, as in the paper; Apple's page names neither.
    """
    net, side = resnet_34_body(size)
    channels = 512
    for _ in range(3):
        side *= 2
        # A transposed 4x4 convolution with stride 2 costs as much as a 2x2 convolution of the result: each of its
        # elements sums 2x2 terms for each channel.
        net.conv(channels, 256, 2, side, side)
        channels = 256
    for outputs in (80, 2, 2):
        net.conv(channels, 64, 3, side, side)
        net.conv(64, outputs, 1, side, side)
    return net


def mobilenet_v2(size: int = 224) -> Sketch:
    """MobileNetV2 1.0 (arXiv:1801.04381, table 2)."""
    net = Sketch()
    side = size // 2
    net.conv(3, 32, 3, side, side)
    channels = 32
    for expansion, width, blocks, first in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]:
        for block in range(blocks):
            side = _inverted(net, channels, expansion, width, side, 1 if block else first)
            channels = width
    net.conv(channels, 1280, 1, side, side)
    net.norm(1280 * side * side)
    net.linear(1, 1280, 1000)
    return net


def mobilevit_v2(size: int = 256) -> Sketch:
    """MobileViTv2 1.0 (arXiv:2206.02680): inverted residuals, and three stages of separable self-attention."""
    net = Sketch()
    side = size // 2
    net.conv(3, 32, 3, side, side)
    side = _inverted(net, 32, 2, 64, side, 1)
    side = _inverted(net, 64, 2, 128, side, 2)
    side = _inverted(net, 128, 2, 128, side, 1)
    channels = 128
    for width, dim, layers in [(256, 128, 2), (384, 192, 4), (512, 256, 3)]:
        side = _inverted(net, channels, 2, width, side, 2)
        net.conv(width, width, 3, side, side, width)
        net.conv(width, dim, 1, side, side)
        pixels = side * side
        for _ in range(layers):
            net.norm(dim * pixels)
            net.conv(dim, 2 * dim + 1, 1, side, side)
            net.norm(pixels)
            net.pointwise(dim * pixels, 2)
            net.norm(dim * pixels)
            net.pointwise(dim * pixels, 2)
            net.conv(dim, dim, 1, side, side)
            net.norm(dim * pixels)
            net.conv(dim, 2 * dim, 1, side, side)
            net.conv(2 * dim, dim, 1, side, side)
        net.conv(dim, width, 1, side, side)
        channels = width
    net.norm(channels * side * side)
    net.linear(1, channels, 1000)
    return net


def vit_base_16(size: int = 224) -> Sketch:
    """ViT-B/16 (arXiv:2010.11929): 197 tokens of 768, 12 layers."""
    net = Sketch()
    side = size // 16
    net.conv(3, 768, 16, side, side)
    tokens = side * side + 1
    for _ in range(12):
        transformer_block(net, tokens, 768, 12, 3072)
    net.linear(1, 768, 1000)
    return net


def transformer_block(
    net: Sketch, tokens: int, width: int, heads: int, hidden: int, *, has_convolutions: bool = False
) -> None:
    """Add one layer of an encoder to `net`: attention and a feed-forward network, with norms and residuals.

    If `has_convolutions`, products with weights are 1x1 convolutions, as in the Neural Engine's layout.
    """

    def linear(inner: int, columns: int) -> None:
        if has_convolutions:
            net.conv(inner, columns, 1, 1, tokens)
        else:
            net.linear(tokens, inner, columns)

    net.norm(tokens * width)
    linear(width, 3 * width)
    net.attention(tokens, tokens, heads, width // heads)
    linear(width, width)
    net.pointwise(tokens * width, 2)
    net.norm(tokens * width)
    linear(width, hidden)
    linear(hidden, width)
    net.pointwise(tokens * width, 2)


def _inverted(net: Sketch, channels: int, expansion: int, width: int, side: int, stride: int) -> int:
    """Add an inverted residual: expand, convolve each channel, project. Returns the height and width of the result."""
    inner = channels * expansion
    if expansion > 1:
        net.conv(channels, inner, 1, side, side)
    side //= stride
    net.conv(inner, inner, 3, side, side, inner)
    net.conv(inner, width, 1, side, side)
    if stride == 1 and channels == width:
        net.pointwise(width * side * side, 2)
    return side
