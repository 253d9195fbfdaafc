// The drawer: two decisions made at the same time, their prompts and raw replies side by side.

class Drawer {
  constructor(cells) {
    Object.assign(this, { cells, whole: false, row: -1, left: -1, right: -1, wanted: 0 });
    this.body = byId("drawer-body");
    for (const side of ["left", "right"]) {
      const select = byId(`${side}-side`);
      select.replaceChildren(...cells.lanes.map((lane) => el("option", { value: lane.number }, cells.name(lane.number))));
      select.addEventListener("input", () => { this[side] = Number(select.value); this.show(this.row); });
    }
  }

  // A cell beside its partner: the baseline's decision of the same replicate, or for the baseline one that differs.
  async open(row, lane) {
    const { cells } = this;
    const { arm, replicate } = cells.lanes[lane];
    const beside = (other) => cells.laneOf(other, replicate);
    if (arm === settings.baseline) {
      const others = settings.arms.map((_, other) => other).filter((other) => other !== arm).map(beside).filter((other) => other >= 0);
      const differing = others.find((other) => cells.side(row, other) !== cells.side(row, lane));
      [this.left, this.right] = [lane, differing ?? others[0] ?? lane];
    } else {
      const partner = beside(settings.baseline);
      [this.left, this.right] = [partner >= 0 ? partner : lane, lane];
    }
    await this.show(row);
  }

  async show(row) {
    this.row = row;
    const { cells } = this;
    const ticket = ++this.wanted;
    byId("drawer-time").textContent = `${instant(cells.time[row])} UTC`;
    byId("drawer-price").textContent = `#${row}${settings.windows > 1 ? `, window ${cells.window[row] + 1}` : ""}${settings.targets ? "" : `, price ${number(cells.price[row], cells.decimals)}`}`;
    byId("left-side").value = this.left;
    byId("right-side").value = this.right;
    const [left, right] = await Promise.all([cells.record(row, this.left), cells.record(row, this.right)]);
    if (ticket !== this.wanted) return;
    this.body.replaceChildren(...this.parts(left, right));
    this.body.scrollTop = 0;
    this.body.dataset.cell = `${row}:${this.left}:${this.right}`;
  }

  parts(left, right) {
    const most = Math.max(left.record?.exchanges.length ?? 0, right.record?.exchanges.length ?? 0);
    const numbered = (title, at) => (most > 1 ? `${title} ${at + 1}` : title);
    const parts = [el("div", { class: "two" }, this.decision(this.left, left.record), this.decision(this.right, right.record))];
    for (let at = 0; at < most; at++) {
      const pair = [left, right].map(({ record }) => record?.exchanges[at]);
      parts.push(el("h3", {}, numbered("Raw reply", at)), el("div", { class: "two" }, ...pair.map(reply)));
    }
    for (let at = 0; at < most; at++) parts.push(...this.prompt(left, right, at, numbered("Prompt", at)));
    return parts;
  }

  decision(lane, record) {
    const { cells, row } = this;
    const { kind, glyph } = cells.mark(row, lane);
    const title = el("p", { class: "decided" }, kind === "TARGETS" ? null : el("span", { class: `mark ${kind}` }, glyph), ` ${cells.label(row, lane)}`);
    if (!record) return el("div", { class: "decision" }, title, el("p", { class: "note" }, cells.side(row, lane) === null ? "This run decided nothing at this time." : "It held: there was nothing new to say, so nothing is recorded."));
    const share = record.quantity ? record.quantity * cells.price[row] / record.equity : 0;
    const facts = [
      ["equity before", number(record.equity)],
      ...(settings.targets ? [] : [["position before", share ? percent(share, 1) : "flat"]]),
      ["latency", record.cached ? "cached" : milliseconds(record.latency_ms ?? null)],
      ["cost", record.cost_usd === undefined ? DASH : `$${significant(record.cost_usd, 3)}`],
    ];
    return el("div", { class: "decision" }, title,
      el("div", { class: "pills" },
        record.reason ? el("span", { class: "pill failed" }, record.reason) : null,
        record.repaired ? el("span", { class: "pill warn" }, `repaired: ${record.repaired}`) : null,
        ...(record.risk_cuts ?? []).map((cut) => el("span", { class: "pill warn" }, `${cut.symbol} ${cut.verdict}: ${cut.reason}`))),
      settings.targets && record.targets ? weights(record.targets) : null,
      record.note ? el("p", { class: "detail-note" }, record.note) : null,
      record.reason && record.detail ? el("p", { class: "detail-note" }, record.detail) : null,
      el("dl", { class: "facts" }, ...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
  }

  prompt(left, right, at, title) {
    const messages = [left, right].map(({ texts, record }) => (record?.exchanges[at]?.messages ?? []).map(([role, text]) => [role, texts[text]]));
    const count = Math.max(messages[0].length, messages[1].length);
    if (!count) return [];
    const diffs = Array.from({ length: count }, (_, place) => ({
      role: messages[0][place]?.[0] ?? messages[1][place][0], lines: diffLines(messages[0][place]?.[1] ?? "", messages[1][place]?.[1] ?? ""),
    }));
    const changed = diffs.reduce((sum, { lines }) => sum + countChanged(lines), 0);
    const toggle = el("button", { type: "button", class: "copy", title: "Whole prompts, or only where they differ (w)" }, this.whole ? "only what differs" : "whole prompts");
    toggle.addEventListener("click", () => this.toggle());
    const verdict = !messages[0].length || !messages[1].length ? "a model was asked on one side only" : changed ? `${number(changed, 0)} ${changed === 1 ? "line differs" : "lines differ"}`
      : this.left === this.right ? "the same decision on both sides" : "identical: whatever differs in the replies is the model's own noise";
    return [el("h3", { class: "with-button" }, title, el("span", { class: "hint" }, verdict), toggle),
      ...diffs.flatMap(({ role, lines }) => [el("p", { class: "role" }, role), diffTable(lines, this.whole)])];
  }

  toggle() {
    this.whole = !this.whole;
    return this.show(this.row);
  }
}

// The weights of a decision, the largest first; those that are not named are 0.
function weights(targets) {
  const named = targets.filter(({ share }) => share).sort((one, other) => Math.abs(other.share) - Math.abs(one.share));
  if (!named.length) return el("p", { class: "note" }, "Nothing: everything is sold.");
  return el("dl", { class: "facts" }, ...named.map(({ symbol, share }) => el("div", {}, el("dt", {}, symbol), el("dd", {}, percent(share, 1)))));
}

function reply(exchange) {
  if (!exchange) return el("p", { class: "note" }, "No model was asked.");
  const parts = [];
  if (exchange.failure) parts.push(el("p", { class: "note" }, `No reply: ${exchange.failure}`));
  if (exchange.refusal) parts.push(el("p", { class: "role" }, "refusal"), el("pre", {}, exchange.refusal));
  if (exchange.reply !== undefined) parts.push(el("pre", { class: "reply" }, exchange.reply || "(empty)"));
  return el("div", {}, ...parts);
}
