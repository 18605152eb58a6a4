"""Tokens and certificates of our own making."""

import hashlib
import secrets
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def new_token() -> str:
    return f"bw_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"


def entry(token: str, **changed: str) -> str:
    """Returns the entry of a token; `changed` are keys with TOML values, empty for a key that is left out."""
    values = {
        "id": f'"{token[3:19]}"',
        "name": '"trainer-1"',
        "tenant": '"acme"',
        "scope": '"write"',
        "sha256": f'"{hashlib.sha256(token.encode()).hexdigest()}"',
        **changed,
    }
    return "\n".join(["[[token]]", *(f"{key} = {value}" for key, value in values.items() if value)])


def write(path: Path, entries: Iterable[str]) -> Path:
    """Replaces the file as an operator's tools do: by another, at once."""
    fresh = path.with_suffix(".new")
    fresh.write_text("\n\n".join(entries) + "\n")
    fresh.chmod(0o600)
    fresh.replace(path)
    return path


@dataclass
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Issues certificates."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        built = _builder(self._name, self._name, self._key, days=30).add_extension(constraints, critical=True)
        self.certificate = built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, *, days: int = 30, host: str = "backwire.test") -> Pair:
        """Returns a certificate that is good for so many days from now, or has not been for so many if negative."""
        key = ec.generate_private_key(ec.SECP256R1())
        built = _builder(_named(name), self._name, key, days=days).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False
        )
        certificate = built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return Pair(
            certificate,
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )


def trusting(certificate: bytes) -> ssl.SSLContext:
    """What takes certificates of an authority, though they lack what newer versions of Python want by themselves."""
    context = ssl.create_default_context(cadata=certificate.decode())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: int
) -> x509.CertificateBuilder:
    end = datetime.now(UTC) + timedelta(days=days)
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(end - timedelta(days=60))
        .not_valid_after(end)
    )


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority("ours")
