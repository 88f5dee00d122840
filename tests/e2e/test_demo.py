"""`rmv demo`, run as the program it is: what it shows, how it ends, what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec
import pytest
from redis.asyncio import Redis

from sidecar.cli.demo import checkout as material
from sidecar.cli.demo import children, command, story
from sidecar.cli.demo import stage as stages
from sidecar.cli.demo.command import show, stay
from sidecar.cli.demo.failure import DemoError
from sidecar.cli.demo.folder import opened
from sidecar.cli.demo.screen import Screen
from sidecar.cli.demo.wire import connected
from sidecar.errors import ConfigError
from tests.support.offline import KeptReport, label, offline_pairs
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PATIENCE_S = 50
DEMO = (sys.executable, "-m", "sidecar", "demo")
NOT_HTTP = b"\x00\xff GET / HTTP/1.1\r\n\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: turn/1\r\n"
ANY_PORT = ("--listen", "127.0.0.1:0")


class Demo:
    """A running demo and what it has printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.text = ""

    async def until(self, words: str) -> None:
        """Read until a line holds these words."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while words not in self.text:
                line = await self.process.stdout.readline()
                assert line, f"it ended without `{words}`:\n{self.text}"
                self.text += line.decode()

    async def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal when one is given, and return the status that the demo ends with."""
        assert self.process.stdout is not None
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            self.text += (await self.process.stdout.read()).decode()
            return await self.process.wait()

    def pids(self) -> list[int]:
        """Return the processes that it said it runs."""
        return pids_in(self.text)


