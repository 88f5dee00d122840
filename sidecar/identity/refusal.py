"""Why a caller was not believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import SidecarError

if TYPE_CHECKING:
    from sidecar.errors import Code


class TokenRefused(SidecarError):  # noqa: N818 -- the outcome of a check, not a fault
    """The caller showed no token that is believed.

    `detail` is fit for the caller and holds no byte of the token. `is_final` says that with the
    same keys no later moment makes the same token valid. `awaits_key` says that the token names a
    key that is not known; `awaits`, whose keys are fetched anew for it, if anyone's are.
    """

    def __init__(
        self, code: Code, detail: str, *, is_final: bool = True, awaits_key: bool = False
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.is_final = is_final
        self.awaits_key = awaits_key
        self.awaits = ""
