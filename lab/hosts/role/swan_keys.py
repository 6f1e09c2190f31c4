"""Makes new secrets for the hosts of a lab: a pre-shared key, or a certificate for each host.

The certificates are signed by a new authority whose private key is then dropped. Nothing is stored here; the
secrets are only on the hosts.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_EARLY, _LATE = timedelta(days=2), timedelta(days=365)  # the clocks of the lab's machines may be wrong


@dataclass(frozen=True)
class Identity:
    """The key and certificates with which a host authenticates, in PEM format."""

    key: bytes
    certificate: bytes
    authority: bytes


def shared_secret() -> str:
    """Return a new pre-shared key of 256 bits in the notation of swanctl.conf."""
    return f"0x{secrets.token_hex(32)}"


def identities(names: Sequence[str]) -> dict[str, Identity]:
    """Make a certificate for each of `names`, all signed by one new authority whose key is then dropped."""
    signer = ec.generate_private_key(ec.SECP256R1())
    issuer = _named("xenlab authority")
    authority = _certificate(issuer, issuer, signer, signer, None)
    made = {}
    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        made[name] = Identity(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            _certificate(_named(name), issuer, key, signer, name),
            authority,
        )
    return made


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    host: str | None,
) -> bytes:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLY)
        .not_valid_after(now + _LATE)
        .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
    )
    if host is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return builder.sign(signer, SHA256()).public_bytes(Encoding.PEM)
