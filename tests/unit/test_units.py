"""Quantities are read exactly, and what has two readings is refused with both."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario import units


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("512 B", 512),
        ("1.5 KiB", 1536),
        ("80GB", 80 * 10**9),
        ("186 GiB", 186 * 2**30),
        ("284208 MiB", 284208 * 2**20),
    ],
)
def test_sizes_are_whole_bytes(text: str, num_bytes: int) -> None:
    """Decimal and binary prefixes, with and without a space."""
    assert units.parse_bytes(text) == num_bytes


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    [
        ("800 Gb/s", 10**11),
        ("800Gbps", 10**11),
        ("3.35 TB/s", 3_350_000_000_000),
        ("1 b/s", None),
        ("8 bit/s", 1),
    ],
)
def test_bits_and_bytes_per_second_differ_by_eight(text: str, bytes_per_s: int | None) -> None:
    """A small b is a bit; a rate that is no whole number of bytes/s is refused rather than rounded."""
    if bytes_per_s is None:
        with pytest.raises(InvalidInputError, match="not a whole number of bytes/s"):
            units.parse_bytes_per_s(text)
    else:
        assert units.parse_bytes_per_s(text) == bytes_per_s


def test_a_rate_without_its_unit_names_both_readings() -> None:
    """800G could be bits or bytes; neither is taken."""
    with pytest.raises(InvalidInputError) as caught:
        units.parse_bytes_per_s("800G")

    assert "2 readings" in str(caught.value)
    assert "'800 Gb/s' for bits, or '800 GB/s' for bytes" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("500 ns", 500),
        ("3.5 us", 3500),
        ("0.25 ms", 250_000),
        ("2 h", 7_200 * 10**9),
        ("1 d", 86_400 * 10**9),
    ],
)
def test_times_are_whole_nanoseconds(text: str, ns: int) -> None:
    """From nanoseconds to days."""
    assert units.parse_ns(text) == ns


def test_tokens_may_stand_bare_but_a_batch_may_not() -> None:
    """4096 tokens need no unit; a batch of 1024 could be sequences or tokens."""
    assert units.parse_tokens(4096) == units.parse_tokens("4096 tokens") == units.parse_tokens("4Ki tokens")
    assert units.parse_batch("2k sequences") == units.Batch(2000, units.BatchUnit.SEQUENCES)
    assert units.parse_batch("4Mi tokens") == units.Batch(4 * 2**20, units.BatchUnit.TOKENS)
    with pytest.raises(InvalidInputError, match="the unit is missing"):
        units.parse_batch(1024)


@pytest.mark.parametrize(
    "text",
    ["", "GB", "-1 B", "1e30 GB", "1 2 B", "0x10 B", "nan B", "inf B", "1,5 GB", "12:30", None, True, [1]],
)
def test_what_is_no_size_is_refused(text: object) -> None:
    """No text and no other type gets through as a number."""
    with pytest.raises(InvalidInputError):
        units.parse_bytes(text)


@given(st.integers(0, 2**62))
def test_what_is_shown_reads_back_to_the_same_number(value: int) -> None:
    """Printing loses nothing."""
    assert units.parse_bytes(units.show_bytes(value)) == value
    assert units.parse_bytes_per_s(units.show_bytes_per_s(value)) == value
    assert units.parse_flop_per_s(units.show_flop_per_s(value)) == value
    assert units.parse_ns(units.show_ns(value)) == value
