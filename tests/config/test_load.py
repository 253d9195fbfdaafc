"""Where a setting comes from: `--set` over environment over `.env` over YAML over defaults."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent_bt.config.load import PREFIX, config_schema, load_config
from agent_bt.config.model import Config
from agent_bt.core.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment without settings that is put back afterwards."""
    monkeypatch.chdir(tmp_path)
    for name in [*os.environ]:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def config_file(workplace: Path) -> Path:
    file = workplace / "c.yaml"
    file.write_text("llm:\n  model: from-yaml\n  params: {top_p: 0.1, stop: x}\n")
    return file


def test_each_source_takes_precedence_over_the_one_before(
    workplace: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_config().llm.model == "baseline"
    assert load_config(config_file).llm.model == "from-yaml"
    (workplace / ".env").write_text("AGENT_BT_LLM__MODEL=from-dotenv\n")
    assert load_config(config_file).llm.model == "from-dotenv"
    monkeypatch.setenv("AGENT_BT_LLM__MODEL", "from-environment")
    assert load_config(config_file).llm.model == "from-environment"
    assert load_config(config_file, ["llm.model=from-set"]).llm.model == "from-set"
    assert load_config(config_file, ["llm.model=a", "llm.model=b"]).llm.model == "b"


def test_free_form_parameters_are_merged_key_by_key(config_file: Path) -> None:
    env = {"AGENT_BT_LLM__PARAMS__TOP_P": "0.9"}
    config = load_config(config_file, ["llm.params.stop=[a, b]", "llm.params.seed=3"], env)
    assert config.llm.params == {"top_p": 0.9, "stop": ["a", "b"], "seed": 3}


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("llm.model=4", "4"),
        ("llm.model=a=b", "a=b"),
        ('llm.model="a b"', "a b"),
        ("llm.model='4'", "4"),
        ("llm.model=null", "null"),
        ("llm.model=qwen3:8b", "qwen3:8b"),
        ("llm.base_url=null", None),
        ("llm.base_url=", None),
        ("llm.seed=3", 3),
        ("llm.seed=null", None),
        ("llm.temperature=1e-1", 0.1),
        ("strategy.every=4h", "4h"),
        ("market.start=2024-08-01", "2024-08-01"),
        ("risk.stop_loss=0.05", 0.05),
        ("execution.funding=false", False),
        ("pool.include=[BTCUSDT, ETHUSDT]", ("BTCUSDT", "ETHUSDT")),
        ("llm.response_format=text", "text"),
    ],
)
def test_text_from_the_command_line_or_environment_becomes_the_type_of_the_setting(
    override: str, value: object
) -> None:
    key, _, text = override.partition("=")
    section, name = key.split(".")
    variable = PREFIX + key.upper().replace(".", "__")
    assert getattr(getattr(load_config(None, [override], {}), section), name) == value
    assert getattr(getattr(load_config(None, (), {variable: text}), section), name) == value


def test_a_whole_section_can_be_set() -> None:
    config = load_config(None, ["prefetch={depth: 0}", "prefetch.max_waste=2"], {})
    assert (config.prefetch.depth, config.prefetch.max_waste, config.prefetch.guess) == (0, 2.0, "hold")


def test_another_kind_of_strategy_does_not_inherit_parameters(workplace: Path) -> None:
    (workplace / "c.yaml").write_text("strategy: {kind: ma_cross, params: {fast: 5, slow: 9}}")
    assert load_config("c.yaml", ["strategy.kind=rsi"]).strategy.params == {}
    assert load_config("c.yaml", ["strategy.kind=rsi", "strategy.params.period=7"]).strategy.params == {"period": 7}
    assert load_config("c.yaml", ["strategy.params.fast=6"]).strategy.params == {"fast": 6, "slow": 9}
    same = load_config("c.yaml", ["strategy.kind=ma_cross", "strategy.params.fast=6"])
    assert same.strategy.params == {"fast": 6, "slow": 9}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("llm.modle=x", ["--set llm.modle", "did you mean llm.model?"]),
        ("llm.model", ["--set", "dotted.path=value"]),
        ("=3", ["--set", "dotted.path=value"]),
        ("a..b=3", ["--set", "dotted.path=value"]),
        ("llm=3", ["--set llm", "section"]),
        ("llm.seed=abc", ["--set llm.seed", "'abc'", "must be an integer"]),
        ("llm.model.x=3", ["--set llm.model.x", "llm.model has no keys"]),
        ("execution.fee_rate={", ["--set execution.fee_rate", "cannot be read"]),
        ("llm.api_key=sk-verysecretverysecret", ["environment"]),
        ("llm.params.token=verysecret", ["environment"]),
    ],
)
def test_a_wrong_override_is_named_as_such(override: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override], {})
    for part in parts:
        assert part in str(caught.value)
    assert "verysecret" not in str(caught.value)


