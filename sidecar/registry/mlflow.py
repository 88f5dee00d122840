"""MLflow's REST API, as far as lineages and aliases need it: bounded, and nothing of MLflow's own.

https://mlflow.org/docs/latest/rest-api.html
"""

from __future__ import annotations

import base64
import ssl
from typing import TYPE_CHECKING, Final, Self, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import aiohttp
import msgspec
from msgspec import Struct

from sidecar.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

TIMEOUT_S: Final = 10.0  # of one answer, its last byte included
MAX_BYTES: Final = 8 * 1024 * 1024  # of one answer: a run tells each of its metrics
_NOT_THERE: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})

T = TypeVar("T")


class Tag(Struct, frozen=True):
    """A tag or a parameter."""

    key: str
    value: str = ""


class Alias(Struct, frozen=True):
    """A name that can be moved from version to version."""

    alias: str
    version: str


class ModelVersion(Struct, frozen=True):
    """A version of a registered model; `creation_timestamp` is epoch milliseconds."""

    name: str
    version: str
    creation_timestamp: int = 0
    user_id: str = ""
    run_id: str = ""
    tags: tuple[Tag, ...] = ()


class Data(Struct, frozen=True):
    """A data set; `digest` is what its maker gave, or a hash over a sample."""

    name: str
    digest: str = ""


class DataInput(Struct, frozen=True):
    """A data set that a run was given; its tag `mlflow.data.context` says what for."""

    dataset: Data
    tags: tuple[Tag, ...] = ()


class RunData(Struct, frozen=True):
    """What a run was told and has told."""

    params: tuple[Tag, ...] = ()
    tags: tuple[Tag, ...] = ()


class RunInputs(Struct, frozen=True):
    """What a run was given."""

    dataset_inputs: tuple[DataInput, ...] = ()


class Run(Struct, frozen=True):
    """The run that made a version."""

    data: RunData = RunData()
    inputs: RunInputs = RunInputs()


class RegisteredModel(Struct, frozen=True):
    """A model and its aliases."""

    name: str
    aliases: tuple[Alias, ...] = ()


class _OfVersion(Struct):
    model_version: ModelVersion


class _OfRun(Struct):
    run: Run


class _OfModel(Struct):
    registered_model: RegisteredModel


class _Failure(Struct):
    error_code: str | int = ""
    message: str = ""


