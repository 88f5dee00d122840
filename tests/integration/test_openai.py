"""Two OpenAI-compatible servers as two versions, used with the `openai` client."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.integration.processes import HOST, environment, fetch, free_port, running, status
from tests.integration.sidecar import sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

openai = pytest.importorskip("openai", reason="openai is not installed")

TOKEN_DELAY_MS = {"v1": 2, "v2": 1_000}
TENANTS = {"acme": "v1", "globex": "v2"}
QUESTION = "naïve 東京 🚀 data: [DONE]\n\nevent: x"


class Deployment(NamedTuple):
    """The OpenAI base address behind the sidecar, and each version's own address."""

    base_url: str
    servers: dict[str, str]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    program = str(environment("llm-katan") / "llm-katan")
    with ExitStack() as stack:
        servers = {}
        for version, delay_ms in TOKEN_DELAY_MS.items():
            port = free_port()
            argv = [program, "--model", f"chat-{version}", "--backend", "echo", "--host", HOST]
            argv += ["--port", str(port), "--itl-ms", str(delay_ms), "--max-concurrent", "16"]
            argv += ["--stats-file", "stats.json"]
            server = stack.enter_context(running(argv, tmp_path_factory.mktemp(version)))
            servers[version] = url = f"http://{HOST}:{port}"
            server.until("healthy", lambda url=url: status(f"{url}/health") == 200)
        folder = tmp_path_factory.mktemp("sidecar")
        proxy = stack.enter_context(sidecar(folder, policy(servers), "/health"))
        yield Deployment(f"{proxy.url}/v1", servers)


def policy(servers: dict[str, str]) -> dict[str, object]:
    return {
        "model": "chat",
        "versions": {version: {"endpoints": [url]} for version, url in servers.items()},
        "rules": [{"id": "early-access", "when": {"tenant": ["globex"]}, "serve": "v2"}],
        "default": "v1",
    }


def settings(base_url: str, tenant: str) -> dict[str, object]:
    return {
        "base_url": base_url,
        "api_key": "unused",
        "max_retries": 0,
        "timeout": 60.0,
        "default_headers": {"X-Tenant": tenant},
    }


def chat(question: str = QUESTION) -> dict[str, object]:
    return {"model": "chat", "messages": [{"role": "user", "content": question}]}


def timeless(text: str) -> str:
    """Leave out the time, which the echo tells too."""
    return re.sub(r" time=\S+", "", text)


def requests_finished(server: str) -> int:
    exposition = fetch(f"{server}/metrics")[2].decode()
    found = re.search(r"^llm_katan_requests_total\{.*\} (\d+)$", exposition, re.MULTILINE)
    assert found
    return int(found[1])


@pytest.mark.parametrize(("tenant", "version"), TENANTS.items())
def test_a_tenants_chat_is_answered_by_its_version(
    deployment: Deployment, tenant: str, version: str
) -> None:
    with openai.OpenAI(**settings(deployment.base_url, tenant)) as client:
        raw = client.chat.completions.with_raw_response.create(**chat())

    answer = raw.parse()
    assert raw.headers["X-Model-Version"] == version
    assert f"model=chat-{version} " in answer.choices[0].message.content
    assert answer.choices[0].message.content.endswith(QUESTION)


def test_a_stream_says_what_the_whole_answer_says_and_begins_before_it_ends(
    deployment: Deployment,
) -> None:
    with openai.OpenAI(**settings(deployment.base_url, "acme")) as client:
        whole = client.chat.completions.create(**chat()).choices[0].message.content
        tokens, times = [], []
        for chunk in client.chat.completions.create(**chat(), stream=True):
            tokens.append(chunk.choices[0].delta.content or "")
            times.append(time.monotonic())

    assert timeless("".join(tokens)) == timeless(whole)
    assert chunk.choices[0].finish_reason == "stop"
    assert len(tokens) > 20
    assert times[0] < times[-1]


def test_the_first_token_arrives_while_the_server_has_minutes_of_work_left(
    deployment: Deployment,
) -> None:
    """Nothing races: at 4 characters a second the whole answer would take over 8 minutes."""
    server = deployment.servers["v2"]
    finished = requests_finished(server)

    with (
        openai.OpenAI(**settings(deployment.base_url, "globex")) as client,
        client.chat.completions.create(**chat("x" * 2_000), stream=True) as stream,
    ):
        role, token = next(stream), next(stream)

        assert requests_finished(server) == finished
    assert role.choices[0].delta.role == "assistant"
    assert token.choices[0].delta.content == "[ech"


async def test_concurrent_streams_do_not_mix(deployment: Deployment) -> None:
    questions = [f"question {n} " * (n + 1) for n in range(8)]

    async with openai.AsyncOpenAI(**settings(deployment.base_url, "acme")) as client:

        async def ask(question: str) -> str:
            stream = await client.chat.completions.create(**chat(question), stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        answers = await asyncio.gather(*map(ask, questions))

    for question, answer in zip(questions, answers, strict=True):
        assert "model=chat-v1 " in answer
        assert answer.endswith(f"User: {question}")


def test_an_unknown_version_is_refused_with_a_problem_that_the_client_can_read(
    deployment: Deployment,
) -> None:
    extra = {"X-Model-Version": "v9"}

    with (
        openai.OpenAI(**settings(deployment.base_url, "acme")) as client,
        pytest.raises(openai.NotFoundError) as refused,
    ):
        client.chat.completions.create(**chat(), extra_headers=extra)

    assert refused.value.body["code"] == "no-such-version"


def test_a_servers_own_error_passes_as_it_is(deployment: Deployment) -> None:
    body = b'{"model": "chat", "messages": []}'
    headers = {"Authorization": "Bearer unused", "Content-Type": "application/json"}

    direct = fetch(f"{deployment.servers['v1']}/v1/chat/completions", body, headers)
    through = fetch(f"{deployment.base_url}/chat/completions", body, headers)

    assert direct[0] == 400
    assert through[0] == direct[0]
    assert through[2] == direct[2]
