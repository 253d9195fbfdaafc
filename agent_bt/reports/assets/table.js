// A table of any length: only the visible rows are elements of the page.

const ROW_HEIGHT = 26;

class GridTable {
  // columns: [{ title, width, right, dim, from, cell(row) -> text or element }]: `from` is the minimum width of the
  // table at which the column is shown. onPick(row) when a row is clicked.
  constructor(container, { columns, onPick, empty = "No rows.", label }) {
    this.columns = columns;
    this.onPick = onPick;
    this.rows = [];
    this.pool = new Map();
    this.selected = -1;
    this.container = container;
    this.head = el("div", { class: "gt-head", role: "row" });
    this.space = el("div");
    this.empty = el("div", { class: "gt-empty", hidden: true }, empty);
    this.body = el("div", { class: "gt-body", tabindex: "0", role: "rowgroup" }, this.space, this.empty);
    container.setAttribute("role", "table");
    container.setAttribute("aria-label", label);
    container.replaceChildren(this.head, this.body);
    this.fit();
    this.body.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => { this.fit(); this.draw(); }).observe(container);
  }

  fit() {
    const fitting = this.columns.filter((column) => this.container.clientWidth >= (column.from ?? 0));
    if (fitting.length === this.fitting?.length) return;
    this.fitting = fitting;
    this.container.style.setProperty("--columns", fitting.map((column) => column.width).join(" "));
    this.head.replaceChildren(...fitting.map((column) =>
      el("span", { class: column.right ? "r" : "", role: "columnheader" }, column.title)));
    for (const element of this.pool.values()) element.remove();
    this.pool.clear();
  }

  show(rows) {
    this.rows = rows;
    for (const element of this.pool.values()) element.remove();
    this.pool.clear();
    this.space.style.height = `${rows.length * ROW_HEIGHT}px`;
    this.empty.hidden = rows.length > 0;
    this.draw();
  }

  select(position, scroll = true) {
    this.selected = position;
    if (scroll && position >= 0) {
      const top = position * ROW_HEIGHT;
      const view = this.body;
      const above = view.scrollTop - top;
      const below = top + ROW_HEIGHT - view.scrollTop - view.clientHeight;
      // The next row scrolls the table by one row; a jump centres the row.
      if (Math.max(above, below) > 3 * ROW_HEIGHT) view.scrollTop = top - Math.floor(view.clientHeight / ROW_HEIGHT / 2) * ROW_HEIGHT;
      else if (above > 0) view.scrollTop = top - ROW_HEIGHT;
      else if (below > 0) view.scrollTop = top + 2 * ROW_HEIGHT - view.clientHeight;
    }
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.body.scrollTop / ROW_HEIGHT) - 4);
    const last = Math.min(this.rows.length, Math.ceil((this.body.scrollTop + this.body.clientHeight) / ROW_HEIGHT) + 4);
    for (const [position, element] of this.pool) {
      if (position < first || position >= last) { element.remove(); this.pool.delete(position); }
    }
    for (let position = first; position < last; position++) {
      let element = this.pool.get(position);
      if (!element) {
        element = this.make(position);
        this.pool.set(position, element);
        this.body.append(element);
      }
      element.classList.toggle("selected", position === this.selected);
      element.setAttribute("aria-selected", position === this.selected);
    }
  }

  make(position) {
    const row = this.rows[position];
    const element = el("div", { class: "gt-row", role: "row", "data-position": position, onclick: () => this.onPick(row, position) });
    element.style.top = `${position * ROW_HEIGHT}px`;
    for (const column of this.fitting) {
      const content = column.cell(row);
      const cell = el("span", { class: `${column.right ? "r" : ""} ${column.dim ? "dim" : ""}`, role: "cell" }, content);
      if (typeof content === "string" && content.length > 24) cell.title = content.slice(0, 400);
      element.append(cell);
    }
    return element;
  }
}
