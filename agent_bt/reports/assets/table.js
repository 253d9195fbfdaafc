// A table of any length: only the rows in view exist.

const ROW_HEIGHT = 26;

class GridTable {
  // columns: [{ title, width, right, cell(row) -> text or element }]; onPick(row) when a row is clicked.
  constructor(container, { columns, onPick, empty = "Nothing here.", label }) {
    this.columns = columns;
    this.onPick = onPick;
    this.rows = [];
    this.pool = new Map();
    this.selected = -1;
    container.style.setProperty("--columns", columns.map((column) => column.width).join(" "));
    const head = el("div", { class: "gt-head", role: "row" }, ...columns.map((column) =>
      el("span", { class: column.right ? "r" : "", role: "columnheader" }, column.title)));
    this.space = el("div");
    this.empty = el("div", { class: "gt-empty", hidden: true }, empty);
    this.body = el("div", { class: "gt-body", tabindex: "0", role: "rowgroup" }, this.space, this.empty);
    container.setAttribute("role", "table");
    container.setAttribute("aria-label", label);
    container.replaceChildren(head, this.body);
    this.body.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.body);
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
      if (top < view.scrollTop) view.scrollTop = top - ROW_HEIGHT;
      else if (top + ROW_HEIGHT > view.scrollTop + view.clientHeight) view.scrollTop = top + 2 * ROW_HEIGHT - view.clientHeight;
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
    for (const column of this.columns) {
      const content = column.cell(row);
      const cell = el("span", { class: `${column.right ? "r" : ""} ${column.dim ? "dim" : ""}`, role: "cell" }, content);
      if (typeof content === "string" && content.length > 24) cell.title = content.slice(0, 400);
      element.append(cell);
    }
    return element;
  }
}
