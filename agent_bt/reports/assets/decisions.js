// The decisions: their index, the filters, and the table of the filtered ones.

const SIDES = ["HOLD", "BUY", "SELL"];
const SOURCES = ["model", "invalid", "transport", "budget"];
const RISKS = ["", "clipped", "rejected"];
const BOUGHT = 1;
const SOLD = 2;
const CACHED = 4;
const BY_TARGET = 16;

class Decisions {
  static async load() {
    const decisions = new Decisions();
    const [packed, texts] = await Promise.all([blockColumns("index-block"), blockJson("texts-block")]);
    for (const name of Object.keys(packed)) decisions[name] = scaled(packed[name]);
    if (byId("rebalances-block")) {
      const rebalances = await blockColumns("rebalances-block");
      if (rebalances.time.codes.length === decisions.time.length) {
        for (const name of ["turnover", "gross", "net"]) decisions[name] = scaled(rebalances[name]);
      }
    }
    Object.assign(decisions, texts);
    decisions.count = decisions.time.length;
    decisions.kinds = Array.from(decisions.source, (source, at) => source ? "failed" : decisions.kind(at));
    return decisions;
  }

  async record(index) { return (await chunk(Math.floor(index / settings.chunk)))[index % settings.chunk]; }

  // The last decision at or before `time`.
  at(time) { return position(this.time, time + 1) - 1; }

  is(index, flag) { return (this.flags[index] & flag) !== 0; }

  ordered(index) { return this.is(index, BOUGHT | SOLD); }

  // In a portfolio some symbols may be bought and others sold.
  kind(index) { return settings.multi_symbol && this.is(index, BOUGHT) && this.is(index, SOLD) ? "both" : SIDES[this.side[index]]; }

  glyph(index) {
    const kind = this.kinds[index];
    return GLYPHS[kind][this.ordered(index) ? 0 : 1];
  }

  action(index) {
    const size = this.size[index];
    const side = SIDES[this.side[index]];
    if (settings.multi_symbol) return this.targets[index] || (this.ordered(index) ? side : "HOLD");
    if (this.is(index, BY_TARGET)) return Number.isNaN(size) ? side : `${side} → ${percent(size, size * 100 % 1 ? 1 : 0)}`;
    return side === "HOLD" || Number.isNaN(size) ? side : `${side} ${percent(size, size * 100 % 1 ? 1 : 0)}`;
  }

  label(index) {
    const failed = this.source[index] ? `, ${SOURCES[this.source[index]]}` : "";
    return `#${index} ${this.action(index)}${failed}`;
  }
}

// Shortens long lists of targets: the largest of each side, and how many more there are.
function elided(targets) {
  const sides = targets.split(" / ");
  const most = sides.length > 1 ? 1 : 3;
  return sides.map((side) => {
    const words = side.split(", ");
    const more = words.length - most + Math.max(0, (/^(\d+) more$/.exec(words[words.length - 1])?.[1] ?? 1) - 1);
    return words.length > most + 1 ? `${words.slice(0, most).join(", ")}, ${more} more` : side;
  }).join(" / ");
}

class DecisionList {
  constructor(decisions, onPick) {
    this.decisions = decisions;
    this.filtered = [];
    this.table = new GridTable(byId("decision-table"), {
      label: "Decisions", empty: "No decision matches these filters.", onPick,
      columns: settings.multi_symbol ? this.portfolioColumns() : [
        { title: "#", width: "44px", right: true, dim: true, cell: (at) => String(at) },
        { title: "Time (UTC)", width: "122px", cell: (at) => instant(decisions.time[at]) },
        { title: "Price", width: "76px", right: true, cell: (at) => worth(decisions.price[at]) },
        { title: "Decision", width: decisions.flags.some((_, at) => decisions.is(at, BY_TARGET)) ? "118px" : "92px", cell: (at) => el("span", {}, el("span", { class: `mark ${decisions.kinds[at]}` }, decisions.glyph(at)), ` ${decisions.action(at)}`) },
        { title: "Position", width: "50px", right: true, dim: true, from: 700, cell: (at) => Math.abs(decisions.share[at]) < 5e-5 ? "flat" : percent(decisions.share[at], 0) },
        { title: "Equity", width: "80px", right: true, cell: (at) => number(decisions.equity[at]) },
        ...(!settings.uses_model ? [] : [{ title: "Latency", width: "54px", right: true, dim: true, from: 760, cell: (at) => decisions.is(at, CACHED) ? "cached" : milliseconds(decisions.latency[at]) }]),
        { title: "Note or reason", width: "minmax(80px, 1fr)", cell: (at) => this.remark(at) },
      ],
    });
    for (const id of ["search", "filter-action", "filter-source", "only-trades", "only-failed"]) {
      byId(id)?.addEventListener("input", () => this.filter());
    }
    if (settings.unchanged) byId("filter-count").title = "An unchanged decision repeats the current target: it is counted, not recorded";
    this.filter();
  }

