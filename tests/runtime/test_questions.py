"""Questions to another process, whatever becomes of it meanwhile."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from sidecar.runtime import questions
from sidecar.runtime.questions import Line, excuse, serve_questions


async def test_answers_come_in_turn_and_a_last_word_at_the_end() -> None:
    line, numbers = Line("one"), iter(range(100))
    answers = await serve_questions(
        await line.open(),
        {"next": lambda _: str(next(numbers)), "long": lambda _: "\n\x00ü" * 100_000},
    )
    answers.begin()

    asked = [line.ask("next"), line.ask("long"), line.ask("next")]
    assert await asyncio.gather(*asked) == ["0", "\n\x00ü" * 100_000, "1"]
    assert line.has_begun  # said before
    await answers.end("so long\n")
    await line.ended()

    assert line.last_word == "so long\n"
    with pytest.raises(ConnectionError):
        await line.ask("next")


async def test_a_last_word_is_heard_though_a_question_crosses_it() -> None:
    line, is_said = Line("one"), threading.Event()
    inherited = await line.open()

    async def answer() -> None:
        answers = await serve_questions(inherited, {})
        answers.begin()
        ending = asyncio.ensure_future(answers.end("so long\n"))
        await asyncio.wait([ending], timeout=0.1)
        is_said.set()
        await ending

    other_loop = threading.Thread(target=lambda: asyncio.run(answer()))
    other_loop.start()
    is_said.wait()  # in this loop nothing is read meanwhile
    with pytest.raises(ConnectionError):
        await line.ask("anything")
    await line.ended()
    other_loop.join()

    assert line.last_word == "so long\n"


async def test_an_answer_that_is_late_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line("one")
    inherited = await line.open()
    monkeypatch.setattr(questions, "ASK_TIMEOUT_S", 0.01)
    with pytest.raises(TimeoutError):
        await line.ask("first")
    monkeypatch.undo()

    answers = await serve_questions(inherited, {"first": lambda _: "1", "second": lambda _: "2"})

    assert await line.ask("second") == "2"
    await answers.end("")
    await line.ended()


async def test_a_question_says_what_it_is_about_at_any_length() -> None:
    line = Line("one")
    answers = await serve_questions(await line.open(), {"echo": lambda about: about})

    about = '{"a": "' + "ü " * 500_000 + '"}'
    assert await line.ask_patiently(f"echo {about}") == about
    assert await line.ask("echo") == ""
    await answers.end("")
    await line.ended()


async def test_a_process_may_speak_unasked_before_it_has_begun() -> None:
    line, heard = Line("one"), asyncio.Queue[str]()
    line.on_notice = heard.put_nowait
    answers = await serve_questions(await line.open(), {"ready": lambda _: "yes"})

    answers.notice("first\n")
    assert await line.ask("ready") == "yes"
    assert not line.has_begun
    answers.notice("second")

    assert [await heard.get(), await heard.get()] == ["first\n", "second"]
    await answers.end("")
    await line.ended()
    answers.notice("to nobody")


async def test_who_waits_without_end_is_told_when_the_process_ends() -> None:
    line = Line("one")
    with await line.open():
        asking = asyncio.ensure_future(line.ask_patiently("anything"))
        await asyncio.sleep(0)

    with pytest.raises(ConnectionError):
        await asking
    await line.ended()


async def test_who_hangs_is_not_asked_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line("one")
    monkeypatch.setattr(questions, "MAX_WAITING", 1)
    monkeypatch.setattr(questions, "ASK_TIMEOUT_S", 0.01)
    with await line.open() as hanging:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await line.ask("anything")
        assert hanging.recv(100) == b"anything\n"
    await line.ended()


async def test_who_ends_in_mid_answer_has_given_none() -> None:
    line = Line("one")
    with await line.open() as dying:
        asking = asyncio.ensure_future(line.ask("anything"))
        await asyncio.get_running_loop().run_in_executor(None, dying.recv, 100)
        dying.sendall(b'["answer","it is')

    with pytest.raises(ConnectionError):
        await asking
    await line.ended()


async def test_who_cannot_begin_says_why() -> None:
    line = Line("one")
    with await line.open() as inherited:
        excuse(inherited, "no keys")
    await line.ended()

    assert line.excuse == "no keys"
    assert not line.has_begun


async def test_who_answers_already_may_still_be_unable_to_begin() -> None:
    line = Line("one")
    answers = await serve_questions(await line.open(), {})

    answers.excuse("no port")
    await answers.end("")
    await line.ended()

    assert (line.excuse, line.has_begun) == ("no port", False)


def test_an_excuse_that_nobody_hears_is_none() -> None:
    gone, own = socket.socketpair()
    gone.close()
    excuse(own, "no keys")
    own.close()
    excuse(own, "no keys")
