"""Lossless speculative prefetch: the next requests are built on guessed decisions and sent ahead of time.

One decision (`Prefetcher.decide`):
  1. the requests that are really needed now are built                          `agent.requests`
  2. each takes the call that was sent ahead under its address, or goes out now `_claim`
  3. while one is in flight, the account is rolled forward on the guess, and the requests of the next decisions are
     sent behind the needed ones                                                `_top_up`
  4. the replies are awaited; a prefetched call that failed is sent again       `_await`
  5. `agent.interpret` turns them into the decision, as without prefetch

A *track* is a fork of the account, rolled forward on the guess. It is followed as long as the real account makes the
requests that the track made for the same decision; otherwise another track that made them is followed, or a new one
starts from the real account. Tracks only determine what is sent: replies are matched by the address of the request, so
none is used for another request, and one that was requested on an abandoned track is used if the same request comes up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace

from agent_bt.core.errors import AgentBtError
from agent_bt.core.futures import result_of
from agent_bt.core.protocols import AgentStrategy, ForkableBroker, OrderSizer
from agent_bt.core.types import Decision, ModelCall, Portfolio, Reply, Request
from agent_bt.core.view import MarketView
from agent_bt.engine.depth import DepthControl
from agent_bt.engine.market import Market
from agent_bt.engine.saved_time import SavedTime
from agent_bt.engine.strategy_errors import strategy_errors
from agent_bt.llm.priority import Priority, use_priority

MEASURED_FROM = 200
"""Decisions that must follow for one call to be sent alone, which costs at most the time of one round trip."""

Guess = Callable[[MarketView, Portfolio, Decision | None], Decision | None]
"""(view, portfolio, the last real decision) -> the guess of the next decision; None for HOLD."""


@dataclass(slots=True, kw_only=True)
class Call:
    """A request that was sent.

    Attributes:
        index: number of the decision it is for.
        future: its reply.
        priority: whether it is needed now or speculative.
        sent: when it was sent, seconds of `time.perf_counter`.
        number: its number in `SavedTime`.
        abandoned: whether its guess has proved wrong since.
    """

    index: int
    future: Future[Reply]
    priority: Priority
    sent: float
    number: int
    abandoned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """The part of an account that determines the next requests.

    Attributes:
        addresses: of the requests that the agent makes with it.
        orders: the orders that wait.
    """

    addresses: tuple[str, ...]
    orders: Hashable


@dataclass(slots=True, kw_only=True)
class Track:
    """A fork of the account, rolled forward through the next decisions.

    Attributes:
        broker: the fork.
        at: number of the next decision to prefetch.
        expects: the situations it has prefetched for, by decision.
    """

    broker: ForkableBroker
    at: int
    expects: dict[int, Situation] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class PrefetchStats:
    """Counts of a prefetcher.

    Attributes:
        speculated: calls sent ahead.
        hits: those of them that were used.
        wasted: those that were not.
        cancelled: those taken back before they were sent.
        wasted_prompt_tokens: prompt tokens of the wasted calls.
        wasted_completion_tokens: completion tokens of the wasted calls.
        wasted_usd: cost of the wasted calls with a known price, US dollars.
        wasted_unpriced: wasted calls without a known price.
        saved_ms: waiting time saved against calls one after another, known at the end.
    """

    speculated: int = 0
    hits: int = 0
    wasted: int = 0
    cancelled: int = 0
    wasted_prompt_tokens: int = 0
    wasted_completion_tokens: int = 0
    wasted_usd: float = 0.0
    wasted_unpriced: int = 0
    saved_ms: float = 0.0


class Prefetcher:
    """Makes the decisions of an agent with requests sent ahead of time; the decisions are the same."""

    def __init__(
        self,
        *,
        agent: AgentStrategy,
        market: Market,
        bars: Sequence[int],
        sizer: OrderSizer,
        broker: ForkableBroker,
        guess: Guess | None,
        control: DepthControl,
        keep_states: int = 1,
    ) -> None:
        """Prepare the prefetch of a run.

        Args:
            agent: whose decisions are made.
            market: the market of the run.
            bars: rows of all decision bars, ascending.
            sizer: sizes the guessed decisions.
            broker: the account of the run.
            guess: guesses the next decisions; None: HOLD.
            control: sets the number of requests ahead.
            keep_states: most account states whose next requests are kept ready: 1 follows the guess only, more also
                continue the states before a trade, as if it had not happened; `control` may allow fewer.
        """
        self.stats = PrefetchStats()
        self._agent = agent
        self._market = market
        self._bars = bars
        self._sizer = sizer
        self._broker = broker
        self._guess = guess
        self._control = control
        self._keep = control.tracks(keep_states)
        self._tracks: list[Track] = []
        self._calls: dict[str, Call] = {}
        self._latency = 0.0
        self._time = SavedTime()
        self._measured = False
        self._answered: list[tuple[float, int]] = []
        self._last: Decision | None = None

    def decide(self, index: int, view: MarketView, portfolio: Portfolio) -> Decision:
        """Make a decision, the same as `agent.decide` would make.

        Args:
            index: number of the decision.
            view: as of `agent.decide`.
            portfolio: as of `agent.decide`.

        Raises:
            StrategyError: the agent's code failed.
        """
        with strategy_errors(self._agent.name, index, view.now):
            asked = self._agent.requests(view, portfolio)
        claimed = [self._claim(index, request) for request in asked]
        self._follow(index, view, portfolio, tuple(request.address for request in asked))
        if self._must_wait(claimed) and not self._measures(index, claimed):
            self._top_up(index)
        calls = [
            ModelCall(request=request, reply=self._await(index, request, call, ahead))
            for request, (call, ahead) in zip(asked, claimed, strict=True)
        ]
        self._discard(upto=index)
        if self._answered:
            # The calls of one decision go out together with prefetch or without: only the slowest is waited for.
            latency, number = max(self._answered)
            self._time.use(number, latency)
            self._answered.clear()
        with strategy_errors(self._agent.name, index, view.now):
            self._last = self._agent.interpret(view, portfolio, calls)
        return self._last

    def close(self) -> None:
        """Cancel the calls that are not sent yet; the others count as wasted."""
        self._tracks.clear()
        self._discard(upto=len(self._bars))
        self.stats.saved_ms = self._time.saved_ms()

    def _claim(self, index: int, request: Request) -> tuple[Call, bool]:
        """Return the call of this request, and whether it was sent ahead."""
        call = self._calls.pop(request.address, None)
        ahead = call is not None and not call.future.cancelled()
        if call is not None and call.abandoned:
            self._control.reuse.observe(hit=ahead)
        if call is None or not ahead:
            return self._send(index, request, Priority()), False
        call.priority.speculative = False
        return call, True

    def _send(self, index: int, request: Request, priority: Priority) -> Call:
        with use_priority(priority):
            future = self._agent.llm.submit(request)
        number = self._time.follow(future)
        return Call(index=index, future=future, priority=priority, sent=time.perf_counter(), number=number)

    def _await(self, index: int, request: Request, call: Call, ahead: bool) -> Reply:
        """Return the reply; a prefetched call that failed is sent again, so that no decision comes of the failure."""
        began = time.perf_counter()
        number = call.number
        try:
            reply = result_of(call.future)
        except AgentBtError:
            if not ahead:
                raise
            reply = None
        if reply is None or (ahead and reply.failure is not None):
            self.stats.wasted += not _was_free(call.future)
            ahead = False
            again = self._send(index, request, Priority())
            reply, number = result_of(again.future), again.number
        self._time.waited_ms += (time.perf_counter() - began) * 1e3
        self._control.used += not reply.cached
        if reply.latency_ms and not reply.cached:
            self._latency += 0.2 * (reply.latency_ms / 1e3 - self._latency) if self._latency else reply.latency_ms / 1e3
            if reply.failure is None:
                self._answered.append((reply.latency_ms, number))
        if not ahead or reply.cached:
            return reply
        self.stats.hits += 1
        return _speculated(reply)

    def _measures(self, index: int, claimed: Sequence[tuple[Call, bool]]) -> bool:
        """Return whether to send this call alone, once in a long run, to measure the latency of a single call.

        The first call of a run is not the one: a server may have to load its model for it.
        """
        if self._measured or not 0 < index <= len(self._bars) - MEASURED_FROM:
            return False
        self._measured = len(claimed) == 1 and not claimed[0][1] and not self._calls
        return self._measured

    def _must_wait(self, claimed: Sequence[tuple[Call, bool]]) -> bool:
        """Return whether to send requests ahead now: always when it costs nothing, else before a real wait.

        A prefetched call whose reply is expected at any moment is awaited first: more requests behind it would only
        raise what the next wrong guess wastes.
        """
        if self._control.free:
            return not all(_was_free(call.future) for call, _ in claimed)
        pending = [(call, ahead) for call, ahead in claimed if not call.future.done()]
        if not pending:
            return False
        if all(ahead for _, ahead in pending) and self._latency:
            due = min(call.sent for call, _ in pending) + 1.15 * self._latency
            remaining = due - time.perf_counter()
            if 0 < remaining < 0.3 * self._latency:
                began = time.perf_counter()
                wait([call.future for call, _ in pending], timeout=remaining)
                self._time.waited_ms += (time.perf_counter() - began) * 1e3
        return any(not call.future.done() for call, _ in pending)

    def _follow(self, index: int, view: MarketView, portfolio: Portfolio, addresses: tuple[str, ...]) -> None:
        """Move the track that the real account is on to the front, or start a new one."""
        here = Situation(addresses=addresses, orders=self._broker.pending_orders())
        current = next((track for track in self._tracks if track.expects.get(index) == here), None)
        guessed = self._tracks[0] if self._tracks else None
        if guessed is not None and index in guessed.expects:
            self._control.hits.observe(hit=guessed is current)
        if current is None:
            current = Track(broker=self._broker.fork(), at=index)
            self._step(current, view, portfolio)
        self._tracks = [current, *(track for track in self._tracks if track is not current)]
        for track in self._tracks[: self._keep]:
            track.at = max(track.at, index + 1)
        self._tracks = [track for track in self._tracks if track.at > index]
        for track in self._tracks:
            track.expects.pop(index, None)
        if guessed is not None and guessed is not current:
            self._abandon()

    def _abandon(self) -> None:
        """After a wrong guess, cancel the calls that only dropped tracks requested, as far as they are not sent yet."""
        kept = {
            address
            for track in self._tracks[: self._keep]
            for expected in track.expects.values()
            for address in expected.addresses
        }
        cancelled = {address for address, call in self._calls.items() if address not in kept and self._cancel(call)}
        for address in cancelled:
            del self._calls[address]
        for address, call in self._calls.items():
            call.abandoned = call.abandoned or address not in kept
        # A track whose requests were cancelled has nothing ready.
        self._tracks = [
            track
            for track in self._tracks
            if cancelled.isdisjoint(address for expected in track.expects.values() for address in expected.addresses)
        ]

    def _top_up(self, index: int) -> None:
        """Send the requests of the next decisions, those of the real account's track first."""
        tracks = self._tracks[: self._keep]
        until = min(len(self._bars), index + 1 + self._control.ahead(tracks=len(tracks), wasted=self.stats.wasted))
        for track in tracks:
            while (
                track.at < until
                and not track.broker.halted
                and self._control.affords(
                    outstanding=len(self._calls),
                    wasted=self.stats.wasted,
                    tracks=len(tracks),
                    parked=track is not tracks[0],
                )
            ):
                track.broker.advance(self._bars[track.at])
                if not track.broker.halted:
                    self._ask_ahead(track)

    def _ask_ahead(self, track: Track) -> None:
        view, portfolio = self._market.at(self._bars[track.at]), track.broker.portfolio()
        with strategy_errors(self._agent.name, track.at, view.now):
            requests = self._agent.requests(view, portfolio)
        for request in requests:
            if request.address in self._calls:
                continue
            call = self._send(track.at, request, Priority(speculative=True))
            self._calls[request.address] = call
            if not _was_free(call.future):
                self.stats.speculated += 1
        track.expects[track.at] = Situation(
            addresses=tuple(request.address for request in requests), orders=track.broker.pending_orders()
        )
        self._step(track, view, portfolio)

    def _step(self, track: Track, view: MarketView, portfolio: Portfolio) -> None:
        """Execute the guess of decision number `track.at` on the fork."""
        decision = self._guess(view, portfolio, self._last) if self._guess else None
        if decision is not None:
            sized = self._sizer.size(decision, track.broker.state())
            track.broker.submit(sized.orders, sized.targets)
        track.at += 1

    def _cancel(self, call: Call) -> bool:
        """Cancel a call, if it has not been sent; return whether it was cancelled."""
        cancelled_now = call.future.cancel()
        if cancelled_now:
            self.stats.cancelled += 1
            self.stats.speculated -= 1
        return cancelled_now

    def _discard(self, upto: int) -> None:
        """Drop the calls of decisions up to `upto`; those that were sent count as wasted."""
        for address, call in [(a, c) for a, c in self._calls.items() if c.index <= upto]:
            del self._calls[address]
            if self._cancel(call):
                continue
            if call.abandoned:
                self._control.reuse.observe(hit=False)
            if not _was_free(call.future):
                self.stats.wasted += 1
                call.future.add_done_callback(self._count_waste)

    def _count_waste(self, future: Future[Reply]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        reply = future.result()
        if reply.failure is not None:
            return
        if reply.usage is not None:
            self.stats.wasted_prompt_tokens += reply.usage.prompt_tokens
            self.stats.wasted_completion_tokens += reply.usage.completion_tokens
        self.stats.wasted_usd += reply.cost_usd or 0.0
        self.stats.wasted_unpriced += reply.cost_usd is None


def _was_free(future: Future[Reply]) -> bool:
    """Return whether the call was never sent: the cache had the reply, or the budget refused it."""
    if not future.done() or future.cancelled() or future.exception() is not None:
        return False
    reply = future.result()
    return reply.cached or reply.failure == "budget"


def _speculated(reply: Reply) -> Reply:
    return replace(reply, speculated=True)