def pids_in(text: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"pid (\d+)", text)]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Give the demo a place for its folder; its path is short, as that of a socket must be."""
    with tempfile.TemporaryDirectory(prefix="t-") as path:
        yield Path(path)


@asynccontextmanager
async def running(temporary: Path, *flags: str) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        *DEMO,
        *flags,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(temporary), "RMV_REDIS": "redis://of.somebody.else"},
    )
    try:
        yield Demo(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def all_gone(pids: list[int]) -> bool:
    """Wait until none of these processes is there."""
    async with asyncio.timeout(PATIENCE_S):
        while any(map(is_alive, pids)):  # noqa: ASYNC110 -- they are nobody's children by now
            await asyncio.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits for its parent's notice does not."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


class Ran(NamedTuple):
    """A demo that ended by itself: its status, what it said, the folder it was told to keep."""

    status: int
    text: str
    kept: Path


@pytest.fixture(scope="module")
def ran() -> Iterator[Ran]:
    """Run the demo to its end, once for all that is to be said of it."""
    with tempfile.TemporaryDirectory(prefix="t-") as path:
        kept = Path(path, "kept")
        done = subprocess.run(
            [*DEMO, "--exit", *ANY_PORT, "--keep", str(kept)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        yield Ran(done.returncode, done.stdout + done.stderr, kept)


def test_it_shows_everything_and_ends_by_itself(ran: Ran) -> None:
    assert ran.status == 0, ran.text
    for shown in (
        r"acme +v1 100 % +SPLIT:canary +60 ",
        r"globex +v2 100 % +RULE:globex +60 ",
        r"forged token of acme +401 token-invalid ",
        r"expired token +401 token-expired ",
        r"initech asks for v2 +403 version-forbidden ",
        r"SET rmv:pin:tumor:acme v2 +v1 SPLIT:canary +v2 PINNED +[0-9.]+ ms\n",
        r"ok +v3 got a copy of each of 300 requests",
        r"300 copied = 300 compared \+ 0 failed \+ 0 uncompared",
        r"ok +each of 300 answers was compared with that of v3",
        r"ok +agreement, labels and shift are those of the models alone",
        r"Verdict: fail\. against v1 agreement is .* violates at least 99%\n",
        r"\nAll \d+ claims hold",
    ):
        assert re.search(shown, ran.text), f"{shown} in:\n{ran.text}"


def test_what_a_pipe_gets_is_plain_and_fits_100_columns(ran: Ran) -> None:
    assert "\033" not in ran.text
    assert ran.text.count("TENANT ") == 1
    assert [line for line in ran.text.splitlines() if len(line) > 100] == []


def test_no_process_is_left(ran: Ran) -> None:
    pids = pids_in(ran.text)

    assert len(pids) == 4
    assert not any(map(is_alive, pids))


def test_a_kept_folder_holds_settings_logs_and_data(ran: Ran) -> None:
    assert {"rmv.toml", "sidecar.log", "model-v1.log", "exchanges.jsonl", "appendonlydir"} <= {
        one.name for one in ran.kept.iterdir()
    }


def report_of(ran: Ran) -> KeptReport:
    return msgspec.json.decode((ran.kept / "shadow-v3.json").read_bytes(), type=KeptReport)


def offline_of(ran: Ran) -> dict[str, list[tuple[float, float]]]:
    return offline_pairs(ran.kept / "exchanges.jsonl")


def test_every_answered_row_is_in_the_report_once(ran: Ran) -> None:
    ledger = report_of(ran).account.ledger
    counted = {one.primary: one.agreement.number for one in report_of(ran).against}

    assert counted == {version: len(pairs) for version, pairs in offline_of(ran).items()}
    assert ledger.eligible == ledger.mirrored == ledger.compared == sum(counted.values()) == 300


def test_agreement_and_confusion_equal_an_offline_computation(ran: Ran) -> None:
    assert report_of(ran).against
    for one in report_of(ran).against:
        labels = [(label(mine), label(theirs)) for mine, theirs in offline_of(ran)[one.primary]]
        told = {
            (mine, theirs): number
            for mine, row in one.labels.confusion.items()
            for theirs, number in row.items()
        }
        assert told == Counter(labels)
        assert one.agreement.agreed == sum(mine == theirs for mine, theirs in labels)
        assert one.agreement.agreed < one.agreement.number  # there is something to find


def test_the_shift_of_probabilities_equals_an_offline_computation(ran: Ran) -> None:
    for one in report_of(ran).against:
        pairs = offline_of(ran)[one.primary]
        told = {measure.name: measure.mean.estimate for measure in one.measures}
        expected = fmean(abs(mine - theirs) for mine, theirs in pairs)
        assert told["probability_error"] == pytest.approx(expected, rel=0, abs=1e-9)


def test_calibration_equals_an_offline_computation(ran: Ran) -> None:
    for one in report_of(ran).against:
        tenths: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for mine, theirs in offline_of(ran)[one.primary]:
            of_its_label = (mine, theirs) if mine >= 0.5 else (1 - mine, 1 - theirs)
            tenths[min(int(of_its_label[0] * 10), 9)].append(of_its_label)
        told = {round(10 * tenth.least): tenth for tenth in one.calibration}
        assert {name: tenth.number for name, tenth in told.items()} == {
            name: len(pairs) for name, pairs in tenths.items()
        }
        for name, tenth in told.items():
            means = [fmean(side) for side in zip(*tenths[name], strict=True)]
            assert [tenth.primary, tenth.shadow] == pytest.approx(means, rel=0, abs=1e-9)


def test_the_screen_shows_the_same_numbers(ran: Ran) -> None:
    for version, pairs in offline_of(ran).items():
        agreed = sum(label(mine) == label(theirs) for mine, theirs in pairs)
        apart = fmean(abs(mine - theirs) for mine, theirs in pairs)
        share = f"{100 * agreed / len(pairs):.2f}".rstrip("0").rstrip(".")
        line = rf"\n +{version} +{len(pairs)} +{re.escape(share)}% .* {apart:.4f} "
        assert re.search(line, ran.text), f"{line} in:\n{ran.text}"


async def test_a_folder_to_keep_must_be_new_or_empty(temporary: Path) -> None:
    (temporary / "mine").touch()

    with pytest.raises(ConfigError, match=f"--keep {temporary}: is not empty: it holds mine"):
        await show(exits=True, listen="127.0.0.1:0", keep=temporary)


async def test_while_it_is_up_a_plain_redis_write_moves_one_tenant_and_upgrades_pass(
    temporary: Path,
) -> None:
    async with running(temporary, *ANY_PORT) as demo:
        await demo.until("/metrics")
        folder = folder_in(temporary)
        before = await decisions(demo, folder)
        async with connected(folder / "valkey.sock") as redis:
            redis.write("SET rmv:pin:tumor:acme v2")
            await redis.answer()
        async with asyncio.timeout(PATIENCE_S):
            after = before
            while after == before:
                after = await decisions(demo, folder)
        echo = await echoed(demo)
        turned = await turned_round(demo, folder / "valkey.sock")
        report = await ran_as_printed(demo, "shadow report tumor@v3")
        status = await demo.end(signal.SIGINT)

    assert before == {"acme": ("v1", "SPLIT:canary"), "globex": ("v2", "RULE:globex")}
    assert after == {**before, "acme": ("v2", "PINNED")}
    assert echo == ("ünïcode", b"\0\xff")
    assert turned == NOT_HTTP[::-1]
    assert report.startswith("# Shadow test of tumor v3\n")
    assert {"## Against v1", "## Against v2"} <= set(report.splitlines())
    assert status == 0
    assert not any(map(is_alive, demo.pids()))
    assert names_in(temporary) == []


async def decisions(demo: Demo, folder: Path) -> dict[str, tuple[str, str]]:
    """Ask as the printed curl lines do; return version and reason by tenant."""
    asked = re.findall(r"curl -i (\S+) \\\n +-H @(\S+) -d @(\S+)\n", demo.text)
    found = {}
    async with aiohttp.ClientSession() as session:
        for url, *files in asked:
            headers_file, row_file = map(Path, files)
            assert headers_file.parent == folder
            headers, row = read_headers(headers_file), read_bytes(row_file)
            async with session.post(url, headers=headers, data=row) as answer:
                assert answer.status == 200
                named = answer.headers["X-Model-Version"], answer.headers["X-Model-Decision"]
            found[headers_file.name] = named
    return found


async def echoed(demo: Demo) -> tuple[str, bytes]:
    """Open a web socket as a real client does, through the sidecar; return what it echoes."""
    [(url, headers_file)] = re.findall(r"curl -i (\S+) \\\n +-H @(\S+acme) ", demo.text)
    headers = {**read_headers(Path(headers_file)), "X-Model": "tumor"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(urljoin(url, "/ws"), headers=headers) as web_socket,
    ):
        await web_socket.send_str("ünïcode")
        await web_socket.send_bytes(b"\0\xff")
        text = await web_socket.receive_str(timeout=PATIENCE_S)
        return text, await web_socket.receive_bytes(timeout=PATIENCE_S)


async def turned_round(demo: Demo, store: Path) -> bytes:
    """Add a version that speaks a protocol of its own, ask for it, and return what it says."""

    async def turn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Turning\r\n" + UPGRADE + b"\r\n")
        writer.write((await reader.readexactly(len(NOT_HTTP)))[::-1])
        await reader.read()

    [(url, file)] = re.findall(r"curl -i (\S+) \\\n +-H @(\S+acme) ", demo.text)
    asked = {"Host": "demo", "X-Model": "tumor", "X-Model-Version": "turner", **read_headers(file)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in asked.items()).encode()
    head = b"GET / HTTP/1.1\r\n" + lines + UPGRADE + b"\r\n"
    place = urlsplit(url)
    async with scripted_upstream(conversation=turn) as upstream, asyncio.timeout(PATIENCE_S):
        async with Redis(unix_socket_path=str(store)) as redis:
            document = msgspec.json.decode(await redis.get("rmv:policy:tumor") or b"")
            document["versions"]["turner"] = {"endpoints": [upstream.url]}
            await redis.set("rmv:policy:tumor", msgspec.json.encode(document))
        said = turned = b""
        while not said.startswith(b"HTTP/1.1 101 "):  # until the edit is in force
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            writer.write(head)
            said = await reader.readuntil(b"\r\n\r\n")
            writer.write(NOT_HTTP)
            turned = await reader.readexactly(len(NOT_HTTP))
            writer.close()
    return turned


async def ran_as_printed(demo: Demo, words: str) -> str:
    """Run the printed command that has these words; return what it says."""
    [options] = re.findall(rf"{re.escape(words)}(.*)\n", demo.text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", *words.split(), *options.split()),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        text, _ = await process.communicate()
    assert process.returncode == 0
    return text.decode()


def read_headers(file: str | Path) -> dict[str, str]:
    """Read a file as `curl -H @FILE` does."""
    return dict(line.split(": ") for line in Path(file).read_text().splitlines())


def read_bytes(file: Path) -> bytes:
    return file.read_bytes()


def names_in(temporary: Path) -> list[str]:
    return [one.name for one in temporary.iterdir()]


def folder_in(temporary: Path) -> Path:
    """Return the demo's own folder, where everything is."""
    (folder,) = temporary.iterdir()
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_half_way_ends_it_in_order(temporary: Path, number: signal.Signals) -> None:
    async with running(temporary, *ANY_PORT) as demo:
        await demo.until("sidecar ")
        status = await demo.end(number)

    assert status == 128 + number
    assert "Traceback" not in demo.text
    assert not any(map(is_alive, demo.pids()))
    assert names_in(temporary) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of this")
