// Everything about one decision: what was decided, the raw reply, the exact prompt, account, telemetry, window.

class Detail {
  constructor({ decisions, candles, onSymbol }) {
    this.decisions = decisions;
    this.candles = candles;
    this.onSymbol = onSymbol;
    this.body = byId("detail-body");
    this.open = { reply: true, prompt: true, account: true, call: true, window: false, days: false, features: false };
    this.wanted = -1;
  }

  async show(index) {
    this.wanted = index;
    const { decisions } = this;
    const kind = decisions.kinds[index];
    byId("detail-mark").className = `mark ${kind}`;
    byId("detail-mark").textContent = decisions.glyph(index);
    byId("detail-name").textContent = settings.multi_symbol ? `#${index}` : decisions.label(index);
    byId("detail-time").textContent = `${instant(decisions.time[index])} UTC`;
    const full = await decisions.record(index);
    if (this.wanted !== index) return;
    this.body.replaceChildren(...this.parts(index, full).filter(Boolean));
    this.body.scrollTop = 0;
    this.body.dataset.index = index;
  }

  parts(index, full) {
    const { decisions } = this;
    const failed = full.provenance !== "model";
    return [
      el("div", { class: "pills" },
        el("span", { class: failed ? "pill failed" : "pill" }, failed ? `${full.provenance}: ${full.reason}` : full.request ? "from the model" : "from the strategy"),
        full.repaired ? el("span", { class: "pill warn" }, `repaired: ${full.repaired}`) : null,
        ...(settings.multi_symbol ? [] : full.risk_cuts).map((cut) => el("span", { class: "pill warn" }, `${cut.symbol} ${cut.verdict}: ${cut.reason}`)),
        full.telemetry.cached ? el("span", { class: "pill" }, "from cache") : null,
        full.telemetry.speculated ? el("span", { class: "pill" }, "prefetched") : null,
        !failed && !full.risk_cuts.length && full.targets?.length && !decisions.ordered(index) ? el("span", { class: "pill" }, "already at target") : null,
        !failed && !full.targets && decisions.side[index] && !decisions.ordered(index) ? el("span", { class: "pill" }, "no order") : null),
      failed ? el("p", { class: "detail-note" }, [full.telemetry.error, full.telemetry.detail].filter(Boolean).join("\n") || "Counted as HOLD.") : null,
      decisions.note[index] ? el("p", { class: "detail-note", id: "detail-note" }, decisions.note[index]) : null,
      settings.multi_symbol ? this.targets(full) : this.decision(index, full),
      settings.multi_symbol && full.risk_cuts.length ? el("ul", { class: "cuts" }, ...full.risk_cuts.map((cut) => el("li", { class: "pill warn" }, `${shortName(cut.symbol)} ${cut.verdict}: ${cut.reason}`))) : null,
      ...[full, ...full.others].map((exchange, at) => this.reply(exchange, full, at)),
      ...[full, ...full.others].map((exchange, at) => this.prompt(exchange, full, at)),
      this.section("account", "Account before the decision", this.account(full)),
      full.telemetry.attempts !== null ? this.section("call", "Telemetry", this.telemetry(full)) : null,
      full.features ? this.section("features", settings.multi_symbol ? `Features of ${full.symbol} at the decision bar` : "Features at the decision bar", facts(Object.entries(full.features).map(([name, value]) => [name, significant(value, 7)]))) : null,
      this.windowSection(index, full),
      full.summary.length ? this.section("days", "7-day summary", days(full.summary)) : null,
    ];
  }

  targets(full) { return el("div", { class: "block" }, targetTable(full, this.onSymbol)); }

  decision(index, full) {
    const price = (symbol) => full.prices.find((entry) => entry.symbol === symbol)?.price;
    const rows = [["decision", this.decisions.action(index)]];
    for (const { symbol, share } of full.targets ?? []) rows.push([`target ${symbol}`, percent(share)]);
    for (const { symbol, share } of full.trades ?? []) {
      const what = full.sizing === "equity" ? "of equity" : share > 0 ? "of cash" : "of holding";
      rows.push([share > 0 ? "buy" : "sell", `${symbol} for ${percent(Math.abs(share))} ${what}`]);
    }
    rows.push(["price", worth(this.decisions.price[index])]);
    for (const { symbol, quantity } of full.orders) {
      const worth = price(symbol) ? `, worth ${number(Math.abs(quantity) * price(symbol))}` : "";
      rows.push(["order", `${significant(quantity)} ${symbol}${worth}`]);
    }
    for (const fill of full.fills) {
      rows.push([fill.reason === "order" ? "fill" : `fill, ${fill.reason.replace("_", " ")}`, `${significant(fill.quantity)} at ${worth(fill.price)}, ${instant(fill.time / 1000)}`]);
      rows.push(["fill costs", `fee ${number(fill.fee)}, slippage ${number(fill.slippage)}`]);
      if (fill.realised_pnl) rows.push(["realised, before fees", number(fill.realised_pnl)]);
    }
    return el("div", { class: "block" }, facts(rows, "facts one"));
  }

