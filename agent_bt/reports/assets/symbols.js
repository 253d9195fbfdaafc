// The symbols of a run over several: the selector of the chart, and the candles and fills of the selected symbol.

class SymbolPicker {
  // onChange({ symbol, candles, marks }) when another symbol is shown.
  constructor({ fills, decisions, onChange }) {
    Object.assign(this, { decisions, onChange });
    this.at = settings.first_symbol;
    this.loaded = new Map();
    this.fills = new Map(settings.symbols.map((symbol) => [symbol, []]));
    for (const fill of fills) this.fills.get(fill.symbol)?.push(fill);
    this.select = byId("symbol");
    this.select.replaceChildren(...settings.symbols.map((symbol, at) => {
      const count = this.fills.get(symbol).length;
      const gone = settings.delisted.includes(symbol) ? " · delisted" : "";
      return el("option", { value: at }, `${shortName(symbol)}${count ? ` · ${number(count, 0)} ${count === 1 ? "fill" : "fills"}` : ""}${gone}`);
    }));
    this.select.value = this.at;
    this.select.addEventListener("input", () => this.show(Number(this.select.value)));
    for (const button of document.querySelectorAll("button[data-symbol]")) {
      button.addEventListener("click", () => {
        byId("decisions").scrollIntoView({ block: "nearest" });
        this.showNamed(button.dataset.symbol);
      });
    }
  }

  async load(at) {
    if (!this.loaded.has(at)) {
      this.loaded.set(at, Candles.load(at).then((candles) => {
        const symbol = settings.symbols[at];
        return { symbol, candles, marks: fillMarks(this.fills.get(symbol), this.decisions, candles) };
      }));
      if (this.loaded.size > 8) this.loaded.delete(this.loaded.keys().next().value);
    }
    return this.loaded.get(at);
  }

  async show(at) {
    this.at = at;
    this.select.value = at;
    const shown = await this.load(at);
    if (this.at === at) this.onChange(shown);
  }

  showNamed(symbol) {
    const at = settings.symbols.indexOf(symbol);
    return at < 0 || at === this.at ? undefined : this.show(at);
  }

  beside(direction) { return this.show((this.at + direction + settings.symbols.length) % settings.symbols.length); }
}
