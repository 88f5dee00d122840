"""Settings come from file, environment and flags, and every mistake is named with its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sidecar.config import (
    Address,
    Config,
    ServeSpec,
    allow_list,
    hand_over,
    load,
    parse_address,
    read,
    take_over,
)
from sidecar.errors import ConfigError
from sidecar.model.issuer import IdentitySettings, KeyFile
from sidecar.model.limits import Limits
from sidecar.model.policy import Operators, Policy, Rule, Split, Version
from sidecar.model.route import RouteRule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = """\
listen = "0.0.0.0:8080"
workers = 2

[identity]
jwks_file = "keys/jwks.json"
issuer = "https://issuer.example"
audience = "models"
algorithms = ["ES256"]

[limits]
headers = 50
connections = 10

[[routes]]
model = "fraud"
prefix = "/fraud"
"""


def written(folder: Path, text: str) -> Path:
    """Write a file that may be loaded, its key set beside it."""
    (folder / "keys").mkdir()
    (folder / "keys" / "jwks.json").write_text('{"keys": []}')
    file = folder / "rmv.toml"
    file.write_text(text)
    return file


def refused(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    **flags: str | int,
) -> str:
    """Return the text of the error that these sources are refused with."""
    with pytest.raises(ConfigError) as caught:
        load(file, environ or {}, flags)
    return str(caught.value)


def test_a_file_sets_every_kind_of_setting(tmp_path: Path) -> None:
    """Scalars, sections, lists and lists of tables; a path starts at the file's folder."""
    config = load(written(tmp_path, FILE), {}, {})

    assert config == Config(
        listen="0.0.0.0:8080",
        workers=2,
        identity=IdentitySettings(
            jwks_file=str(tmp_path / "keys" / "jwks.json"),
            issuer="https://issuer.example",
            audience="models",
            algorithms=("ES256",),
        ),
        limits=Limits(headers=50, connections=10),
        routes=(RouteRule(model="fraud", prefix="/fraud"),),
    )


def test_the_environment_beats_the_file_and_a_flag_beats_both(tmp_path: Path) -> None:
    file = written(tmp_path, FILE)
    environ = {"RMV_WORKERS": "3", "RMV_LIMITS__HEADERS": "60", "RMV_LISTEN": ":1"}

    config = load(file, environ, {"listen": "127.0.0.1:9", "workers": None})

    assert config.listen == "127.0.0.1:9"
    assert config.workers == 3
    assert config.limits == Limits(headers=60, connections=10)


def test_environment_text_is_read_as_what_the_setting_is() -> None:
    environ = {
        "RMV_NO_AUTH": "true",
        "RMV_TIMEOUTS__CONNECT_S": "0.5",
        "RMV_LIMITS__BODY_BYTES": "1024",
        "RMV_ROUTES": '[{"model": "fraud", "host": "fraud.example"}]',
    }

    config = load(None, environ, {})

    assert config.no_auth is True
    assert config.timeouts.connect_s == 0.5
    assert config.limits.body_bytes == 1024
    assert config.routes == (RouteRule(model="fraud", host="fraud.example"),)


def test_an_environment_list_may_be_written_with_commas() -> None:
    environ = {"RMV_IDENTITY__ALGORITHMS": "RS256, ES256"} | {
        f"RMV_IDENTITY__{name}": "x" for name in ("JWKS_FILE", "ISSUER", "AUDIENCE")
    }

    config = read(None, environ, {})

    assert config.identity is not None
    assert config.identity.algorithms == ("RS256", "ES256")


def test_the_admin_listener_is_switched_off_by_a_word() -> None:
    assert load(None, {"RMV_ADMIN": "off"}, {"no_auth": True}).admin is None


def test_every_problem_of_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    text = FILE.replace("workers = 2", 'workers = "two"').replace("headers = 50", "haeders = 50")
    file = written(tmp_path, text.replace('prefix = "/fraud"', 'prefx = "/fraud"'))

    told = refused(file).splitlines()

    assert told == [
        f'{file}:2: workers: a whole number is expected, not text "two"',
        f"{file}:11: limits.haeders: unknown setting; did you mean `limits.headers`?",
        f"{file}:14: routes[0]: unknown setting `prefx`; did you mean `prefix`?",
    ]


