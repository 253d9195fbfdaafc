"""Features by column name: the spec each name gives, and the error for an invalid name."""

from __future__ import annotations

import pytest

from agent_bt.core.errors import StrategyError
from agent_bt.core.types import FeatureSpec
from agent_bt.core.view import BAR_COLUMNS
from agent_bt.features.names import ALIASES, form, spec_of, specs_of
from agent_bt.features.specs import KINDS, resolve


@pytest.mark.parametrize(
    ("column", "kind", "params"),
    [
        ("return_20", "return", {"period": 20}),
        ("momentum_10", "return", {"period": 10}),
        ("sma_50", "sma", {"period": 50}),
        ("ema_12", "ema", {"period": 12}),
        ("rsi_14", "rsi", {"period": 14}),
        ("volatility_20", "volatility", {"period": 20}),
        ("atr_14", "atr", {"period": 14}),
        ("cmf_20", "cmf", {"period": 20}),
        ("zscore_20", "zscore", {"period": 20}),
        ("quote_volume_20", "quote_volume", {"period": 20}),
        ("bollinger_upper_20_2", "bollinger_upper", {"period": 20, "deviations": 2}),
        ("bollinger_lower_20_2", "bollinger_lower", {"period": 20, "deviations": 2}),
        ("bollinger_mid_20", "sma", {"period": 20}),
        ("highest_55", "highest", {"period": 55}),
        ("lowest_20", "lowest", {"period": 20}),
        ("macd_12_26_9", "macd", {"fast": 12, "slow": 26, "signal": 9}),
        ("macd_signal_12_26_9", "macd_signal", {"fast": 12, "slow": 26, "signal": 9}),
        ("macd_hist_12_26_9", "macd_hist", {"fast": 12, "slow": 26, "signal": 9}),
    ],
)
def test_a_column_name_gives_kind_and_periods(column: str, kind: str, params: dict[str, int]) -> None:
    assert spec_of(column) == FeatureSpec(column=column, kind=kind, params=tuple(params.items()))


@pytest.mark.parametrize("name", sorted([*KINDS, *ALIASES]))
def test_every_kind_is_parsed_from_the_form_that_errors_show(name: str) -> None:
    numbers = {"period": 20, "deviations": 2, "fast": 12, "slow": 26, "signal": 9}
    column = form(name)
    for param, number in numbers.items():
        column = column.replace(f"<{param}>", str(number))
    spec = spec_of(column)
    assert spec is not None
    kind, periods = resolve(spec)
    assert kind is KINDS[ALIASES.get(name, name)]
    assert periods == tuple(numbers[param] for param in kind.params)


@pytest.mark.parametrize("column", BAR_COLUMNS)
def test_a_bar_column_is_not_a_feature(column: str) -> None:
    assert spec_of(column) is None


def test_columns_become_features_once_each_in_their_order() -> None:
    specs = specs_of(["sma_50", "close", "return_20", "sma_50", "volume", "momentum_20"])
    assert [spec.column for spec in specs] == ["sma_50", "return_20", "momentum_20"]
    assert specs_of(["close"]) == ()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("retrun_20", "no column 'retrun_20'; did you mean return_20?"),
        ("SMA_20", "no column 'SMA_20'; did you mean sma_20?"),
        ("bolinger_uper_20", "did you mean bollinger_upper_<period>_<deviations>?"),
        ("momentun_5", "did you mean momentum_5?"),
        ("closee", "did you mean close?"),
        ("sma_20d", "did you mean sma_<period>?"),
        ("", "no column ''. Bars have open"),
        ("_5", "no column '_5'. Bars have open"),
        ("xyzzy_3", "features are written atr_<period>, bollinger_lower_<period>_<deviations>"),
        ("xyzzy_3", "macd_hist_<fast>_<slow>_<signal>, macd_signal_<fast>_<slow>_<signal>, momentum_<period>"),
        ("ema_fast", "no column 'ema_fast'"),
        ("sma", "column 'sma': sma takes one number (period), got 0; write it as sma_<period>"),
        ("momentum_5_6", "momentum takes one number (period), got 2; write it as momentum_<period>"),
        ("macd_12", "takes 3 numbers (fast, slow, signal), got 1; write it as macd_<fast>_<slow>_<signal>"),
        ("bollinger_upper_20", "takes 2 numbers (period, deviations), got 1"),
        ("sma_0", "feature 'sma_0': every period must be at least 1"),
        ("macd_26_12_9", "feature 'macd_26_12_9': fast must be at least 2 and below slow"),
    ],
)
def test_the_error_for_an_invalid_name_gives_the_valid_form(column: str, message: str) -> None:
    with pytest.raises(StrategyError) as error:
        spec_of(column)
    assert message in str(error.value)
