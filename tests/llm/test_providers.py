"""Model providers: those that are shipped, a user's own by import path, and one that is dropped into the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_run import clean_env, small_config

from agent_bt.backtest.estimate import estimate
from agent_bt.backtest.preview import validate
from agent_bt.backtest.replay import replay
from agent_bt.backtest.run import run_config
from agent_bt.config.load import load_config
from agent_bt.config.model import LLMConfig
from agent_bt.config.values import PROVIDERS
from agent_bt.core.errors import BudgetReached, ConfigError, ReplayError
from agent_bt.core.types import Request
from agent_bt.llm import providers
from agent_bt.llm.endpoints import Endpoints
from agent_bt.llm.ledger import read_spent
from agent_bt.llm.provider import Provider, get_provider, is_embedded
from agent_bt.records.read import load_run
from agent_bt.records.run_folder import RunFolder

OWN = '''
"""A provider of one's own, in one file."""

from pathlib import Path

from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request
from agent_bt.llm.provider import Provider
from agent_bt.llm.scripted import ScriptedLLM


class Constant(Provider):
    banner = "CONSTANT MODEL: every reply is the same"

    def open(self) -> LLM:
        with Path("opened.txt").open("a") as file:
            file.write("opened\\n")
        return ScriptedLLM(lambda request: '{"action": "BUY", "size_pct": 0.25}')


NotOne = ScriptedLLM


class Unfinished(Provider):
    pass
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module with a user's provider, in the working directory; another one in each test."""
    name = f"own_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return name


def test_every_module_of_the_package_registers_a_provider_of_its_name() -> None:
    assert set(PROVIDERS.names()) >= {"openai", "scripted", "stand_in"}
    for name in PROVIDERS.names():
        assert issubclass(PROVIDERS.load(name), Provider)


