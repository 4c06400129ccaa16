from pathlib import Path

import pytest
from onnx import ModelProto

from support.graphs import model_of
from triune.core.errors import InvalidArgumentError
from triune.graph.load import read_model
from triune.graph.texts import broken_text

MODEL = model_of(
    """gggg (bool cccc, float[dddd] xxxx) => (float[dddd] yyyy) <float[1] wwww = {1}> {
    rrrr = own.ffff(xxxx)
    yyyy = If(cccc) <then_branch = tttt () => (float[dddd] uuuu) { uuuu = Clip(rrrr, wwww) },
                     else_branch = eeee () => (float[dddd] vvvv) { vvvv = LeakyRelu<alpha = 0.5>(rrrr) }> }
    <domain: "own", opset_import: ["" : 17]> ffff (aaaa) => (bbbb) { bbbb = Relu(aaaa) }""",
    imports=', "own" : 1',
)


def with_bytes(text: bytes) -> ModelProto:
    content = MODEL.SerializeToString()
    assert text in content
    return ModelProto.FromString(content.replace(text, b"\xff" * len(text)))


def test_names_of_utf8() -> None:
    assert not broken_text(MODEL)


@pytest.mark.parametrize(
    "text",
    [
        *(
            letter * 4
            for letter in (b"g", b"c", b"d", b"x", b"y", b"w", b"r", b"f", b"t", b"u", b"e", b"v", b"a", b"b")
        ),
        *(b"own", b"Clip", b"LeakyRelu", b"alpha", b"then_branch"),
    ],
    ids=bytes.decode,
)
def test_each_is_told_of(text: bytes, tmp_path: Path) -> None:
    model = with_bytes(text)
    assert "is not UTF-8" in broken_text(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidArgumentError, match=r"is not a complete ONNX model: the name b'\\xff"):
        read_model(path)
