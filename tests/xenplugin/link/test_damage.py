"""How much damage is too much, and what it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from xenplugin.errors import TamperError
from xenplugin.link import tcp
from xenplugin.link.damage import DamageLimit

MIB = 1 << 20


def test_a_flipped_bit_in_every_32_mib_is_borne_for_ever() -> None:
    limit = DamageLimit()
    for place in range(0, 100_000 * MIB, 32 * MIB):
        limit.add(place)


@pytest.mark.parametrize("places", [(0, 0, 0), (5, 70, 71, 72), (0, 63, 63), (0, 40, 80, 120, 140)])
def test_three_within_64_mib_are_too_many(places: tuple[int, ...]) -> None:
    limit = DamageLimit()
    for place in places[:-1]:
        limit.add(place * MIB)
    with pytest.raises(TamperError, match="3 data connections brought damaged records within 64 MiB"):
        limit.add(places[-1] * MIB)


@pytest.mark.parametrize(
    ("found", "cause"), [(0, "or somebody on the path changes it"), (7, "7 packets came with wrong TCP checksums")]
)
def test_the_hint_tells_damage_from_an_attack(monkeypatch: pytest.MonkeyPatch, found: int, cause: str) -> None:
    counts = iter((1000, 1000 + found))
    monkeypatch.setattr(tcp, "checksum_errors", lambda: next(counts))
    limit = DamageLimit()
    limit.add(0)
    limit.add(0)
    with pytest.raises(TamperError) as caught:
        limit.add(0)
    assert caught.value.hint and cause in caught.value.hint and "resumes the transfer" in caught.value.hint


def test_the_kernels_count_of_wrong_checksums(tmp_path: Path) -> None:
    path = tmp_path / "snmp"
    path.write_text("Tcp: RtoAlgorithm InErrs OutRsts InCsumErrors\nTcp: 1 2 3 45\nUdp: InCsumErrors\nUdp: 6\n")
    assert tcp.checksum_errors(path) == 45
    for text in ("", "Tcp: InErrs\nTcp: 1\n", "Tcp: InCsumErrors\n", "Tcp: InCsumErrors\nTcp: x\n"):
        path.write_text(text)
        assert tcp.checksum_errors(path) == 0
    assert tcp.checksum_errors(tmp_path / "none") == 0
    assert tcp.checksum_errors() >= 0
