"""Noise fails the randomness test as seldom as documented, and other data fails it."""

from __future__ import annotations

import gzip
import math
import random

import pytest

pytest.importorskip("numpy", reason="numpy is not installed")

import numpy
import zstandard

from lab.verify.content.randomness import CHANCE, PART, WINDOW, RandomnessTest, limit

MIB = 1 << 20


def noise(length: int, seed: int = 1) -> bytes:
    return numpy.random.default_rng(seed).bytes(length)


def exceeds(chi_square: float, freedom: int = 255) -> float:
    """Return the exact probability that noise exceeds a chi-square, by integrating the density."""
    half = freedom / 2
    scale = half * math.log(2) + math.lgamma(half)
    points = numpy.linspace(chi_square, chi_square + 3000, 3_000_001)
    density = numpy.exp((half - 1) * numpy.log(points) - points / 2 - scale)
    return float(((density[1:] + density[:-1]) / 2 * numpy.diff(points)).sum())


@pytest.mark.parametrize("chance", [1e-3, 1e-6, 1e-9, CHANCE])
def test_the_limit_is_exceeded_with_the_given_probability(chance: float) -> None:
    assert exceeds(limit(chance)) == pytest.approx(chance, rel=0.1)


@pytest.mark.parametrize(("chance", "windows"), [(0.01, 4096 * 17), (1e-3, 4096 * 17)])
def test_noise_fails_as_often_as_the_given_probability(chance: float, windows: int) -> None:
    """With a probability large enough to count failures: 16 small windows and a large one in each 64 KiB."""
    test = RandomnessTest(chance)
    for seed in range(windows // 17 // 64):
        test.add(noise(64 * WINDOW, seed))
    test.close()
    assert test.windows == windows + 1
    spread = math.sqrt(windows * chance)
    # With 16 of each value in 4 KiB the tail is a little heavier than chi-square's.
    assert windows * chance - 5 * spread < test.not_noise < 1.25 * windows * chance + 5 * spread


def test_256_mib_of_noise_pass() -> None:
    test = RandomnessTest()
    for seed in range(64):
        test.add(noise(4 * MIB, seed))
    test.close()
    assert test.windows > 69_000 and test.not_noise == 0


def text(length: int) -> bytes:
    chance = random.Random(5)
    words = [b"%d" % chance.randrange(10**6) + b" of the words that people write\n" for _ in range(length // 30)]
    return b"".join(words)[:length]


def test_a_kilobyte_of_text_in_noise_is_noticed() -> None:
    test = RandomnessTest()
    test.add(noise(MIB) + text(1500) + noise(MIB, 2))
    test.close()
    assert test.not_noise
    assert all(MIB <= window.end <= MIB + 2 * WINDOW for window in test.suspects if window.scale == PART)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor(1).compress], ids=["gzip", "zstd"])
def test_compressed_data_is_not_noise(pack: object) -> None:
    test = RandomnessTest()
    test.add(pack(text(4 * MIB)))  # type: ignore[operator]
    test.close()
    assert test.not_noise


def test_a_slight_bias_shows_only_in_the_whole_stream() -> None:
    """One byte of 128 is halved: no window of 64 KiB shows it."""
    data = numpy.frombuffer(noise(16 * MIB), numpy.uint8).copy()
    data[::128] >>= 1
    test = RandomnessTest()
    test.add(data.tobytes())
    test.close()
    assert [window.scale for window in test.suspects] == [16 * MIB]


def test_bytes_too_few_to_test_are_returned() -> None:
    test = RandomnessTest()
    test.add(noise(WINDOW + 5 * PART + 7))
    test.close()
    assert test.windows == 17 + 6 + 1 and len(test.rest) == 7
