"""Process configuration: what one sidecar is told at its start, in frozen structs.

A setting comes from the TOML file, is overridden by the environment (`RMV_LISTEN`,
`RMV_LIMITS__HEAD_BYTES`) and that by a flag. Policies are not configuration: they live in Redis
and change while it runs.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from sidecar.errors import ConfigError
from sidecar.identity.callers import pattern_fault
from sidecar.identity.places import discovery_url, url_fault
from sidecar.model.admin import AdminCertificate, AdminSettings, AdminToken, credential_faults
from sidecar.model.audit import AuditSettings, OnFailure
from sidecar.model.caller import CallerSettings
from sidecar.model.context import ContextSettings
from sidecar.model.issuer import IdentitySettings
from sidecar.model.limits import Limits, Timeouts
from sidecar.model.policy import Name, Policy
from sidecar.model.route import RouteRule
from sidecar.model.signing import SigningSettings
from sidecar.model.tls import TlsSettings
from sidecar.model.upstream import EndpointSettings, UpstreamSettings, UpstreamTls
from sidecar.policy import network, route, words
from sidecar.policy.address import AllowList
from sidecar.runtime import tls
from sidecar.runtime.sockets import MAX_PATH_BYTES, UNIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """One sidecar. Unless `no_auth` says that auth is off, somebody has to be believed."""

    listen: str = "127.0.0.1:8080"
    admin: str | None = "127.0.0.1:8081"
    admin_api: AdminSettings = AdminSettings()
    admin_tls: TlsSettings | None = None  # of `admin`
    admin_tokens: tuple[AdminToken, ...] = ()
    admin_certificates: tuple[AdminCertificate, ...] = ()
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    redis: str = "embedded"
    state_dir: str = ""  # of the embedded server; empty: $XDG_STATE_HOME/rmv or ~/.local/state/rmv
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "rmv"
    model: Name | None = None  # for requests that name no other: the single model it fronts
    routes: tuple[RouteRule, ...] = ()
    identity: IdentitySettings | None = None
    issuers: tuple[IdentitySettings, ...] = ()  # more of them
    callers: CallerSettings = CallerSettings()  # who is believed without a token
    no_auth: bool = False
    allow_slow: bool = False  # start without modules in C that have a slow stand-in
    tls: TlsSettings | None = None  # of `listen`
    proxy_protocol: bool = False  # every connection to `listen` has to begin with it
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    endpoints: EndpointSettings = EndpointSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    upstream_tls: UpstreamTls = UpstreamTls()
    contexts: ContextSettings = ContextSettings()
    audit: AuditSettings = AuditSettings()
    signing: SigningSettings = SigningSettings()
    exchange_log: str = "stdout"  # `stdout`, `off` or the path of a file
    decision_headers: bool = True  # X-Model-Version and X-Model-Decision to the client
    lineage_header: bool = False  # the digest of the version's lineage, in X-Model-Version

    @property
    def believed(self) -> tuple[IdentitySettings, ...]:
        """Whose tokens are believed: nobody's when auth is off."""
        return () if self.identity is None else (self.identity, *self.issuers)


class ServeSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """What `rmv serve` hands to the process that serves.

    `seed_policy` is the policy described by flags; it is for a store that has none for its model.
    `file` is where the settings stand, absolute; empty where that cannot be read again.
    """

    config: Config
    seed_policy: Policy | None = None
    file: str = ""


class Address(NamedTuple):
    """Where to listen. An empty `host` means every interface, port 0 a free port."""

    host: str
    port: int


Flag = str | int | float | bool | None
"""The value of a command line flag; None when it was not given."""