def test_a_setting_outside_its_section_is_led_there(tmp_path: Path) -> None:
    file = written(tmp_path, "head_bytes = 4096\n")

    assert refused(file) == (
        f"{file}:1: head_bytes: unknown setting; did you mean `limits.head_bytes`?"
    )


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        (
            {"RMV_LIMITS__HEAD_BITES": "1"},
            "RMV_LIMITS__HEAD_BITES: unknown setting; did you mean `RMV_LIMITS__HEAD_BYTES`?",
        ),
        ({"RMV_WORKERS": "two"}, 'RMV_WORKERS: a whole number is expected, not text "two"'),
        (
            {"RMV_WORKERS": "0"},
            'RMV_WORKERS: a whole number of at least 1 is expected, not text "0"',
        ),
        ({"RMV_LIMITS": "1"}, "RMV_LIMITS: a table of settings is expected: [limits]"),
        ({"RMV_ROUTES": "[{"}, 'RMV_ROUTES: a list is expected, not text "[{"'),
    ],
)
def test_a_bad_variable_is_refused(environ: dict[str, str], told: str) -> None:
    assert refused(environ=environ, no_auth=True) == told


@pytest.mark.parametrize(
    "name", ["RMV_SERVICE_HOST", "RMV_PORT", "RMV_PORT_8080_TCP_ADDR", "RMV_REDIS_SERVICE_PORT"]
)
def test_what_kubernetes_says_of_a_service_called_rmv_is_no_setting(name: str) -> None:
    assert load(None, {name: "tcp://10.0.0.1:8080"}, {"no_auth": True}) == Config(no_auth=True)


def test_a_flag_of_the_wrong_type_is_named_as_the_flag() -> None:
    assert refused(prefix="a b", no_auth=True).startswith("--prefix: text like ^[A-Za-z")


def test_auth_must_be_decided() -> None:
    told = refused()

    assert "jwks_file, issuer and audience in [identity]" in told
    assert "--no-auth" in told


def test_auth_cannot_be_both_on_and_off(tmp_path: Path) -> None:
    told = refused(written(tmp_path, FILE), no_auth=True)

    assert told.startswith("--no-auth: auth is off, yet [identity]")


def test_half_an_identity_names_what_is_missing() -> None:
    told = refused(environ={"RMV_IDENTITY__ISSUER": "me"})

    assert told.splitlines() == ["identity.audience: is required here"]


def test_a_missing_key_set_is_told_with_its_line(tmp_path: Path) -> None:
    file = written(tmp_path, FILE)
    (tmp_path / "keys" / "jwks.json").unlink()

    told = refused(file)

    assert told.startswith(f"{file}:5: identity.jwks_file: no such file: ")


ISSUERS = """\
[identity]
issuer = "https://a.example"
audience = "models"
{first}

[[issuers]]
issuer = "https://b.example"
audience = "models"
{second}
"""


def issuers(folder: Path, first: str, second: str) -> Path:
    """Write a file of two issuers."""
    return written(folder, ISSUERS.format(first=first, second=second))


