from pathlib import Path

import pytest

from triune.cli.api_keys import take_keys
from triune.core.errors import InvalidArgumentError


def test_keys_come_from_the_command_line_the_environment_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nfirst\n\n  second  \n")
    assert take_keys(["given"], None, {}) == ["given"]
    environment = {"TRIUNE_API_KEY": " one  two "}
    assert take_keys(["given"], file, environment) == ["given", "one", "two", "first", "second"]
    assert not environment  # or the processes that run models would inherit it


@pytest.mark.parametrize("value", ["", "  "])
def test_a_variable_that_restricts_nobody_is_an_error(value: str) -> None:
    with pytest.raises(InvalidArgumentError, match="TRIUNE_API_KEY is set and has no key"):
        take_keys(["given"], None, {"TRIUNE_API_KEY": value})


@pytest.mark.parametrize(
    ("content", "reason"), [(b"# none\n", "has no key"), (b"\xff", "it is not text"), (None, "No such")]
)
def test_a_file_that_restricts_nobody_is_an_error(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=reason):
        take_keys((), file, {})
