"""Find out in seconds that a server cannot be reached; the libraries that download try again for minutes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import requests

CONNECT_SECONDS = 8.0
"""Time to look up a server's address and to connect to it."""
PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}


def unreachable(url: str, seconds: float = CONNECT_SECONDS) -> str | None:
    """Say why no connection to a server can be made; None if one can.

    Where the environment names a proxy for the address, the proxy is what has to be reached.

    Example:
        >>> unreachable("https://no-such-host.invalid") is None
        False
    """
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    address = urlsplit(url if proxy is None else proxy if "://" in proxy else f"http://{proxy}")
    host, port = address.hostname or "", address.port or PORTS.get(address.scheme, 443)
    where = f"proxy {host}" if proxy else host
    outcome: list[str | None] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
            outcome.append(None)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be one
            outcome.append(f"{where}: {getattr(error, 'strerror', None) or error}")

    # In a thread, as looking up a name has no time limit and an address is tried for each that the name stands for.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"{where}: no answer within {seconds:g} s"


@contextmanager
def hub_cache_alone_if_offline() -> Iterator[str | None]:
    """Let the Hub's client use its cache alone if the Hub cannot be reached.

    Without a connection its client tries each file five times before it looks there.

    Yields:
        Why the Hub cannot be reached; None if it can.
    """
    from huggingface_hub import constants  # not needed by commands that download nothing

    if constants.HF_HUB_OFFLINE:
        yield "HF_HUB_OFFLINE is set"
        return
    reason = unreachable(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = reason is not None
    try:
        yield reason
    finally:
        constants.HF_HUB_OFFLINE = False
