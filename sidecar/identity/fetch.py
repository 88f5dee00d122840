"""Keys over HTTP: one bounded answer, from where the settings say and from nowhere else.

Only the control process loads this: aiohttp has no place in a worker.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from errno import errorcode
from typing import TYPE_CHECKING, Final, NamedTuple

import aiohttp

from sidecar import __version__
from sidecar.identity.compact import decode_object
from sidecar.identity.keys import KeySetError
from sidecar.identity.places import discovery_url, is_plain, url_fault

if TYPE_CHECKING:
    from sidecar.model.issuer import IdentitySettings

TIMEOUT_S: Final = 2.0  # from DNS to the last byte, of both documents where there are two
MAX_BYTES: Final = 256 * 1024  # some 500 RSA keys; issuers have a handful
_OK: Final = 200
_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # what is small when packed need not be small
    "User-Agent": f"rmv/{__version__}",
}


class FetchError(KeySetError):
    """Keys could not be fetched; `cause` is one of few words, for metrics."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause


class Place(NamedTuple):
    """Where a JWK Set is: at `jwks_url`, or, if that is empty, where `issuer` says that it is.

    `ca_file` holds who vouches for the servers; empty: whom the system trusts.
    """

    issuer: str
    jwks_url: str
    ca_file: str

    @classmethod
    def of(cls, settings: IdentitySettings) -> Place:
        """Return where the settings of an issuer say that its keys are."""
        return cls(settings.issuer, settings.jwks_url, settings.ca_file)


async def fetch(place: Place) -> bytes:
    """Return the JWK Set as it came; raises FetchError."""
    try:
        async with asyncio.timeout(TIMEOUT_S), _session(place.ca_file) as session:
            url = place.jwks_url or await _discover(session, place.issuer)
            return await _get(session, url)
    except TimeoutError as error:
        raise FetchError("timeout", f"no whole answer in {TIMEOUT_S:g} seconds") from error
    except aiohttp.ClientSSLError as error:
        raise FetchError("tls", _unreached(error)) from error
    except ssl.SSLError as error:
        raise FetchError("tls", error.reason or str(error)) from error
    except aiohttp.ClientConnectorError as error:
        raise FetchError("connect", _unreached(error)) from error
    except (OSError, UnicodeError) as error:  # of a name to look up
        raise FetchError("connect", str(error)) from error
    except aiohttp.ClientError as error:
        raise FetchError("answer", str(error) or type(error).__name__) from error


def _unreached(error: aiohttp.ClientConnectorError) -> str:
    """Say who was not reached, and why: aiohttp tells of its own settings, too."""
    cause: Exception = error.os_error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = cause.verify_message
    elif isinstance(cause, OSError) and cause.errno and cause.errno in errorcode:
        why = os.strerror(cause.errno)  # asyncio's own text has the address once more
    else:
        why = str(cause)
    return f"cannot connect to {error.host}:{error.port}: {why}"


def _session(ca_file: str) -> aiohttp.ClientSession:
    """Return a session without memory: no cookie, proxy or connection outlives a fetch."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # ssl.SSLError is one
        raise FetchError("tls", f"{ca_file}: {error.strerror or error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),  # `fetch` has one for everything
    )


async def _discover(session: aiohttp.ClientSession, issuer: str) -> str:
    """Ask an issuer where its keys are (OpenID Connect Discovery 1.0 section 4)."""
    url = discovery_url(issuer)
    try:
        document = decode_object(await _get(session, url))
    except ValueError as error:
        raise FetchError("discovery", f"{url}: {error}") from error
    if document.get("issuer") != issuer:  # section 4.3: identical, or it speaks for another
        raise FetchError("discovery", f"{url}: its issuer is not {issuer}")
    jwks_uri = document.get("jwks_uri")
    if not isinstance(jwks_uri, str):
        raise FetchError("discovery", f"{url}: it names no jwks_uri")
    # What comes from elsewhere must not lead to this host: only an issuer on it may.
    if why := url_fault(jwks_uri, is_plain_allowed=is_plain(url)):
        raise FetchError("discovery", f"{url}: its jwks_uri {why}")
    return jwks_uri


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url, allow_redirects=False) as answer:
        if answer.status in range(300, 400):
            raise FetchError("redirect", f"{url}: answers {answer.status}, and is not followed")
        if answer.status != _OK:
            raise FetchError("status", f"{url}: answers {answer.status}")
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchError("answer", f"{url}: is encoded, which nobody asked for")
        return await _read(answer.content, url)


async def _read(content: aiohttp.StreamReader, url: str) -> bytes:
    whole = bytearray()
    while piece := await content.readany():
        whole += piece
        if len(whole) > MAX_BYTES:
            raise FetchError("size", f"{url}: is over {MAX_BYTES} bytes")
    return bytes(whole)