  portfolioColumns() {
    const { decisions } = this;
    const orders = (side, count) => count ? [el("span", { class: `mark ${side}` }, GLYPHS[side][0]), `${count} `] : [];
    const shares = (values) => (at) => values ? percent(values[at], 0) : "";
    return [
      { title: "#", width: "44px", right: true, dim: true, cell: (at) => String(at) },
      { title: "Time (UTC)", width: "122px", cell: (at) => instant(decisions.time[at]) },
      { title: "Targets", width: "minmax(150px, 3fr)", cell: (at) => el("span", { title: decisions.action(at) }, elided(decisions.action(at))) },
      { title: "Orders", width: "70px", cell: (at) => el("span", {}, ...orders("BUY", decisions.buys[at]), ...orders("SELL", decisions.sells[at])) },
      { title: "Turnover", width: "54px", right: true, dim: true, from: 640, cell: shares(decisions.turnover) },
      { title: "Gross", width: "46px", right: true, dim: true, from: 960, cell: shares(decisions.gross) },
      { title: "Net", width: "46px", right: true, dim: true, from: 1040, cell: shares(decisions.net) },
      { title: "Equity", width: "84px", right: true, cell: (at) => number(decisions.equity[at]) },
      { title: "Cuts, note or reason", width: "minmax(70px, 1fr)", cell: (at) => this.remark(at) },
    ];
  }

  remark(at) {
    const { decisions } = this;
    if (decisions.source[at]) {
      return el("span", {}, el("span", { class: "failed" }, `${SOURCES[decisions.source[at]]}: ${decisions.reason[at]}`), ` ${decisions.note[at].slice(0, 200)}`);
    }
    const cuts = decisions.cuts[at] || RISKS[decisions.risk[at]];
    return `${cuts ? `[${cuts}] ` : ""}${decisions.note[at].slice(0, 300)}`;
  }

  filter() {
    const { decisions } = this;
    const words = byId("search").value.toLowerCase();
    const action = byId("filter-action").value;
    const source = byId("filter-source")?.value ?? "";
    const trades = byId("only-trades").checked;
    const failed = byId("only-failed")?.checked;
    this.filtered = [];
    for (let at = 0; at < decisions.count; at++) {
      if (action !== "" && !this.acts(at, Number(action))) continue;
      if (source !== "" && decisions.source[at] !== Number(source)) continue;
      if (trades && !decisions.ordered(at)) continue;
      if (failed && !decisions.source[at]) continue;
      if (words && !["note", "reason", "cuts", "targets"].some((text) => decisions[text][at].toLowerCase().includes(words))) continue;
      this.filtered.push(at);
    }
    const unchanged = settings.unchanged ? `, ${number(settings.unchanged, 0)} unchanged` : "";
    byId("filter-count").textContent = this.filtered.length === decisions.count
      ? `${number(decisions.count, 0)} decisions${unchanged}` : `${number(this.filtered.length, 0)} of ${number(decisions.count, 0)}`;
    this.table.show(this.filtered);
    this.table.select(this.filtered.indexOf(this.selected ?? -1));
  }

  acts(at, side) {
    const { decisions } = this;
    if (!settings.multi_symbol) return decisions.side[at] === side;
    return side ? decisions.is(at, side === 1 ? BOUGHT : SOLD) : !decisions.ordered(at);
  }

  select(index) {
    this.selected = index;
    this.table.select(this.filtered.indexOf(index));
  }

  // The next filtered decision after (or, with -1, before) `index` that fulfils `test`; -1 if there is none.
  beside(index, direction, test = () => true) {
    const { filtered } = this;
    let at = position(filtered, index);
    if (direction < 0) at -= 1;
    else if (filtered[at] === index) at += 1;
    for (; at >= 0 && at < filtered.length; at += direction) if (test(filtered[at])) return filtered[at];
    return -1;
  }
}
