"""What the tests of the format share: settings, sizes, keys, a preamble, the state tables by name."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from xenplugin.codec.seal import Keys
from xenplugin.geometry import BLOCK, CHUNK, MAX_IMAGE
from xenplugin.wire import states
from xenplugin.wire.preamble import Carrier, Cipher, Preamble

SIZES = st.one_of(
    st.integers(1, 3 * BLOCK), st.integers(1, 5 * CHUNK), st.integers(1, MAX_IMAGE), st.just(40 * CHUNK)
)
KEYS = Keys(bytes(range(32)), bytes(32))
COMMON = settings(max_examples=100)

TABLES = {
    "file": states.FORWARD_FILE,
    "data": states.FORWARD_DATA,
    "control": states.FORWARD_CONTROL,
    "answers": states.BACKWARD_DATA,
    "control answers": states.BACKWARD_CONTROL,
}
DOMAIN = {
    "domain data": states.DOMAIN_FORWARD_DATA,
    "domain control": states.DOMAIN_FORWARD_CONTROL,
    "domain control answers": states.DOMAIN_BACKWARD_CONTROL,
}
TABLES |= DOMAIN


def preamble(carrier: Carrier = Carrier.CONNECTION, cipher: Cipher = Cipher.AES_128_GCM) -> Preamble:
    return Preamble(cipher, carrier, 0, bytes(16), bytes(range(32)))
