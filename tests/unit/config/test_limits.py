"""How long models may take, as their configs say it."""

import pytest

from triune.config.limits import ModelLimits, limits_of
from triune.core.errors import InvalidArgumentError


def test_a_model_says_it_itself_or_the_server_does() -> None:
    defaults = ModelLimits(7, 8)
    assert limits_of({}, defaults) == defaults
    assert limits_of({"load_timeout_secs": "1.5"}, defaults) == ModelLimits(1.5, 8)
    assert limits_of({"run_timeout_secs": " 3 "}, defaults) == ModelLimits(7, 3)


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "nan", "inf", "1e10"])
@pytest.mark.parametrize("name", ["load_timeout_secs", "run_timeout_secs"])
def test_what_is_no_number_of_seconds(name: str, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"'{name}' is {text!r}"):
        limits_of({name: text}, ModelLimits())
