from pathlib import Path

import pytest

from triune.config.checkpoints import model_type_of


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"model_type": "bert"}', "bert"),
        ('{"model_type": ["bert"]}', None),
        ('{"model_type": null}', None),
        ("{}", None),
        ("[1]", None),
        ("{", None),
        ("[" * 100_000, None),
        (None, None),
    ],
)
def test_a_folder_tells_the_kind_of_its_model_or_nothing(tmp_path: Path, text: str | None, kind: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert model_type_of(tmp_path) == kind
