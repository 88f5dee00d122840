"""The admin API over aiohttp: from a request to a call of a route, from its outcome to JSON."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from aiohttp import hdrs, web
from multidict import CIMultiDict

from sidecar.admin.access import Asked
from sidecar.admin.problems import Refusal, RefusedError, respond
from sidecar.admin.routes import ROUTES, Call
from sidecar.admin.writes import Expected
from sidecar.errors import HistoryError, SidecarError, StoreUnavailableError
from sidecar.runtime import faults
from sidecar.runtime.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Handler, Middleware

    from sidecar.admin.access import Access, Certificate
    from sidecar.admin.reads import Told
    from sidecar.admin.routes import Route
    from sidecar.policy.address import AllowList
    from sidecar.store.base import Store
    from sidecar.telemetry.metrics import Metrics

SETTLE_S: Final = 2.0  # for writes under way when the sidecar stops
_NO_PEER: Final = "0.0.0.0"  # noqa: S104 -- of a client that has left; nothing is bound to it


class Signed(NamedTuple):
    """What sidecars of these settings believe only with a signature, which nobody makes here."""

    documents: bool = False
    kills: bool = False


class Desk(NamedTuple):
    """What calls work with. `store_of` returns a store that tells audit what an actor changes."""

    store_of: Callable[[str], Store]
    allowed: AllowList
    now_s: Callable[[], float]
    signed: Signed = Signed()
    refuses_unaudited: Callable[[], bool] = lambda: False


class AdminApi:
    """Serves `ROUTES` to whom `access` lets in."""

    def __init__(self, desk: Desk, access: Access, metrics: Metrics) -> None:
        self._desk = desk
        self._access = access
        self._metrics = metrics
        self._writing: set[asyncio.Task[None]] = set()

    async def settle(self) -> None:
        """Wait for writes that nobody waits for any more; the store gives each its time."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=SETTLE_S)

    def add_to(self, app: web.Application) -> None:
        """Add every route."""
        for route in ROUTES:
            # By itself aiohttp keeps braces out, which tenants and ids of tokens may have.
            path = route.path.replace("}", ":[^/]+}")
            app.router.add_route(route.method, path, self._serving(route))

    def _serving(self, route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            caller = self._access.expect(asked_by(request), route.role)
            _expect_queries(request, route)
            if route.role != "viewer":
                self._expect_writable(route)
            raw = await _body(request, route)
            desk = self._desk
            work = route.does(
                Call(
                    desk.store_of(caller.actor),
                    caller.actor,
                    request.match_info,
                    request.query,
                    _expected(request),
                    raw,
                    desk.allowed,
                    desk.now_s(),
                )
            )
            if route.role == "viewer":
                return _answer(await work)
            return _answer(await self._to_its_end(self._counted(work, caller.name)))

        return serve

    async def _counted(self, work: Awaitable[Told], actor: str) -> Told:
        told = await work
        self._metrics.count("rmv_admin_writes_total", "actor", actor)
        return told

    async def _to_its_end(self, work: Awaitable[Told]) -> Told:
        """Do a write whole although nobody may wait for it any more: else audit could miss it."""
        done: list[Told] = []
        failed: list[RefusedError | SidecarError] = []

        async def run() -> None:
            try:
                done.append(await work)
            except (RefusedError, SidecarError) as error:
                failed.append(error)
            except Exception as error:  # noqa: BLE001 -- told also where nobody waits any more
                failed.append(_faulty(error))

        writing = spawn(run(), name="admin write")
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.shield(writing)
        if failed:
            raise failed[0]
        return done[0]

    def _expect_writable(self, route: Route) -> None:
        signed = self._desk.signed
        is_kill = "/kill" in route.path
        if "/policies/" in route.path and (signed.kills if is_kill else signed.documents):
            detail = "signing.trusted is set, and the sidecar has no key: use `rmv` with --key"
            raise RefusedError(Refusal.SIGNATURE_REQUIRED, detail)
        if self._desk.refuses_unaudited():
            raise RefusedError(
                Refusal.AUDIT_UNAVAILABLE, "audit cannot be written", retry_after_s=1
            )


def asked_by(request: web.Request) -> Asked:
    """Return what a request shows of who sends it."""
    transport = request.transport
    peer: object = None if transport is None else transport.get_extra_info("peername")
    certificate: Certificate | None = None
    if transport is not None:
        certificate = transport.get_extra_info("peercert") or None
    return Asked(
        str(peer[0]) if isinstance(peer, tuple) else _NO_PEER,
        request.headers.get(hdrs.HOST, ""),
        request.headers.getall(hdrs.AUTHORIZATION, []),
        request.headers,
        certificate,
    )


def guarding(timeout_s: float) -> Middleware:
    """Return what turns every failure of a handler into a problem, and ends it in time.

    The answer has as long again to be read.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            async with asyncio.timeout(timeout_s):
                answer = await handler(request)
        except web.HTTPException as error:
            answer = _of_http(error)
        except (RefusedError, SidecarError, TimeoutError) as error:
            answer = respond(_refused(error, timeout_s))
        except Exception as error:  # noqa: BLE001 -- told as all else that is not done
            answer = respond(_faulty(error))
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["Server"] = "rmv"
        await _send(request, answer, timeout_s)
        return answer

    return guard


async def _send(request: web.Request, answer: web.StreamResponse, timeout_s: float) -> None:
    """Write an answer; cut the connection of who does not read it.

    Else that would have its place for good, and what it asks for next would pile up here.
    """
    transport = request.transport
    if transport is None:
        return
    transport.set_write_buffer_limits(high=0)  # so `drain` waits for the last byte
    try:
        async with asyncio.timeout(timeout_s):
            writer = await answer.prepare(request)
            await answer.write_eof()
            if writer is not None:
                await writer.drain()
    except TimeoutError:
        transport.abort()


def _refused(error: Exception, timeout_s: float) -> RefusedError:
    """Return what a client is told of a failure."""
    match error:
        case RefusedError():
            return error
        case TimeoutError():
            return RefusedError(Refusal.REQUEST_TIMEOUT, f"it took over {timeout_s:g} s")
        case StoreUnavailableError():
            return RefusedError(Refusal.STORE_UNAVAILABLE, str(error), retry_after_s=1)
        case HistoryError():
            return RefusedError(Refusal.CONFLICT, str(error))
        case _:
            return RefusedError(Refusal.INVALID, str(error))


def _faulty(error: Exception) -> RefusedError:
    """Note a fault; return what a client is told of it."""
    return RefusedError(Refusal.SIDECAR_FAULT, faults.note("admin", error))


def _of_http(error: web.HTTPException) -> web.Response:
    """Return a problem for what aiohttp refuses by itself."""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return respond(RefusedError(Refusal.BODY_TOO_LARGE, "a document has at most 1 MiB"))
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = {"Allow": ", ".join(sorted(error.allowed_methods))}
        detail = "this path takes other methods"
        return respond(RefusedError(Refusal.METHOD_NOT_ALLOWED, detail), allow)
    if isinstance(error, web.HTTPNotFound):
        return respond(RefusedError(Refusal.NOT_FOUND, "there is nothing at this path"))
    return respond(RefusedError(Refusal.MALFORMED_REQUEST, error.reason))


async def _body(request: web.Request, route: Route) -> bytes:
    if not route.has_body:
        if request.body_exists:
            raise RefusedError(Refusal.MALFORMED_REQUEST, "this takes no body")
        return b""
    # Also what keeps pages of browsers out: they may not say so without asking first.
    if request.content_type != "application/json":
        raise RefusedError(Refusal.NOT_JSON, "send Content-Type: application/json")
    return await request.read()


def _expect_queries(request: web.Request, route: Route) -> None:
    for name in request.query:
        if name not in route.queries or len(request.query.getall(name)) > 1:
            known = ", ".join(route.queries) or "none"
            raise RefusedError(Refusal.INVALID, f"unknown or repeated query; known: {known}")


def _expected(request: web.Request) -> Expected:
    match = request.headers.getall(hdrs.IF_MATCH, [])
    if len(match) > 1 or request.headers.get(hdrs.IF_NONE_MATCH, "*") != "*":
        detail = 'If-Match has one revision in quotes, If-None-Match only "*"'
        raise RefusedError(Refusal.MALFORMED_REQUEST, detail)
    is_new = hdrs.IF_NONE_MATCH in request.headers
    if is_new and match:
        raise RefusedError(Refusal.MALFORMED_REQUEST, "If-Match or If-None-Match, not both")
    return Expected(match[0] if match else None, is_new)


def _answer(told: dict[str, object]) -> web.Response:
    headers = CIMultiDict[str]()
    revision = told.get("revision")
    if isinstance(revision, int):
        headers[hdrs.ETAG] = f'"{revision}"'
    body = msgspec.json.encode(told)
    return web.Response(body=body, content_type="application/json", headers=headers)
