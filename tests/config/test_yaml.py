"""YAML is read by the core schema of version 1.2; what is written is read back the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.config.load import config_to_yaml, load_config
from agent_bt.config.model import Config
from agent_bt.config.yaml import dump_yaml, parse_yaml

# What is written, what it is: YAML 1.2.2, section 10.3.2 (core schema), with `017` text instead of a decimal.
SCALARS = [
    ("1e-4", 1e-4),
    ("1E5", 1e5),
    ("-1.5e+3", -1500.0),
    (".5", 0.5),
    ("5.", 5.0),
    ("0", 0),
    ("-7", -7),
    ("+12", 12),
    ("0o17", 15),
    ("0x1F", 31),
    ("017", "017"),
    ("1_000", "1_000"),
    ("12:30", "12:30"),
    ("1:30:00", "1:30:00"),
    ("50%", "50%"),
    ("no", "no"),
    ("yes", "yes"),
    ("on", "on"),
    ("off", "off"),
    ("y", "y"),
    ("NO", "NO"),
    ("true", True),
    ("False", False),
    ("tRUE", "tRUE"),
    ("null", None),
    ("~", None),
    ("", None),
    ("none", "none"),
    ("2024-07-01", "2024-07-01"),
    ("2024-07-01T12:00:00Z", "2024-07-01T12:00:00Z"),
    ("'1'", "1"),
    ('"true"', "true"),
    ("!!str 12", "12"),
    (".inf", math.inf),
    ("-.INF", -math.inf),
    ("1.2.3", "1.2.3"),
    ("0b11", "0b11"),
    ("=", "="),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_a_scalar_is_what_yaml_1_2_says(text: str, value: Any) -> None:
    document = parse_yaml(f"key: {text}\n")
    assert document.problems == []
    assert document.data == {"key": value}
    assert type(document.data["key"]) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(parse_yaml("key: .NaN").data["key"])


@pytest.mark.parametrize("key", ["on", "no", "1", "null", "true", "2024-07-01"])
def test_keys_are_text(key: str) -> None:
    assert parse_yaml(f"{key}: 1").data == {key: 1}


def test_an_anchor_and_a_merge_work_and_own_keys_win() -> None:
    text = "base: &base {a: 1, b: 2}\nmore: &more {c: 3}\nboth:\n  b: 9\n  <<: [*base, *more]\nsame: *base\n"
    document = parse_yaml(text)
    assert document.problems == []
    assert document.data["both"] == {"a": 1, "b": 9, "c": 3}
    assert document.data["same"] == {"a": 1, "b": 2}
    assert document.lines["both", "b"] == 4
    assert document.lines["both", "a"] == 1


def test_every_value_has_its_line() -> None:
    document = parse_yaml("a: 1\nb:\n  c:\n    - x\n    - {d: 2}\n\ne: 3\n")
    assert document.lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 0): 4,
        ("b", "c", 1): 5,
        ("b", "c", 1, "d"): 5,
        ("e",): 7,
    }


@pytest.mark.parametrize(
    "text", ["", "# nothing but a comment\n", "---\n", "\ufeff", "{}", "market:\nllm:\n", "llm:\n  prices:\n"]
)
def test_an_empty_file_or_section_holds_the_defaults(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text, encoding="utf-8")
    assert load_config(file, env={}) == Config()


def test_windows_line_ends_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbfname: a\r\nllm:\r\n  seed: 3\r\n")
    assert load_config(file, env={}).llm.seed == 3


def test_merged_sections_are_validated_like_others(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("execution: &e {fee_rate: 0.002}\nrisk: {stop_loss: 0.1}\naccount: {cash: 1e4}\n")
    config = load_config(file, env={})
    assert (config.execution.fee_rate, config.risk.stop_loss, config.account.cash) == (0.002, 0.1, 10_000.0)


def test_what_is_left_out_equals_the_default_written_down(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "llm: {temperature: 0, timeout_s: 30}\naccount: {cash: 10000}\nmarket: {start: 2024-07-01T00:00Z}\n"
    )
    written = load_config(file, env={})
    assert written.model_dump_json() == Config().model_dump_json()


def test_the_resolved_config_is_read_back_the_same(tmp_path: Path) -> None:
    overrides = ["llm.base_url=http://127.0.0.1:1/v1", "llm.params.stop=[no, '1e-4', 12:30]", "execution.lot_step=1e-8"]
    config = load_config(None, [*overrides, "name=no", "llm.model=1e-4", "pool.include=[ETHUSDT]"], {})
    file = tmp_path / "config.yaml"
    file.write_text(config_to_yaml(config), encoding="utf-8")
    assert load_config(file, env={}) == config


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
traps = st.sampled_from(
    [text for text, _ in SCALARS] + ["<<", "- a", "a: b", "#x", "&a", "*a", "!t", "|", "'", '"', "\t", "\n"]
)


@settings(max_examples=50)
@given(st.dictionaries(traps | st.text(max_size=8), plain | traps, max_size=6))
def test_all_data_that_is_dumped_is_read_back(data: dict[str, Any]) -> None:
    document = parse_yaml(dump_yaml(data))
    assert document.problems == []
    assert document.data == data


@settings(max_examples=50)
@given(st.text(alphabet="ab:-{}[],&*!|>'\"%@`#? \n\t<", max_size=60))
def test_the_reader_handles_any_text(text: str) -> None:
    document = parse_yaml(text)
    assert all(problem.line >= 1 for problem in document.problems)
