"""Endpoints are reached by TLS, by unix socket, and where their names lead now."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.model.upstream import UpstreamSettings, UpstreamTls
from sidecar.policy.address import AllowList
from sidecar.upstream.dial import HOLD_S, Dialer
from sidecar.upstream.names import DOUBTED_S, REFRESH_S
from sidecar.upstream.pool import PoolSettings, Upstreams
from sidecar.upstream.tls import LOOK_S
from tests.support.upstream import eventually

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from sidecar.upstream.connection import UpstreamConnection
    from sidecar.upstream.pool import Pool

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority whose files lie in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        own = self._builder(self._name, self._key.public_key(), NOW + DAY)
        certificate = own.add_extension(basic, critical=True).sign(self._key, hashes.SHA256())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, host: str, until: datetime.datetime = NOW + DAY) -> tuple[str, str]:
        """Return the files of a certificate for `host` and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        built = self._builder(subject, key.public_key(), until)
        built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = built.sign(self._key, hashes.SHA256())
        cert_file, key_file = self._folder / f"{host}.pem", self._folder / f"{host}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(cert_file), str(key_file)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, until: datetime.datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 2 * DAY)
            .not_valid_after(until)
        )


class Server:
    """Accepts connections and keeps them; says what it knows of who came."""

    def __init__(self) -> None:
        self.port = 0
        self.came = 0
        self.lost = 0
        self.shown: list[object] = []  # certificates of clients

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        self.shown.append(writer.get_extra_info("peercert"))
        try:
            await reader.read()
        except OSError:
            pass
        finally:
            self.lost += 1
            writer.transport.abort()


