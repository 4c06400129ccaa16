import pytest

from triune.core.errors import InvalidArgumentError, RestrictedError, UnauthenticatedError
from triune.frontends.access import OPEN, Access, Api


def test_everything_is_open_by_default() -> None:
    assert Access() == Access.of()
    assert not Access.of().http
    assert not Access.of().grpc
    assert not OPEN


def test_a_key_is_for_all_but_health() -> None:
    access = Access.of(["one", "two"])
    for rules in (access.http, access.grpc):
        assert set(rules) == set(Api) - {Api.HEALTH}
        for api in rules:
            for shown in ("Bearer one", "bearer two", b"BEARER one"):
                rules[api].check([shown])
                rules[api].check([shown, shown])


@pytest.mark.parametrize("value", [None, "", "one", "Bearer", "Bearer ", "Bearer three", "Basic one", "Bearer one two"])
def test_what_is_no_key(value: str | None) -> None:
    with pytest.raises(UnauthenticatedError, match="send the header 'Authorization: Bearer KEY'") as caught:
        Access.of(["one", "two"]).http[Api.INFERENCE].check([] if value is None else [value])
    assert "three" not in str(caught.value)
    assert "one" not in str(caught.value).replace("is not one that", "")


@pytest.mark.parametrize("values", [["Bearer one", "Bearer three"], ["Bearer two", "Bearer one"]])
def test_different_keys_in_one_request_are_refused(values: list[str]) -> None:
    with pytest.raises(UnauthenticatedError, match="the request has 2 different API keys"):
        Access.of(["one", "two"]).http[Api.INFERENCE].check(values)


def test_a_restricted_api_takes_its_own_header_in_place_of_the_key() -> None:
    access = Access.of(["one"], ["model-repository,metrics:Admin-Key=a:b=c"], ["model-repository:Admin=x"])
    rule = access.http[Api.MODEL_REPOSITORY]
    assert rule is access.http[Api.METRICS]
    assert rule.header == "admin-key"
    rule.check(["a:b=c"])
    with pytest.raises(RestrictedError, match="^This API is restricted, expecting header 'admin-key'$"):
        rule.check(["Bearer one"])
    assert access.http[Api.INFERENCE].header == "authorization"
    with pytest.raises(RestrictedError, match="^This protocol is .* 'triton-grpc-protocol-admin'$"):
        access.grpc[Api.MODEL_REPOSITORY].check([])


@pytest.mark.parametrize("text", ["", "health", "health:", ":k=secret", "health:k", "health:=secret", "health:k="])
def test_what_is_no_restriction(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is of the form <apis>:<key>=<value>") as caught:
        Access.of(http=[text])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("pair", ["k y=secret", "k=secr\u00e9t", "k= secret", "k=secret ", "k=secr\net", "k:=secret"])
def test_a_header_can_be_sent(pair: str) -> None:
    with pytest.raises(InvalidArgumentError, match="no client could send this") as caught:
        Access.of(grpc=[f"health:{pair}"])
    assert "secr" not in str(caught.value)


def test_metrics_are_no_protocol_of_grpc() -> None:
    with pytest.raises(InvalidArgumentError, match="unknown restricted protocol 'metrics'; there are health, "):
        Access.of(grpc=["metrics:k=v"])


@pytest.mark.parametrize("key", ["", "two words", "schlüssel", "line\n"])
def test_a_key_can_be_sent(key: str) -> None:
    with pytest.raises(InvalidArgumentError, match="API key 2 of 2") as caught:
        Access.of(["fine", key])
    assert not key or key not in str(caught.value)


def test_no_key_is_shown() -> None:
    access = Access.of(["rose"], ["health:header=thorn"])
    assert "rose" not in repr(access)
    assert "thorn" not in repr(access)
    assert "digests" not in repr(access)
