"""Network addresses as text."""


def format_address(host: str, port: int) -> str:
    """Format an address: `127.0.0.1:8000`, or `[::1]:8000` with IPv6 addresses in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
