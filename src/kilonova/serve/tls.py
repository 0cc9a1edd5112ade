"""Certificates for HTTPS: the user's, or one that an authority of the data directory's own has signed."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from kilonova.core.errors import ConfigError
from kilonova.core.files import write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, GeneralName, KeyUsage

AUTHORITY_YEARS = 10
# The longest that clients accept of a server.
CERTIFICATE_DAYS = 397
_RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """What a server shows (PEM, its chain included) and proves; `authority` is what clients have to trust, if it is
    one of our own."""

    certificate: Path
    key: Path
    authority: Path | None = None


def certificate_files(
    data_dir: Path, host: str, certificate: Path | None = None, key: Path | None = None
) -> CertificateFiles:
    """The user's own files, or else a certificate that an authority under `data_dir`, made once, has signed.

    It is for localhost, this machine's name and `host`, and made anew when it ends soon or `host` is not among its
    names; clients go on trusting the same authority. Keys are readable by their owner alone. Raises ConfigError for
    files that are missing or do not belong together.
    """
    if certificate is not None or key is not None:
        if certificate is None or key is None:
            raise ConfigError("--tls-certificate and --tls-key are given together, or neither")
        _check_pair(certificate, key)
        return CertificateFiles(certificate, key)
    directory = data_dir / "tls"
    files = CertificateFiles(directory / "server.pem", directory / "server.key", directory / "ca.pem")
    names = _names(host)
    if not _is_good(files, names):
        _issue(directory, files, names)
    return files


def _names(host: str) -> list[str]:
    anywhere = {"0.0.0.0", "::", ""}
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname(), *([] if host in anywhere else [host])]
    return list(dict.fromkeys(names))


def _is_good(files: CertificateFiles, names: Sequence[str]) -> bool:
    from cryptography import x509

    assert files.authority is not None
    if not (files.certificate.exists() and files.key.exists() and files.authority.exists()):
        return False
    certificate = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
    held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return certificate.not_valid_after_utc - datetime.now(UTC) > _RENEW_BEFORE and set(_general_names(names)) <= set(
        held
    )


def _issue(directory: Path, files: CertificateFiles, names: Sequence[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    authority, authority_key = _authority(directory)
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Kilonova")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(min(now + timedelta(days=CERTIFICATE_DAYS), authority.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write_private(files.key, _pem(key))
    write_atomic(files.certificate, certificate.public_bytes(Encoding.PEM))


def _authority(directory: Path) -> tuple[Certificate, EllipticCurvePrivateKey]:
    """The authority in `directory`, made if there is none or it ends before the next server certificate would."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
    from cryptography.x509.oid import NameOID

    certificate_file, key_file = directory / "ca.pem", directory / "ca.key"
    now = datetime.now(UTC)
    if certificate_file.exists() and key_file.exists():
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        if certificate.not_valid_after_utc > now + timedelta(days=CERTIFICATE_DAYS):
            if stat.S_IMODE(key_file.stat().st_mode) & 0o077:
                raise ConfigError(f"{key_file}: others than its owner may read it; `chmod 600 {key_file}`")
            key = load_pem_private_key(key_file.read_bytes(), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            return certificate, key
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Kilonova on {socket.gethostname()}"[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365 * AUTHORITY_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_private(key_file, _pem(key))
    write_atomic(certificate_file, certificate.public_bytes(Encoding.PEM))
    return certificate, key


def _general_names(names: Sequence[str]) -> list[GeneralName]:
    from cryptography import x509

    general: list[GeneralName] = []
    for name in names:
        try:
            general.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            general.append(x509.DNSName(name))
    return general


def _key_usage(*, signs_certificates: bool) -> KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read at any time."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def _check_pair(certificate: Path, key: Path) -> None:
    import ssl

    for option, path in (("--tls-certificate", certificate), ("--tls-key", key)):
        if not path.is_file():
            raise ConfigError(f"{option} {path}: there is no such file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"--tls-certificate {certificate}, --tls-key {key}: not a PEM pair: {error}") from error
