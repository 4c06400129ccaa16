"""Single operations and stacks of operations, as hardware benchmarks run them."""

from triune.planning.published.sketch import Sketch


def conv_stack(layers: int, channels: int, pixels: int, kernel: int = 1) -> Sketch:
    """`layers` convolutions one after the other, over `pixels` positions."""
    net = Sketch()
    for _ in range(layers):
        net.conv(channels, channels, kernel, 1, pixels)
    return net


def product(rows: int, inner: int, columns: int) -> Sketch:
    """A matrix product with constant weights."""
    net = Sketch()
    net.linear(rows, inner, columns)
    return net


def attention_block(tokens: int, width: int, heads: int) -> Sketch:
    """Self-attention with its projections."""
    net = Sketch()
    net.linear(tokens, width, 3 * width)
    net.attention(tokens, tokens, heads, width // heads)
    net.linear(tokens, width, width)
    return net
