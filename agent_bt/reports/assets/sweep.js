// A sweep's page: the map of two parameters, the table of all combinations, and the daily equity curves.

const CURVES = {
  walk_forward: { name: "Walk-forward (chosen before)", colour: "strategy", width: 2 },
  buy_and_hold: { name: "Buying and holding", colour: "buy_and_hold", width: 1.3, dash: "dot" },
  best: { name: "Best, chosen on this data", colour: "random", width: 1.3, dash: "dash" },
};
const FORMS = {
  ratio: (value) => number(value), share: (value) => percent(value), count: (value) => number(value, 0),
  amount: (value) => number(value),
};
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

class Results {
  static async load() {
    const packed = await blockColumns("results-block");
    const results = new Results();
    results.params = settings.params.map((_, at) => packed[`p${at}`].codes);
    results.measures = Object.fromEntries(settings.measures.map(({ name }) => [name, scaled(packed[name])]));
    return results;
  }

  // Rows in the order of a measure, what is undefined last; equal ones as they were tried.
  sorted(name, descending = true) {
    const values = this.measures[name];
    const key = (row) => Number.isNaN(values[row]) ? Infinity : descending ? -values[row] : values[row];
    return Array.from({ length: settings.count }, (_, row) => row).sort((one, other) => key(one) - key(other) || one - other);
  }

  sortedByParam(at) {
    const codes = this.params[at];
    return Array.from({ length: settings.count }, (_, row) => row).sort((one, other) => codes[one] - codes[other] || one - other);
  }

  // For each cell of two parameters the row that the metric likes best among those that `fixed` (param -> code) lets pass.
  cells(x, y, fixed) {
    const width = settings.params[x].values.length;
    const found = new Map();
    const score = this.measures[settings.metric];
    for (let row = 0; row < settings.count; row++) {
      if (Object.entries(fixed).some(([at, code]) => this.params[at][row] !== code)) continue;
      const cell = (y < 0 ? 0 : this.params[y][row]) * width + this.params[x][row];
      const before = found.get(cell);
      if (before === undefined || score[row] > score[before] || Number.isNaN(score[before]) && !Number.isNaN(score[row])) found.set(cell, row);
    }
    return found;
  }

  told(row) {
    return settings.params.map(({ name, values }, at) => `${name} ${values[this.params[at][row]]}`).join(", ");
  }
}

class HeatMap {
  constructor(results, onPick) {
    this.results = results;
    this.onPick = onPick;
    const varied = settings.params.map((param, at) => ({ ...param, at })).filter(({ values }) => values.length > 1);
    this.varied = varied.length ? varied : settings.params.slice(0, 1).map((param) => ({ ...param, at: 0 }));
    const last = this.varied.slice(-2);
    this.y = last.length > 1 ? last[0].at : -1;
    this.x = last.at(-1).at;
    if (this.varied.length > 1) { this.x = this.varied[0].at; this.y = this.varied[1].at; }
    this.fixed = {};
    this.measure = settings.metric;
    this.controls();
  }

  controls() {
    const select = (label, options, chosen, pick) => {
      const element = el("select", { "aria-label": label, oninput: ({ target }) => { pick(target.value); this.redraw(); } },
        ...options.map(([value, text]) => el("option", { value, selected: String(value) === String(chosen) }, text)));
      return el("label", {}, label, " ", element);
    };
    const names = this.varied.map(({ at, name }) => [at, name]);
    const bar = [select("colour", settings.measures.map(({ name, title }) => [name, title]), this.measure, (value) => { this.measure = value; })];
    if (this.varied.length > 1) {
      const swap = (axis, other) => (value) => {
        if (Number(value) === this[other]) this[other] = this[axis];
        this[axis] = Number(value);
        this.fixed = {};
        this.controls();
      };
      bar.push(select("across", names, this.x, swap("x", "y")), select("down", names, this.y, swap("y", "x")));
    }
    for (const { at, name, values } of this.varied) {
      if (at === this.x || at === this.y) continue;
      bar.push(select(name, [["", "best of all"], ...values.map((value, code) => [code, value])], this.fixed[at] ?? "", (value) => {
        if (value === "") delete this.fixed[at];
        else this.fixed[at] = Number(value);
      }));
    }
    byId("map-bar").replaceChildren(el("b", {}, "Map of the parameters"), ...bar);
  }

