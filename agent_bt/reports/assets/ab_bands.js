// Growth of the account: per arm the median of its replicates within a band from the lowest to the highest.

class Bands {
  constructor(element) { this.element = element; }

  async draw() {
    if (!(await plotlyLoaded())) { this.element.append(noChart()); return; }
    const packed = await blockColumns("bands-block");
    this.curves = Object.fromEntries(Object.entries(packed).map(([name, column]) => [name, Array.from(scaled(column))]));
    const { traces, layout } = this.figure();
    await Plotly.newPlot(this.element, traces, layout, { displayModeBar: false, responsive: true, showTips: false });
  }

  redraw() {
    if (!this.curves) return;
    const { traces, layout } = this.figure();
    Plotly.react(this.element, traces, layout);
  }

  figure() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const { time, hold } = this.curves;
    const single = new Set(settings.lanes.map((lane) => lane.replicate)).size === 1;
    const traces = [];
    settings.arms.forEach((name, arm) => {
      const own = colour(`arm${armColour(arm)}`);
      const group = { x: time, type: "scatter", mode: "lines", legendgroup: name, name };
      if (!single) {
        traces.push({ ...group, y: this.curves[`low${arm}`], line: { width: 0 }, showlegend: false, hoverinfo: "skip" });
        traces.push({ ...group, y: this.curves[`high${arm}`], line: { width: 0 }, fill: "tonexty", fillcolor: `${own}30`, showlegend: false, hoverinfo: "skip" });
      }
      const range = this.curves[`low${arm}`].map((low, at) => `${percent(low)} to ${percent(this.curves[`high${arm}`][at])}`);
      traces.push({
        ...group, y: this.curves[`median${arm}`], line: { color: own, width: 2, dash: arm > 7 ? "dash" : "solid" }, customdata: range,
        hovertemplate: `${single ? "%{y:+.2%}" : "%{y:+.2%} (%{customdata})"}`,
      });
    });
    if (hold) {
      traces.push({ x: time, y: hold, type: "scatter", mode: "lines", name: "Buy and hold", line: { color: colour("buy_and_hold"), width: 1.3, dash: "dot" }, hovertemplate: "%{y:+.2%}" });
    }
    const font = { family: getComputedStyle(document.body).fontFamily, size: 11, color: colour("ink") };
    const axis = { gridcolor: colour("grid"), linecolor: colour("line"), tickfont: { color: colour("muted"), size: 11 } };
    const layout = {
      margin: { l: 12, r: 58, t: 26, b: 40 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font, hovermode: "x unified", dragmode: "zoom",
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { ...font, size: 12 } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { ...font, color: colour("muted") } },
      xaxis: { ...axis, type: "date", zeroline: false },
      yaxis: { ...axis, side: "right", tickformat: ".1~%", zeroline: true, zerolinecolor: colour("faint"), fixedrange: true },
    };
    return { traces, layout };
  }
}
