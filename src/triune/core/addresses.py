"""Network addresses as people and URLs write them."""


def format_address(host: str, port: int) -> str:
    """`127.0.0.1:8000`, and `[::1]:8000`: an IPv6 address stands in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