@asynccontextmanager
async def serving(
    context: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, host, port, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await eventually(lambda: server.lost == server.came)


def tls_server(files: tuple[str, str], clients: Authority | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    if clients is not None:
        context.load_verify_locations(clients.file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class Resolver:
    """DNS by hand: what `answer` holds, or nothing when it is empty."""

    def __init__(self, *answer: str) -> None:
        self.answer = answer
        self.asked = 0

    async def resolve(self, _host: str, _port: int) -> Sequence[str]:
        self.asked += 1
        if not self.answer:
            raise OSError("no such name")
        return self.answer


class Hands:
    """A clock that is set, and pools that tell time by it."""

    def __init__(self, dialer: Dialer) -> None:
        self.now_s = 1000.0
        self.upstreams = Upstreams(PoolSettings(5.0, dialer=dialer), lambda: self.now_s)

    def pool(self, url: str) -> Pool:
        return self.upstreams.group([url]).pick()

    async def connect(self, url: str) -> UpstreamConnection:
        """Open a connection; raises ConnectionError with what the client is told."""
        made: asyncio.Future[UpstreamConnection] = asyncio.get_running_loop().create_future()
        self.pool(url).connect(
            made.set_result, lambda reason: made.set_exception(ConnectionError(reason))
        )
        return await made

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        self.upstreams.sweep(self.now_s)


@asynccontextmanager
async def hands(
    tls: UpstreamTls | None = None,
    sockets: tuple[str, ...] = (),
    resolver: Resolver | None = None,
    allowed: tuple[str, ...] = (),
) -> AsyncIterator[Hands]:
    resolve = (resolver or Resolver("127.0.0.1")).resolve
    held = Hands(Dialer(UpstreamSettings(sockets), tls, resolve, allowed=AllowList(allowed)))
    try:
        yield held
    finally:
        held.upstreams.close()
        await asyncio.sleep(0)  # a turn of the loop, in which the sockets close


# --- TLS ------------------------------------------------------------------------------------------


async def test_an_endpoint_with_a_good_certificate_is_reached(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    async with (
        serving(tls_server(ca.issue("model.test"))) as server,
        hands(UpstreamTls(ca_file=str(ca.file))) as dialing,
    ):
        connection = await dialing.connect(f"https://model.test:{server.port}")
        connection.give_back()
        by_address = await dialing.connect(f"https://127.0.0.1:{server.port}")
        by_address.give_back()

        await eventually(lambda: server.came == 2)


async def test_a_certificate_for_another_host_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = Authority(tmp_path)
    async with (
        serving(tls_server(ca.issue("other.test"))) as server,
        hands(UpstreamTls(ca_file=str(ca.file))) as dialing,
    ):
        with pytest.raises(ConnectionError, match=r"^cannot connect$"):
            await dialing.connect(f"https://model.test:{server.port}")

    (record,) = [one for one in caplog.records if one.name == "sidecar.upstream"]
    assert "model.test" in str(record.__dict__["reason"])


async def test_an_expired_certificate_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = Authority(tmp_path)
    async with (
        serving(tls_server(ca.issue("model.test", until=NOW - DAY))) as server,
        hands(UpstreamTls(ca_file=str(ca.file))) as dialing,
    ):
        with pytest.raises(ConnectionError):
            await dialing.connect(f"https://model.test:{server.port}")

    assert "expired" in str(caplog.records[-1].__dict__["reason"])


async def test_an_authority_that_is_not_named_is_not_believed_unless_told_so(
    tmp_path: Path,
) -> None:
    ca, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    believing = UpstreamTls(ca_file=str(ca.file), verify=False)
    async with serving(tls_server(stranger.issue("model.test"))) as server:
        url = f"https://model.test:{server.port}"
        async with hands(UpstreamTls(ca_file=str(ca.file))) as dialing:
            with pytest.raises(ConnectionError):
                await dialing.connect(url)
        async with hands(believing) as dialing:
            (await dialing.connect(url)).give_back()


async def test_an_endpoint_that_is_not_believed_is_not_asked_again_at_once(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    context = tls_server(ca.issue("other.test"))
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with serving(context) as server, hands(UpstreamTls(ca_file=str(ca.file))) as dialing:
        url = f"https://model.test.:{server.port}"
        for _ in range(3):
            with pytest.raises(ConnectionError):
                await dialing.connect(url)
        assert asked == ["model.test"]
        dialing.pass_s(HOLD_S)
        with pytest.raises(ConnectionError):
            await dialing.connect(url)

        assert len(asked) == 2


async def test_a_client_certificate_is_shown_to_who_requires_it(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    cert_file, key_file = ca.issue("sidecar.test")
    shown = UpstreamTls(ca_file=str(ca.file), cert_file=cert_file, key_file=key_file)
    async with (
        serving(tls_server(ca.issue("model.test"), clients=ca)) as server,
        hands(shown) as dialing,
    ):
        (await dialing.connect(f"https://model.test:{server.port}")).give_back()
        await eventually(lambda: server.came == 1)

        assert "sidecar.test" in str(server.shown[0])


async def test_files_that_change_are_read_again_and_bad_ones_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = Authority(tmp_path), Authority(tmp_path, "new")
    file = tmp_path / "trusted.pem"
    file.write_bytes(old.file.read_bytes())
    async with (
        serving(tls_server(old.issue("old.test"))) as before,
        serving(tls_server(new.issue("new.test"))) as after,
        hands(UpstreamTls(ca_file=str(file))) as dialing,
    ):
        first, second = f"https://old.test:{before.port}", f"https://new.test:{after.port}"
        (await dialing.connect(first)).give_back()
        file.write_text("no certificate")
        dialing.pass_s(LOOK_S)
        (await dialing.connect(first)).give_back()
        assert caplog.messages == ["TLS files not reloaded"]

        replacement = tmp_path / "replacement.pem"
        replacement.write_bytes(new.file.read_bytes())
        replacement.replace(file)
        dialing.pass_s(LOOK_S)
        (await dialing.connect(second)).give_back()
        with pytest.raises(ConnectionError):
            await dialing.connect(first)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_nothing_older_than_tls_1_2_is_spoken(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    context = tls_server(ca.issue("model.test"))
    context.set_ciphers("ALL:@SECLEVEL=0")  # or OpenSSL itself would not speak TLS 1.1
    for version, is_reached in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = version
        async with serving(context) as server, hands(UpstreamTls(ca_file=str(ca.file))) as dialing:
            url = f"https://model.test:{server.port}"
            if is_reached:
                (await dialing.connect(url)).give_back()
            else:
                with pytest.raises(ConnectionError):
                    await dialing.connect(url)


async def test_without_its_files_no_endpoint_is_reached_by_tls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing = tmp_path / "ca.pem"
    async with hands(UpstreamTls(ca_file=str(missing))) as dialing:
        with pytest.raises(ConnectionError, match=r"^cannot connect$"):
            await dialing.connect("https://127.0.0.1:1")

    assert str(missing) in str(caplog.records[-1].__dict__["reason"])


# --- Unix sockets ---------------------------------------------------------------------------------


@asynccontextmanager
async def unix_serving(path: Path) -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_unix_server(server.serve, path)
    try:
        yield server
    finally:
        listening.close()
        await eventually(lambda: server.lost == server.came)


async def test_a_socket_below_a_named_folder_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    async with unix_serving(path) as server, hands(sockets=(f"{tmp_path}/",)) as dialing:
        connection = await dialing.connect(f"unix:{path}")
        connection.give_back()
        dialing.pass_s(REFRESH_S)

        assert dialing.pool(f"unix:{path}").acquire() is connection
        connection.give_back()
        await eventually(lambda: server.came == 1)


async def test_any_other_socket_is_not_and_the_log_names_the_setting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "link").symlink_to(tmp_path / "m.sock")
    async with unix_serving(tmp_path / "m.sock") as server:
        for sockets in ((), (f"{tmp_path}/models",), (f"{tmp_path}/m",)):
            async with hands(sockets=sockets) as dialing:
                for name in ("m.sock", "models/link"):
                    with pytest.raises(ConnectionError, match=r"^cannot connect$"):
                        await dialing.connect(f"unix:{tmp_path}/{name}")

        assert server.came == 0
    assert "upstream.sockets" in str(caplog.records[-1].__dict__["reason"])


# --- Names ----------------------------------------------------------------------------------------


async def test_traffic_follows_a_name_that_moves() -> None:
    resolver = Resolver("127.0.0.1")
    async with (
        serving() as old,
        serving(host="127.0.0.2", port=old.port) as new,
        hands(resolver=resolver) as dialing,
    ):
        url = f"http://model.test:{old.port}"
        idle, used = await dialing.connect(url), await dialing.connect(url)
        idle.give_back()
        resolver.answer = ("127.0.0.2",)
        dialing.pass_s(REFRESH_S)
        await eventually(lambda: resolver.asked == 2)
        await asyncio.sleep(0)  # a turn of the loop, in which the answer is taken over

        dialing.pass_s(0.25)
        await eventually(lambda: old.lost == 1)
        used.give_back()
        await eventually(lambda: old.lost == 2)
        assert dialing.pool(url).acquire() is None
        (await dialing.connect(url)).give_back()
        await eventually(lambda: new.came == 1)


async def test_a_fault_of_resolving_is_told_once_and_followed_by_another_try(
    counted_faults: Counter[str],
) -> None:
    class FaultyResolver(Resolver):
        async def resolve(self, host: str, port: int) -> Sequence[str]:
            found = await super().resolve(host, port)
            return found if self.asked > 1 else [found[5]]  # which there is not

    resolver = FaultyResolver("127.0.0.1")
    async with serving() as server, hands(resolver=resolver) as dialing:
        url = f"http://model.test:{server.port}"
        with pytest.raises(ConnectionError):
            await dialing.connect(url)
        dialing.pass_s(REFRESH_S)
        (await dialing.connect(url)).give_back()

    assert counted_faults == {"names": 1}


async def test_the_last_good_answer_serves_while_dns_fails() -> None:
    resolver = Resolver("127.0.0.1")
    async with serving() as server, hands(resolver=resolver) as dialing:
        url = f"http://model.test:{server.port}"
        (await dialing.connect(url)).give_back()
        resolver.answer = ()
        dialing.pass_s(REFRESH_S)
        connections = [await dialing.connect(url) for _ in range(2)]

        assert resolver.asked == 2
        for connection in connections:
            connection.give_back()


async def test_a_name_that_was_never_known_fails_in_words() -> None:
    resolver = Resolver()
    async with hands(resolver=resolver) as dialing:
        for _ in range(3):
            with pytest.raises(ConnectionError, match="no such name"):
                await dialing.connect("http://model.test")

        assert resolver.asked == 1


async def test_a_name_whose_addresses_accept_nothing_is_asked_for_sooner() -> None:
    resolver = Resolver("127.0.0.2")
    async with serving() as server, hands(resolver=resolver) as dialing:
        url = f"http://model.test:{server.port}"
        with pytest.raises(ConnectionError):
            await dialing.connect(url)
        resolver.answer = ("127.0.0.1",)
        dialing.pass_s(DOUBTED_S)
        (await dialing.connect(url)).give_back()

        assert resolver.asked == 2


async def test_addresses_are_taken_in_turn_and_a_dead_one_is_passed_over() -> None:
    resolver = Resolver("127.0.0.1", "127.0.0.2", "127.0.0.3")
    async with (
        serving() as one,
        serving(host="127.0.0.2", port=one.port) as other,
        hands(resolver=resolver) as dialing,
    ):
        url = f"http://model.test:{one.port}"
        for connection in [await dialing.connect(url) for _ in range(6)]:
            connection.give_back()
        await eventually(lambda: one.came + other.came == 6)

        assert min(one.came, other.came) >= 2
        assert resolver.asked == 1


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "168.63.129.16", "fd20:ce::254", "64:ff9b:1::a9fe:a9fe"]
)
async def test_a_name_that_leads_to_the_metadata_service_is_not_followed(
    caplog: pytest.LogCaptureFixture, address: str
) -> None:
    async with hands(resolver=Resolver(address)) as dialing:
        with pytest.raises(ConnectionError):
            await dialing.connect("http://model.test")

    assert f"{address} (link-local and metadata" in str(caplog.records[0].__dict__["reason"])


async def test_a_name_is_followed_into_the_allowed_networks_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    resolver = Resolver("127.0.0.2", "127.0.0.1")
    allowed = ("model.test", "127.0.0.1")
    async with (
        serving() as server,
        serving(host="127.0.0.2", port=server.port) as other,
        hands(resolver=resolver, allowed=allowed) as dialing,
    ):
        url = f"http://model.test:{server.port}"
        for connection in [await dialing.connect(url) for _ in range(3)]:
            connection.give_back()
        await eventually(lambda: server.came == 3)
        assert other.came == 0

        resolver.answer = ("127.0.0.2",)
        with pytest.raises(ConnectionError):
            await dialing.connect("http://other.test")

    assert "127.0.0.2 (in none of the networks" in str(caplog.records[-1].__dict__["reason"])


async def test_a_literal_address_asks_no_dns() -> None:
    resolver = Resolver()
    async with serving() as server, hands(resolver=resolver) as dialing:
        (await dialing.connect(f"http://127.0.0.1:{server.port}")).give_back()

        assert resolver.asked == 0


async def test_a_name_that_nobody_uses_is_not_asked_for() -> None:
    resolver = Resolver("127.0.0.1")
    async with serving() as server, hands(resolver=resolver) as dialing:
        connection = await dialing.connect(f"http://model.test:{server.port}")
        connection.abandon()
        await eventually(lambda: server.lost == 1)
        for _ in range(4):
            dialing.pass_s(REFRESH_S)
            await asyncio.sleep(0)

        assert resolver.asked == 2  # once more: it was used since the sweep before
