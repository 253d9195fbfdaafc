// The main chart: candles with markers, equity and baselines, drawdown; one time axis.

const NAMES = { strategy: "Strategy", buy_and_hold: "B&H", random: "Random", sma: "SMA" };
const MOST_HOLDS = 200;

class Chart {
  constructor(element, { symbol, candles, marks, curves, decisions, onPick }) {
    Object.assign(this, { element, symbol, candles, marks, curves, decisions, onPick });
    this.hidden = new Set();
    this.full = this.fullRange();
    this.range = [...this.full];
    this.selected = -1;
    this.legend();
  }

  fullRange() {
    const times = this.curves.time;
    const first = Math.min(times[0] ?? Infinity, this.decisions.time[0] ?? Infinity);
    const last = times[times.length - 1] ?? this.candles.time[this.candles.time.length - 1] ?? first;
    const margin = (last - first) * 0.01 + MINUTE;
    return [first - margin, last + margin];
  }

  async draw() {
    if (!(await plotlyLoaded())) {
      this.element.append(noChart());
      return;
    }
    this.drawn = true;
    const { traces, layout } = this.figure();
    const config = { displayModeBar: false, doubleClick: false, responsive: true, showTips: false };
    await Plotly.newPlot(this.element, traces, layout, config);
    this.element.on("plotly_click", ({ event }) => {
      const index = this.nearest(event);
      if (index >= 0) this.onPick(index);
    });
    this.element.on("plotly_relayout", (change) => {
      if ("xaxis.range[0]" in change) this.show(this.axisRange());
      else this.placeCursor();
    });
    this.element.on("plotly_doubleclick", () => this.show(this.full));
    this.element.on("plotly_afterplot", () => this.placeCursor());
    this.placeCursor();
  }

  // The decision whose marker is nearest to a mouse event, -1 if none is near; plotly itself would also return candles.
  nearest({ clientX, clientY }) {
    const { xaxis, yaxis } = this.element._fullLayout;
    const box = this.element.getBoundingClientRect();
    const [x, y] = [clientX - box.left - xaxis._offset, clientY - box.top - yaxis._offset];
    let best = -1;
    let least = 14;
    for (const trace of this.element.data) {
      if (!trace.customdata || trace.visible === false) continue;
      for (let at = 0; at < trace.x.length; at++) {
        const distance = Math.hypot(xaxis.l2p(trace.x[at]) - x, yaxis.l2p(trace.y[at]) - y);
        if (distance < least) [best, least] = [trace.customdata[at], distance];
      }
    }
    return best;
  }

  // Show another symbol's candles and markers, over the same period.
  change(symbol, candles, marks) {
    Object.assign(this, { symbol, candles, marks });
    return this.redraw();
  }

  axisRange() {
    return this.element._fullLayout.xaxis.range.map((text) => Date.parse(`${String(text).replace(" ", "T")}Z`));
  }

  show([from, to]) {
    const least = 20 * this.candles.span;
    if (to - from < least) [from, to] = [(from + to - least) / 2, (from + to + least) / 2];
    this.range = [Math.max(from, this.full[0]), Math.min(to, this.full[1])];
    this.redraw();
  }

  redraw() {
    if (!this.drawn) return undefined;
    const { traces, layout } = this.figure();
    return Plotly.react(this.element, traces, layout);
  }

  // The last `days` of the range in view, around the selected decision; 0: the whole run.
  showDays(days) {
    if (!days) return this.show(this.full);
    const around = this.selected >= 0 ? this.decisions.time[this.selected] : (this.range[0] + this.range[1]) / 2;
    const half = days * 43200000;
    const from = Math.min(Math.max(around - half, this.full[0]), Math.max(this.full[0], this.full[1] - 2 * half));
    return this.show([from, from + 2 * half]);
  }

  select(index) {
    this.selected = index;
    const time = this.decisions.time[index];
    const width = this.range[1] - this.range[0];
    if (time < this.range[0] || time > this.range[1]) this.show([time - width / 2, time + width / 2]);
    else this.placeCursor();
  }

