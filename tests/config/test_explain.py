"""Every mistake in a config is an error that names file, line, key, what is allowed and what is nearest."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_bt.config.load import load_config
from agent_bt.config.model import Config
from agent_bt.core.errors import ConfigError

# The config, the line of the mistake, and what the message must say.
MISTAKES = [
    ("llm:\n  provder: openai", 2, ["llm.provder", "did you mean llm.provider?", "api_key_env"]),
    ("llm:\n  provider: opnai", 2, ["llm.provider", "'opnai'", "openai, scripted, stand_in", "did you mean openai?"]),
    ("exection:\n  fill: close", 1, ["exection", "did you mean execution?"]),
    ("name: a\n\nfee_rate: 0.001", 3, ["fee_rate", "did you mean execution.fee_rate?"]),
    ("llm:\n  model: a\n  model: b", 3, ["llm.model", "twice", "line 2"]),
    ("name: a\nname: b", 2, ["'name'", "twice", "line 1"]),
    ("risk:\n  max_position: 50", 2, ["risk.max_position", "at most 1", "0.5"]),
    ("risk:\n  stop_loss: 5", 2, ["risk.stop_loss", "less than 1", "0.05"]),
    ("execution:\n  fee_rate: 0.1", 2, ["execution.fee_rate", "less than 0.1", "0.001"]),
    ("execution:\n  fee_rate: 0.1%", 2, ["'0.1%'", "write a fraction: 0.001"]),
    ("execution:\n  slippage_bps: 0.05%", 2, ["write basis points: 5"]),
    ("execution:\n  slippage_bps: 5bps", 2, ["without the unit: 5"]),
    ("execution:\n  funding: no", 2, ["execution.funding", "'no'", "write false"]),
    ("execution:\n  funding: On", 2, ["'On'", "write true"]),
    ("execution:\n  funding: 1", 2, ["must be true or false, got 1"]),
    ("execution:\n  fill: open", 2, ["close, next_open"]),
    ("strategy:\n  every: 60", 2, ["strategy.every must have a unit", "1h"]),
    ("strategy:\n  every: 1 fortnight", 2, ["not a duration"]),
    ("strategy:\n  every: 1M", 2, ["months"]),
    ("strategy:\n  every: 90s", 2, ["strategy.every (90s)", "multiple", "market.interval (1m)"]),
    ("strategy:\n  every: 12:30", 2, ["'12:30' is not a duration"]),
    ("market:\n  interval: 2m", 2, ["'2m'", "1m, 5m, 15m, 1h, 4h, 1d"]),
    ("market:\n  interval: 1m\n  start: 2024-13-01", 3, ["market.start", "2024-13-01"]),
    ("market:\n  start: 20240701", 2, ["market.start must be a date"]),
    ("market:\n  start: 2024-10-01", 2, ["before end"]),
    ("market:\n  start: 2024-07-01T00:00:30Z", 2, ["beginning of a bar"]),
    ("market:\n  symbol: BTC/USDT", 2, ["BTC/USDT", "BTCUSDT"]),
    ("market:\n  symbol: 7", 2, ["market.symbol must be text", "quotes"]),
    ("market:\n  symbol:", 2, ["market.symbol", "BTCUSDT"]),
    ("market: spot", 1, ["market", "section"]),
    ("mode: cross_section", 1, ["'cross_section'", "did you mean cross_sectional?"]),
    ("market:\n  kind: um\nrisk:\n  max_gross: 3", 4, ["risk.max_gross", "risk.max_leverage"]),
    ("risk:\n  allow_short: true", 2, ["risk.allow_short", "market.kind: um"]),
    ("rebalance: weekly", 1, ["'weekly'", "W-MON"]),
    ("pool:\n  reselect: 1M", 2, ["'1M'", "MS"]),
    ("pool:\n  enabled: true", 2, ["pool.enabled", "mode: cross_sectional"]),
    ("market:\n  symbols: [BTCUSDT, BTCUSDT]", 2, ["BTCUSDT twice"]),
    ("mode: cross_sectional\nrebalance: 30m\nmarket: {interval: 1h}\nstrategy: {every: 1h}", 2, ["rebalance (30m)"]),
    ("account:\n  cash: 10_000", 2, ["account.cash", "separators: 10000"]),
    ("account:\n  cash: 0", 2, ["account.cash", "more than 0"]),
    ("account:\n  cash: .inf", 2, ["account.cash must be a finite number"]),
    ("account:\n  cash: .nan", 2, ["account.cash must be a finite number"]),
    ("llm:\n  timeout_s: 30s", 2, ["llm.timeout_s", "without the unit: 30"]),
    ("llm:\n  retries: 3.5", 2, ["llm.retries must be an integer"]),
    ("llm:\n  retries: '3'", 2, ["without quotes", "3"]),
    ("llm:\n  retries: true", 2, ["llm.retries must be an integer"]),
    ("llm:\n  max_tokens: 0", 2, ["at least 1"]),
    ("llm:\n  max_tokens: 0512", 2, ["'0512'", "512"]),
    ("llm:\n  base_url: localhost:8000", 2, ["llm.base_url", "https://host/path"]),
    ("pool:\n  include: BTCUSDT", 2, ["pool.include", "list"]),
    ("seed: -1", 1, ["seed", "at least 0"]),
    ("name: a b", 1, ["'a b'", "letters"]),
    ("features:\n  ema_slow: 10", 2, ["ema_fast (12)", "ema_slow (10)"]),
    ("name: a\n- b", 2, []),
    ("name: a\n\tseed: 3", 2, ["tab", "spaces"]),
    ("name: a: b", 1, ["quote"]),
    ("- name", 1, ["mapping of sections"]),
    ("just text", 1, ["mapping of sections"]),
    ("name: a\n---\nname: b", 2, ["one document"]),
    ("name: *somewhere", 1, ["somewhere", "anchor"]),
    ("name: !!python/name:os.system x", 1, ["tag"]),
    ("name: {a: &a [*a]}", 1, ["contains itself"]),
    ("name: 'a\n\nseed: 3\n", 1, ["quote", "not closed"]),
]


def error_of(folder: Path, text: str) -> str:
    file = folder / "broken.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file, env={})
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(("text", "line", "parts"), MISTAKES, ids=[repr(text) for text, _, _ in MISTAKES])
def test_a_mistake_names_its_place_and_the_way_out(tmp_path: Path, text: str, line: int, parts: list[str]) -> None:
    message = error_of(tmp_path, text)
    assert f"broken.yaml, line {line}: " in message
    for part in parts:
        assert part in message


def test_all_errors_of_a_file_come_at_once(tmp_path: Path) -> None:
    message = error_of(tmp_path, "nme: x\nllm:\n  provider: gpt\n  seed: 1\n  seed: 2\nrisk:\n  stop_loss: 5\n")
    assert {line.split(":")[0] for line in message.splitlines()} == {f"broken.yaml, line {n}" for n in (1, 3, 5, 7)}


def test_ten_errors_are_enough(tmp_path: Path) -> None:
    lines = error_of(tmp_path, "".join(f"wrong_{n}: 1\n" for n in range(14))).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and 4 more"


def test_the_error_is_the_same_in_a_flow_mapping(tmp_path: Path) -> None:
    assert "broken.yaml, line 3: execution.fill" in error_of(tmp_path, "execution: {\n  fee_rate: 0,\n  fill: now}")


SECRETS = [
    "llm:\n  api_key: sk-verysecretverysecret",
    "llm:\n  api_key_env: sk-verysecretverysecret",
    "llm:\n  params:\n    extra_headers: {Authorization: Bearer verysecretverysecret}",
    "llm:\n  params: {apiKey: verysecretverysecret, api-key: verysecretverysecret}",
    "llm:\n  params:\n    note: sk-verysecretverysecret",
    "llm:\n  base_url: https://user:verysecret@host/v1",
    "llm:\n  base_url: https://host/v1?api_key=verysecret",
    "data:\n  archive_url: https://user:verysecret@host/data",
    "password: verysecret",
    "llm:\n  model: [sk-verysecretverysecret]",
    "llm:\n  provider: sk-verysecretverysecret",
]


@pytest.mark.parametrize("text", SECRETS)
def test_key_material_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    message = error_of(tmp_path, text)
    assert "verysecret" not in message
    assert "line " in message


@pytest.mark.parametrize("text", [s for s in SECRETS if "model" not in s and "provider" not in s])
def test_key_material_is_pointed_to_the_environment(tmp_path: Path, text: str) -> None:
    assert "environment" in error_of(tmp_path, text)


def test_a_validation_error_of_pydantic_does_not_show_the_value() -> None:
    with pytest.raises(ValueError, match="credentials") as caught:
        Config.model_validate({"llm": {"base_url": "https://user:verysecret@host"}})
    assert "verysecret" not in str(caught.value)


def test_parameters_that_only_sound_like_keys_are_allowed(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("llm:\n  params: {prompt_cache_key: run, max_completion_tokens: 9, top_k: 3}\n")
    assert load_config(file, env={}).llm.params == {"prompt_cache_key": "run", "max_completion_tokens": 9, "top_k": 3}


def test_a_missing_file_is_named_with_its_likely_neighbour(tmp_path: Path) -> None:
    (tmp_path / "backtest.yaml").touch()
    with pytest.raises(ConfigError, match=r"no config file .*bactest.yaml; did you mean .*backtest.yaml"):
        load_config(tmp_path / "bactest.yaml", env={})
    with pytest.raises(ConfigError, match=r"no config file .*backtest.yml; did you mean .*backtest.yaml"):
        load_config(tmp_path / "backtest.yml", env={})
    with pytest.raises(ConfigError, match=r"no config file .*nope.yaml; there is .*backtest.yaml"):
        load_config(tmp_path / "nope.yaml", env={})


def test_a_folder_and_a_binary_file_are_no_configs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path, env={})
    (tmp_path / "c.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(tmp_path / "c.yaml", env={})


def test_a_file_that_grows_through_its_aliases_is_refused(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    assert "too many for a config" in error_of(tmp_path, bomb)
    assert "nested too deeply" in error_of(tmp_path, "name: " + "[" * 5000)