_VARIABLE = "RMV_"
_SPEC_VARIABLE = "RMV_SPEC"
_NOT_SETTINGS = {"RMV_CONFIG", "RMV_SIGNING_KEY", _SPEC_VARIABLE}
# Kubernetes describes a Service called `rmv` to every pod of its namespace (enableServiceLinks).
_SERVICE_LINK = re.compile(
    r"RMV_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)?)"
)
_PATHS = {
    "state_dir",
    "admin_tls.cert_file",
    "admin_tls.key_file",
    "admin_tls.client_ca_file",
    "identity.jwks_file",
    "identity.ca_file",
    "identity.keys[].file",
    "issuers[].jwks_file",
    "issuers[].ca_file",
    "issuers[].keys[].file",
    "audit.dir",
    "audit.key_file",
    "exchange_log",
    "signing.trusted[]",
    "tls.cert_file",
    "tls.key_file",
    "tls.client_ca_file",
    "upstream_tls.ca_file",
    "upstream_tls.cert_file",
    "upstream_tls.key_file",
}
_WORDS = {"", "off", "stdout"}  # what a setting of _PATHS may say instead of a path


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Flag]) -> Config:
    """Return the configuration of a sidecar that is about to serve.

    `flags` are keyed by setting (`limits.head_bytes`); relative paths in the file start at its
    folder. Raises ConfigError that names every problem: where, setting, reason.
    """
    return _Settings(file, environ, flags).decode(_contradictions)


def read(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Flag]) -> Config:
    """Return the configuration as `load` does, unchecked for serving: tools need only its store.

    Raises ConfigError on unknown settings, wrong types and a store that no URL means.
    """
    return _Settings(file, environ, flags).decode(_redis_faults)


def with_credentials(config: Config, file: Path, environ: Mapping[str, str]) -> Config:
    """Return `config` with the credentials of the admin listener that the settings name now.

    All else that they say takes a restart. Raises ConfigError that names every problem of the
    file's shape, and what is wrong with the credentials: where, setting, reason.
    """

    def renewed(found: Config) -> Config:
        tokens, certificates = found.admin_tokens, found.admin_certificates
        return replace(config, admin_tokens=tokens, admin_certificates=certificates)

    settings = _Settings(file, environ, {})
    return renewed(settings.decode(lambda found: _admin_faults(renewed(found))))


def allow_list(config: Config) -> AllowList:
    """Return where endpoints may be; ConfigError names every entry that cannot be read."""
    faults = [f"{path}: {why}" for path, why in _allow_faults(config)]
    if faults:
        raise ConfigError("\n".join(faults))
    return AllowList(config.endpoints.allow)


def parse_address(text: str) -> Address:
    """Read `host:port`, `:port` or `[::1]:port`; ConfigError says what is wrong with it."""
    found = re.fullmatch(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^\[\]:/\s]*)):(?P<port>\d{1,5})", text)
    if not found or int(found["port"]) > 65_535:  # noqa: PLR2004 -- 16 bits
        msg = f"`{text}` is not an address: write host:port, :port or [::1]:port"
        raise ConfigError(msg)
    if found["v6"] is None:
        return Address(found["host"], int(found["port"]))
    try:
        ipaddress.IPv6Address(found["v6"])
    except ValueError as error:
        msg = f"`{text}`: {error}"
        raise ConfigError(msg) from error
    return Address(found["v6"], int(found["port"]))


