// The targets, orders and fills of one decision over several symbols, and the positions before it.

const shortName = (symbol) => settings.short_names[settings.symbols.indexOf(symbol)] ?? symbol;

function bySymbol(rows) { return new Map((rows ?? []).map((row) => [row.symbol, row])); }

// One row per symbol with a target, a position, an order or a cut.
function targetTable(full, onSymbol) {
  const [targets, held, orders, cuts] = [full.targets, full.positions, full.orders, full.risk_cuts].map(bySymbol);
  const prices = bySymbol(full.prices);
  const { equity } = full.account;
  const before = (symbol) => held.has(symbol) && equity ? held.get(symbol).quantity * (prices.get(symbol)?.price ?? NaN) / equity : 0;
  const wanted = [...targets.values()].filter(({ share }) => share !== 0).map(({ symbol }) => symbol);
  const symbols = [...new Set([...wanted, ...held.keys(), ...orders.keys(), ...cuts.keys()])];
  const share = (symbol) => targets.get(symbol)?.share ?? 0;
  symbols.sort((one, other) => share(other) - share(one) || before(other) - before(one) || (one < other ? -1 : 1));
  const rows = symbols.map((symbol) => {
    const order = orders.get(symbol);
    const fills = full.fills.filter((fill) => fill.symbol === symbol);
    const fee = fills.reduce((sum, fill) => sum + fill.fee, 0);
    const side = order ? (order.quantity > 0 ? "BUY" : "SELL") : "";
    const cut = cuts.get(symbol);
    return [
      el("button", { type: "button", class: "link", title: symbol, onclick: () => onSymbol(symbol) }, shortName(symbol)),
      before(symbol) ? percent(before(symbol), 1) : "",
      targets.has(symbol) ? percent(share(symbol), 1) : "",
      order ? el("span", {}, el("span", { class: `mark ${side}` }, GLYPHS[side][0]), worth(Math.abs(order.quantity))) : cut ? cut.verdict : "",
      fills.length ? worth(fills[0].price) : "",
      fills.length ? number(fee) : "",
    ];
  });
  return rows.length ? miniTable(["", "held", "target", "order", "filled at", "fee"], rows, "mini-box tall") : el("p", { class: "note" }, "No positions and no targets.");
}

function holdingTable(full) {
  const prices = bySymbol(full.prices);
  return miniTable(["", "quantity", "average", "price", "value", "opened"], full.positions.map((held) => {
    const price = prices.get(held.symbol)?.price ?? null;
    return [shortName(held.symbol), worth(held.quantity), worth(held.average_price), worth(price),
      price === null ? DASH : number(held.quantity * price), instant(held.opened / 1000).slice(0, 10)];
  }));
}