  reply(exchange, full, at) {
    const title = full.others.length ? `Raw reply ${at + 1}` : "Raw reply";
    if (exchange.request === null) return null;
    const text = exchange.reply ?? "";
    const parts = [];
    if (exchange.failure) parts.push(el("p", { class: "note" }, `No reply: ${exchange.failure}`));
    if (exchange.refusal) parts.push(el("p", { class: "role" }, "refusal"), el("pre", {}, exchange.refusal));
    if (!exchange.failure || text) parts.push(el("pre", { class: "reply" }, text || "(empty)"));
    if (at === 0 && full.telemetry.reasoning) parts.push(el("p", { class: "role" }, "reasoning, apart from the answer"), el("pre", {}, full.telemetry.reasoning));
    if (at === 0 && full.telemetry.body && full.telemetry.body !== "{}") parts.push(el("p", { class: "role" }, "response body"), el("pre", {}, full.telemetry.body));
    const size = text ? `${number(text.length, 0)} characters${exchange.finish_reason ? `, ${exchange.finish_reason}` : ""}` : "";
    return this.section("reply", title, el("div", {}, ...parts), size, text);
  }

  prompt(exchange, full, at) {
    if (!exchange.messages.length) return null;
    const title = full.others.length ? `Prompt ${at + 1}` : "Prompt";
    const parts = exchange.messages.flatMap((message) => [
      el("p", { class: "role" }, message.role), el("pre", { class: `message ${message.role === "system" ? "short" : ""}` }, message.content)]);
    const text = exchange.messages.map((message) => message.content).join("\n\n");
    return this.section("prompt", title, el("div", {}, ...parts), full.prompt ?? "", text);
  }

  account(full) {
    const { account, positions } = full;
    const rows = [
      ["equity", number(account.equity)], ["cash", number(account.cash)], ["realised", number(account.realised_pnl)],
      ["unrealised", number(account.unrealised_pnl)], ["fees", number(account.fees)], ["peak equity", number(account.peak_equity)],
    ];
    if (account.funding) rows.push(["funding", number(account.funding)]);
    if (settings.multi_symbol) return el("div", {}, facts(rows), positions.length ? holdingTable(full) : el("p", { class: "note" }, "No positions."));
    for (const held of positions) {
      rows.push([held.symbol, significant(held.quantity)], ["average price", worth(held.average_price)],
        ["opened", instant(held.opened / 1000)]);
    }
    if (!positions.length) rows.push(["position", "flat"]);
    return facts(rows);
  }

  telemetry(full) {
    const call = full.telemetry;
    return el("div", {}, facts([
      ["latency", milliseconds(call.latency_ms)], ["attempts", plain(call.attempts)], ["from cache", plain(call.cached)],
      ["prefetched", plain(call.speculated)], ["cost", call.cost_usd === null ? "unpriced" : `$${significant(call.cost_usd, 4)}`],
      ["prompt tokens", plain(call.prompt_tokens)], ["completion tokens", plain(call.completion_tokens)],
      ["cached tokens", plain(call.cached_tokens)], ["reasoning tokens", plain(call.reasoning_tokens)],
      ["finish reason", plain(full.finish_reason)], ["recorded", `${instant(call.wall_time / 1000, true)} UTC`],
    ]), el("dl", { class: "facts one" }, el("div", {}, el("dt", {}, "request"), el("dd", { class: "mono small" }, plain(full.request)))));
  }

  windowSection(index, full) {
    const rows = full.window_rows;
    if (!rows || settings.multi_symbol || settings.interval_ms !== this.candles.span) return null;
    const fill = () => {
      const [first, last] = this.candles.windowAt(this.decisions.time[index], rows);
      const { time, open, high, low, close, volume, decimals } = this.candles;
      const lines = [];
      for (let row = last - 1; row >= first; row--) {
        lines.push([instant(time[row] + this.candles.span).slice(5), ...[open, high, low, close].map((values) => number(values[row], decimals)), significant(volume[row], 5)]);
      }
      return miniTable(["close", "open", "high", "low", "close", "volume"], lines);
    };
    return this.section("window", `Bars in the window (${rows})`, fill);
  }

  // A section that stays open or closed when the decision changes; content may be a function, called on first use.
  section(key, title, content, hint = "", copied = null) {
    const copy = copied ? el("button", { type: "button", class: "copy", title: "Copy the text" }, "copy") : null;
    copy?.addEventListener("click", (event) => { event.preventDefault(); copyText(copied, copy); });
    const details = el("details", { class: "block", open: this.open[key], "data-section": key },
      el("summary", {}, title, el("span", { class: "hint" }, hint), copy));
    const fill = () => { if (details.children.length === 1) details.append(typeof content === "function" ? content() : content); };
    if (this.open[key]) fill();
    details.addEventListener("toggle", () => { this.open[key] = details.open; if (details.open) fill(); });
    return details;
  }
}

function facts(rows, kind = "facts") {
  return el("dl", { class: kind }, ...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function miniTable(titles, rows, kind = "mini-box") {
  return el("div", { class: kind }, el("table", { class: "mini" },
    el("thead", {}, el("tr", {}, ...titles.map((title) => el("th", {}, title)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell) => el("td", {}, cell)))))));
}

function days(summary) {
  const rows = [...summary].reverse().map((day) => [
    instant(day.start / 1000).slice(0, 10), ...[day.open, day.high, day.low, day.close].map((value) => significant(value, 7)),
    significant(day.volume, 5), percent(day.taker_share, 0)]);
  return miniTable(["day", "open", "high", "low", "close", "volume", "taker"], rows);
}

async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch {
    button.textContent = "not allowed";
  }
  setTimeout(() => { button.textContent = "copy"; }, 1200);
}
