"""Where keys may be fetched from: over https, or from this very host."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import SplitResult, urlsplit

WELL_KNOWN: Final = "/.well-known/openid-configuration"  # OpenID Connect Discovery 1.0 section 4


def url_fault(url: str, *, is_plain_allowed: bool = True) -> str:
    """Return what is wrong with a URL to fetch keys from, or an empty text.

    Whoever can change what comes over the wire decides who is believed, so plain http is for
    loopback alone, and only if `is_plain_allowed`.
    """
    try:
        parts = urlsplit(url)
        is_absolute = bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")  # as who looks it up does: labels may be too long
    except ValueError as error:
        return f"is no URL: {error}"
    if not is_absolute or not url.isascii() or not url.isprintable() or " " in url:
        return "is not an absolute URL"
    if "@" in parts.netloc:
        return "holds credentials, which would stand in logs"
    if "#" in url:
        return "has a fragment, which no server sees"
    if parts.scheme == "https" or (is_plain_allowed and _is_on_loopback(parts)):
        return ""
    return "must begin with https://; plain http is for loopback only"


def discovery_url(issuer: str) -> str:
    """Return where an issuer describes itself (OpenID Connect Discovery 1.0 section 4.1)."""
    return issuer.removesuffix("/") + WELL_KNOWN


def is_plain(url: str) -> bool:
    """Return whether a URL is fetched without TLS."""
    return urlsplit(url).scheme == "http"


def _is_on_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
    return is_loopback and parts.scheme == "http"
