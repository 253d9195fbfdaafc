// The decisions: their index, the filters, and the table of those that pass.

const SIDES = ["HOLD", "BUY", "SELL"];
const SOURCES = ["model", "invalid", "transport", "budget"];
const RISKS = ["", "clipped", "rejected"];
const ORDERED = 1;
const CACHED = 2;

class Decisions {
  static async load() {
    const decisions = new Decisions();
    const [packed, texts] = await Promise.all([blockColumns("index-block"), blockJson("texts-block")]);
    for (const name of Object.keys(packed)) decisions[name] = scaled(packed[name]);
    Object.assign(decisions, texts);
    decisions.decimals = Math.min(8, Math.round(Math.log10(packed.price.scale)));
    decisions.count = decisions.time.length;
    decisions.kinds = Array.from(decisions.source, (source, at) => source ? "failed" : SIDES[decisions.side[at]]);
    return decisions;
  }

  async record(index) { return (await chunk(Math.floor(index / settings.chunk)))[index % settings.chunk]; }

  ordered(index) { return (this.flags[index] & ORDERED) !== 0; }

  glyph(index) {
    const kind = this.kinds[index];
    return GLYPHS[kind][this.ordered(index) ? 0 : 1];
  }

  action(index) {
    const size = this.size[index];
    const side = SIDES[this.side[index]];
    return side === "HOLD" || Number.isNaN(size) ? side : `${side} ${percent(size, size * 100 % 1 ? 1 : 0)}`;
  }

  label(index) {
    const failed = this.source[index] ? `, ${SOURCES[this.source[index]]}` : "";
    return `#${index} ${this.action(index)}${failed}`;
  }
}

class DecisionList {
  constructor(decisions, onPick) {
    this.decisions = decisions;
    this.passing = [];
    this.table = new GridTable(byId("decision-table"), {
      label: "Decisions", empty: "No decision passes these filters.", onPick,
      columns: [
        { title: "#", width: "44px", right: true, dim: true, cell: (at) => String(at) },
        { title: "Time (UTC)", width: "122px", cell: (at) => instant(decisions.time[at]) },
        { title: "Price", width: "76px", right: true, cell: (at) => number(decisions.price[at], Math.min(2, decisions.decimals)) },
        { title: "Decision", width: "92px", cell: (at) => el("span", {}, el("span", { class: `mark ${decisions.kinds[at]}` }, decisions.glyph(at)), ` ${decisions.action(at)}`) },
        { title: "Position", width: "50px", right: true, dim: true, from: 700, cell: (at) => Math.abs(decisions.share[at]) < 5e-5 ? "flat" : percent(decisions.share[at], 0) },
        { title: "Equity", width: "80px", right: true, cell: (at) => number(decisions.equity[at]) },
        { title: "Latency", width: "54px", right: true, dim: true, from: 760, cell: (at) => decisions.flags[at] & CACHED ? "cached" : milliseconds(decisions.latency[at]) },
        { title: "Note or reason", width: "minmax(80px, 1fr)", cell: (at) => this.remark(at) },
      ],
    });
    for (const id of ["search", "filter-action", "filter-source", "only-trades", "only-failed"]) {
      byId(id).addEventListener("input", () => this.filter());
    }
    this.filter();
  }

  remark(at) {
    const { decisions } = this;
    if (decisions.source[at]) {
      return el("span", {}, el("span", { class: "failed" }, `${SOURCES[decisions.source[at]]}: ${decisions.reason[at]}`), ` ${decisions.note[at].slice(0, 200)}`);
    }
    const risk = RISKS[decisions.risk[at]];
    return `${risk ? `[${risk}] ` : ""}${decisions.note[at].slice(0, 300)}`;
  }

  filter() {
    const { decisions } = this;
    const words = byId("search").value.toLowerCase();
    const action = byId("filter-action").value;
    const source = byId("filter-source").value;
    const trades = byId("only-trades").checked;
    const failed = byId("only-failed").checked;
    this.passing = [];
    for (let at = 0; at < decisions.count; at++) {
      if (action !== "" && decisions.side[at] !== Number(action)) continue;
      if (source !== "" && decisions.source[at] !== Number(source)) continue;
      if (trades && !decisions.ordered(at)) continue;
      if (failed && !decisions.source[at]) continue;
      if (words && !decisions.note[at].toLowerCase().includes(words) && !decisions.reason[at].toLowerCase().includes(words)) continue;
      this.passing.push(at);
    }
    byId("filter-count").textContent = this.passing.length === decisions.count
      ? `${number(decisions.count, 0)} decisions` : `${number(this.passing.length, 0)} of ${number(decisions.count, 0)}`;
    this.table.show(this.passing);
    this.table.select(this.passing.indexOf(this.selected ?? -1));
  }

  select(index) {
    this.selected = index;
    this.table.select(this.passing.indexOf(index));
  }

  // The next one after (or, with -1, before) `index` that passes the filters and `test`; -1 if there is none.
  beside(index, direction, test = () => true) {
    const { passing } = this;
    let at = position(passing, index);
    if (direction < 0) at -= 1;
    else if (passing[at] === index) at += 1;
    for (; at >= 0 && at < passing.length; at += direction) if (test(passing[at])) return passing[at];
    return -1;
  }
}
