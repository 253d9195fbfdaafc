"""`agent-bt init` writes a folder that runs: valid config, readable prompt, at most three questions."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent_bt.agents.prompt import load_prompt, prompt_roots
from agent_bt.cli.init import provider_models, starter_files
from agent_bt.cli.main import app
from agent_bt.config.load import load_config
from agent_bt.config.model import Config


def answered(folder: Path, answers: str, *options: str) -> Config:
    """Return the config that init writes for some answers; fail if a question was not answered."""
    result = CliRunner().invoke(app, ["init", str(folder), *options], input=answers)
    assert result.exit_code == 0, result.output
    return load_config(folder / "backtest.yaml", env={})


def test_without_questions_the_shipped_config_is_written(tmp_path: Path) -> None:
    config = answered(tmp_path / "a", "", "--yes")
    shipped = load_config(Path(__file__).parents[2] / "configs" / "backtest.yaml", env={})
    own = config.model_copy(
        update={"name": shipped.name, "strategy": config.strategy.model_copy(update={"prompt": "btcusdt_trader/v1"})}
    )
    assert own == shipped


@pytest.mark.parametrize("provider", provider_models())
@pytest.mark.parametrize("source", ["sample", "store"])
def test_three_answers_make_a_valid_config(tmp_path: Path, provider: str, source: str) -> None:
    model = "" if provider == "stand_in" else "some: model\n"
    config = answered(tmp_path, f"nonsense\n{provider}\n{model}{source}\n")
    assert config.market.source == source
    assert config.llm.model == ("baseline" if provider == "stand_in" else "some: model")
    assert config.llm.provider == {"stand_in": "stand_in", "local_gguf": "llama_cpp"}.get(provider, "openai")
    assert (tmp_path / ".env.example").exists() == (provider in ("openai", "openrouter"))


def test_the_providers_are_the_shipped_configs_with_their_models() -> None:
    shipped = sorted((Path(__file__).parents[2] / "configs" / "providers").glob("*.yaml"))
    models = {path.stem: load_config(path, env={}).llm.model for path in shipped}
    assert list(provider_models().items()) == [("stand_in", "baseline"), *models.items()]


@pytest.mark.parametrize("provider", [name for name in provider_models() if name != "stand_in"])
def test_a_starter_config_has_the_model_settings_of_the_shipped_one(tmp_path: Path, provider: str) -> None:
    shipped = load_config(Path(__file__).parents[2] / "configs" / "providers" / f"{provider}.yaml", env={})
    path = tmp_path / "backtest.yaml"
    path.write_text(starter_files(provider, shipped.llm.model, "sample")["backtest.yaml"])
    written = load_config(path, env={})
    assert (written.llm, written.prefetch, written.budget) == (shipped.llm, shipped.prefetch, shipped.budget)


def test_the_prompt_is_a_copy_that_can_be_loaded(tmp_path: Path) -> None:
    config = answered(tmp_path, "", "--yes")
    prompt = load_prompt(config.strategy.prompt, prompt_roots(tmp_path / "backtest.yaml"))
    assert prompt.path.resolve() == (tmp_path / "prompts" / "my_trader" / "v1.prompty").resolve()
    assert prompt.name == "my_trader"
    assert "prompt: my_trader/v1      # prompts/my_trader/v1.prompty\n" in (tmp_path / "backtest.yaml").read_text()


def test_the_config_is_commented_and_has_its_schema_next_to_it(tmp_path: Path) -> None:
    answered(tmp_path, "", "--yes")
    text = (tmp_path / "backtest.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    assert (tmp_path / "schema.json").is_file()
    assert text.count("  # ") > 15


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    answered(tmp_path, "", "--yes")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = CliRunner().invoke(app, ["init", str(tmp_path), "--yes"])
    assert result.exit_code != 0
    assert "would be overwritten" in str(result.exception)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_an_existing_gitignore_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n")
    answered(tmp_path, "", "--yes")
    assert (tmp_path / ".gitignore").read_text() == "mine\n"