  async draw() {
    if (!(await plotlyLoaded())) { byId("heat").replaceChildren(noChart()); return; }
    const { traces, layout } = this.figure();
    await Plotly.newPlot(byId("heat"), traces, layout, { displayModeBar: false, responsive: true, showTips: false });
    byId("heat").on("plotly_click", ({ points }) => {
      const row = this.rows[points[0].pointIndex[0]]?.[points[0].pointIndex[1]];
      if (row !== undefined) this.onPick(row);
    });
    this.drawn = true;
  }

  redraw() {
    if (!this.drawn) return;
    const { traces, layout } = this.figure();
    Plotly.react(byId("heat"), traces, layout);
  }

  figure() {
    const across = settings.params[this.x];
    const down = this.y < 0 ? { name: "", values: [""] } : settings.params[this.y];
    const { title, form } = settings.measures.find(({ name }) => name === this.measure);
    const found = this.results.cells(this.x, this.y, this.fixed);
    const values = this.results.measures[this.measure];
    const width = across.values.length;
    this.rows = down.values.map((_, y) => across.values.map((__, x) => found.get(y * width + x)));
    const z = this.rows.map((line) => line.map((row) => row === undefined || Number.isNaN(values[row]) ? null : values[row]));
    const shown = z.flat().filter((value) => value !== null);
    const text = this.rows.map((line) => line.map((row) => row === undefined ? "" : FORMS[form](values[row])));
    const [least, most] = [Math.min(...shown), Math.max(...shown)];
    const signed = least < 0 && this.measure !== "max_drawdown";
    const size = Math.max(Math.abs(least), Math.abs(most)) || 1;
    const scale = signed ? [[0, colour("loss")], [0.5, colour("sunk")], [1, colour("gain")]] : [[0, colour("sunk")], [1, colour("accent")]];
    const font = { family: getComputedStyle(document.body).fontFamily, size: 11, color: colour("ink") };
    const axis = { type: "category", gridcolor: "rgba(0,0,0,0)", linecolor: colour("line"), tickfont: { color: colour("muted"), size: 11 }, fixedrange: true, automargin: true };
    const few = shown.length <= 400 && width <= 24;
    const hint = [`Each cell: ${title.toLowerCase()} over the whole range.`];
    const open = this.varied.filter(({ at }) => at !== this.x && at !== this.y && this.fixed[at] === undefined);
    if (open.length) hint.push(`Of ${open.map(({ name }) => name).join(" and ")}, the value with the best ${settings.metric}.`);
    hint.push("A good cell among bad ones is luck more often than not; click a cell to find it in the table. Empty: not tried.");
    if ("out_of_sample_sharpe" in this.results.measures) hint.push("Tested: held through all test windows together.");
    byId("map-hint").textContent = hint.join(" ");
    const traces = [{
      type: "heatmap", x: across.values, y: down.values, z, text, texttemplate: few ? "%{text}" : "", hoverongaps: false, xgap: few ? 2 : 0.5, ygap: few ? 2 : 0.5,
      customdata: this.rows.map((line) => line.map((row) => row === undefined ? "" : this.results.told(row))),
      hovertemplate: `%{customdata}<br>${title} %{text}<extra></extra>`, colorscale: scale,
      zmin: signed ? -size : least, zmax: signed ? size : (most > least ? most : least + 1),
      colorbar: { thickness: 10, outlinewidth: 0, tickfont: { color: colour("muted"), size: 10 }, tickformat: form === "share" ? ".0%" : undefined },
    }];
    const layout = {
      margin: { l: 70, r: 12, t: 14, b: 46 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font,
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { ...font, size: 12 } },
      xaxis: { ...axis, title: { text: across.name, font: { ...font, color: colour("muted") } } },
      yaxis: { ...axis, title: { text: down.name, font: { ...font, color: colour("muted") } } },
    };
    return { traces, layout };
  }
}