  placeCursor() {
    const cursor = byId("cursor");
    const layout = this.element._fullLayout;
    const shown = this.selected >= 0 && layout?.xaxis?.l2p;
    cursor.hidden = !shown;
    if (!shown) return;
    const { xaxis, yaxis } = layout;
    cursor.style.left = `${xaxis._offset + xaxis.l2p(this.decisions.time[this.selected])}px`;
    const price = this.marks.priceOf(this.selected);
    cursor.firstElementChild.hidden = Number.isNaN(price);
    if (!Number.isNaN(price)) cursor.firstElementChild.style.top = `${yaxis._offset + yaxis.l2p(price)}px`;
  }

  figure() {
    const colour = colours();
    const [from, to] = this.range;
    const width = Math.max(300, this.element.clientWidth - 70);
    const step = this.candles.stepFor(to - from, Math.min(480, width / 2.4));
    const merged = this.candles.merged(from, to, step);
    byId("candle-hint").textContent = `${span(step)} candles`;
    const lines = this.curves.names.map((name) => ({ name, ...this.curves.thinned(name, from, to, width / 2) }));
    const drawdown = this.curves.thinned("drawdown", from, to, width / 2);
    const traces = [
      this.candleTrace(merged, step, colour),
      ...[...this.marks.kindsShown].reverse().map((kind) => this.markerTrace(kind, from, to, width, colour)),
      ...[...lines].reverse().map((line) => this.lineTrace(line, colour)),
      {
        type: "scatter", mode: "lines", name: "Drawdown", x: drawdown.x, y: drawdown.y, yaxis: "y3", fill: "tozeroy",
        fillcolor: colour("drawdown"), line: { width: 1, color: colour("loss") }, hovertemplate: "drawdown %{y:.2%}<extra></extra>",
      },
    ];
    return { traces, layout: this.layout(merged, lines, drawdown, colour) };
  }

  candleTrace(merged, step, colour) {
    const text = merged.x.map((_, at) => `${instant(merged.start[at])} to ${instant(merged.start[at] + step).slice(11)}<br>`
      + `open ${number(merged.open[at], this.candles.decimals)}  high ${number(merged.high[at], this.candles.decimals)}<br>`
      + `low ${number(merged.low[at], this.candles.decimals)}  close ${number(merged.close[at], this.candles.decimals)}<br>`
      + `volume ${significant(merged.volume[at], 5)}`);
    const line = { color: colour("candle"), width: 1 };
    return {
      type: "candlestick", name: this.symbol, x: merged.x, open: merged.open, high: merged.high, low: merged.low,
      close: merged.close, text, hoverinfo: "text", whiskerwidth: 0,
      increasing: { line, fillcolor: colour("rise") }, decreasing: { line, fillcolor: colour("drop") },
    };
  }

  markerTrace(kind, from, to, width, colour) {
    const { marks } = this;
    const { time, price, kinds } = marks;
    const filled = { HOLD: "circle", BUY: "triangle-up", SELL: "triangle-down", failed: "x-thin-open" }[kind];
    const hollow = { BUY: "triangle-up-open", SELL: "triangle-down-open" }[kind] ?? filled;
    const first = position(time, from);
    const last = position(time, to + 1);
    const size = last - first > 600 ? 0.65 : last - first > 250 ? 0.8 : 1;
    const trace = {
      type: "scatter", mode: "markers", name: kind, x: [], y: [], customdata: [], text: [], hoverinfo: "text",
      visible: !this.hidden.has(kind),
      marker: {
        symbol: [], size: size * ({ HOLD: 4.5, failed: 9 }[kind] ?? 12), color: colour(kind === "HOLD" ? "card" : kind.toLowerCase()),
        line: { color: colour({ HOLD: "hold", failed: "failed" }[kind] ?? "card"), width: { HOLD: 1, failed: 2.5 * size }[kind] ?? 1 },
      },
    };
    if (kind === "HOLD" && last - first > MOST_HOLDS) return trace;
    // Of markers that would overlap, only the first within a few pixels is drawn; zooming in separates them.
    const pixels = (to - from) / width;
    let taken = NaN;
    for (let at = first; at < last; at++) {
      if (kinds[at] !== kind) continue;
      const index = marks.indexOf(at);
      const cell = Math.floor((time[at] - from) / (3 * pixels));
      if (cell === taken && index !== this.selected) continue;
      taken = cell;
      trace.x.push(time[at]);
      trace.y.push(price[at]);
      trace.customdata.push(index);
      trace.text.push(`${marks.label(at)}<br>${instant(time[at])}  at ${number(price[at], this.candles.decimals)}`);
      trace.marker.symbol.push(marks.filled(at) ? filled : hollow);
    }
    if (trace.marker.symbol.some((symbol) => symbol.endsWith("-open")) && kind !== "failed") {
      trace.marker.line = { color: trace.marker.color, width: 1.6 };
    }
    return trace;
  }

