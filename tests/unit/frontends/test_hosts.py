import socket

import pytest

from triune.core.errors import InvalidArgumentError
from triune.frontends.access import Access
from triune.frontends.hosts import OwnHosts

LOCAL = "127.0.0.1"


def problem(method: str, *names: str, **headers: str) -> str | None:
    hosts = OwnHosts.of(LOCAL, names)
    assert hosts is not None
    return hosts.problem(
        method.encode(), [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    )


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "127.0.0.1",
        "[::1]:8000",
        "192.168.1.7:8000",
        "localhost:8000",
        "LocalHost.",
        "models.localhost",
        "host.docker.internal:8000",
        "my-mac.local:8000",
        "triune.default.svc.cluster.local",
        "triune",
        socket.gethostname(),
        "",
        "models.example.com",
        "Models.Example.com:443",
    ],
)
def test_names_that_no_page_can_have_are_taken(host: str) -> None:
    for method in ("GET", "POST"):
        assert problem(method, "models.example.com", host=host) is None


@pytest.mark.parametrize(
    "host", ["evil.com", "evil.com:8000", "localhost.evil.com", "127.0.0.1.nip.io", "evil.com.", "1.2.3"]
)
def test_other_names_are_refused(host: str) -> None:
    for method in ("GET", "POST"):
        refusal = problem(method, host=host)
        assert refusal is not None
        assert f"--allowed-host {host.removesuffix(':8000').removesuffix('.')}" in refusal


def test_a_request_without_a_host_is_taken() -> None:
    assert problem("POST") is None


@pytest.mark.parametrize(
    ("origin", "site"),
    [
        ("http://127.0.0.1:8000", ""),
        ("http://127.0.0.1:8000", "same-origin"),
        ("http://localhost:3000", "same-site"),
        ("http://[::1]:3000", "cross-site"),
        ("https://models.example.com", ""),
        # A proxy in front that sends its own Host.
        ("https://elsewhere.example.com", "same-origin"),
        ("vscode-webview://1a2b", "cross-site"),
        ("chrome-extension://abc", "none"),
        ("app://obsidian.md", ""),
    ],
)
def test_pages_of_this_machine_and_programs_may_post(origin: str, site: str) -> None:
    fetched = {"sec_fetch_site": site} if site else {}
    assert problem("POST", "models.example.com", host="127.0.0.1:8000", origin=origin, **fetched) is None


@pytest.mark.parametrize(
    "origin", ["https://evil.com", "http://6.6.6.6:8000", "null", "", "http://wiki", "https://localhost.evil.com"]
)
def test_pages_of_other_sites_may_not_post(origin: str) -> None:
    assert problem("GET", host="127.0.0.1:8000", origin=origin) is None
    for site in ({}, {"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"}):
        refusal = problem("POST", host="127.0.0.1:8000", origin=origin, **site)
        assert refusal is not None
        assert f"comes from a page of '{origin}'" in refusal


def test_another_origin_beside_an_own_one_is_refused() -> None:
    hosts = OwnHosts.of(LOCAL, ())
    assert hosts is not None
    headers = [(b"host", b"localhost"), (b"origin", b"http://localhost"), (b"origin", b"https://evil.com")]
    assert hosts.problem(b"POST", headers) is not None
    assert hosts.problem(b"POST", headers[:2]) is None


def test_a_name_is_shown_in_one_line() -> None:
    refusal = problem("POST", host="evil\x1b.com" + "m" * 999)
    assert refusal is not None
    assert "evil\\x1b.com" in refusal
    assert len(refusal) < 400


@pytest.mark.parametrize("address", [LOCAL, "::1", "127.0.0.7", "localhost"])
def test_a_loopback_address_is_checked(address: str) -> None:
    assert OwnHosts.of(address, ()) is not None
    assert OwnHosts.of(address, ("*",)) is None


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.7", "models.example.com"])
def test_other_addresses_are_checked_if_they_have_names(address: str) -> None:
    assert OwnHosts.of(address, ()) is None
    assert OwnHosts.of(address, ("models.example.com",)) is not None


def test_a_server_with_api_keys_is_not_checked() -> None:
    assert Access.of(["key"]).own_hosts(LOCAL) is None
    assert Access.of(["key"], hosts=["models.example.com"]).own_hosts(LOCAL) is not None
    assert Access.of().own_hosts(LOCAL) is not None
    assert Access.of(http=["inference:key=value"]).own_hosts(LOCAL) is not None


@pytest.mark.parametrize("name", ["https://models.example.com", "models.example.com:8000", "", "a/b", "[::1]"])
def test_what_is_not_a_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is not a name: give it without scheme, port and path"):
        OwnHosts.of(LOCAL, (name,))
