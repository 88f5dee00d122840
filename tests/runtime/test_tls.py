"""Files of TLS that cannot be used are named, each with what is wrong with it."""

from __future__ import annotations

import datetime
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from sidecar import config
from sidecar.errors import ConfigError
from sidecar.model.tls import TlsSettings
from sidecar.runtime.tls import ServerTls, TlsFileError, load
from tests.support.certificates import write_certificate

if TYPE_CHECKING:
    from pathlib import Path

NO_KEY = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
NO_CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture
def files(tmp_path: Path) -> TlsSettings:
    cert_file, key_file = write_certificate(tmp_path)
    return TlsSettings(str(cert_file), str(key_file))


def refused(settings: TlsSettings) -> tuple[str, str]:
    """Return the setting that is to blame, and the reason."""
    with pytest.raises(TlsFileError) as caught:
        load(settings)
    file, _, why = str(caught.value).partition(": ")
    assert file == getattr(settings, caught.value.setting)
    return caught.value.setting, why


def put(file: str | None, content: bytes) -> None:
    assert file is not None
    with open(file, "wb") as out:
        out.write(content)


def test_files_that_fit_make_a_context(files: TlsSettings) -> None:
    assert isinstance(load(files), ssl.SSLContext)


def test_only_the_file_that_is_missing_is_named(files: TlsSettings) -> None:
    missing = TlsSettings(files.cert_file, files.key_file + "x")

    assert refused(missing) == ("key_file", "No such file or directory")


def test_certificate_and_key_in_each_others_place_are_told_so(files: TlsSettings) -> None:
    swapped = TlsSettings(files.key_file, files.cert_file)

    assert refused(swapped) == (
        "cert_file",
        "holds no certificate in PEM: it holds a private key",
    )
    assert refused(TlsSettings(files.cert_file, files.cert_file)) == (
        "key_file",
        "holds no private key in PEM: it holds a certificate",
    )


@pytest.mark.parametrize(
    "form",
    [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL],
)
def test_a_key_with_a_passphrase_is_told_as_that(
    files: TlsSettings, form: serialization.PrivateFormat
) -> None:
    with open(files.key_file, "rb") as given:
        key = serialization.load_pem_private_key(given.read(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    put(files.key_file, key.private_bytes(serialization.Encoding.PEM, form, locked))

    assert refused(files) == ("key_file", "its key has a passphrase: write it without one")


def test_a_key_of_another_certificate_is_told_as_that(files: TlsSettings, tmp_path: Path) -> None:
    _, other = write_certificate(tmp_path, "other")

    assert refused(TlsSettings(files.cert_file, str(other))) == (
        "key_file",
        f"is not the key of the certificate in {files.cert_file}",
    )


@pytest.mark.parametrize("content", [b"", b"nothing", NO_CERTIFICATE])
@pytest.mark.parametrize("setting", ["cert_file", "client_ca_file"])
def test_what_is_no_certificate_is_named(
    files: TlsSettings, tmp_path: Path, setting: str, content: bytes
) -> None:
    settings = TlsSettings(files.cert_file, files.key_file, str(tmp_path / "ca"), "required")
    put(settings.client_ca_file, b"" if setting == "cert_file" else content)
    if setting == "cert_file":
        put(settings.cert_file, content)

    assert refused(settings)[0] == setting


@pytest.mark.parametrize("content", [b"", b"nothing", NO_KEY])
def test_what_is_no_key_is_named(files: TlsSettings, content: bytes) -> None:
    put(files.key_file, content)

    assert refused(files)[0] == "key_file"


def test_an_expired_certificate_is_served_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = datetime.timedelta(days=-1)
    cert_file, key_file = write_certificate(tmp_path, valid_for=gone)

    served = ServerTls(TlsSettings(str(cert_file), str(key_file)))

    [told] = caplog.messages
    assert told == "TLS certificate has expired"
    write_certificate(tmp_path)
    assert served.reload()
    assert len(caplog.messages) == 1


def test_a_file_that_cannot_be_used_is_told_with_the_line_of_its_setting(
    files: TlsSettings, tmp_path: Path
) -> None:
    file = tmp_path / "rmv.toml"
    file.write_text(f'no_auth = true\n[tls]\ncert_file = "{files.cert_file}"\nkey_file = "gone"\n')

    with pytest.raises(ConfigError) as caught:
        config.load(file, {}, {})

    assert str(caught.value) == (
        f"{file}:4: tls.key_file: {tmp_path}/gone: No such file or directory"
    )


def test_an_authority_for_certificates_that_nobody_is_asked_for_is_refused(
    files: TlsSettings, tmp_path: Path
) -> None:
    file = tmp_path / "rmv.toml"
    said = f'cert_file = "{files.cert_file}"\nkey_file = "{files.key_file}"\n'
    file.write_text(f'no_auth = true\n[tls]\n{said}client_ca_file = "{files.cert_file}"\n')

    with pytest.raises(ConfigError) as caught:
        config.load(file, {}, {})

    told = f"{file}:5: tls.client_ca_file: has no effect without tls.client_certs"
    assert str(caught.value).startswith(told)
