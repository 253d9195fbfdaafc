// Sets up the page: loads the blocks, links chart, table and detail to the selected decision, handles the keyboard.

async function main() {
  plotlyLoaded();
  const multiSymbol = settings.multi_symbol;
  const [decisions, curves, fills, candles] = await Promise.all([
    Decisions.load(), Curves.load(), multiSymbol ? blockJson("trades-block") : null, Candles.load(settings.first_symbol)]);
  const picker = multiSymbol ? new SymbolPicker({ fills, decisions, onChange: (shown) => changeSymbol(shown) }) : null;
  const first = multiSymbol ? await picker.load(picker.at) : { symbol: settings.symbols[0], candles, marks: decisionMarks(decisions) };
  const detail = new Detail({ decisions, candles, onSymbol: (symbol) => picker.showNamed(symbol) });
  let current = -1;

  const open = async (index) => {
    if (!(index >= 0 && index < decisions.count)) return;
    current = index;
    list.select(index);
    chart.select(index);
    await detail.show(index);
  };
  const select = (index) => {
    try { history.replaceState(null, "", `#d=${index}${multiSymbol ? `&s=${settings.symbols[picker.at]}` : ""}`); } catch { /* some browsers do not change the address of a file */ }
    return open(index);
  };
  const pick = (index, symbol) => {
    byId("decisions").scrollIntoView({ block: "nearest" });
    if (multiSymbol && symbol) picker.showNamed(symbol);
    return select(index);
  };
  const step = (direction, test) => select(list.beside(current, direction, test));
  const list = new DecisionList(decisions, (index) => select(index));
  const chart = new Chart(byId("chart"), { ...first, curves, decisions, onPick: select });
  const portfolio = byId("portfolio") ? new Portfolio(curves.time[curves.time.length - 1]) : null;
  const changeSymbol = ({ symbol, candles: bars, marks }) => {
    chart.change(symbol, bars, marks);
    if (current >= 0) select(current);
  };

  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("ranges").addEventListener("click", ({ target }) => {
    if (target.dataset.days) chart.showDays(Number(target.dataset.days));
  });

  const recolour = () => {
    switchTheme();
    chart.redraw();
    portfolio?.redraw();
  };
  byId("theme-button").addEventListener("click", recolour);
  byId("help-button").addEventListener("click", () => byId("help").showModal());

  const isTrade = (index) => decisions.ordered(index);
  const isFailed = (index) => decisions.source[index] > 0;
  let before = null;
  const zoom = () => {
    if (before) { chart.show(before); before = null; return; }
    before = [...chart.range];
    chart.showDays(2);
  };
  const keys = {
    j: () => step(1), k: () => step(-1), ArrowRight: () => step(1), ArrowLeft: () => step(-1),
    n: () => step(1, isTrade), p: () => step(-1, isTrade), f: () => step(1, isFailed), z: zoom, t: recolour,
    "[": () => picker?.beside(-1), "]": () => picker?.beside(1),
    "/": () => byId("search").focus(), "?": () => byId("help").showModal(),
  };
  document.addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    if (key === "Escape") { target.blur(); return; }
    if (target.matches("input[type=search], select")) return;
    const inTable = target.closest("#decision-table") && { ArrowDown: () => step(1), ArrowUp: () => step(-1) }[key];
    const action = inTable || keys[key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  const linked = /^#d=(\d+)(?:&s=(.+))?$/.exec(location.hash);
  const firstTrade = decisions.flags.findIndex((_, at) => decisions.ordered(at));
  await Promise.all([open(linked ? Number(linked[1]) : Math.max(0, firstTrade)), chart.draw()]);
  if (multiSymbol && linked?.[2]) await picker.showNamed(decodeURIComponent(linked[2]));
  window.__ready = performance.now();
  showTrades(decisions, pick, fills);
  showFailures(pick);
}

start(main);
