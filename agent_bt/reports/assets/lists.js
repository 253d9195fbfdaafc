// The tables of fills and of failed replies; a click on a row selects its decision.

// `fills`: already decoded in a run over several symbols.
async function showTrades(decisions, pick, fills) {
  const rows = fills ?? await blockJson("trades-block");
  const signed = (value) => value === null ? "" : el("span", { class: value >= 0 ? "gain-text" : "loss-text" }, `${value > 0 ? "+" : ""}${number(value)}`);
  const table = new GridTable(byId("trade-table"), {
    label: "Trades", empty: "No order was filled.",
    onPick: (row) => pick(Math.max(0, decisions.at(row.time)), row.symbol),
    columns: [
      { title: "Time (UTC)", width: "122px", cell: (row) => instant(row.time) },
      ...(settings.multi_symbol ? [{ title: "Symbol", width: "minmax(80px, 1fr)", cell: (row) => row.symbol }] : []),
      { title: "Side", width: "52px", cell: (row) => el("span", {}, el("span", { class: `mark ${row.side}` }, GLYPHS[row.side][0]), ` ${row.side}`) },
      { title: "Quantity", width: "minmax(70px, 1fr)", right: true, cell: (row) => significant(row.quantity, 6) },
      { title: "Price", width: "minmax(74px, 1fr)", right: true, cell: (row) => worth(row.price) },
      { title: "Fee", width: "minmax(48px, .7fr)", right: true, dim: true, cell: (row) => number(row.fee) },
      { title: "Held", width: "minmax(52px, .7fr)", right: true, dim: true, cell: (row) => row.held === null ? "" : span(row.held) },
      { title: "Result", width: "minmax(66px, 1fr)", right: true, cell: (row) => signed(row.result) },
      { title: "Reason", width: "minmax(60px, .8fr)", dim: true, cell: (row) => row.reason.replace("_", " ") },
    ],
  });
  table.show(rows);
}

async function showFailures(pick) {
  if (!byId("failed-table")) return;
  const rows = await blockJson("failures-block");
  const table = new GridTable(byId("failed-table"), {
    label: "Failed replies", onPick: (row) => pick(row.index),
    columns: [
      { title: "#", width: "44px", right: true, dim: true, cell: (row) => String(row.index) },
      { title: "Time (UTC)", width: "122px", cell: (row) => instant(row.time) },
      { title: "Reason", width: "minmax(110px, .6fr)", cell: (row) => el("span", { class: "failed" }, `${row.provenance}: ${row.reason}`) },
      { title: "Details and reply", width: "minmax(120px, 1fr)", cell: (row) => [row.detail, row.reply].filter(Boolean).join("  ·  ") },
    ],
  });
  table.show(rows);
}
