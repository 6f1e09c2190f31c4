"""strongSwan's configuration, and its output: `swanctl --list-sas --raw` as printed by version 5.9.8."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.hosts.role import swan
from lab.hosts.role.swan import Sa, SwanError, connection, ends, parse_sas
from lab.hosts.spec import Auth, Suite

ESP_IN_USER_SPACE = (
    "list-sa event {xenlab {uniqueid=1 version=2 state=ESTABLISHED local-host=10.71.0.1 local-port=4500 "
    "local-id=host-a remote-host=10.71.0.2 remote-port=4500 remote-id=host-b initiator=yes "
    "initiator-spi=d54f17ec34b3cbec responder-spi=2532bd8563764cde nat-remote=yes nat-any=yes encr-alg=AES_CBC "
    "encr-keysize=128 integ-alg=HMAC_SHA2_256_128 prf-alg=PRF_HMAC_SHA2_256 dh-group=ECP_256 established=2 "
    "rekey-time=13217 child-sas {xenlab-1 {name=xenlab uniqueid=1 reqid=1 state=INSTALLED mode=TUNNEL "
    "protocol=ESP encap=yes spi-in=ed2c5a43 spi-out=2d425a72 encr-alg=AES_CBC encr-keysize=128 "
    "integ-alg=HMAC_SHA1_96 bytes-in=7872 packets-in=12 use-in=1 bytes-out=7873 packets-out=12 use-out=1 "
    "rekey-time=3282 life-time=3958 install-time=2 local-ts=[10.71.1.10/32] remote-ts=[10.71.2.10/32]}}}}\n"
    "list-sas reply {}\n"
)
FOUND = Sa("INSTALLED", "TUNNEL", "AES_CBC", "HMAC_SHA1_96", 7872, 7873)
GCM = ESP_IN_USER_SPACE.replace("encr-alg=AES_CBC encr-keysize=128 integ-alg=HMAC_SHA1_96", "").replace(
    "spi-out=2d425a72", "spi-out=2d425a72 encr-alg=AES_GCM_16 encr-keysize=128"
)


def words(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines()}


@pytest.mark.parametrize("suite", [Suite.PAPER, Suite.TODAY])
def test_kernel_esp_goes_between_the_hosts_themselves_behind_a_trap(suite: Suite) -> None:
    a, b = ends("transport")
    said = words(connection(suite, Auth.PSK, "transport", a, b, "0xabcd"))
    assert said >= {f"esp_proposals = {suite}", "mode = transport", "start_action = trap", "version = 2"}
    assert said >= {"local_addrs = 10.71.1.10", "local_ts = 10.71.1.10/32"}
    assert said >= {"remote_addrs = 10.71.2.10", "remote_ts = 10.71.2.10/32"}


def test_user_space_esp_has_endpoints_that_are_not_what_it_carries() -> None:
    a, b = ends("tunnel")
    assert {a.endpoint, b.endpoint}.isdisjoint({a.address, b.address})
    said = words(connection(Suite.TODAY, Auth.PSK, "tunnel", a, b, "0xabcd"))
    assert said >= {f"remote_addrs = {b.endpoint}", f"remote_ts = {b.address}/32", "mode = tunnel"}
    assert "start_action = none" in said


def test_the_configurations_of_both_hosts_mirror_each_other() -> None:
    a, b = ends("transport")
    one = words(connection(Suite.PAPER, Auth.PSK, "transport", a, b, "0xabcd"))
    other = words(connection(Suite.PAPER, Auth.PSK, "transport", b, a, "0xabcd"))
    turned = {
        line.replace("local", "X").replace("remote", "local").replace("X", "remote") for line in one if "_" in line
    }
    assert turned == {line for line in other if "_" in line}


def test_a_shared_key_is_in_the_file_only_where_it_is_used() -> None:
    a, b = ends("transport")
    assert {"auth = psk", "secret = 0xabcd", "id-1 = host-a", "id-2 = host-b"} <= words(
        connection(Suite.PAPER, Auth.PSK, "transport", a, b, "0xabcd")
    )
    certified = connection(Suite.PAPER, Auth.CERT, "transport", a, b, None)
    assert {"auth = pubkey", "certs = xenlab.pem", "cacerts = xenlab.pem"} <= words(certified)
    assert "psk" not in certified
    assert "secret" not in certified


def test_braces_match() -> None:
    a, b = ends("tunnel")
    for auth in Auth:
        text = connection(Suite.TODAY, auth, "tunnel", a, b, "0x00")
        assert text.count("{") == text.count("}") > 4


def test_what_swanctl_printed_is_read() -> None:
    assert parse_sas(ESP_IN_USER_SPACE) == [FOUND]
    assert parse_sas(GCM) == [replace(FOUND, cipher="AES_GCM_16", integrity=None)]


def test_a_value_may_be_missing() -> None:
    assert parse_sas(ESP_IN_USER_SPACE.replace("local-id=host-a", "local-id=")) == [FOUND]


def test_no_sa_is_an_empty_list() -> None:
    assert parse_sas("list-sas reply {}\n") == []
    waiting = "list-sa event {xenlab {uniqueid=1 version=2 state=CONNECTING local-host=10.71.0.1 child-sas {}}}\n"
    assert parse_sas(waiting) == []


@pytest.mark.parametrize(
    "printed",
    [
        "list-sa event {xenlab {child-sas {x {state=INSTALLED",
        "list-sa event xenlab",
        "list-sa event {xenlab {child-sas=3}}",
        "list-sa event {xenlab {child-sas {x {[}}}}",
        ESP_IN_USER_SPACE.replace("encr-keysize=128 integ-alg=HMAC_SHA1_96", "encr-keysize=256"),
        ESP_IN_USER_SPACE.replace("bytes-in=7872", "bytes-in=many"),
    ],
)
def test_malformed_swanctl_output_is_an_error(printed: str) -> None:
    with pytest.raises(SwanError):
        parse_sas(printed)


def test_an_sa_fits_only_what_was_asked_for() -> None:
    assert FOUND.fits(Suite.PAPER, "tunnel")
    assert not FOUND.fits(Suite.TODAY, "tunnel")
    assert not FOUND.fits(Suite.PAPER, "transport")
    assert not replace(FOUND, integrity="HMAC_SHA2_256_128").fits(Suite.PAPER, "tunnel")
    assert not replace(FOUND, state="REKEYING").fits(Suite.PAPER, "tunnel")
    assert replace(FOUND, cipher="AES_GCM_16", integrity=None).fits(Suite.TODAY, "tunnel")


def test_the_guard_and_the_plain_way_are_the_same_route() -> None:
    """Else one would not replace the other, and packets would leave in the clear when the tunnel ends."""
    guard, plain = swan.guard("tunnel", *ends("tunnel")), swan.plain_route("host-a", "host-b", "wan")
    assert guard == ["route", "replace", "blackhole", "10.71.2.0/24"]
    assert plain == ["route", "replace", "10.71.2.0/24", "dev", "wan", "src", "10.71.1.10"]


def test_the_kernels_guard_does_not_replace_what_charon_sets() -> None:
    """For the kernel, policies with the same selectors and direction are the same policy."""
    words = swan.guard("transport", *ends("transport"))
    values = dict(zip(words[3::2], words[4::2], strict=True))
    assert values["dst"] == "10.71.2.10/32" and values["dir"] == "out" and values["action"] == "block"
    assert values["src"] == "10.71.1.0/24"  # charon's has 10.71.1.10/32
    assert int(values["priority"]) > 1_000_000
