"""Ed25519 (RFC 8032) with keys in PEM files: who signed a message, and whether it is the same.

What a signature means is its caller's: every kind of message begins with a text that no other
kind begins with, so that a signature of one never passes for one of another.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from sidecar.errors import SidecarError

if TYPE_CHECKING:
    import os

SIGNATURE_BYTES: Final = 64  # RFC 8032 section 5.1.6
_ID_CHARS: Final = 16  # 64 bits: an id only picks among the few keys that are trusted
_MAX_FILE_BYTES: Final = 16 * 1024  # such a key has 120 bytes
_OTHER_KIND: Final = "not an Ed25519 key"
_PEM: Final = "-----BEGIN "


class KeyFileError(SidecarError):
    """A key file cannot be used; the text names it and the reason, and nothing of the key."""


class PublicKey:
    """Verifies. `id` is the beginning of the SHA-256, in hexadecimal, of its 32 bytes."""

    __slots__ = ("_key", "id")

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id: Final = hashlib.sha256(raw).hexdigest()[:_ID_CHARS]

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Return whether `signature` is that of this key over `message`; any bytes may be given."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def pem(self) -> str:
        """Return the key as `load_public` reads it."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class PrivateKey:
    """Signs. `public` is what verifies it."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: Final = PublicKey(key.public_key())

    @property
    def id(self) -> str:
        """The id of its public half."""
        return self.public.id

    def sign(self, message: bytes) -> bytes:
        """Return the signature over `message`, 64 bytes."""
        return self._key.sign(message)


def load_private(path: str | os.PathLike[str]) -> PrivateKey:
    """Read a private key from a PEM file (PKCS#8, without a passphrase).

    Raises:
        KeyFileError: the file cannot be read, or has no Ed25519 private key.
    """
    raw = _read(path)
    try:
        key = load_pem_private_key(raw, password=None)
    except (ValueError, TypeError):  # without the cause's text, which may tell of the key
        raise KeyFileError(f"{path}: no private key in PEM without a passphrase") from None
    except UnsupportedAlgorithm:
        raise KeyFileError(f"{path}: {_OTHER_KIND}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: {_OTHER_KIND}")
    return PrivateKey(key)


def load_public(path_or_pem: str | os.PathLike[str]) -> PublicKey:
    """Read a public key from a PEM file, or from the text of one.

    Raises:
        KeyFileError: the file cannot be read, or has no Ed25519 public key.
    """
    is_text = isinstance(path_or_pem, str) and path_or_pem.lstrip().startswith(_PEM)
    name = "the given key" if is_text else path_or_pem
    raw = str(path_or_pem).encode() if is_text else _read(path_or_pem)
    try:
        key = load_pem_public_key(raw)
    except ValueError:
        what = "a private key, which has no place here" if b"PRIVATE" in raw else "no public key"
        raise KeyFileError(f"{name}: {what}; a public key in PEM is needed") from None
    except UnsupportedAlgorithm:
        raise KeyFileError(f"{name}: {_OTHER_KIND}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{name}: {_OTHER_KIND}")
    return PublicKey(key)


def generate(directory: str | os.PathLike[str], name: str) -> PublicKey:
    """Make a pair, `<name>.key` and `<name>.pub` in `directory`, both of mode 0600.

    Raises:
        KeyFileError: one of the files is there already, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    folder = Path(directory)
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    made = PrivateKey(key)
    begun: list[Path] = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (private, public):
            path.touch(mode=0o600, exist_ok=False)  # not even while empty can others read it
            begun.append(path)
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_text(made.public.pem())
    except OSError as error:
        for path in begun:  # half a pair would be in the way of the next one
            path.unlink(missing_ok=True)
        is_there = isinstance(error, FileExistsError)
        why = "a key is there already" if is_there else error.strerror
        raise KeyFileError(f"{error.filename}: {why}") from error
    return made.public


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
