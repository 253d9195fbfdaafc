// Puts the page together: ties matrix, drawer and flip tables to one selected cell, and hears the keyboard.

async function main() {
  const cells = await Cells.load();
  paintArms();
  const drawer = new Drawer(cells);
  const bands = new Bands(byId("bands"));
  let current = { row: -1, lane: -1 };

  const open = async (row, lane) => {
    if (!(row >= 0 && row < cells.count && lane >= 0 && lane < cells.lanes.length)) return;
    current = { row, lane };
    byId("decisions").classList.add("open");
    matrix.select(row, lane);
    await drawer.open(row, lane);
  };
  const select = (row, lane) => {
    try { history.replaceState(null, "", `#t=${row}&c=${lane}`); } catch { /* some browsers keep a file's address fixed */ }
    return open(row, lane);
  };
  const matrix = new Matrix(cells, select);
  // At a difference, the column of an arm that makes it; else the column stays.
  const step = (direction, different) => {
    const row = matrix.beside(direction, different);
    if (row < 0) return undefined;
    return select(row, different ? differing(row) : Math.max(0, current.lane));
  };
  const differing = (row) => {
    if (matrix.flip) return cells.laneOf(matrix.flip.arm, cells.flips(row, matrix.flip));
    const lane = Math.max(0, current.lane);
    const partner = (one) => cells.laneOf(settings.baseline, cells.lanes[one].replicate);
    const apart = (one) => partner(one) >= 0 && cells.side(row, one) !== null && cells.side(row, one) !== cells.side(row, partner(one));
    if (apart(lane)) return lane;
    return matrix.shown.find(({ number: one }) => apart(one))?.number ?? lane;
  };
  const sideways = (direction) => {
    const { shown } = matrix;
    const at = shown.findIndex((lane) => lane.number === current.lane);
    const next = shown[at + direction];
    return next && select(current.row, next.number);
  };
  const close = () => {
    byId("decisions").classList.remove("open");
    current = { row: -1, lane: current.lane };
    matrix.select(-1, current.lane);
  };
  const recolour = () => { switchTheme(); bands.redraw(); };
  const onlyDifferent = () => {
    byId("only-different").checked = !byId("only-different").checked;
    matrix.filter();
  };

  byId("previous").addEventListener("click", () => step(-1, true));
  byId("next").addEventListener("click", () => step(1, true));
  byId("close").addEventListener("click", close);
  byId("theme-button").addEventListener("click", recolour);
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("flips").addEventListener("click", ({ target }) => {
    const button = target.closest("[data-flip]");
    if (!button) return;
    const [arm, base, other] = button.dataset.flip.split(",").map(Number);
    matrix.showFlip({ arm, base: FLIP_SIDES[base], other: FLIP_SIDES[other] });
    byId("decisions").scrollIntoView({ block: "start" });
    if (matrix.rows.length) select(matrix.rows[0], differing(matrix.rows[0]));
  });

  const keys = {
    n: () => step(1, true), p: () => step(-1, true), j: () => step(1, false), k: () => step(-1, false),
    ArrowRight: () => sideways(1), ArrowLeft: () => sideways(-1), d: onlyDifferent, a: () => byId("collapse")?.click(),
    w: () => current.row >= 0 && drawer.toggle(), t: recolour, Escape: close, "?": () => byId("help").showModal(),
  };
  document.addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open || target.matches("select")) return;
    const inMatrix = target.closest("#matrix") && { ArrowDown: () => step(1, false), ArrowUp: () => step(-1, false) }[key];
    const action = inMatrix || keys[key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  const linked = /^#t=(\d+)&c=(\d+)$/.exec(location.hash);
  const first = () => {
    const row = matrix.beside(1, true);
    return row < 0 ? [0, 0] : [row, differing(row)];
  };
  await Promise.all([open(...(linked ? linked.slice(1).map(Number) : first())), showPrompts()]);
  window.__ready = performance.now();
  await bands.draw();
  window.__drawn = performance.now();
}

// The prompts of two arms, line by line.
async function showPrompts() {
  const prompts = await blockJson("prompts-block");
  const [left, right, whole] = ["prompt-left", "prompt-right", "prompt-whole"].map(byId);
  for (const select of [left, right]) {
    select.replaceChildren(...settings.arms.map((name, arm) => el("option", { value: arm }, prompts[arm].name ? `${name}: ${prompts[arm].name}` : `${name}: no prompt`)));
  }
  const base = prompts[settings.baseline].text;
  const other = prompts.findIndex((prompt) => prompt.text !== base);
  left.value = settings.baseline;
  right.value = other >= 0 ? other : settings.arms.findIndex((_, arm) => arm !== settings.baseline);
  const draw = () => {
    const lines = diffLines(prompts[left.value].text, prompts[right.value].text);
    const changed = countChanged(lines);
    byId("prompt-count").textContent = changed ? `${number(changed, 0)} of ${number(lines.length, 0)} lines differ` : "the same text";
    byId("prompt-diff").replaceChildren(changed || whole.checked ? diffTable(lines, whole.checked) : "");
  };
  for (const control of [left, right, whole]) control.addEventListener("input", draw);
  draw();
}

start(main);
