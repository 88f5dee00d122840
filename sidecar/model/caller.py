"""Who else is believed than who shows a token."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

CertificateName = Literal["off", "cn", "san_uri", "san_dns"]


class CallerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Callers by their TLS certificate, and by headers from a trusted network; both off by default.

    `certificate` says which name of a client's certificate counts, one that `certificate_pattern`
    matches as a whole: its groups `tenant`, `subject` and `app` say who calls. Whoever connects
    from `trusted_networks`, or with `trust_unix` to a unix socket, may say so by `X-Tenant`,
    `X-Subject` and `X-App`.
    """

    certificate: CertificateName = "off"
    certificate_pattern: str = "(?P<tenant>.+)"
    trusted_networks: tuple[str, ...] = ()
    trust_unix: bool = False

    @property
    def are_believed(self) -> bool:
        """Whether anybody is believed without a token."""
        return self.certificate != "off" or bool(self.trusted_networks) or self.trust_unix
