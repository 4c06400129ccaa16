import socket
from collections.abc import Callable

import pytest

from triune.core.addresses import format_address
from triune.core.errors import UnavailableError
from triune.frontends.embedded import listen

LOOPBACKS = [(socket.AF_INET6, ("::1", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0))]


def resolving(*families: tuple[int, tuple[object, ...]]) -> Callable[..., list[object]]:
    def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        return [(family, socket.SOCK_STREAM, 6, "", (address[0], port, *address[2:])) for family, address in families]

    return getaddrinfo


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_name_is_listened_for_on_all_its_addresses_with_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving(*LOOPBACKS))
    listeners = listen("name", 0, purpose="HTTP")
    try:
        ports = {each.getsockname()[1] for each in listeners}
        assert len(ports) == 1
        assert {each.family for each in listeners} == {*([socket.AF_INET6] if has_ipv6() else []), socket.AF_INET}
    finally:
        for each in listeners:
            each.close()


def test_localhost_is_both_loopbacks_whatever_the_hosts_file_says() -> None:
    listeners = listen("localhost", 0, purpose="HTTP")
    try:
        hosts = [each.getsockname()[0] for each in listeners]
        assert hosts == ["127.0.0.1", *(["::1"] if has_ipv6() else [])]
        assert len({each.getsockname()[1] for each in listeners}) == 1
    finally:
        for each in listeners:
            each.close()


def test_an_address_that_is_not_here_is_passed_over_if_another_is(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = (socket.AF_INET, ("192.0.2.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", resolving(elsewhere, LOOPBACKS[1]))
    (listener,) = listen("name", 0, purpose="HTTP")
    listener.close()
    monkeypatch.setattr(socket, "getaddrinfo", resolving(elsewhere))
    with pytest.raises(UnavailableError, match="cannot listen for HTTP on name:0: Cannot assign"):
        listen("name", 0, purpose="HTTP")


def test_a_port_that_is_taken_on_one_address_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"cannot listen for gossip on 127.0.0.1:{port}: Address already"):
            listen("127.0.0.1", port, purpose="gossip")


def test_servers_that_say_so_share_a_port() -> None:
    (first,) = listen("127.0.0.1", 0, purpose="HTTP", is_shared=True)
    with first:
        (second,) = listen("127.0.0.1", first.getsockname()[1], purpose="HTTP", is_shared=True)
        second.close()


def test_ipv6_addresses_stand_in_brackets() -> None:
    assert format_address("::1", 8000) == "[::1]:8000"
    assert format_address("[::1]", 8000) == "[::1]:8000"
    assert format_address("127.0.0.1", 8000) == "127.0.0.1:8000"
    assert format_address("localhost", 0) == "localhost:0"
