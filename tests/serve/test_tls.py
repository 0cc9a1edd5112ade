"""Certificates: strict clients accept them, their keys are private, and they are renewed."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from kilonova.core.errors import ConfigError
from kilonova.serve import tls
from kilonova.serve.tls import CertificateFiles, certificate_files


def shake_hands(files: CertificateFiles, name: str) -> None:
    """A handshake between a server with the files and a client that knows only their authority. Raises SSLError."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cafile=files.authority)
    # What Python asks for by default from 3.13 on.
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    near, far = socket.socketpair()

    def answer() -> None:
        try:
            server.wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        client.wrap_socket(near, server_hostname=name).close()
    finally:
        near.close()
        thread.join()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "192.0.2.7", socket.gethostname()])
def test_strict_clients_accept_it_under_each_of_its_names(tmp_path: Path, name: str) -> None:
    shake_hands(certificate_files(tmp_path, "192.0.2.7"), name)


def test_other_names_are_not_covered(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(certificate_files(tmp_path, "127.0.0.1"), "example.org")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_verifies_the_chain(tmp_path: Path) -> None:
    files = certificate_files(tmp_path, "0.0.0.0")
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", files.authority]
    subprocess.run([*command, files.certificate], check=True, capture_output=True)


def test_keys_are_their_owners_alone(tmp_path: Path) -> None:
    certificate_files(tmp_path, "127.0.0.1")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()}
    assert modes["ca.key"] == modes["server.key"] == 0o600
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700


def test_it_is_made_once(tmp_path: Path) -> None:
    files = certificate_files(tmp_path, "127.0.0.1")
    before = files.certificate.read_bytes()
    assert certificate_files(tmp_path, "localhost") == files
    assert files.certificate.read_bytes() == before


def test_it_is_renewed_by_the_same_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = certificate_files(tmp_path, "127.0.0.1")
    assert files.authority is not None
    authority, certificate = files.authority.read_bytes(), files.certificate.read_bytes()
    certificate_files(tmp_path, "192.0.2.7")  # a new name
    renamed = files.certificate.read_bytes()
    monkeypatch.setattr(tls, "_RENEW_BEFORE", timedelta(days=tls.CERTIFICATE_DAYS + 1))  # the end is near
    certificate_files(tmp_path, "192.0.2.7")
    assert len({certificate, renamed, files.certificate.read_bytes()}) == 3
    assert files.authority.read_bytes() == authority
    shake_hands(files, "192.0.2.7")


def test_how_long_it_holds(tmp_path: Path) -> None:
    files = certificate_files(tmp_path, "127.0.0.1")
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(days=398)
    assert certificate.not_valid_before_utc < datetime.now(UTC)


def test_an_authority_whose_key_others_can_read_is_refused(tmp_path: Path) -> None:
    certificate_files(tmp_path, "127.0.0.1")
    (tmp_path / "tls" / "ca.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        certificate_files(tmp_path, "192.0.2.7")


def test_the_users_own_files(tmp_path: Path) -> None:
    made = certificate_files(tmp_path, "127.0.0.1")
    files = certificate_files(tmp_path / "other", "127.0.0.1", made.certificate, made.key)
    assert files == CertificateFiles(made.certificate, made.key, None)
    assert not (tmp_path / "other").exists()
    with pytest.raises(ConfigError, match="together"):
        certificate_files(tmp_path, "127.0.0.1", made.certificate, None)
    with pytest.raises(ConfigError, match=r"--tls-key .*: there is no such file"):
        certificate_files(tmp_path, "127.0.0.1", made.certificate, tmp_path / "none")
    with pytest.raises(ConfigError, match="not a PEM pair"):
        certificate_files(tmp_path, "127.0.0.1", made.certificate, tmp_path / "tls" / "ca.key")