def hand_over(spec: ServeSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` with `spec` in it, for the process that will serve."""
    return {**environ, _SPEC_VARIABLE: msgspec.json.encode(spec).decode()}


def take_over(environ: Mapping[str, str]) -> ServeSpec:
    """Return the spec that `hand_over` put there; ConfigError when there is none."""
    raw = environ.get(_SPEC_VARIABLE)
    if raw is None:
        msg = f"{_SPEC_VARIABLE} is not set: start the sidecar with `rmv serve`"
        raise ConfigError(msg)
    try:
        return msgspec.json.decode(raw, type=ServeSpec)
    except msgspec.DecodeError as error:
        msg = f"{_SPEC_VARIABLE}: {error}"
        raise ConfigError(msg) from error


def _contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """Yield what is wrong between settings that are each well-formed: setting, reason."""
    is_anybody_believed = config.identity is not None or config.callers.are_believed
    if not is_anybody_believed and not config.no_auth:
        yield (
            "auth",
            "it is not said whose tokens are believed: set jwks_file, issuer and audience"
            " in [identity], or switch auth off with `no_auth = true` (flag --no-auth)",
        )
    if config.identity is not None and config.no_auth:
        yield "no_auth", "auth is off, yet [identity] says whose tokens are believed: remove one"
    yield from _identity_faults(config)
    yield from _caller_faults(config)
    yield from ((f"routes{at}", why) for at, why in route.faults(config.routes))
    yield from _redis_faults(config)
    yield from _audit_faults(config.audit)
    yield from _tls_faults("tls", config.tls)
    yield from _tls_faults("admin_tls", config.admin_tls)
    yield from _admin_faults(config)
    yield from _unix_faults(config)
    yield from _signing_faults(config.signing)
    is_unix = config.listen.startswith(UNIX)
    addresses = {"listen": None if is_unix else config.listen, "admin": config.admin}
    for path, text in addresses.items():
        try:
            if text is not None:
                parse_address(text)
        except ConfigError as error:
            yield path, str(error)
    yield from _upstream_contradictions(config)
    if config.listen == config.admin and not config.listen.endswith(":0"):
        yield "admin", f"`{config.admin}` is already the address of `listen`"


def _identity_faults(config: Config) -> Iterator[tuple[str, str]]:
    if config.identity is None and config.issuers:
        yield "issuers", "the first issuer stands in [identity], the others here"
    seen: set[str] = set()
    for n, issuer in enumerate(config.believed):
        path = f"issuers[{n - 1}]" if n else "identity"
        if issuer.issuer in seen:
            yield f"{path}.issuer", f"`{issuer.issuer}` is another issuer already"
        seen.add(issuer.issuer)
        for setting, why in _issuer_faults(issuer):
            yield f"{path}.{setting}".removesuffix("."), why


def _issuer_faults(settings: IdentitySettings) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with one issuer: setting of it, reason."""
    if settings.grants_required and not settings.grants_claim:
        yield "grants_required", "needs grants_claim: no token would be believed"
    for name in ("issuer", "audience"):
        if not getattr(settings, name):
            yield name, "must not be empty"
    sources = {
        "jwks_file": bool(settings.jwks_file),
        "jwks_url": bool(settings.jwks_url),
        "discovery": settings.discovery,
        "keys": bool(settings.keys),
    }
    given = [name for name, is_given in sources.items() if is_given]
    if len(given) != 1:
        said = f"{' and '.join(given)} are given" if given else "is not said"
        why = f"where its keys are: {said}; set one of jwks_file, jwks_url, discovery and keys"
        yield "", why
        return
    yield from _missing_key_files(settings)
    if sources["jwks_url"] or sources["discovery"]:
        yield from _fetch_faults(settings)
    elif settings.ca_file:
        yield "ca_file", "has no effect: it vouches for URLs, and no key is fetched from one"
    if sources["keys"] and settings.keys_of_other_use == "skip":
        yield "keys_of_other_use", "has no effect: a key in PEM says no use"


def _missing_key_files(settings: IdentitySettings) -> Iterator[tuple[str, str]]:
    named = {"jwks_file": settings.jwks_file, "ca_file": settings.ca_file}
    named |= {f"keys[{n}].file": key.file for n, key in enumerate(settings.keys)}
    for path, file in named.items():
        if file and not Path(file).is_file():
            yield path, f"no such file: {file}"


def _fetch_faults(settings: IdentitySettings) -> Iterator[tuple[str, str]]:
    if settings.discovery:
        name, url = "issuer", discovery_url(settings.issuer)
        if "?" in settings.issuer:  # OpenID Connect Discovery 1.0 section 3
            yield "issuer", "has a query, which discovery does not allow"
    else:
        name, url = "jwks_url", settings.jwks_url
    if why := url_fault(url):
        yield name, f"`{settings.issuer if settings.discovery else url}` {why}"
    if "HS256" in settings.algorithms:
        yield "algorithms", "HS256 needs a secret, and what a URL gives is none: use jwks_file"
    if settings.keys_max_age_s <= settings.keys_refresh_s:
        why = f"must be more than keys_refresh_s ({settings.keys_refresh_s:g})"
        yield "keys_max_age_s", why


def _redis_faults(config: Config) -> Iterator[tuple[str, str]]:
    from sidecar.store.connect import open_store  # noqa: PLC0415 -- who only reads starts sooner

    for setting, url in {"redis": config.redis, "admin_api.redis": config.admin_api.redis}.items():
        try:
            open_store(url or config.redis, config.prefix, config.state_dir)
        except ConfigError as error:
            yield setting, str(error).removeprefix("redis: ")
            return


def _audit_faults(settings: AuditSettings) -> Iterator[tuple[str, str]]:
    given = {"key_file": settings.key_file, "on_failure": settings.on_failure is OnFailure.CLOSED}
    if not settings.is_on:
        for name in (name for name, is_given in given.items() if is_given):
            yield f"audit.{name}", "has no effect: set audit.dir or audit.stream too"
    if settings.key_file:
        from sidecar.runtime.ed25519 import KeyFileError, load_private  # noqa: PLC0415 -- heavy

        try:
            load_private(settings.key_file)
        except KeyFileError as error:
            yield "audit.key_file", str(error)


def _signing_faults(settings: SigningSettings) -> Iterator[tuple[str, str]]:
    if not settings.trusted:
        if settings.exempt_kills:
            yield "signing.exempt_kills", "has no effect without signing.trusted"
        return
    from sidecar.runtime.ed25519 import KeyFileError, load_public  # noqa: PLC0415 -- it weighs

    ids: dict[str, str] = {}
    for n, file in enumerate(settings.trusted):
        try:
            key = load_public(file)
        except KeyFileError as error:
            yield f"signing.trusted[{n}]", str(error)
            continue
        if key.id in ids:
            yield f"signing.trusted[{n}]", f"{file}: the same key as {ids[key.id]}"
        ids.setdefault(key.id, file)


def _caller_faults(config: Config) -> Iterator[tuple[str, str]]:
    settings = config.callers
    if settings.are_believed and config.no_auth:
        yield "callers", "auth is off, yet [callers] says who is believed: remove one"
    asks = config.tls is not None and config.tls.client_certs != "off"
    if settings.certificate != "off" and not asks:
        why = 'no client is asked for a certificate: set tls.client_certs = "optional"'
        yield "callers.certificate", why
    yield from _pattern_faults(settings)
    for n, entry in enumerate(settings.trusted_networks):
        try:
            network.parse(entry)
        except ValueError as error:
            yield f"callers.trusted_networks[{n}]", f"`{entry}`: {error}"
    if settings.trust_unix and not config.listen.startswith(UNIX):
        yield "callers.trust_unix", "has no effect: `listen` is no unix socket"


def _pattern_faults(settings: CallerSettings) -> Iterator[tuple[str, str]]:
    pattern = settings.certificate_pattern
    if settings.certificate != "off":
        if why := pattern_fault(pattern):
            yield "callers.certificate_pattern", why
    elif pattern != CallerSettings().certificate_pattern:
        yield "callers.certificate_pattern", "has no effect without callers.certificate"


def _unix_faults(config: Config) -> Iterator[tuple[str, str]]:
    if not config.listen.startswith(UNIX):
        return
    path = config.listen.removeprefix(UNIX)
    if not path.startswith("/") or len(path.encode()) > MAX_PATH_BYTES:
        yield "listen", f"`{path}` is not an absolute path of at most {MAX_PATH_BYTES} bytes"


def _tls_faults(table: str, settings: TlsSettings | None) -> Iterator[tuple[str, str]]:
    if settings is None:
        return
    if settings.client_certs != "off" and settings.client_ca_file is None:
        why = f"says that clients have certificates: set {table}.client_ca_file too"
        yield f"{table}.client_certs", why
    if settings.client_certs == "off" and settings.client_ca_file is not None:
        why = f'has no effect without {table}.client_certs: set that to "required" or "optional"'
        yield f"{table}.client_ca_file", why
    try:
        tls.load(settings)
    except tls.TlsFileError as error:
        yield f"{table}.{error.setting}", str(error)


def _admin_faults(config: Config) -> Iterator[tuple[str, str]]:
    tokens, certificates = config.admin_tokens, config.admin_certificates
    yield from credential_faults(tokens, certificates)
    asks = config.admin_tls is not None and config.admin_tls.client_certs != "off"
    if certificates and not asks:
        yield "admin_certificates", 'has no effect: set admin_tls.client_certs = "optional"'
    if config.admin is None and (tokens or certificates):
        yield "admin", "is off, yet it is said who may use it: remove one"


def _allow_faults(config: Config) -> Iterator[tuple[str, str]]:
    for n, entry in enumerate(config.endpoints.allow):
        try:
            AllowList([entry])
        except ValueError as error:
            yield f"endpoints.allow[{n}]", f"`{entry}`: {error}"


def _upstream_contradictions(config: Config) -> Iterator[tuple[str, str]]:
    yield from _allow_faults(config)
    for n, folder in enumerate(config.upstream.sockets):
        if not folder.startswith("/") or ".." in folder.split("/"):
            yield f"upstream.sockets[{n}]", f"`{folder}` is not an absolute path without `..`"
    tls = config.upstream_tls
    if bool(tls.cert_file) != bool(tls.key_file):
        given = "cert_file" if tls.cert_file else "key_file"
        yield f"upstream_tls.{given}", "cert_file and key_file go together: set both or none"
    for name in ("ca_file", "cert_file", "key_file"):
        file: str = getattr(tls, name)
        if file and not Path(file).is_file():
            yield f"upstream_tls.{name}", f"no such file: {file}"


class _Given(NamedTuple):
    """What one source says of one setting; text is read leniently, as it has no types."""

    value: object
    source: str
    is_text: bool = False


class _Settings:
    """Everything that was given, by dotted path, the strongest source last."""

    def __init__(
        self, file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Flag]
    ) -> None:
        self._lines: dict[str, int] = {}
        self._file = file
        self._known = dict(_leaves(Config))
        self._given: dict[str, _Given] = {}
        if file is not None:
            self._add_file(file)
        self._add_environment(environ)
        for path, value in flags.items():
            if value is not None:
                self._given[path] = _Given(value, "--" + path.replace("_", "-"))

    def decode(self, check: Callable[[Config], Iterable[tuple[str, str]]]) -> Config:
        """Return the settings as one Config.

        Raises ConfigError that names every one that does not fit; if all do, every fault that
        `check` finds: setting, reason.
        """
        problems: list[str] = []
        tree: dict[str, dict[str, object]] = {"": {}}
        for path, given in self._given.items():
            section, _, name = path.rpartition(".")
            try:
                tree.setdefault(section, {})[name] = self._convert(path, given)
            except ConfigError as error:
                problems.append(str(error))
        problems += [self.describe(path, "is required here") for path in self._missing()]
        if problems:
            raise ConfigError("\n".join(problems))
        config = msgspec.convert({**tree.pop(""), **tree}, Config)
        problems = [self.describe(path, why) for path, why in check(config)]
        if problems:
            raise ConfigError("\n".join(problems))
        return config

    def describe(self, path: str, why: str) -> str:
        """Return `source: setting: reason`; `path` may go deeper than a setting (`routes[1]`).

        A flag or variable names its setting already: of that only what lies deeper is told.
        """
        setting = path if path in self._given else path.partition("[")[0]
        given = self._given.get(setting)
        if self._file is not None and (given is None or given.source == str(self._file)):
            line = next((self._lines[at] for at in _around(path) if at in self._lines), None)
            source = f"{self._file}:{line}: " if line else f"{self._file}: "
        elif given is not None:
            source, path = f"{given.source}: ", path.removeprefix(setting)
        else:
            source = ""
        if not path:
            return f"{source}{why}"
        return f"{source}{path}: {why}"

    def _convert(self, path: str, given: _Given) -> object:
        if path not in self._known:
            raise ConfigError(self.describe(path, self._unknown(path, given)))
        value, wanted = given.value, self._known[path].type
        if path == "admin" and value == "off":
            return None  # TOML has no null
        if given.is_text and isinstance(value, str) and get_origin(wanted) is tuple:
            value = _list(value)
        try:
            decoded = msgspec.convert(value, wanted, strict=not given.is_text)
        except msgspec.ValidationError as error:
            why, _, inside = str(error).partition(" - at `$")
            path_inside = path + inside.rstrip("`")
            raise ConfigError(
                self.describe(path_inside, self._explain((path, inside), why, _at(value, inside)))
            ) from error
        return self._anchored(path, msgspec.to_builtins(decoded), given)

    def _anchored(self, path: str, value: object, given: _Given) -> object:
        """Return a value with the paths in it absolute; `routes[]` is each item of `routes`."""
        if isinstance(value, str):
            is_path = path in _PATHS and value not in _WORDS
            return str(self._anchor(Path(value).expanduser(), given)) if is_path else value
        if isinstance(value, list | tuple):
            return [self._anchored(f"{path}[]", item, given) for item in value]
        if isinstance(value, dict):
            return {
                name: self._anchored(f"{path}.{name}", item, given) for name, item in value.items()
            }
        return value

    def _anchor(self, path: Path, given: _Given) -> Path:
        """Start a relative path at the folder of the file that says it, else at the current one."""
        if self._file is not None and given.source == str(self._file):
            return self._file.absolute().parent / path
        return path.absolute()

    def _missing(self) -> Iterator[str]:
        for path, field in self._known.items():
            section = path.rpartition(".")[0]
            is_used = any(given.startswith(f"{section}.") for given in self._given)
            if field.required and is_used and path not in self._given:
                yield path

    def _unknown(self, path: str, given: _Given) -> str:
        if any(known.startswith(f"{path}.") for known in self._known):
            return f"a table of settings is expected: [{path}]"
        similar = _similar(path, self._known)
        if similar and given.source.startswith(_VARIABLE):
            similar = _VARIABLE + similar.replace(".", "__").upper()
        return "unknown setting" + (f"; did you mean `{similar}`?" if similar else "")

    def _explain(self, place: tuple[str, str], why: str, value: object) -> str:
        """Say an error of msgspec in the words of this file; `place` is a setting, and in it."""
        path, inside = place
        wanted = _type_at(self._known[path].type, inside)
        if get_origin(wanted) is Literal or why.startswith("Invalid enum value"):
            return words.one_of(_choices(wanted), value)
        found = re.fullmatch(r"Object contains unknown field `(.*)`", why)
        if found is None:
            return words.plain(why, value)
        items = [item for arg in get_args(self._known[path].type) for item, _ in _leaves(arg)]
        similar = _similar(found[1], items)
        return f"unknown setting `{found[1]}`" + (f"; did you mean `{similar}`?" if similar else "")

    def _add_file(self, file: Path) -> None:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            msg = f"{file}: cannot be read: {error.strerror}"
            raise ConfigError(msg) from error
        except ValueError as error:
            raise ConfigError(f"{file}: {error}") from error  # it is not UTF-8
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{file}{_line_of(error, text)}: {error}") from error
        self._lines = _line_numbers(text)
        for path, value in self._flatten(table, ""):
            self._given[path] = _Given(value, str(file))

    def _flatten(self, table: dict[str, object], parent: str) -> Iterator[tuple[str, object]]:
        for key, value in table.items():
            path = f"{parent}{key}"
            is_section = any(known.startswith(f"{path}.") for known in self._known)
            if is_section and isinstance(value, dict):
                yield from self._flatten(value, f"{path}.")
            else:
                yield path, value

    def _add_environment(self, environ: Mapping[str, str]) -> None:
        for name, value in environ.items():
            if not name.startswith(_VARIABLE) or name in _NOT_SETTINGS:
                continue
            path = name.removeprefix(_VARIABLE).lower().replace("__", ".")
            if path in self._known or not _SERVICE_LINK.fullmatch(name):
                self._given[path] = _Given(value, name, is_text=True)


def _leaves(section: object, parent: str = "") -> Iterator[tuple[str, msgspec.structs.FieldInfo]]:
    """Yield every setting of a struct by its dotted path; nothing when it is no struct."""
    if not (isinstance(section, type) and issubclass(section, Struct)):
        return
    for field in msgspec.structs.fields(section):
        path = f"{parent}{field.encode_name}"
        nested = [
            s for kind in (field.type, *get_args(field.type)) for s in _leaves(kind, f"{path}.")
        ]
        if nested and get_origin(field.type) is not tuple:
            yield from nested
        else:
            yield path, field


def _choices(kind: object) -> Iterator[str]:
    """Yield the words that a type allows, in a list or by themselves."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        yield from (str(one.value) for one in kind)
    for arg in get_args(kind):
        if isinstance(arg, str):
            yield arg
        else:
            yield from _choices(arg)


def _around(path: str) -> Iterator[str]:
    """Iterate over a path and what it is in, item, list and table: `a.b[1]`, `a.b`, `a`."""
    while path:
        yield path
        path = path[: max(path.rfind("."), path.rfind("["), 0)]


def _line_of(error: tomllib.TOMLDecodeError, text: str) -> str:
    """Return `:3`, where the text ends to be TOML; nothing if it is not told."""
    found = re.search(r"at (?:line (\d+)|end of document)", str(error))
    if found is None:
        return ""
    return f":{found[1] or len(text.splitlines())}"


def _list(text: str) -> object:
    """Read a list from the environment: JSON, or items between commas."""
    if not text.startswith("["):
        return [item.strip() for item in text.split(",")]
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text  # which is refused as not being a list


def _at(value: object, inside: str) -> object:
    """Return what stands in a value at `[0].model`, as msgspec spells a path."""
    for index, name in re.findall(r"\[(\d+)\]|\.([^.\[`]+)", inside):
        if isinstance(value, (list, tuple)) and index:
            value = value[int(index)]
        elif isinstance(value, dict):
            value = value.get(name)
    return value


def _type_at(kind: object, inside: str) -> object:
    """Return the type of what stands at `[0].role` in a setting, as msgspec spells a path."""
    for index, name in re.findall(r"\[(\d+|\.\.\.)\]|\.([^.\[`]+)", inside):
        if index:
            kind = next(iter(get_args(kind)), kind)
        elif isinstance(kind, type) and issubclass(kind, Struct):
            fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
            kind = fields.get(name, kind)
    return kind


def _similar(word: str, known: Iterable[str]) -> str:
    return next(iter(get_close_matches(word, known, n=1)), "")


def _line_numbers(text: str) -> dict[str, int]:
    """Find the line of each key and table of a TOML text, by dotted path; lists as `routes[0]`."""
    lines: dict[str, int] = {}
    parent = ""
    for number, line in enumerate(text.splitlines(), 1):
        if item := re.match(r"\s*\[\[([\w.\s-]+)\]\]", line):
            count = sum(known.startswith(f"{item[1]}[") and known.endswith("]") for known in lines)
            parent = f"{item[1]}[{count}]"
            lines.setdefault(item[1], number)
        elif table := re.match(r"\s*\[([\w.\s-]+)\]", line):
            parent = table[1].strip()
        elif key := re.match(r"""\s*["']?([\w.-]+)["']?\s*=""", line):
            lines.setdefault(f"{parent}.{key[1]}".lstrip("."), number)
            continue
        else:
            continue
        lines.setdefault(parent, number)
    return lines