def test_issuers_have_each_their_own_source_of_keys(tmp_path: Path) -> None:
    for name in ("a.pem", "ca.pem"):
        (tmp_path / name).touch()
    file = issuers(
        tmp_path,
        'keys = [{file = "a.pem", kid = "1"}, {file = "a.pem", algorithm = "ES256"}]',
        'jwks_url = "https://b.example/keys"\nca_file = "ca.pem"',
    )

    first, second = load(file, {}, {}).believed

    pem = str(tmp_path / "a.pem")
    assert first.keys == (KeyFile(pem, "1"), KeyFile(pem, algorithm="ES256"))
    assert second.jwks_url == "https://b.example/keys"
    assert second.ca_file == str(tmp_path / "ca.pem")
    assert (second.keys_refresh_s, second.keys_max_age_s) == (300, 86_400)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("", "6: issuers[0]: where its keys are: is not said; set one of"),
        (
            'jwks_url = "https://b.example"\ndiscovery = true',
            "6: issuers[0]: where its keys are: jwks_url and discovery are given; set one of",
        ),
        ('keys = [{file = "b.pem"}]', "9: issuers[0].keys[0].file: no such file: "),
        ('[[issuers.keys]]\nfile = "b.pem"', "6: issuers[0].keys[0].file: no such file: "),
        ('jwks_url = "http://b.example/"', "9: issuers[0].jwks_url: `http://b.example/` must "),
        ('jwks_url = "https://u:p@b.example"', "9: issuers[0].jwks_url: `https://u:p@b.example`"),
        (
            'jwks_url = "https://b..example"',
            "9: issuers[0].jwks_url: `https://b..example` is no UR",
        ),
        ('jwks_url = "file:///keys"', "9: issuers[0].jwks_url: `file:///keys` is not an absol"),
        (
            'jwks_url = "https://b.example"\nalgorithms = ["HS256"]',
            "10: issuers[0].algorithms: HS256 needs a secret",
        ),
        (
            'jwks_url = "https://b.example"\nkeys_max_age_s = 300',
            "10: issuers[0].keys_max_age_s: must be more than keys_refresh_s (300)",
        ),
        (
            'jwks_file = "keys/jwks.json"\nca_file = "ca.pem"',
            "10: issuers[0].ca_file: no such file: ",
        ),
    ],
)
def test_an_issuer_whose_keys_cannot_be_had_is_told(tmp_path: Path, lines: str, told: str) -> None:
    file = issuers(tmp_path, 'jwks_file = "keys/jwks.json"', lines)

    assert refused(file).startswith(f"{file}:{told}")


def test_two_issuers_of_one_name_are_told(tmp_path: Path) -> None:
    file = issuers(tmp_path, 'jwks_file = "keys/jwks.json"', 'jwks_file = "keys/jwks.json"')
    file.write_text(file.read_text().replace("b.example", "a.example"))

    told = f"{file}:7: issuers[0].issuer: `https://a.example` is another issuer already"
    assert refused(file) == told


def test_a_use_of_keys_that_none_can_say_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.pem").touch()
    pem = 'keys = [{file = "a.pem"}]\nkeys_of_other_use = "skip"'
    file = issuers(tmp_path, 'jwks_file = "keys/jwks.json"', pem)

    assert refused(file).startswith(f"{file}:10: issuers[0].keys_of_other_use: has no effect")


def test_an_issuer_that_discovery_cannot_reach_is_told(tmp_path: Path) -> None:
    file = issuers(tmp_path, "discovery = true", "discovery = true")
    assert len(load(file, {}, {}).believed) == 2

    file.write_text(file.read_text().replace("https://b", "http://b"))
    assert refused(file).startswith(f"{file}:7: issuers[0].issuer: `http://b.example` must begin")


def test_more_issuers_need_a_first() -> None:
    environ = {"RMV_ISSUERS": '[{"issuer": "b", "audience": "m", "discovery": true}]'}

    told = refused(environ=environ, no_auth=True)

    assert told == "RMV_ISSUERS: the first issuer stands in [identity], the others here"


def test_a_folder_of_sockets_is_absolute_and_plain() -> None:
    environ = {"RMV_UPSTREAM__SOCKETS": "/run/models,models,/run/../etc"}

    assert refused(environ=environ, no_auth=True).splitlines() == [
        "RMV_UPSTREAM__SOCKETS: [1]: `models` is not an absolute path without `..`",
        "RMV_UPSTREAM__SOCKETS: [2]: `/run/../etc` is not an absolute path without `..`",
    ]


def test_an_allowed_endpoint_that_cannot_be_read_is_told() -> None:
    environ = {"RMV_ENDPOINTS__ALLOW": "*.svc,10.0.0.1/8,10.0.0.0/8"}

    (told,) = refused(environ=environ, no_auth=True).splitlines()

    assert told.startswith("RMV_ENDPOINTS__ALLOW: [1]: `10.0.0.1/8`: not a network: ")
    with pytest.raises(ConfigError, match=r"^endpoints.allow\[1\]: `10.0.0.1/8`: not a network"):
        allow_list(read(None, environ, {}))


def test_a_client_certificate_comes_with_its_key_and_both_are_there(tmp_path: Path) -> None:
    file = written(tmp_path, 'no_auth = true\n[upstream_tls]\ncert_file = "client.pem"\n')

    assert refused(file).splitlines() == [
        f"{file}:3: upstream_tls.cert_file: cert_file and key_file go together: set both or none",
        f"{file}:3: upstream_tls.cert_file: no such file: {tmp_path}/client.pem",
    ]