@pytest.mark.parametrize(
    ("name", "embedded", "endpoint", "access"),
    [
        ("stand_in", True, "stand_in", "none needed (stand_in)"),
        ("scripted", True, "scripted", "none needed (scripted)"),
        ("openai", False, "api.openai.com", "OPENAI_API_KEY is set"),
        ("llama_cpp", False, "llama_cpp/baseline", "none needed (llama_cpp)"),
    ],
)
def test_what_differs_between_providers_is_asked_of_them(
    name: str, embedded: bool, endpoint: str, access: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret")
    provider = get_provider(LLMConfig(provider=name))
    assert (provider.embedded, provider.endpoint_id, provider.check_access()) == (embedded, endpoint, access)
    assert provider.prices().priced == (embedded or name == "llama_cpp")
    assert (provider.banner is not None) == embedded
    assert provider.negotiates == (not embedded)


def test_the_key_of_a_negotiation_is_what_caches_hold() -> None:
    config = LLMConfig(provider="openai", base_url="http://localhost:8000/v1", model="m", seed=3, params={"top_p": 1})
    parameters = ["max_tokens", "model", "seed", "temperature", "top_p"]
    assert get_provider(config).negotiation_key() == ["ladder", "openai", "localhost:8000", "m", "auto", parameters]


def test_looking_at_a_provider_loads_no_client_library() -> None:
    code = (
        "import sys; from agent_bt.config.model import LLMConfig; from agent_bt.llm.provider import get_provider\n"
        "get_provider(LLMConfig(provider='openai')).check()\n"
        "print(sorted({'openai', 'httpx', 'genai_prices'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean_env(), timeout=300, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_users_own_provider_runs_is_cached_and_replays(own: str, tmp_path: Path) -> None:
    path = small_config(tmp_path, None, llm__provider=f"{own}:Constant", strategy__every="2h")
    config = load_config(path)
    ended = run_config(config)
    summary = ended.summary
    assert summary["about"]["model"] == f"{own}:Constant/baseline"
    assert "CONSTANT MODEL: every reply is the same" in summary["banners"]
    assert set(load_run(ended.run_dir).decisions["action"]) == {"BUY"}
    decisions = summary["decisions"]["total"]
    spent = read_spent(RunFolder(ended.run_dir).ledger)
    assert spent.calls >= decisions > 0
    assert spent.usd is None  # no price is known: unpriced, and not free
    assert replay(ended.run_dir).identical

    opened = (tmp_path / "opened.txt").read_text()
    again = run_config(config, fresh=True, offline=True)
    assert again.summary["hashes"] == summary["hashes"]
    assert (tmp_path / "opened.txt").read_text() == opened
    with pytest.raises(ReplayError, match="no stored reply"):
        run_config(load_config(path, ["llm.seed=1"]), offline=True)


def test_a_budget_covers_a_users_own_provider(own: str, tmp_path: Path) -> None:
    path = small_config(tmp_path, None, llm__provider=f"{own}:Constant", budget__calls=3, prefetch__depth=0)
    assert isinstance(run_config(load_config(path)).error, BudgetReached)
    with pytest.raises(ConfigError, match="price of baseline is not known"):
        run_config(load_config(path, ["budget.usd=1"]), fresh=True)


def test_an_estimate_asks_a_users_own_provider_for_its_prices(own: str, tmp_path: Path) -> None:
    path = small_config(tmp_path, None, llm__provider=f"{own}:Constant", strategy__every="2h")
    unpriced = estimate(load_config(path))
    assert (unpriced.calls, unpriced.cost_usd) == (unpriced.decisions, None)
    priced = estimate(load_config(path, ["llm.prices={input: 1, output: 2}"]))
    assert priced.cost_usd == pytest.approx((priced.prompt_tokens + 2 * priced.completion_tokens) / 1e6)
    assert not (tmp_path / "opened.txt").exists()


def test_a_provider_is_one_file_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = OWN.replace("class Constant", '@provider("constant_model")\nclass Constant').replace(
        "import Provider", "import Provider, provider"
    )
    (tmp_path / "constant_model.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(providers, "__path__", [*providers.__path__, str(tmp_path)])
    monkeypatch.setattr(PROVIDERS, "_registered", dict(PROVIDERS._registered))
    path = small_config(tmp_path, None, llm__provider="constant_model", strategy__every="4h")
    try:
        assert "CONSTANT MODEL: every reply is the same" in run_config(load_config(path)).summary["banners"]
    finally:
        sys.modules.pop("agent_bt.llm.providers.constant_model", None)


def test_two_providers_that_share_the_name_of_an_endpoint_keep_their_own_clients(own: str, tmp_path: Path) -> None:
    config = load_config(small_config(tmp_path, None))
    endpoints = Endpoints(config)
    names = (f"{own}:Constant", "scripted")
    try:
        for name in names:
            llm = LLMConfig(provider=name, endpoint_id="same", params={"replies": ["one", "two"]})
            connection = endpoints.connect(get_provider(llm), known=None, key=[], negotiate=lambda _: {})
            assert (connection.negotiated, connection.probes) == (None, 0)
        body = {"model": "baseline", "messages": [], "max_tokens": 5}
        replies = [endpoints.llm.complete(Request(provider=name, endpoint_id="same", body=body)) for name in names]
        assert [reply.text for reply in replies] == ['{"action": "BUY", "size_pct": 0.25}', "one"]
    finally:
        endpoints.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{own}:Nobody", "has no class Nobody"),
        ("{own}:NotOne", "is not a provider; derive the class from"),
        ("{own}:Unfinished", "cannot be made: TypeError"),
        ("no_such_module:Nobody", "there is no module no_such_module"),
        ("os:system", "is not a provider"),
    ],
)
def test_what_is_not_a_provider_is_refused_before_a_market_is_loaded(
    own: str, tmp_path: Path, name: str, message: str
) -> None:
    config = load_config(small_config(tmp_path, None, llm__provider=name.format(own=own)))
    with pytest.raises(ConfigError, match=message):
        run_config(config)
    assert any(finding.level == "error" and message in finding.what for finding in validate(config))


@pytest.mark.parametrize("name", ["my module:X", "module:", ":Class", "a:b:c", "nobody", ""])
def test_a_name_that_cannot_be_a_provider_is_refused_when_the_config_is_read(name: str) -> None:
    with pytest.raises(ConfigError, match=r"llm\.provider: .* is not one of .*openai.*, or module"):
        load_config(None, [f"llm.provider={name!r}"], env={})


@pytest.mark.parametrize(
    ("llm", "message"),
    [
        ({"params": {"eagernes": 1}}, "did you mean eagerness"),
        ({"model": "gpt"}, "no model 'gpt'"),
        ({"provider": "scripted"}, "llm.params.replies"),
        ({"provider": "openai", "params": {"stream": True}}, "llm.params.stream is set by agent-bt itself"),
    ],
)
def test_validate_finds_parameters_that_do_not_fit_the_provider(
    tmp_path: Path, llm: dict[str, object], message: str
) -> None:
    changes = {f"llm__{key}": value for key, value in llm.items()}
    findings = validate(load_config(small_config(tmp_path, None, **changes)))
    assert any(finding.level == "error" and message in finding.what for finding in findings)


def test_reading_a_record_does_not_import_its_provider(own: str) -> None:
    assert not is_embedded(LLMConfig(provider=f"{own}:Constant"))
    assert own not in sys.modules
    assert is_embedded(LLMConfig(provider="stand_in"))
    assert not is_embedded(LLMConfig(provider="openai"))