class Mlflow:
    """An MLflow server. Use it as an asynchronous context manager.

    Every method raises RegistryError when the server cannot be asked, refuses, or has no such
    thing; its text is for an operator.
    """

    def __init__(self, tracking_uri: str, environ: Mapping[str, str]) -> None:
        """Ask the server at `tracking_uri`, as MLflow's own variables of `environ` say.

        These are MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, else MLFLOW_TRACKING_TOKEN,
        and MLFLOW_TRACKING_SERVER_CERT_PATH, a file of authorities to believe.
        """
        self.uri, given = _split(tracking_uri)
        self._headers = {"Accept": "application/json", **_authorization(given, environ)}
        self._ssl = _trust(environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH", ""))
        self._session: aiohttp.ClientSession | None = None

    @property
    def sends_secrets_in_clear(self) -> bool:
        """Whether a password or token goes over a network as it is."""
        parts = urlsplit(self.uri)
        is_near = parts.hostname in {"localhost", "127.0.0.1", "::1"}
        return parts.scheme == "http" and not is_near and "Authorization" in self._headers

    async def __aenter__(self) -> Self:
        """Open connections as they are needed."""
        connector = aiohttp.TCPConnector(ssl=self._ssl or True, limit=2)
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close them."""
        if self._session is not None:
            await self._session.close()

    async def version(self, name: str, version: str) -> ModelVersion:
        """Return a version of a registered model."""
        query = {"name": name, "version": version}
        return (await self._ask("model-versions/get", query, _OfVersion)).model_version

    async def version_of_alias(self, name: str, alias: str) -> ModelVersion:
        """Return the version that an alias of a registered model means."""
        query = {"name": name, "alias": alias}
        return (await self._ask("registered-models/alias", query, _OfVersion)).model_version

    async def aliases(self, name: str) -> dict[str, str]:
        """Return versions of a registered model by their aliases, sorted."""
        model = (
            await self._ask("registered-models/get", {"name": name}, _OfModel)
        ).registered_model
        return dict(sorted((one.alias, one.version) for one in model.aliases))

    async def run(self, run_id: str) -> Run:
        """Return a run."""
        return (await self._ask("runs/get", {"run_id": run_id}, _OfRun)).run

    async def description(self, version: ModelVersion) -> bytes | None:
        """Return the file `MLmodel` of a version, YAML; None where the server does not hand it out.

        It does when it serves artifacts itself, which is its default.
        """
        query = {"name": version.name, "version": version.version, "path": "MLmodel"}
        status, body = await self._get("model-versions/get-artifact", query)
        return body if status == 200 else None  # noqa: PLR2004

    def page(self, version: ModelVersion) -> str:
        """Return where a browser finds a version."""
        return f"{self.uri}/#/models/{quote(version.name, safe='')}/versions/{version.version}"

    async def _ask(self, what: str, query: dict[str, str], kind: type[T]) -> T:
        status, body = await self._get(f"api/2.0/mlflow/{what}", query)
        asked = ", ".join(f"{name} {value}" for name, value in query.items())
        if status != 200:  # noqa: PLR2004
            raise RegistryError(f"{self.uri}: {asked}: {_reason(status, body)}")
        try:
            return msgspec.json.decode(body, type=kind, strict=False)
        except msgspec.DecodeError as error:
            raise RegistryError(f"{self.uri}: {asked}: no answer of MLflow: {error}") from error

    async def _get(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        if self._session is None:
            raise RuntimeError("use it as a context manager")
        url = f"{self.uri}/{path}"
        try:
            # A redirection would send the token to wherever it leads.
            async with self._session.get(url, params=query, allow_redirects=False) as answer:
                body = await _read(answer)
        except TimeoutError as error:
            raise RegistryError(f"{self.uri} has not answered in {TIMEOUT_S:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RegistryError(f"{self.uri} cannot be asked: {error}") from error
        if body is None:
            raise RegistryError(f"{url}: the answer is over {MAX_BYTES:,} bytes")
        if 300 <= answer.status < 400:  # noqa: PLR2004
            where = answer.headers.get("Location", "nowhere")
            raise RegistryError(f"{url} leads to {where}, and nothing follows: name that instead")
        return answer.status, body


async def _read(answer: aiohttp.ClientResponse) -> bytes | None:
    """Return the body of an answer, None if it is too large."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > MAX_BYTES:
            return None
    return bytes(body)


def _split(tracking_uri: str) -> tuple[str, str]:
    """Return a URI without what must not be shown, and the `user:password` that stood in it."""
    try:
        parts = urlsplit(tracking_uri)
        port = parts.port
    except ValueError as error:
        raise RegistryError(f"--tracking-uri: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise RegistryError(
            "--tracking-uri: an MLflow server is http:// or https://; files and databases have no "
            "REST API"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    uri = urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))
    if parts.username is None:
        return uri, ""
    return uri, f"{unquote(parts.username)}:{unquote(parts.password or '')}"


def _authorization(given: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what MLflow's own clients would send, in their order of preference."""
    user = environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = environ.get("MLFLOW_TRACKING_PASSWORD", "")
    token = environ.get("MLFLOW_TRACKING_TOKEN", "")
    pair = given or (f"{user}:{password}" if user and password else "")
    if pair:
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if not token:
        return {}
    if not token.isascii() or not token.isprintable():
        raise RegistryError("MLFLOW_TRACKING_TOKEN is no token: it has to be visible ASCII")
    return {"Authorization": f"Bearer {token}"}


def _trust(file: str) -> ssl.SSLContext | None:
    if not file:
        return None
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:
        reason = error.strerror or error
        raise RegistryError(f"MLFLOW_TRACKING_SERVER_CERT_PATH: {file}: {reason}") from error


def _reason(status: int, body: bytes) -> str:
    """Say why an answer is no good; MLflow tells in JSON."""
    try:
        told = msgspec.json.decode(body, type=_Failure)
    except msgspec.DecodeError:
        told = _Failure()
    if told.error_code in _NOT_THERE:
        return f"there is no such thing: {told.message}"
    if status in {401, 403}:
        why = "not allowed; MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD, say who asks"
        return f"{why} ({status}{f': {told.message}' if told.message else ''})"
    return f"{status}: {told.message or 'no answer of MLflow'}"