def test_a_tool_reads_the_store_settings_of_a_file_that_could_not_serve(tmp_path: Path) -> None:
    file = tmp_path / "rmv.toml"
    file.write_text('redis = "redis://127.0.0.1:1"\n')

    assert read(file, {}, {}).redis == "redis://127.0.0.1:1"


def test_a_file_that_is_no_toml_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "rmv.toml"
    file.write_text("workers = 1\nlisten = \n")

    assert refused(file).startswith(f"{file}:2: ")


@pytest.mark.parametrize("text", ["workers = 1\nworkers = 2", "workers = 1\nworkers = 2\n\n"])
def test_a_setting_given_twice_is_told_with_the_second_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rmv.toml"
    file.write_text(text)

    assert refused(file).startswith(f"{file}:2: Cannot overwrite a value")


def test_a_setting_that_a_section_lacks_is_told_with_the_line_of_the_section(
    tmp_path: Path,
) -> None:
    file = written(tmp_path, 'no_auth = true\n[tls]\nkey_file = "key.pem"\n')

    assert refused(file) == f"{file}:2: tls.cert_file: is required here"


def test_a_store_that_no_url_means_is_told_with_its_line(tmp_path: Path) -> None:
    file = written(tmp_path, 'no_auth = true\nredis = "localhost:6379"\n')

    assert refused(file).startswith(f"{file}:2: redis: the URL must begin with redis://")
    with pytest.raises(ConfigError, match=":2: redis: the URL must begin with redis://"):
        read(file, {}, {})


def test_a_word_that_is_none_of_the_allowed_is_told_with_them() -> None:
    environ = {"RMV_TLS__CLIENT_CERTS": "yes", "RMV_IDENTITY__ALGORITHMS": "RS512"}

    assert refused(environ=environ).splitlines()[:2] == [
        'RMV_TLS__CLIENT_CERTS: "off", "optional" or "required" is expected, not text "yes"',
        'RMV_IDENTITY__ALGORITHMS: [0]: "RS256", "ES256", "EdDSA" or "HS256" is expected,'
        ' not text "RS512"',
    ]


def test_a_word_that_looks_like_a_number_is_told_with_its_quotes(tmp_path: Path) -> None:
    file = written(tmp_path, "no_auth = true\n[tls]\nmin_version = 1.2\n")

    told = f'{file}:3: tls.min_version: "1.2" or "1.3" is expected, not the number 1.2'
    assert refused(file).splitlines()[0] == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("inf", "a number of at most 604800 is expected, not the number inf"),
        ("nan", "a number of at least 0.01 is expected, not the number nan"),
        ("1e300", "a number of at most 604800 is expected, not the number 1e+300"),
        ("1e-9", "a number of at least 0.01 is expected, not the number 1e-09"),
    ],
)
def test_a_time_is_neither_endless_nor_none(tmp_path: Path, text: str, told: str) -> None:
    file = written(tmp_path, f"no_auth = true\n[timeouts]\ndrain_s = {text}\n")

    assert refused(file) == f"{file}:3: timeouts.drain_s: {told}"


def test_routes_that_cannot_be_meant_are_told_with_their_lines(tmp_path: Path) -> None:
    routes = [
        'model = "a"',
        'model = "a"\nprefix = "x"',
        'model = "a"\nhost = "http://h"',
        'model = "a"\nhost = "h"\nprefix = "/a"',
        'model = "b"\nhost = "H."\nprefix = "/a/"',
    ]
    text = "".join(f"[[routes]]\n{one}\n" for one in routes)
    file = written(tmp_path, f"no_auth = true\n{text}")

    assert refused(file).splitlines() == [
        f"{file}:2: routes[0]: has neither host nor prefix: every request would be its model's",
        f"{file}:6: routes[1].prefix: `x` does not begin with /: no path fits",
        f"{file}:9: routes[2].host: `http://h` is not the name or address of a host",
        f"{file}:14: routes[4]: is for the same requests as [3], which comes first",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('model = "b c"', "1: model: "),
        ('[[routes]]\nprefix = "/"\nmodel = ""', "3: routes[0].model: "),
    ],
)
def test_a_model_has_a_name_that_a_policy_can_have(tmp_path: Path, text: str, told: str) -> None:
    file = written(tmp_path, text)

    assert refused(file, no_auth=True).startswith(f"{file}:{told}text like ^[A-Za-z0-9]")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rmv.toml"

    assert refused(file) == f"{file}: cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("localhost:0", Address("localhost", 0)),
        (":8080", Address("", 8080)),
        ("[::1]:8080", Address("::1", 8080)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "8080", "localhost", "::1:8080", "[::1]", "[x]:1", "[]:1", "a b:1", "h:65536", "h:-1"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="`"):
        parse_address(text)


