// The charts of a run over several symbols: holdings, exposure, legs, turnover. Each is drawn when it comes into view.

const MOST_BARS = 500;

class Portfolio {
  constructor(end) {
    this.end = end;
    this.drawn = new Set();
    this.figures = { holdings: holdingsFigure, exposure: exposureFigure, legs: legsFigure, turnover: turnoverFigure };
    const seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        this.draw(target.id.replace("-chart", ""));
      }
    }, { rootMargin: "400px" });
    for (const name of Object.keys(this.figures)) seen.observe(byId(`${name}-chart`));
  }

  async draw(name) {
    const element = byId(`${name}-chart`);
    if (!(await plotlyLoaded())) { element.replaceChildren(noChart()); return; }
    this.drawn.add(name);
    const { traces, layout, keys } = await this.figures[name](colours(), this.end);
    byId(`${name}-keys`)?.replaceChildren(...keys.map(([title, colour]) => el("span", {}, swatch(colour), title)));
    await Plotly.react(element, traces, layout, { displayModeBar: false, responsive: true, showTips: false });
  }

  redraw() { for (const name of this.drawn) this.draw(name); }
}

function swatch(colour) {
  const element = el("i", { class: "swatch" });
  element.style.background = colour;
  return element;
}

const decoded = new Map();

async function valuesOf(name) {
  if (!decoded.has(name)) {
    decoded.set(name, blockColumns(`${name}-block`).then((packed) =>
      Object.fromEntries(Object.entries(packed).map(([column, values]) => [column, Array.from(scaled(values))]))));
  }
  return decoded.get(name);
}

function smallLayout(colour, yaxis) {
  const axis = { gridcolor: colour("grid"), linecolor: colour("line"), tickfont: { color: colour("muted"), size: 11 }, zeroline: false };
  const font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") };
  return {
    margin: { l: 12, r: 60, t: 6, b: 36 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    hovermode: "x unified", dragmode: "zoom", font: { ...font, size: 11 },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font, align: "left" },
    xaxis: { ...axis, type: "date", hoverformat: "%Y-%m-%d %H:%M" },
    yaxis: { ...axis, side: "right", fixedrange: true, zeroline: true, zerolinecolor: colour("faint"), zerolinewidth: 1, nticks: 6, ...yaxis },
  };
}

// Steps: positions after a decision are held until the next one.
async function holdingsFigure(colour, end) {
  const held = await valuesOf("holdings");
  const last = held.time.length - 1;
  const x = last < 0 || held.time[last] >= end ? held.time : [...held.time, end];
  const areas = [...settings.named.map((symbol, at) => [String(at), shortName(symbol), colour(`s${at}`)]),
    ["long", "others", colour("others")], ["short", "others", colour("others")]];
  const traces = [];
  const total = { long: new Float64Array(x.length), short: new Float64Array(x.length) };
  const texts = x.map(() => []);
  for (const [key, name, fill] of areas) {
    const weights = x.map((_, at) => held[key][Math.min(at, last)]);
    weights.forEach((share, at) => { if (share) texts[at].push([share, name]); });
    for (const side of ["long", "short"]) {
      const y = weights.map((share) => (side === "long" ? Math.max(share, 0) : Math.min(share, 0)));
      if (!y.some(Boolean)) continue;
      y.forEach((share, at) => { total[side][at] += share; });
      traces.push({
        type: "scatter", mode: "lines", name, x, y, stackgroup: side, hoverinfo: "skip", fillcolor: fill,
        line: { shape: "hv", width: x.length > 120 ? 0 : 0.6, color: colour("card") },
      });
    }
  }
  traces.push({
    type: "scatter", mode: "lines", x, y: Array.from(total.long), line: { width: 0, shape: "hv" }, hoverinfo: "text",
    text: texts.map((entries) => entries.sort((one, other) => other[0] - one[0]).map(([share, name]) => `${name} ${percent(share, 1)}`).join("<br>") || "no positions"),
    hovertemplate: "%{text}<extra></extra>",
  });
  const rest = areas.slice(-2).some(([key]) => held[key].some(Boolean));
  const keys = [...areas.slice(0, -2), ...(rest ? areas.slice(-1) : [])].map(([, name, fill]) => [name, fill]);
  return { traces, keys, layout: smallLayout(colour, { tickformat: ".0%", range: padded([0, ...total.long, ...total.short], 0.04) }) };
}

function lines(values, wanted, colour, format) {
  const traces = wanted.map(([name, title, key, width, dash]) => ({
    type: "scatter", mode: "lines", name: title, x: values.time, y: values[name], line: { color: colour(key), width: width ?? 1.4, dash },
    hovertemplate: `${title} %{y:${format}}<extra></extra>`,
  }));
  return { traces, keys: wanted.map(([, title, key]) => [title, colour(key)]) };
}

async function exposureFigure(colour) {
  const legs = await valuesOf("legs");
  const wanted = legs.short.some(Boolean)
    ? [["gross", "gross", "strategy", 1.8], ["long", "long", "gain"], ["short", "short", "loss"], ["net", "net", "ink", 1.2, "dot"]]
    : [["gross", "gross = net = long (no short positions)", "strategy", 1.8]];
  return { ...lines(legs, wanted, colour, ".1%"), layout: smallLayout(colour, { tickformat: ".0%", rangemode: "tozero" }) };
}

async function legsFigure(colour) {
  const legs = await valuesOf("legs");
  const wanted = [["total", "total after costs", "strategy", 1.8], ["long_pnl", "long", "gain"],
    ...(legs.short_pnl.some(Boolean) ? [["short_pnl", "short", "loss"]] : []), ["costs", "costs", "hold"]];
  return { ...lines(legs, wanted, colour, ",.2f"), layout: smallLayout(colour, { tickformat: ",~s" }) };
}

async function turnoverFigure(colour) {
  const { time, turnover, fees, positions } = await valuesOf("rebalances");
  // With more bars than the panel has room for, each bar is a mean of several decisions.
  const size = Math.ceil(time.length / MOST_BARS) || 1;
  if (size > 1) byId("turnover-hint").textContent = `; each bar is the mean of ${size}`;
  const starts = time.map((_, at) => at).filter((at) => at % size === 0);
  const mean = (values, at) => values.slice(at, at + size).reduce((sum, value) => sum + value, 0) / Math.min(size, values.length - at);
  const traces = [{
    type: "bar", x: starts.map((at) => time[at]), y: starts.map((at) => mean(turnover, at)), marker: { color: colour("accent") },
    customdata: starts.map((at) => `${number(mean(positions, at), size > 1 ? 1 : 0)} positions, fees ${number(mean(fees, at))}`),
    hovertemplate: "%{y:.1%}<br>%{customdata}<extra></extra>",
  }];
  return { traces, keys: [], layout: { ...smallLayout(colour, { tickformat: ".0%", rangemode: "tozero" }), bargap: 0.25 } };
}
