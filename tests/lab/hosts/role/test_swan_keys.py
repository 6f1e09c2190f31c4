"""Keys of the lab's hosts: new each time, and valid only for the host that they name."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtensionOID

from lab.hosts.role.swan_keys import Identity, identities, shared_secret


def check(identity: Identity, authority: bytes) -> None:
    """Verify a certificate. Raises InvalidSignature."""
    certificate = x509.load_pem_x509_certificate(identity.certificate)
    key = x509.load_pem_x509_certificate(authority).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert certificate.signature_hash_algorithm is not None
    key.verify(
        certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(certificate.signature_hash_algorithm)
    )


def test_one_authority_vouches_for_both() -> None:
    made = identities(["host-a", "host-b"])
    assert made["host-a"].authority == made["host-b"].authority
    for name, identity in made.items():
        check(identity, identity.authority)
        certificate = x509.load_pem_x509_certificate(identity.certificate)
        names = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        assert isinstance(names, x509.SubjectAlternativeName)
        assert names.get_values_for_type(x509.DNSName) == [name]
        key = load_pem_private_key(identity.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        named = certificate.public_key()
        assert isinstance(named, ec.EllipticCurvePublicKey)
        assert key.public_key().public_numbers() == named.public_numbers()


def test_another_lab_has_another_authority() -> None:
    ours, theirs = identities(["host-a"])["host-a"], identities(["host-a"])["host-a"]
    with pytest.raises(InvalidSignature):
        check(theirs, ours.authority)


def test_shared_secrets_are_long_and_never_the_same() -> None:
    made = {shared_secret() for _ in range(20)}
    assert len(made) == 20
    assert all(len(bytes.fromhex(each.removeprefix("0x"))) == 32 for each in made)