def test_a_wrong_value_from_the_environment_does_not_blame_the_file(config_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"environment AGENT_BT_LLM__SEED: llm\.seed must be an integer, got 'x'"):
        load_config(config_file, (), {"AGENT_BT_LLM__SEED": "x"})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("AGENT_BT_LLM_MODEL", "did you mean AGENT_BT_LLM__MODEL?"),
        ("AGENT_BT_EXECUTION__FEE", "did you mean AGENT_BT_EXECUTION__FEE_RATE?"),
        ("AGENT_BT_LLM__API_KEY", "keys come from the environment"),
        ("AGENT_BT_QQQQ", "write AGENT_BT_LLM__MODEL for llm.model"),
        ("AGENT_BT_LLM__PARAMS__", "not a setting"),
        ("AGENT_BT_", "not a setting"),
    ],
)
def test_an_unknown_variable_is_an_error_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        load_config(None, (), {name: "verysecret"})
    assert hint in str(caught.value)
    assert "verysecret" not in str(caught.value)


def test_variables_that_are_not_settings_are_left_alone() -> None:
    env = {"AGENT_BT_MARKET_DATA": "/x", "AGENT_BT_DEBUG": "1", "AGENT_BT_REQUIRE_ALL": "1", "OTHER": "x"}
    assert load_config(None, (), env) == Config()


def test_a_key_in_dotenv_reaches_the_provider_and_not_the_config(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "from-environment")
    monkeypatch.setenv("OTHER_KEY", "placeholder")
    monkeypatch.delenv("OTHER_KEY")
    (workplace / ".env").write_text("# keys\nexport OTHER_KEY='from dotenv'\nSOME_KEY=from-dotenv\n")
    config = load_config()
    assert os.environ["OTHER_KEY"] == "from dotenv"
    assert os.environ["SOME_KEY"] == "from-environment"
    assert "from" not in config.model_dump_json().replace("from_", "")


def test_a_setting_of_dotenv_stays_out_of_the_environment(workplace: Path) -> None:
    (workplace / ".env").write_text("AGENT_BT_SEED=11\n")
    assert load_config().seed == 11
    assert "AGENT_BT_SEED" not in os.environ


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("A=1\n\nAGENT_BT_LLM__SEED=x\n", [".env, line 3: AGENT_BT_LLM__SEED", "must be an integer"]),
        ("A=1\nAGENT_BT_SED=3\n", [".env, line 2: AGENT_BT_SED", "did you mean AGENT_BT_SEED?"]),
        ("A=1\nnot an assignment: verysecret\n", [".env, line 2", "NAME=value"]),
        ("AGENT_BT_SEED\n", [".env, line 1", "AGENT_BT_SEED"]),
    ],
)
def test_a_mistake_in_dotenv_names_its_line(workplace: Path, text: str, parts: list[str]) -> None:
    (workplace / ".env").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config()
    for part in parts:
        assert part in str(caught.value)
    assert "verysecret" not in str(caught.value)


RUN_CONFIGS = sorted(file for file in (ROOT / "configs").rglob("*.yaml") if not file.name.startswith(("ab", "sweep")))
"""Configs of a run; experiments and sweeps have their own form."""


@pytest.mark.parametrize("file", RUN_CONFIGS, ids=lambda file: file.name)
def test_a_shipped_config_is_valid_and_names_its_schema(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (file.parent / first.partition("$schema=")[2]).resolve() == ROOT / "configs" / "schema.json"
    load_config(file, env={})


def test_every_setting_has_a_description_in_the_schema() -> None:
    schema = config_schema()
    for name, section in {"Config": schema, **schema["$defs"]}.items():
        for key, entry in section["properties"].items():
            assert entry.get("description") or "$ref" in entry, f"{name}.{key}"
