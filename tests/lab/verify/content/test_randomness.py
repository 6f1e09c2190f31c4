"""Noise is taken for noise as seldom not as is said, and nothing else is."""

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
    return numpy.random.default_rng(seed).bytes(length)  # type: ignore[no-any-return]


def exceeds(chi_square: float, freedom: int = 255) -> float:
    """The exact probability, by adding up the density."""
    half = freedom / 2
    scale = half * math.log(2) + math.lgamma(half)
    points = numpy.linspace(chi_square, chi_square + 3000, 3_000_001)
    density = numpy.exp((half - 1) * numpy.log(points) - points / 2 - scale)
    return float(numpy.trapezoid(density, points) if hasattr(numpy, "trapezoid") else numpy.trapz(density, points))


@pytest.mark.parametrize("chance", [1e-3, 1e-6, 1e-9, CHANCE])
def test_the_limit_is_what_chance_says(chance: float) -> None:
    assert exceeds(limit(chance)) == pytest.approx(chance, rel=0.1)


@pytest.mark.parametrize(("chance", "windows"), [(0.01, 4096 * 17), (1e-3, 4096 * 17)])
def test_noise_is_mistaken_as_often_as_is_said(chance: float, windows: int) -> None:
    """At a chance that can be counted: 16 parts and one window for each 64 KiB."""
    judge = RandomnessTest(chance)
    for seed in range(windows // 17 // 64):
        judge.add(noise(64 * WINDOW, seed))
    judge.close()
    assert judge.windows == windows + 1
    spread = math.sqrt(windows * chance)
    # With 16 of each value in 4 KiB the tail is a little heavier than chi-square's.
    assert windows * chance - 5 * spread < judge.not_noise < 1.25 * windows * chance + 5 * spread


def test_a_quarter_of_a_gigabyte_of_noise() -> None:
    judge = RandomnessTest()
    for seed in range(64):
        judge.add(noise(4 * MIB, seed))
    judge.close()
    assert judge.windows > 69_000 and judge.not_noise == 0


def text(length: int) -> bytes:
    chance = random.Random(5)
    words = [b"%d" % chance.randrange(10**6) + b" of the words that people write\n" for _ in range(length // 30)]
    return b"".join(words)[:length]


def test_a_kilobyte_that_can_be_read_is_not_averaged_away() -> None:
    judge = RandomnessTest()
    judge.add(noise(MIB) + text(1500) + noise(MIB, 2))
    judge.close()
    assert judge.not_noise
    assert all(MIB <= verdict.end <= MIB + 2 * WINDOW for verdict in judge.suspects if verdict.scale == PART)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor(1).compress], ids=["gzip", "zstd"])
def test_compressed_is_no_noise(pack: object) -> None:
    judge = RandomnessTest()
    judge.add(pack(text(4 * MIB)))  # type: ignore[operator]
    judge.close()
    assert judge.not_noise


def test_a_slight_leaning_shows_in_the_whole_only() -> None:
    """One byte of 128 is made smaller: no window of 64 KiB shows it."""
    data = numpy.frombuffer(noise(16 * MIB), numpy.uint8).copy()
    data[::128] >>= 1
    judge = RandomnessTest()
    judge.add(data.tobytes())
    judge.close()
    assert [verdict.scale for verdict in judge.suspects] == [16 * MIB]


def test_a_rest_is_handed_back() -> None:
    judge = RandomnessTest()
    judge.add(noise(WINDOW + 5 * PART + 7))
    judge.close()
    assert judge.windows == 17 + 6 + 1 and len(judge.rest) == 7
