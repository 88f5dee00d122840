"""Keys that tests sign with, and judges that trust them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.runtime.ed25519 import PrivateKey
from sidecar.store.keys import Keys
from sidecar.store.seal import Keyring, Signer
from sidecar.store.trust import Trust
from tests.support.clock import HandClock

if TYPE_CHECKING:
    from sidecar.runtime.clock import Clock


def signer() -> Signer:
    """Return a signer with a fresh key."""
    return Signer(PrivateKey(Ed25519PrivateKey.generate()))


def trust_in(*signers: Signer, clock: Clock | None = None, exempt_kills: bool = False) -> Trust:
    """Return a judge that trusts the keys of these signers."""
    ring = Keyring([one.public for one in signers])
    return Trust(ring, Keys(), clock or HandClock(), exempt_kills=exempt_kills)
