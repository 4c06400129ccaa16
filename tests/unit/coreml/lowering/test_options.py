import pytest

from triune.core.errors import InvalidArgumentError
from triune.coreml.lowering.options import Target


def test_targets_are_named_as_apple_does() -> None:
    assert Target.parse("ios17") is Target.IOS17
    assert Target.IOS15.label == "iOS15"
    with pytest.raises(InvalidArgumentError, match="iOS15, iOS16, iOS17, iOS18"):
        Target.parse("iOS3")
