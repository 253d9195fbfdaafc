// The matrix: decision times x arms and replicates. What counts as a difference, the filters, and the rows in view.

const SIDES = ["HOLD", "BUY", "SELL"];
const SOURCES = ["model", "invalid", "transport", "budget"];
const LINE = 24;
const FLIP_SIDES = ["BUY", "SELL", "HOLD"];

class Cells {
  static async load() {
    const cells = new Cells();
    const packed = await blockColumns("index-block");
    cells.count = settings.count;
    cells.lanes = settings.lanes.map(({ arm, replicate }, number) => ({
      arm, replicate, number, codes: packed[`cell${number}`].codes, size: scaled(packed[`size${number}`]),
      group: packed[`group${number}`]?.codes, held: packed[`held${number}`]?.codes,
    }));
    cells.time = scaled(packed.time);
    cells.window = packed.window.codes;
    cells.price = scaled(packed.price);
    cells.decimals = Math.min(2, Math.round(Math.log10(packed.price.scale)));
    cells.replicates = Math.max(...cells.lanes.map((lane) => lane.replicate)) + 1;
    return cells;
  }

  async record(row, lane) {
    const { texts, rows } = await chunk(Math.floor(row / settings.chunk));
    return { texts, record: rows[row % settings.chunk][lane] };
  }

  // HOLD, BUY or SELL as it was counted (a failed reply is a HOLD); over many symbols a number that stands for the
  // weights wanted; null where the run decided nothing.
  side(row, lane) {
    const { codes, group } = this.lanes[lane];
    if (Number.isNaN(codes[row])) return null;
    return settings.targets ? group[row] : SIDES[codes[row] % 4];
  }

  // What is drawn: kind and glyph.
  mark(row, lane) {
    const code = this.lanes[lane].codes[row];
    if (Number.isNaN(code)) return { kind: "none", glyph: "" };
    const kind = code % 16 >= 4 ? "failed" : SIDES[code % 4];
    if (settings.targets && kind !== "failed") return { kind: "TARGETS", glyph: String(this.lanes[lane].held[row]) };
    return { kind, glyph: GLYPHS[kind][code >= 16 ? 0 : 1] };
  }

  label(row, lane) {
    const code = this.lanes[lane].codes[row];
    if (Number.isNaN(code)) return "no decision";
    const size = this.lanes[lane].size[row];
    const side = settings.targets ? wanted(this.lanes[lane].held[row]) : SIDES[code % 4];
    const failed = SOURCES[Math.floor(code / 4) % 4];
    const sized = settings.targets || side === "HOLD" || Number.isNaN(size) ? side : `${side} ${percent(size, size * 100 % 1 ? 1 : 0)}`;
    return code % 16 >= 4 ? `${sized}, ${failed}` : sized;
  }

  laneOf(arm, replicate) {
    return this.lanes.find((lane) => lane.arm === arm && lane.replicate === replicate)?.number ?? -1;
  }

  name(lane) {
    const { arm, replicate } = this.lanes[lane];
    return this.replicates > 1 ? `${settings.arms[arm]} · ${replicate + 1}` : settings.arms[arm];
  }

  // The side that most replicates of an arm took, how many of how many, and null on a tie.
  majority(row, arm) {
    const counts = new Map();
    let total = 0;
    for (const lane of this.lanes) {
      const side = lane.arm === arm ? this.side(row, lane.number) : null;
      if (side === null) continue;
      counts.set(side, (counts.get(side) ?? 0) + 1);
      total += 1;
    }
    const [[side, most] = [null, 0], [, second] = [null, 0]] = [...counts].sort((one, other) => other[1] - one[1]);
    return { side: most > second ? side : null, most, total };
  }