  lineTrace({ name, x, y }, colour) {
    const dash = { random: "dot", buy_and_hold: "solid", sma: "solid" }[name];
    return {
      type: "scatter", mode: "lines", name: NAMES[name], x, y, yaxis: "y2", visible: !this.hidden.has(name),
      line: { color: colour(name), width: name === "strategy" ? 2 : 1.2, dash }, hovertemplate: `${NAMES[name]} %{y:,.2f}<extra></extra>`,
    };
  }

  layout(merged, lines, drawdown, colour) {
    const axis = {
      gridcolor: colour("grid"), zeroline: false, linecolor: colour("line"), tickfont: { color: colour("muted"), size: 11 },
      side: "right", fixedrange: true, automargin: false,
    };
    const shown = lines.filter((line) => !this.hidden.has(line.name));
    return {
      margin: { l: 12, r: 66, t: 8, b: 38 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      hovermode: "closest", dragmode: "zoom", font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: colour("ink") },
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink"), size: 12, family: getComputedStyle(document.body).fontFamily }, align: "left" },
      xaxis: {
        ...axis, side: "bottom", type: "date", range: this.range, anchor: "y3", fixedrange: false, rangeslider: { visible: false },
        showspikes: true, spikemode: "across", spikesnap: "cursor", spikethickness: 1, spikedash: "dot", spikecolor: colour("faint"),
      },
      yaxis: { ...axis, domain: [0.42, 1], range: padded([...merged.low, ...merged.high], 0.06), tickformat: ",~r" },
      yaxis2: { ...axis, domain: [0.17, 0.385], range: padded(shown.flatMap((line) => line.y), 0.08), nticks: 4, tickformat: ",~r" },
      yaxis3: { ...axis, domain: [0, 0.135], range: [Math.min(-0.001, ...drawdown.y) * 1.15, 0], nticks: 3, tickformat: ".1~%" },
      annotations: [[settings.multi_symbol ? this.symbol : "price", 1, "top"], ["equity", 0.395, "top"], ["drawdown", 0, "bottom"]].map(([text, y, yanchor]) => ({
        text, x: 0, y, xref: "paper", yref: "paper", xanchor: "left", yanchor, showarrow: false,
        font: { size: 11, color: colour("faint") },
      })),
    };
  }

  legend() {
    const entries = [...this.marks.kindsShown, ...this.curves.names];
    byId("legend").replaceChildren(...entries.map((key) => {
      const sign = key in GLYPHS ? el("span", { class: `mark ${key}` }, GLYPHS[key][0]) : el("i", { class: `swatch ${key}` });
      const name = NAMES[key] ?? key;
      const title = key === "HOLD" ? `HOLD decisions show when at most ${MOST_HOLDS} decisions are in view` : `Show or hide ${name}`;
      const button = el("button", { type: "button", "aria-pressed": "true", title }, sign, name);
      button.addEventListener("click", () => {
        if (!this.hidden.delete(key)) this.hidden.add(key);
        button.setAttribute("aria-pressed", !this.hidden.has(key));
        this.redraw();
      });
      return button;
    }));
  }
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

function padded(values, share) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (!(low <= high)) return [0, 1];
  const margin = (high - low) * share || Math.abs(high) * 0.001 || 1;
  return [low - margin, high + margin];
}
