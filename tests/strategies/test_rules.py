"""Rules and technical presets against the same rule computed bar by bar in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from paper_market import FLAT, PaperMarket, noise_market, same_bits, traded_market

from agent_bt.core.errors import ConfigError, StrategyError
from agent_bt.core.types import Decision
from agent_bt.strategies.registry import create_strategy
from agent_bt.strategies.rules import OPERATORS, AnyOf, RuleCondition, RuleSignalGenerator, condition_of
from agent_bt.strategies.technical import PRESETS, TechnicalRuleGenerator

NAN = math.nan


def one_symbol(**columns: list[float]) -> PaperMarket:
    return PaperMarket({name: np.array(values)[:, None] for name, values in columns.items()})


def targets(strategy: Any, market: PaperMarket) -> list[Any]:
    """The targets of the first symbol, None where it is left alone."""
    wanted = strategy.decide_all(market, np.arange(len(market)))[:, 0].tolist()
    return [None if weight != weight else weight for weight in wanted]


COMPARED = {
    "<": [True, False, False, False, False],
    "<=": [True, True, False, False, False],
    ">": [False, False, True, False, False],
    ">=": [False, True, True, False, False],
    "==": [False, True, False, False, False],
    "!=": [True, False, True, False, False],
}


@pytest.mark.parametrize("value", [2.0, "volume"])
@pytest.mark.parametrize("operator", COMPARED)
def test_comparisons_with_numbers_and_columns_hold_nowhere_on_nan(operator: str, value: float | str) -> None:
    market = one_symbol(close=[1, 2, 3, NAN, NAN], volume=[2, 2, 2, 2, NAN])
    rule = RuleSignalGenerator(long=RuleCondition("close", operator, value))
    assert targets(rule, market) == [1.0 if held else None for held in COMPARED[operator]]


@pytest.mark.parametrize("value", [2.0, "volume"])
def test_a_cross_needs_the_other_side_or_equality_in_the_row_before(value: float | str) -> None:
    market = one_symbol(close=[3, 1, 3, 3, 2, 3, NAN, 3, 2, 1, 1], volume=[2.0] * 11)
    above = RuleSignalGenerator(long=RuleCondition("close", "crosses_above", value))
    below = RuleSignalGenerator(long=RuleCondition("close", "crosses_below", value))
    assert (above.lookback, below.lookback) == (2, 2)
    assert [at for at, weight in enumerate(targets(above, market)) if weight] == [2, 5]
    assert [at for at, weight in enumerate(targets(below, market)) if weight] == [1, 9]


def test_all_and_any_and_lists() -> None:
    market = one_symbol(close=[1, 5, 5, 1], volume=[1, 1, 5, 5])
    high = ["close > 3", "volume > 3"]
    assert targets(create_strategy("rule", long=high), market) == [None, None, 1.0, None]
    assert targets(create_strategy("rule", long={"all": high}), market) == [None, None, 1.0, None]
    assert targets(create_strategy("rule", long={"any": high}), market) == [None, 1.0, 1.0, 1.0]
    nested = ["close < 9", {"any": [*high, {"all": ["close == 1", "volume == 1"]}]}]
    assert targets(create_strategy("rule", long=nested), market) == [1.0] * 4


def test_precedence_of_long_exit_short_and_cover() -> None:
    flags = [[at >> bit & 1 for at in range(16)] for bit in range(4)]
    market = one_symbol(**dict(zip(("open", "high", "low", "close"), flags, strict=True)))
    parts = {"long": "open > 0", "exit": "high > 0", "short": "low > 0", "cover": "close > 0"}
    expected: list[float | None] = []
    for enter, leave, sell, cover in zip(*flags, strict=True):
        long, short = enter and not leave, sell and not cover
        if long != short:
            expected.append(0.5 if long else -0.5)
        else:
            expected.append(0.0 if long or leave or cover else None)
    assert targets(create_strategy("rule", **parts, size=0.5), market) == expected
    without = [0.0 if weight == -0.5 else weight for weight in expected]
    assert targets(create_strategy("rule", **parts, size=0.5, allow_short=False), market) == without
    exits = targets(create_strategy("rule", long="open > 0", exit="high > 0"), market)[:4]
    assert exits == [None, 1.0, 0.0, 0.0]


def test_one_symbol_alone_is_decided_as_among_many() -> None:
    parts = {"long": "close crosses_above volume", "exit": "close < -1", "short": "close != volume", "size": 0.25}
    rule = create_strategy("rule", **parts)
    for seed in range(20):
        market = noise_market(["volume"], 30, 1, seed)
        wide = PaperMarket({name: np.repeat(market.data[name], 2, axis=1) for name in market.data},
                           np.repeat(market.eligible, 2, axis=1))  # fmt: skip
        alone = [rule.decide(market.at(bar, 2), FLAT) for bar in range(30)]
        pairs = [rule.decide(wide.at(bar, 2), FLAT) for bar in range(30)]
        assert [each.targets and each.targets["S0"] for each in pairs] == [
            each.targets and each.targets["S0"] for each in alone
        ]


def test_the_default_size_is_an_equal_weight_of_the_traded_symbols() -> None:
    market = PaperMarket({"close": np.ones((1, 4))})
    rows = np.arange(1)
    assert create_strategy("rule", long="close > 0").decide_all(market, rows).tolist() == [[0.25] * 4]
    some = create_strategy("rule", long="close > 0", include=["S1", "S3"]).decide_all(market, rows)[0].tolist()
    assert some[1] == some[3] == 0.5
    assert math.isnan(some[0]) and math.isnan(some[2])


def test_targets_act_on_change_and_a_row_without_signals_is_a_hold() -> None:
    market = one_symbol(close=[1, 5])
    rule = create_strategy("rule", long="close > 3", warm_up=1)
    assert rule.lookback == 2
    assert rule.decide(market.at(0, 2), FLAT) == Decision.hold()
    assert rule.decide(market.at(1, 2), FLAT) == Decision.to({"S0": 1.0}, on_change=True)


@pytest.mark.parametrize("operator", OPERATORS)
def test_conditions_as_text_and_as_mapping_are_the_same(operator: str) -> None:
    for value, written in ((30.0, "30"), (-0.5, "-5e-1"), ("ema_26", "ema_26")):
        plain = RuleCondition("rsi_14", operator, value)
        assert condition_of(f"rsi_14 {operator} {written}") == plain
        assert condition_of({"column": "rsi_14", "operator": operator, "value": value}) == plain
        assert condition_of(str(plain)) == plain
    assert condition_of("close<3") == RuleCondition("close", "<", 3.0)
    assert condition_of({"any": ["close < 3"]}) == AnyOf((RuleCondition("close", "<", 3.0),))


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "operator": (lambda: RuleCondition("close", "=>", 3), "must be one of <, <=.*got '=>'"),
    "cross": (lambda: RuleCondition("close", "cross_above", 3), "did you mean crosses_above"),
    "value": (lambda: RuleCondition("close", "<", NAN), "finite number or a column, got nan"),
    "truth": (lambda: RuleCondition("close", "<", True), "got True"),
    "text": (lambda: condition_of("close is high"), "must be a condition such as `rsi_14 < 30`"),
    "half": (lambda: condition_of("close <"), "must be a condition"),
    "key": (
        lambda: condition_of({"column": "close", "operatr": "<", "value": 3}),
        "unknown key 'operatr'; did you mean operator",
    ),
    "lacking": (lambda: condition_of({"column": "close", "value": 3}), "must have operator"),
    "empty": (lambda: condition_of({"all": []}), "must be a list of conditions"),
    "nested": (lambda: create_strategy("rule", long=["close > 1", {"any": ["close ~ 3"]}]), r"long\[1\].any\[0\]"),
    "neither": (lambda: create_strategy("rule", exit="close > 3"), "must have conditions in long or in short"),
    "number": (lambda: create_strategy("rule", long=3), "must be a condition such as .*, got 3"),
    "column": (lambda: create_strategy("rule", long="rsi14 > 3"), "rsi"),
    "size": (lambda: create_strategy("rule", long="close > 3", size=0), "size must be more than 0, got 0"),
    "warm_up": (lambda: create_strategy("rule", long="close > 3", warm_up=-1), "warm_up must be at least 0, got -1"),
    "include": (lambda: create_strategy("rule", long="close > 3", include="S1"), "include must be a list .*got 'S1'"),
    "both": (lambda: create_strategy("rule", long="close > 3", include=["A"], exclude=["A"]), "must not both name A"),
    "preset": (lambda: TechnicalRuleGenerator("rsj"), "must be one of rsi, .*got 'rsj'; did you mean rsi"),
    "period": (lambda: create_strategy("rsi", period=2.5), "period must be an integer, got 2.5"),
    "low": (lambda: create_strategy("rsi", low=70, high=30), r"low must be below high \(30\), got 70"),
    "fast": (lambda: create_strategy("ma_cross", fast=30, slow=20), r"fast must be below slow \(20\), got 30"),
    "kind": (lambda: create_strategy("ma_cross", kind="wma"), "kind must be one of sma, ema, got 'wma'"),
    "unknown": (lambda: create_strategy("rsi", perid=3), "unknown key 'perid'; did you mean period"),
    "deviations": (lambda: create_strategy("bollinger", deviations=2.5), "deviations must be an integer, got 2.5"),
    "threshold": (lambda: create_strategy("momentum_rule", threshold=-1), "threshold must be at least 0, got -1"),
    "signal": (lambda: create_strategy("macd", signal=0), "signal must be at least 1, got 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_invalid_rule_is_an_error_that_names_it(case: str) -> None:
    build, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        build()


def test_the_error_for_an_unknown_symbol_names_it() -> None:
    rule = create_strategy("rule", long="close > 3", exclude=["S9"])
    market = PaperMarket({"close": np.ones((1, 2))})
    with pytest.raises(StrategyError, match="symbols of the run, got 'S9'; this run has S0, S1"):
        rule.decide(market.at(0, 1), FLAT)
    with pytest.raises(StrategyError, match="must leave at least one symbol"):
        create_strategy("rule", long="close > 3", exclude=["S0", "S1"]).decide_all(market, np.arange(1))


Row = Callable[[str], float]


def _rsi(value: Row) -> float | None:
    return 1.0 if value("rsi_5") < 35 else 0.0 if value("rsi_5") > 65 else None


def _rsi_short(value: Row) -> float | None:
    return 1.0 if value("rsi_5") < 35 else -1.0 if value("rsi_5") > 65 else None


def _cross(value: Row) -> float | None:
    return None if value("ema_8") != value("ema_8") else 1.0 if value("ema_3") > value("ema_8") else 0.0


def _cross_short(value: Row) -> float | None:
    fast, slow = value("sma_3"), value("sma_8")
    return None if slow != slow else 1.0 if fast > slow else -1.0 if fast < slow else 0.0


def _bands(value: Row) -> float | None:
    close = value("close")
    return 1.0 if close < value("bollinger_lower_8_1") else 0.0 if close >= value("bollinger_mid_8") else None


def _bands_short(value: Row) -> float | None:
    close = value("close")
    return 1.0 if close < value("bollinger_lower_8_1") else -1.0 if close > value("bollinger_upper_8_1") else None


def _momentum(value: Row) -> float | None:
    risen = value("return_5")
    return None if risen != risen else 1.0 if risen > 0.01 else 0.0


def _momentum_short(value: Row) -> float | None:
    risen = value("return_5")
    return None if risen != risen else 1.0 if risen > 0.01 else -1.0 if risen < -0.01 else 0.0


def _macd(value: Row) -> float | None:
    above = value("macd_hist_3_6_3")
    return None if above != above else 1.0 if above > 0 else 0.0


def _macd_short(value: Row) -> float | None:
    above = value("macd_hist_3_6_3")
    return None if above != above else 1.0 if above > 0 else -1.0 if above < 0 else 0.0


REFERENCE_RULES: list[tuple[str, dict[str, Any], Callable[[Row], float | None]]] = [
    ("rsi", {"period": 5, "low": 35, "high": 65}, _rsi),
    ("rsi", {"period": 5, "low": 35, "high": 65, "allow_short": True}, _rsi_short),
    ("ma_cross", {"fast": 3, "slow": 8, "kind": "ema"}, _cross),
    ("ma_cross", {"fast": 3, "slow": 8, "allow_short": True}, _cross_short),
    ("bollinger", {"period": 8, "deviations": 1}, _bands),
    ("bollinger", {"period": 8, "deviations": 1, "allow_short": True}, _bands_short),
    ("momentum", {"lookback": 5, "threshold": 0.01}, _momentum),
    ("momentum", {"lookback": 5, "threshold": 0.01, "allow_short": True}, _momentum_short),
    ("macd", {"fast": 3, "slow": 6, "signal": 3}, _macd),
    ("macd", {"fast": 3, "slow": 6, "signal": 3, "allow_short": True}, _macd_short),
]


@pytest.mark.parametrize(("preset", "params", "reference"), REFERENCE_RULES)
def test_presets_equal_their_documented_rules(
    preset: str, params: dict[str, Any], reference: Callable[[Row], float | None]
) -> None:
    strategy = TechnicalRuleGenerator(preset, **params)
    market = traded_market(strategy.features, 200, 1, seed=3)
    expected = []
    for row in range(200):
        weight = reference(lambda name, at=row: float(market.data[name][at, 0]))  # type: ignore[misc]
        expected.append(NAN if weight is None else weight)
    expected_row = np.where(market.eligible[:, 0], np.array(expected), 0.0)
    assert same_bits(strategy.decide_all(market, np.arange(200))[:, 0], expected_row)
    assert {0.0, 1.0} <= {weight for weight in expected if weight == weight} or params.get("allow_short")


def test_every_preset_is_a_kind_of_its_own_name() -> None:
    for preset in PRESETS:
        name = "momentum_rule" if preset == "momentum" else preset
        assert create_strategy(name).name == create_strategy("technical", preset=preset).name == name
    assert [spec.column for spec in create_strategy("rsi").features] == ["rsi_14"]
    assert [spec.column for spec in create_strategy("ma_cross", kind="ema").features] == ["ema_12", "ema_26"]
    assert create_strategy("rsi").lookback == 1