  differs(row, way, arms) {
    if (way === "majority") {
      const sides = arms.map((arm) => this.majority(row, arm).side).filter((side) => side !== null);
      return new Set(sides).size > 1;
    }
    const groups = new Map();
    for (const lane of this.lanes) {
      if (!arms.includes(lane.arm) || Number.isNaN(lane.codes[row])) continue;
      const key = way === "paired" ? lane.replicate : lane.arm;
      const side = this.side(row, lane.number);
      if (groups.has(key) && groups.get(key) !== side) return true;
      groups.set(key, side);
    }
    return false;
  }

  // Whether in some replicate the baseline did `base` and the arm `other`.
  flips(row, { arm, base, other }) {
    for (let replicate = 0; replicate < this.replicates; replicate++) {
      const [one, two] = [this.laneOf(settings.baseline, replicate), this.laneOf(arm, replicate)];
      if (one >= 0 && two >= 0 && this.side(row, one) === base && this.side(row, two) === other) return replicate;
    }
    return -1;
  }
}

class Matrix {
  // onPick(row, lane) when a cell is clicked.
  constructor(cells, onPick) {
    Object.assign(this, { cells, onPick, rows: [], pool: new Map(), selected: { row: -1, lane: -1 }, flip: null, collapsed: false });
    this.hidden = new Set();
    this.head = el("div", { class: "mx-head", role: "row" });
    this.space = el("div");
    this.empty = el("div", { class: "gt-empty", hidden: true }, "No decision time passes these filters.");
    this.body = el("div", { class: "mx-body", tabindex: "0" }, this.head, this.space, this.empty);
    byId("matrix").replaceChildren(this.body);
    this.body.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => { this.fit(); this.draw(); }).observe(this.body);
    this.body.addEventListener("click", ({ target }) => {
      const row = target.closest(".mx-row");
      if (!row) return;
      const lane = target.closest("[data-lane]")?.dataset.lane ?? this.selected.lane;
      this.onPick(Number(row.dataset.row), Math.max(0, Number(lane)));
    });
    for (const id of ["only-different", "difference"]) byId(id).addEventListener("input", () => this.filter());
    byId("collapse")?.addEventListener("click", () => this.collapse());
    byId("flip-chip").addEventListener("click", () => this.showFlip(null));
    this.legend();
    this.columns();
    this.filter();
  }

  get arms() { return settings.arms.map((_, arm) => arm).filter((arm) => !this.hidden.has(arm)); }

  get way() { return byId("difference").value; }

  // The lanes in view: all of the shown arms, or the first of each when collapsed.
  get shown() {
    return this.cells.lanes.filter((lane) => !this.hidden.has(lane.arm) && (!this.collapsed || lane.replicate === 0));
  }

  legend() {
    byId("arms").replaceChildren(...settings.arms.map((name, arm) => {
      const button = el("button", { type: "button", "aria-pressed": "true", title: `Show or hide ${name}` },
        el("i", { class: "arm-dot", "data-arm": arm }), name);
      button.addEventListener("click", () => {
        if (!this.hidden.delete(arm)) this.hidden.add(arm);
        button.setAttribute("aria-pressed", !this.hidden.has(arm));
        this.columns();
        this.filter();
      });
      return button;
    }));
    paintArms();
  }

  collapse() {
    this.collapsed = !this.collapsed;
    byId("collapse").setAttribute("aria-pressed", this.collapsed);
    this.columns();
    this.filter();
  }

  columns() {
    const { shown } = this;
    this.fit();
    this.body.style.setProperty("--head", this.collapsed || this.cells.replicates === 1 ? "26px" : "52px");
    const groups = [];
    for (const lane of shown) {
      const last = groups[groups.length - 1];
      if (last?.arm === lane.arm) last.count += 1; else groups.push({ arm: lane.arm, count: 1 });
    }
    this.head.replaceChildren(
      el("div", { class: "mx-key", role: "columnheader" }, "Time (UTC)"), el("div", { class: "mx-price", role: "columnheader" }, "Price"), el("div", { class: "mx-sign" }),
      ...groups.map(({ arm, count }) => {
        const head = el("div", { class: "mx-arm", role: "columnheader", title: settings.arms[arm] }, el("i", { class: "arm-dot", "data-arm": arm }), settings.arms[arm]);
        head.style.gridColumn = `span ${count}`;
        return head;
      }),
      ...(this.collapsed || this.cells.replicates === 1 ? [] : [
        el("div", { class: "mx-key under" }, ""), el("div", { class: "mx-price under" }), el("div", { class: "mx-sign under" }),
        ...shown.map((lane) => el("div", { class: `mx-lane ${lane.replicate === 0 ? "first" : ""}`, title: this.cells.name(lane.number) }, String(lane.replicate + 1)))]));
    paintArms(this.head);
    this.clear();
  }

  // As wide as fits, within reason; where it is tight, the price makes room.
  fit() {
    const lanes = this.shown.length;
    const [least, most] = this.collapsed || this.cells.replicates === 1 ? [54, 110] : [22, 46];
    const room = this.body.clientWidth - 158;
    const tight = settings.targets || lanes * least > room - 76;
    this.body.classList.toggle("tight", tight);
    const width = Math.max(least, Math.min(most, Math.floor((tight ? room : room - 76) / Math.max(1, lanes))));
    this.body.style.setProperty("--lanes", lanes ? `repeat(${lanes}, ${width}px)` : "");
  }

  filter() {
    const { cells, arms, way, flip } = this;
    const only = byId("only-different").checked;
    this.rows = [];
    for (let row = 0; row < cells.count; row++) {
      if (flip && cells.flips(row, flip) < 0) continue;
      if (only && !cells.differs(row, way, arms)) continue;
      this.rows.push(row);
    }
    const all = number(cells.count, 0);
    byId("filter-count").textContent = this.rows.length === cells.count ? `${all} decision times` : `${number(this.rows.length, 0)} of ${all} decision times`;
    this.space.style.height = `${this.rows.length * LINE}px`;
    this.empty.hidden = this.rows.length > 0;
    this.clear();
    this.draw();
    this.scrollTo(this.selected.row);
  }

  showFlip(flip) {
    this.flip = flip;
    const chip = byId("flip-chip");
    chip.hidden = !flip;
    if (flip) chip.textContent = `${settings.arms[settings.baseline]} ${flip.base} → ${settings.arms[flip.arm]} ${flip.other} ✕`;
    this.filter();
  }

  clear() {
    for (const element of this.pool.values()) element.remove();
    this.pool.clear();
  }

  select(row, lane) {
    this.selected = { row, lane };
    this.scrollTo(row);
    this.draw();
  }

  scrollTo(row) {
    const at = this.rows.indexOf(row);
    if (at < 0) return;
    const top = at * LINE;
    const room = this.body.clientHeight - this.head.offsetHeight;
    const above = this.body.scrollTop - top;
    const below = top + LINE - this.body.scrollTop - room;
    if (Math.max(above, below) > 3 * LINE) this.body.scrollTop = top - Math.floor(room / LINE / 2) * LINE;
    else if (above > 0) this.body.scrollTop = top - LINE;
    else if (below > 0) this.body.scrollTop = top + 2 * LINE - room;
    // Sideways by hand: scrollIntoView would move the whole page, and hide the verdict when it opens.
    const cell = this.body.querySelector(`[data-row="${row}"] [data-lane="${this.selected.lane}"]`);
    if (!cell) return;
    const view = this.body.getBoundingClientRect(), box = cell.getBoundingClientRect();
    if (box.left < view.left) this.body.scrollLeft -= view.left - box.left;
    else if (box.right > view.right) this.body.scrollLeft += box.right - view.right;
  }

  // The next row after (or, with -1, before) the selected one that passes the filters and, if asked, differs; -1: none.
  beside(direction, different) {
    const { rows, selected, cells, arms, way } = this;
    let at = rows.findIndex((row) => row >= selected.row);
    if (at < 0) at = rows.length;
    if (direction < 0) at -= 1;
    else if (rows[at] === selected.row) at += 1;
    for (; at >= 0 && at < rows.length; at += direction) if (!different || cells.differs(rows[at], way, arms)) return rows[at];
    return -1;
  }

  draw() {
    const top = this.body.scrollTop;
    const first = Math.max(0, Math.floor(top / LINE) - 6);
    const last = Math.min(this.rows.length, Math.ceil((top + this.body.clientHeight) / LINE) + 6);
    for (const [at, element] of this.pool) {
      if (at < first || at >= last) { element.remove(); this.pool.delete(at); }
    }
    for (let at = first; at < last; at++) {
      let element = this.pool.get(at);
      if (!element) {
        element = this.make(at);
        this.pool.set(at, element);
        this.body.append(element);
      }
      const chosen = this.rows[at] === this.selected.row;
      element.classList.toggle("selected", chosen);
      for (const cell of element.querySelectorAll("[data-lane]")) {
        const lane = this.cells.lanes[this.selected.lane];
        const own = Number(cell.dataset.lane);
        cell.classList.toggle("selected", chosen && (this.collapsed ? this.cells.lanes[own].arm === lane?.arm : own === this.selected.lane));
      }
    }
  }

  make(at) {
    const { cells } = this;
    const row = this.rows[at];
    const different = cells.differs(row, this.way, this.arms);
    const element = el("div", { class: `mx-row ${different ? "differs" : ""}`, role: "row", "data-row": row },
      el("div", { class: "mx-key" }, instant(cells.time[row])),
      el("div", { class: "mx-price" }, number(cells.price[row], cells.decimals)),
      el("div", { class: "mx-sign", title: different ? "The arms differ here" : null }, different ? "≠" : ""),
      ...this.shown.map((lane) => this.cell(row, lane)));
    element.style.top = `calc(var(--head) + ${at * LINE}px)`;
    return element;
  }

  cell(row, lane) {
    const { cells } = this;
    const first = lane.replicate === 0 ? "first" : "";
    if (this.collapsed && cells.replicates > 1) {
      const { side, most, total } = cells.majority(row, lane.arm);
      const there = side !== null;
      const kind = total ? there ? settings.targets ? "TARGETS" : side : "split" : "none";
      const text = total === 0 ? "" : !there ? "split" : most === total ? "" : `${most}/${total}`;
      const held = there && settings.targets ? cells.lanes.find((one) => one.arm === lane.arm && one.group[row] === side).held[row] : 0;
      const named = !there ? "no majority" : settings.targets ? wanted(held) : side;
      return el("div", { class: `mx-cell ${kind} ${first}`, "data-lane": lane.number, title: `${settings.arms[lane.arm]}: ${total ? `${named}, ${most} of ${total}` : "no decision"}` },
        el("span", {}, total && there ? settings.targets ? String(held) : GLYPHS[side][0] : ""), text ? el("small", {}, text) : "");
    }
    const { kind, glyph } = cells.mark(row, lane.number);
    return el("div", { class: `mx-cell ${kind} ${first}`, "data-lane": lane.number, title: `${cells.name(lane.number)}: ${cells.label(row, lane.number)}` }, glyph);
  }
}

function wanted(count) {
  return count === 1 ? "1 symbol" : `${count} symbols`;
}

// The colour of every arm, wherever its dot stands.
function paintArms(root = document) {
  for (const dot of root.querySelectorAll(".arm-dot")) dot.style.background = `var(--arm${armColour(Number(dot.dataset.arm))})`;
}

// The baseline has a colour of its own; the others take turns.
function armColour(arm) {
  if (arm === settings.baseline) return 0;
  const place = arm < settings.baseline ? arm : arm - 1;
  return 1 + place % 7;
}
