"""The leak check flags models that remember the market, and leaves those alone that only read it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from leak_models import make, memoriser, reader, remembered, verdict_on
from scipy.spatial.distance import jensenshannon

from agent_bt.cli import main as cli
from agent_bt.config.load import load_config
from agent_bt.config.model import LLMConfig
from agent_bt.core.clock import DAY, time_us
from agent_bt.core.schema import BAR_SCHEMA
from agent_bt.core.types import Decision, Reply
from agent_bt.data.sample import SampleSource
from agent_bt.evaluation.leakcheck.cutoff import find_cutoff
from agent_bt.evaluation.leakcheck.histories import Mask, mirrored, shifted, shuffled
from agent_bt.evaluation.leakcheck.measures import Answers, compare, foresight
from agent_bt.evaluation.leakcheck.recall import Probe, choose_probes, read_price, score

BARS = SampleSource("BTCUSDT", 7).fetch_ohlcv("1m", time_us("2024-07-01"), time_us("2024-07-08"))


def flagged(folder: Path, seed: int, by: str, share: float = 1.0) -> bool:
    config, _, loaded = make(folder, seed)
    future, closes = remembered(loaded.bars, config, by=by)
    return verdict_on(memoriser(future, closes, by=by, share=share, seed=seed), folder, seed).flagged


@pytest.mark.parametrize("by", ["date", "price"])
@pytest.mark.parametrize("seed", range(2))
def test_a_model_that_remembers_is_flagged(tmp_path: Path, seed: int, by: str) -> None:
    assert flagged(tmp_path, seed, by)


@pytest.mark.parametrize("seed", range(2))
def test_a_model_that_reads_is_not(tmp_path: Path, seed: int) -> None:
    assert not verdict_on(reader, tmp_path, seed).flagged


@pytest.mark.verify
@pytest.mark.parametrize("by", ["date", "price"])
def test_95_of_100_models_that_remember_are_flagged(tmp_path: Path, by: str) -> None:
    assert sum(flagged(tmp_path, seed, by) for seed in range(100)) >= 95


@pytest.mark.verify
def test_95_of_100_models_that_read_are_not(tmp_path: Path) -> None:
    assert sum(verdict_on(reader, tmp_path, seed).flagged for seed in range(100)) <= 5


def test_which_memory_shows_in_which_test(tmp_path: Path) -> None:
    config, _, loaded = make(tmp_path, 3)
    future, closes = remembered(loaded.bars, config, by="date")
    found = verdict_on(memoriser(future, closes, by="date", share=1.0, seed=3), tmp_path, 3)
    assert {test.name for test in found.tests if test.flagged} == {
        "masked",
        "mirrored",
        "shuffled",
        "shifted",
        "recall",
    }
    assert found.responses["mirrored"].prediction_consistency == 1.0
    assert found.foresight["plain"] > 0.4
    future, closes = remembered(loaded.bars, config, by="price")
    by_price = verdict_on(memoriser(future, closes, by="price", share=1.0, seed=3), tmp_path, 3)
    assert [test.name for test in by_price.tests if test.flagged] == ["masked"]
    assert by_price.recall is not None
    assert by_price.recall.answered == 0


def test_a_mask_keeps_every_ratio_to_the_last_bit() -> None:
    mask = Mask.of(BARS)
    masked = mask.apply(BARS)
    assert masked.schema == BAR_SCHEMA
    for one, other in (("high", "close"), ("volume", "taker_base")):
        same = (BARS[one] / BARS[other]).equals(masked[one] / masked[other])
        assert same, (one, other)
    assert 64 < masked["close"][0] < 160
    assert (mask.shift % (7 * DAY), masked["open_time"][0].year) == (0, 2001)
    assert masked["open_time"].dt.weekday().equals(BARS["open_time"].dt.weekday())


def test_counterfactual_bars_are_bars() -> None:
    for changed in (mirrored(BARS), shuffled(BARS, np.random.default_rng(1)), shifted(BARS)):
        assert changed.schema == BAR_SCHEMA
        assert changed["open_time"].equals(BARS["open_time"])
        assert changed.select((pl.col("high") >= pl.max_horizontal("open", "close") * (1 - 1e-12)).all()).item()
        assert changed.select((pl.col("low") <= pl.min_horizontal("open", "close") * (1 + 1e-12)).all()).item()
        assert changed.select((pl.col("taker_base") <= pl.col("volume") * (1 + 1e-12)).all()).item()


def log_returns(bars: pl.DataFrame) -> np.ndarray:
    return np.diff(np.log(bars["close"].to_numpy()))


def test_mirroring_turns_every_return_around_and_shifting_keeps_them() -> None:
    np.testing.assert_allclose(log_returns(mirrored(BARS)), -log_returns(BARS), atol=1e-12)
    np.testing.assert_allclose(log_returns(shifted(BARS)), log_returns(BARS), atol=1e-12)
    np.testing.assert_allclose(shifted(BARS)["close"].to_numpy(), 1.37 * BARS["close"].to_numpy())


def test_shuffling_moves_every_day_and_keeps_what_is_inside() -> None:
    changed = shuffled(BARS, np.random.default_rng(5))
    days = [log_returns(day) for day in BARS.iter_slices(1440)]
    moved = [log_returns(day) for day in changed.iter_slices(1440)]
    origin = [next(k for k, day in enumerate(days) if np.allclose(day, other, atol=1e-12)) for other in moved]
    assert sorted(origin) == list(range(7))
    assert all(k != at for at, k in enumerate(origin))
    assert not np.allclose(log_returns(changed), log_returns(BARS))


def test_responses_by_hand() -> None:
    def answers(*rows: str) -> Answers:
        words = {"B": Decision.buy("X", 0.5), "S": Decision.sell("X", 1.0), "H": Decision.hold()}
        return Answers.of([[words[letter] for letter in row] for row in rows])

    found = compare(answers("BBHS", "BHHS"), answers("BSHH", "BHHH"))
    assert found.prediction_consistency == 5 / 8
    assert found.acting_consistency == 2 / 5
    assert math.isclose(found.confidence_invariance, 1 - (0 + 0.5 + 0 + 1 + 0 + 0 + 0 + 1) / 8)
    distributions = [  # shares of BUY, SELL, HOLD in the two replicates of each decision
        ((1, 0, 0), (1, 0, 0)), ((0.5, 0, 0.5), (0, 0.5, 0.5)), ((0, 0, 1), (0, 0, 1)), ((0, 1, 0), (0, 0, 1)),
    ]  # fmt: skip
    expected = np.mean([jensenshannon(one, other, base=2) ** 2 for one, other in distributions])
    assert found.divergence is not None
    assert math.isclose(found.divergence, expected)
    assert compare(answers("HH"), answers("HH")).acting_consistency is None
    assert math.isclose(foresight(answers("BSBH"), np.array([0.01, -0.02, -0.03, 0.5])).score, (5 + 6 - 7) / 8 / 4)


def test_recall_by_hand() -> None:
    probes = [Probe(day=at * DAY, close=close) for at, close in enumerate((100.0, 100.5, 200.0, 300.0))]
    found = score(probes, [100.0, 103.0, None, 300.0])
    assert (found.asked, found.answered) == (4, 3)
    assert found.within == {"1%": 0.5, "5%": 0.75, "10%": 0.75}
    assert math.isclose(found.chance, (1 / 3 + 0 + 0 + 0) / 4)
    assert math.isclose(found.median_error, 0.0)


@pytest.mark.parametrize(
    ("text", "price"),
    [('{"close": 61000.5}', 61000.5), ('{"close": 0}', None), ("about 61000", None), ('{"close": "61000"}', None),
     ('{"close": true}', None), ("", None), ("[1]", None), ('{"close": -3}', None), ('{"close": 1e999}', None)],
)  # fmt: skip
def test_only_a_plain_price_is_an_answer(text: str, price: float | None) -> None:
    assert read_price(Reply(text=text)) == price


def test_probes_ask_for_whole_days() -> None:
    probes = choose_probes(BARS["close_time"].to_physical().to_numpy(), BARS["close"].to_numpy(), 3)
    assert [probe.day for probe in probes] == [time_us(f"2024-07-0{day}") for day in (1, 4, 7)]
    assert probes[0].close == BARS.filter(pl.col("close_time").dt.day() == 2)["close"][0]
    assert "2024-07-04" in probes[1].messages("BTCUSDT")[1]["content"]


@pytest.mark.parametrize(
    ("llm", "day", "source"),
    [
        ({"provider": "stand_in"}, None, "embedded"),
        ({"provider": "openai", "model": "gpt-4o-2024-08-06"}, "2023-10-31", "table"),
        ({"provider": "openai", "model": "openai/gpt-4.1-mini"}, "2024-06-30", "table"),
        ({"provider": "openai", "model": "llama3.1:8b"}, "2023-12-31", "table"),
        ({"provider": "openai", "model": "gpt-5.2"}, None, "unverified"),
        ({"provider": "openai", "model": "my-own"}, None, "unverified"),
        ({"provider": "openai", "model": "gpt-4o", "knowledge_cutoff": "2025-01-31"}, "2025-01-31", "config"),
    ],
)
def test_the_cutoff_comes_from_the_config_or_the_table_or_is_unverified(
    llm: dict[str, str], day: str | None, source: str
) -> None:
    found = find_cutoff(LLMConfig(**llm))
    assert (found.day, found.source) == (day, source)
    assert found.instant == (None if day is None else time_us(day) + DAY)


def check(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, config: Path, *options: str
) -> tuple[int, dict]:
    monkeypatch.setattr(sys, "argv", ["agent-bt", "leakcheck", str(config), "--json", "--progress", "none", *options])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    return caught.value.code, json.loads(captured.out) if captured.out else {"error": captured.err}


def test_the_command_with_a_shipped_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped prompts show no date and no price: behind the mask they are the same but for the symbol."""
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text("market: {start: 2024-07-01, end: 2024-07-05}\nstrategy: {every: 2h}\n")
    code, found = check(capsys, monkeypatch, config, "--samples", "20")
    assert (code, found["flagged"]) == (0, False)
    assert found["performance"]["status"] == "nothing_to_remember"
    assert set(found["memory"]["responses"]) == {"masked", "mirrored", "shuffled", "shifted"}
    assert found["memory"]["recall"]["answered"] == 0
    (folder,) = (tmp_path / "runs" / "leak").iterdir()
    assert json.loads((folder / "leakcheck.json").read_text()) == found
    config.write_text("market: {start: 2024-07-01, end: 2024-07-05}\nstrategy: {kind: stay_out}\n")
    code, found = check(capsys, monkeypatch, config)
    assert (code, "only an agent can remember" in found["error"]) == (2, True)


def test_nothing_is_headlined_from_before_the_cutoff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent_bt.backtest.run import run
    from agent_bt.experiments.leakcheck import _performance

    monkeypatch.chdir(tmp_path)
    config = load_config(None, ["market.start=2024-07-01", "market.end=2024-07-05", "strategy.every=4h"], env={})
    ran = run(config)

    def split(day: str | None) -> dict:
        llm = LLMConfig(provider="openai", model="my-own", knowledge_cutoff=day)
        return _performance(ran, find_cutoff(llm), sample=False)

    middle = split("2024-07-02")
    assert (middle["status"], middle["before"]["days"], middle["after"]["days"]) == ("after_cutoff", 2, 2)
    assert middle["headline"] == middle["after"]
    both = (1 + middle["before"]["total_return"]) * (1 + middle["after"]["total_return"]) - 1
    assert math.isclose(both, ran.summary["performance"]["total_return"], abs_tol=1e-12)
    late = split("2024-12-31")
    assert (late["status"], late["headline"]) == ("nothing_after_cutoff", None)
    assert split(None)["status"] == "unverified"