class Equity {
  async draw() {
    if (!(await plotlyLoaded())) { byId("curves").append(noChart()); return; }
    const packed = await blockColumns("curves-block");
    this.curves = settings.curves.map((name) => ({ name, time: Array.from(scaled(packed[`${name}_time`])), equity: Array.from(scaled(packed[name])) }));
    const { traces, layout } = this.figure();
    await Plotly.newPlot(byId("curves"), traces, layout, { displayModeBar: false, responsive: true, showTips: false });
  }

  redraw() {
    if (!this.curves) return;
    const { traces, layout } = this.figure();
    Plotly.react(byId("curves"), traces, layout);
  }

  figure() {
    const traces = this.curves.map(({ name, time, equity }) => ({
      x: time, y: equity, type: "scatter", mode: "lines", name: CURVES[name].name, hovertemplate: "%{y:,.2f}",
      line: { color: colour(CURVES[name].colour), width: CURVES[name].width, dash: CURVES[name].dash ?? "solid" },
    }));
    const font = { family: getComputedStyle(document.body).fontFamily, size: 11, color: colour("ink") };
    const axis = { gridcolor: colour("grid"), linecolor: colour("line"), tickfont: { color: colour("muted"), size: 11 } };
    const layout = {
      margin: { l: 12, r: 62, t: 26, b: 32 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font, hovermode: "x unified", dragmode: "zoom",
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { ...font, size: 12 } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { ...font, color: colour("muted") } },
      xaxis: { ...axis, type: "date", zeroline: false }, yaxis: { ...axis, side: "right", tickformat: ",.0f", zeroline: false, fixedrange: true },
    };
    return { traces, layout };
  }
}

function makeTable(results) {
  let sortedBy = settings.metric;
  const buttons = [];
  const sort = (key, rows) => {
    sortedBy = key;
    for (const [name, button] of buttons) button.setAttribute("aria-pressed", name === key);
    table.show(rows());
    table.select(-1, false);
    table.body.scrollTop = 0;
  };
  const heading = (key, text, rows) => {
    const button = el("button", { type: "button", class: "sort", "aria-pressed": key === sortedBy, onclick: () => sort(key, rows) }, text);
    buttons.push([key, button]);
    return button;
  };
  const columns = settings.params.map(({ name, values }, at) => ({
    title: heading(`p${at}`, name, () => results.sortedByParam(at)), width: "minmax(54px, 1fr)", right: true, cell: (row) => values[results.params[at][row]],
  }));
  settings.measures.forEach(({ name, title, form }, place) => columns.push({
    title: heading(name, title, () => results.sorted(name)), width: "minmax(70px, 1fr)", right: true,
    from: name === settings.metric || place < 3 || name.startsWith("out_of") ? 0 : 700 + 70 * place,
    cell: (row) => FORMS[form](results.measures[name][row]),
  }));
  const table = new GridTable(byId("combination-table"), { columns, label: "Combinations", onPick: (row, position) => table.select(position, false) });
  table.show(results.sorted(settings.metric));
  return { table, find: (row) => {
    const position = table.rows.indexOf(row);
    table.select(position);
    byId("combinations").scrollIntoView({ block: "start" });
  } };
}

async function main() {
  const results = await Results.load();
  await parsed;
  const { find } = makeTable(results);
  const map = new HeatMap(results, find);
  const equity = new Equity();
  const recolour = () => { switchTheme(); map.redraw(); equity.redraw(); };
  byId("theme-button").addEventListener("click", recolour);
  document.addEventListener("keydown", (event) => {
    if (event.key === "t" && !event.ctrlKey && !event.metaKey && !event.altKey && !event.target.matches("select")) recolour();
  });
  window.__ready = performance.now();
  await Promise.all([map.draw(), equity.draw()]);
  window.__drawn = performance.now();
}

start(main);
