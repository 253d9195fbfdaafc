"""The ranker: what its prompts show of the cross-section and the account, and the weights it gives."""

from __future__ import annotations

import json

import pytest
from panel_cases import FLAT, SYMBOLS, holding, panel_view, ranker

from agent_bt.agents.panel_context import PanelInput, style_of
from agent_bt.agents.prompt import load_prompt, prompt_roots
from agent_bt.agents.rank_reply import RANK_SCHEMA
from agent_bt.agents.ranker import VOLUME, describe_frequency
from agent_bt.core.errors import ConfigError, StrategyError
from agent_bt.core.protocols import AgentStrategy
from agent_bt.core.view import BAR_COLUMNS
from agent_bt.features.names import spec_of
from agent_bt.features.specs import KINDS
from agent_bt.llm.stand_in import StandInParams, answer
from agent_bt.llm.stand_in_panel import MALFORMED, read_panel

VIEW = panel_view(return_24=[0.0123, -0.5, float("nan"), -0.00001], eligible=(True, True, True, False))
REPLY = '{"weights": [{"symbol": "BUSDT", "weight": 0.75}], "note": "strong"}'


def last_of(agent: AgentStrategy, view: object = VIEW, account: object = FLAT) -> str:
    (request,) = agent.requests(view, account)  # type: ignore[arg-type]
    return request.messages[-1]["content"]


@pytest.mark.parametrize("version", ["v1", "v1-blind"])
def test_the_output_schemas_of_the_shipped_prompts_are_the_validated_one(version: str) -> None:
    prompt = load_prompt(f"panel_ranker/{version}", prompt_roots()[-1:])
    assert prompt.output == RANK_SCHEMA
    assert ("account.weights" in prompt.uses()) == (version == "v1")
    for short in (False, True):
        (request,) = ranker(prompt=f"panel_ranker/{version}", allow_short=short).requests(VIEW, FLAT)
        system = request.messages[0]["content"]
        assert "json" in system and '{"weights": [{"symbol":' in system and "every Monday" in system
        assert ("from -1 to 1" in system) == short == ("never short" not in system)


def test_the_table_shows_what_may_be_bought_with_fixed_decimals() -> None:
    account = holding(VIEW, BUSDT=0.254, DUSDT=0.1)
    assert last_of(ranker(), account=account) == (
        "3 symbols\n\nsymbol,price,return_24,weight\nAUSDT,100.00,1.23,0\nBUSDT,2.5000,-50.00,25\nCUSDT,0.00012345,na,0"
    )


def test_a_prompt_that_does_not_show_the_account_is_the_same_whatever_is_held() -> None:
    for prompt, alike in (("panel_ranker/v1-blind", True), ("panel_ranker/v1", False)):
        agent = ranker(prompt=prompt)
        flat, held = agent.requests(VIEW, FLAT), agent.requests(VIEW, holding(VIEW, AUSDT=0.5))
        assert (flat[0].address == held[0].address) == alike


def test_holdings_are_shown_coarse_and_without_scale() -> None:
    agent = ranker()
    larger = holding(VIEW, AUSDT=0.5)
    larger = type(larger)(
        cash=3 * larger.cash,
        positions={
            name: type(held)(quantity=3 * held.quantity, average_price=1.0, opened=77)
            for name, held in larger.positions.items()
        },
        fees=5.0,
    )
    assert last_of(agent, account=larger) == last_of(agent, account=holding(VIEW, AUSDT=0.5004))


def test_max_symbols_shows_only_the_largest() -> None:
    view = panel_view(return_24=[0, 0, 0, 0], **{VOLUME: [5.0, float("nan"), 7.0, 6.0]})
    agent = ranker(REPLY, max_symbols=2)
    assert agent.shown(view) == ("CUSDT", "DUSDT")
    assert VOLUME in [spec.column for spec in agent.features]
    assert VOLUME not in last_of(agent, view)
    # A symbol that was not shown is as strange as one that does not exist.
    assert agent.decide(view, FLAT).provenance.reason == "schema"
    assert ranker(max_symbols=9).shown(view) == SYMBOLS