async def test_when_it_is_killed_its_processes_end_too(temporary: Path) -> None:
    async with running(temporary, *ANY_PORT) as demo:
        await demo.until("store ")
        demo.process.kill()
        await demo.process.wait()

    assert await all_gone(demo.pids())


async def test_when_one_of_its_processes_dies_it_says_so() -> None:
    with opened(None) as folder:
        async with stages.raised(material.load(), folder, "127.0.0.1:0") as stage:
            await stage.wait_for_models()
            os.kill(stage.models["v1"].pid, signal.SIGKILL)

            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(DemoError) as caught:
                    await stay(stage)

    assert str(caught.value).startswith("model-v1: ended by itself; its log ends:\n  ready tumor")


async def test_a_claim_that_does_not_hold_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The containers answer as they were trained; the demo is told that v1 was otherwise."""
    loaded = material.load()
    trained = {**loaded.trained, "v1": loaded.trained["v2"]}
    wrong = msgspec.structs.replace(loaded, trained=trained)
    monkeypatch.setattr(material, "load", lambda: wrong)
    monkeypatch.setattr(story, "PAUSE_S", 0)

    with pytest.raises(DemoError, match="sidecar: is not all that is claimed of it; its log ends"):
        await show(exits=True, listen="127.0.0.1:0", keep=None)

    said = capsys.readouterr().out
    assert "FAILED  every answer is a probability" in said
    assert "acme, row 0: v1 answers " in said
    assert "FAILED  agreement, labels and shift are those of the models alone" in said
    assert "2 of 9 claims failed." in said


def test_away_from_a_checkout_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runs from a checkout .*: there is no /"):
        material.load(tmp_path)


async def test_a_usual_port_that_is_taken_at_the_last_moment_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, opened(None) as folder:
        usual = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(stages, "USUAL_LISTEN", usual)

        async with stages.raised(material.load(), folder, usual) as stage:
            await stage.wait_for_sidecar()

            assert stage.listen != usual


def test_a_usual_port_that_is_taken_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stages, "is_free", lambda _address: False)

    address = command.choose_address(Screen(sys.stdout), None)

    assert address == "127.0.0.1:0"
    assert "127.0.0.1:8080 is taken" in capsys.readouterr().out


async def test_an_address_that_was_asked_for_is_not_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(ConfigError, match=f"--listen {wanted}: cannot listen there"):
            await show(exits=True, listen=wanted, keep=None)


async def test_a_process_that_does_not_come_up_is_quoted(tmp_path: Path) -> None:
    program = "print('no such model'); raise SystemExit(3)"

    async def never() -> None:
        return None

    with pytest.raises(DemoError) as caught:
        async with children.running("v1", [sys.executable, "-c", program], tmp_path / "log") as one:
            await one.until("ready", never)

    assert str(caught.value) == "v1: ended with status 3; its log ends:\n  no such model"


async def test_a_process_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    program = "import signal; signal.pause()"

    async def never() -> None:
        return None

    with pytest.raises(DemoError, match=r"v1: after 0\.1 s it is not yet ready"):
        async with children.running("v1", [sys.executable, "-c", program], tmp_path / "log") as one:
            await one.until("ready", never, within_s=0.1)

    assert one.has_ended


async def test_a_process_that_will_not_end_is_made_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        " print('deaf', flush=True); signal.pause()"
    )
    monkeypatch.setattr(children, "STOP_S", 0.1)

    async with children.running("v1", [sys.executable, "-c", program], tmp_path / "log") as one:

        async def is_deaf() -> bool | None:
            return "deaf" in one.output() or None

        await one.until("deaf", is_deaf)

    assert one.has_ended
