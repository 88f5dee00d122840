"""`rmv token`: tokens of an issuer for development."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sidecar.cli import output
from sidecar.cli.callers import put_claim, read_claims
from sidecar.cli.options import (
    AppName,
    AsJson,
    Claims,
    ConfigFile,
    Scopes,
    StateDir,
    StoreOptions,
    Subject,
    Ttl,
    commands,
    given,
)
from sidecar.config import Config
from sidecar.identity.issuer import JWKS_FILE, PRIVATE_KEY_FILE, create_keys, issue
from sidecar.model.issuer import IdentitySettings
from sidecar.runtime.clock import SystemClock
from sidecar.store.embedded import default_state_dir

ISSUER = "rmv-development"
AUDIENCE = "rmv"
LIFETIME_S = 3_600.0

app = commands()


@app.command("token")
def token(
    ctx: typer.Context,
    *,
    tenant: Annotated[str, typer.Option(help="Whom the token speaks for.")],
    subject: Subject = "developer",
    app_name: AppName = "",
    scope: Scopes = None,
    claim: Claims = None,
    ttl: Ttl = None,
    keys: Annotated[
        Path | None, typer.Option(help="Folder of the issuer's keys.", metavar="DIR")
    ] = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Print a token FOR DEVELOPMENT.

    Its keys are made at the first use. Whoever can read the folder of the keys can speak for any
    tenant.
    """
    options = given(ctx, StoreOptions(state_dir=state_dir, config=config, as_json=as_json))
    settings = options.read()
    folder = keys or _folder(settings)
    identity = settings.identity or IdentitySettings(
        ISSUER, AUDIENCE, jwks_file=str(folder / JWKS_FILE)
    )
    if not (folder / PRIVATE_KEY_FILE).exists():
        create_keys(folder)
        _introduce(folder, identity)
    claims = read_claims(claim or ())
    for name, value in (
        (identity.tenant_claim, tenant),
        (identity.subject_claim, subject),
        (identity.app_claim, app_name),
        (identity.scope_claim, " ".join(scope or ())),
    ):
        if name and value:
            put_claim(claims, name, value)
    text = issue(
        folder,
        tenant=tenant,
        subject=subject,
        issuer=identity.issuer,
        audience=identity.audience,
        lifetime_s=ttl or LIFETIME_S,
        now_s=SystemClock().now_s(),
        claims=claims,
    )
    if options.as_json:
        output.emit({"token": text})
        return
    print(text)


def _folder(config: Config) -> Path:
    """Return where the keys are: beside the sidecar's key set if they made it, else our own."""
    if config.identity is not None and config.identity.jwks_file:
        beside = Path(config.identity.jwks_file).parent
        if (beside / PRIVATE_KEY_FILE).exists():
            return beside
    return Path(config.state_dir or default_state_dir()) / "keys"


def _introduce(folder: Path, identity: IdentitySettings) -> None:
    output.note(
        f"Made keys FOR DEVELOPMENT in {folder}. A sidecar believes them by:\n"
        f"  [identity]\n"
        f'  jwks_file = "{folder.absolute() / JWKS_FILE}"\n'
        f'  issuer = "{identity.issuer}"\n'
        f'  audience = "{identity.audience}"'
    )