def test_a_bad_listen_address_is_named_with_its_setting() -> None:
    told = refused(listen="8080", no_auth=True)

    assert told.startswith("--listen: `8080` is not an address: write host:port")


def test_two_listeners_cannot_share_an_address() -> None:
    assert "already the address of `listen`" in refused(listen=":80", admin=":80", no_auth=True)


def test_a_spec_arrives_as_it_was_handed_over() -> None:
    rule = Rule(
        id="beta",
        when={"tenant": ("a", "b"), "header.x-beta": Operators(exists=True)},
        split=Split(arms={"v1": 1, "v2": 2}),
    )
    versions = {"v1": Version(endpoints=("http://127.0.0.1:1",))}
    policy = Policy(model="m", versions=versions, rules=(rule,))
    spec = ServeSpec(config=Config(no_auth=True), seed_policy=policy)

    environ = hand_over(spec, {"PATH": "/bin"})

    assert environ["PATH"] == "/bin"
    assert take_over(environ) == spec


@pytest.mark.parametrize("environ", [{}, {"RMV_SPEC": "{"}, {"RMV_SPEC": "{}"}])
def test_a_worker_without_a_spec_says_so(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="RMV_SPEC"):
        take_over(environ)


# --- callers without a token ------------------------------------------------------------------

BELIEVED = '[identity]\nkeys = [{file = "key.pem"}]\nissuer = "i"\naudience = "a"\n'


@pytest.mark.parametrize(
    ("callers", "words"),
    [
        ('certificate = "cn"', "callers.certificate: no client is asked for a certificate"),
        ('certificate = "ou"', "callers.certificate: "),
        ('certificate_pattern = "(?P<tenant>.)"', "has no effect without callers.certificate"),
        ('certificate = "cn"\ncertificate_pattern = "("', "is no regular expression"),
        ('certificate = "cn"\ncertificate_pattern = ".*"', "has no group (?P<tenant>...)"),
        ('trusted_networks = ["10.0.0.1/8"]', "callers.trusted_networks[0]: `10.0.0.1/8`"),
        ('trusted_networks = ["10.0.0.0/8", "here"]', "callers.trusted_networks[1]: `here`"),
        ("trust_unix = true", "callers.trust_unix: has no effect"),
        ("trust_networks = []", "did you mean `callers.trusted_networks`"),
    ],
)
def test_callers_without_a_token_are_said_in_full(tmp_path: Path, callers: str, words: str) -> None:
    file = written(tmp_path, f"{BELIEVED}[callers]\n{callers}\n")
    (tmp_path / "key.pem").write_text("")

    with pytest.raises(ConfigError) as refused:
        load(file, {}, {})

    assert words in str(refused.value)


def test_who_is_believed_without_a_token_needs_no_issuer(tmp_path: Path) -> None:
    file = written(tmp_path, '[callers]\ntrusted_networks = ["10.0.0.0/8", "fd00::/8"]\n')

    config = load(file, {}, {})

    assert config.callers.are_believed
    assert not config.believed


def test_nobody_is_believed_while_auth_is_off(tmp_path: Path) -> None:
    file = written(tmp_path, 'no_auth = true\n[callers]\ntrusted_networks = ["10.0.0.0/8"]\n')

    with pytest.raises(ConfigError, match="callers: auth is off"):
        load(file, {}, {})


def test_callers_that_are_named_and_not_believed_are_nobody(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="auth: it is not said whose tokens are believed"):
        load(written(tmp_path, "[callers]\ntrusted_networks = []\n"), {}, {})