def test_named_symbols_get_their_weights_and_all_others_none() -> None:
    decision = ranker(REPLY).decide(VIEW, holding(VIEW, AUSDT=0.5, DUSDT=0.3))
    assert decision.targets == {"AUSDT": 0.0, "BUSDT": 0.75, "CUSDT": 0.0, "DUSDT": 0.0}
    assert (decision.action, decision.note, decision.on_change) == ("TARGETS", "strong", False)
    nothing = ranker('{"weights": []}').decide(VIEW, FLAT)
    assert nothing.targets == dict.fromkeys(SYMBOLS, 0.0)


def test_no_request_is_sent_where_nothing_may_be_bought() -> None:
    view = panel_view(return_24=[0, 0, 0, 0], eligible=(False,) * 4)
    decision = ranker().decide(view, FLAT)
    assert decision.targets == dict.fromkeys(SYMBOLS, 0.0)
    assert decision.calls == ()


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"columns": ["return_24", "return_24"]}, ConfigError, "columns must not repeat a name"),
        ({"columns": ["weight"]}, ConfigError, "columns must not name weight: every table has it already"),
        ({"columns": ["retrun_24"]}, StrategyError, "did you mean return_24"),
        ({"columns": "return_24"}, ConfigError, "columns must be a list"),
        ({"max_symbols": 0}, ConfigError, "max_symbols must be at least 1, got 0"),
        ({"allow_short": 1}, ConfigError, "allow_short must be true or false, got 1"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ranker(**params)


@pytest.mark.parametrize(
    "column", [*BAR_COLUMNS, *(f"{kind}_{'_'.join('987'[: len(KINDS[kind].params)])}" for kind in KINDS)]
)
def test_every_column_has_a_format_and_a_description(column: str) -> None:
    spec = None if column in BAR_COLUMNS else spec_of(column.replace("9_8_7", "8_9_7"))
    name = column if spec is None else spec.column
    assert style_of(name, spec).words != (spec.kind if spec else "")
    view = panel_view(**{name: [1.0, 2.0, float("nan"), 0.5]})
    lines = PanelInput(view, SYMBOLS, {name: spec}).table().splitlines()
    assert [line.count(",") for line in lines] == [2] * 5
    assert column == "close" or lines[3].endswith(",na")


def test_frequencies_in_words() -> None:
    assert [describe_frequency(text) for text in ("W-FRI", "D", "MS", "QS", "4h")] == [
        "every Friday", "every day", "on the first day of every month", "on the first day of every quarter", "every 4h",
    ]  # fmt: skip


@pytest.mark.parametrize("short", [False, True])
def test_the_stand_in_ranks_and_every_malformed_reply_is_invalid(short: bool) -> None:
    agent = ranker(allow_short=short)
    for seed in range(20):
        view = panel_view(return_24=[0.1 * seed, 0.2, -0.3, 0.05 * seed])
        (request,) = agent.requests(view, FLAT)
        text = answer(request.messages, StandInParams(seed=seed))
        assert text == answer(request.messages, StandInParams(seed=seed))
        weights = ranker(text, allow_short=short).decide(view, FLAT).targets
        assert weights is not None and 0.99 < sum(map(abs, weights.values())) <= 1.0
        assert (min(weights.values()) < 0) == short
        for spoil in MALFORMED:
            assert ranker(spoil(text), allow_short=short).decide(view, FLAT).provenance.kind == "invalid", spoil(text)


def test_the_stand_in_follows_the_first_column_by_its_eagerness() -> None:
    (request,) = ranker().requests(panel_view(return_24=[0.1, 0.4, -0.3, 0.2]), FLAT)
    text = answer(request.messages, StandInParams(eagerness=1.0))
    assert [each["symbol"] for each in json.loads(text)["weights"]] == ["BUSDT"]
    panel = read_panel(request.messages[-1]["content"])
    assert panel is not None and panel.scores == (10.0, 40.0, -30.0, 20.0)
    assert read_panel("no table here") is None
