// The markers of the chart: the decisions of a run over one symbol, or the fills of one symbol of several.

function decisionMarks(decisions) {
  const { time, price, kinds } = decisions;
  return {
    time, price, kinds,
    kindsShown: settings.uses_model ? ["BUY", "SELL", "failed", "HOLD"] : ["BUY", "SELL", "HOLD"],
    indexOf: (at) => at,
    filled: (at) => decisions.ordered(at),
    label: (at) => decisions.label(at),
    priceOf: (index) => price[index],
  };
}

// The fills of one symbol, and the failed decisions, which concern every symbol.
function fillMarks(fills, decisions, candles) {
  const marks = fills.map((fill) => ({
    time: fill.time, price: fill.price, kind: fill.side, index: decisions.at(fill.time),
    label: `${fill.side} ${significant(fill.quantity, 6)}${fill.reason === "order" ? "" : `, ${fill.reason.replace("_", " ")}`}`,
  }));
  for (let index = 0; settings.uses_model && index < decisions.count; index++) {
    const price = candles.closeAt(decisions.time[index]);
    if (!decisions.source[index] || Number.isNaN(price)) continue;
    marks.push({ time: decisions.time[index], price, kind: "failed", index, label: decisions.label(index) });
  }
  marks.sort((one, other) => one.time - other.time);
  return {
    time: marks.map((mark) => mark.time), price: marks.map((mark) => mark.price), kinds: marks.map((mark) => mark.kind),
    kindsShown: settings.uses_model ? ["BUY", "SELL", "failed"] : ["BUY", "SELL"],
    indexOf: (at) => marks[at].index,
    filled: () => true,
    label: (at) => marks[at].label,
    priceOf: (index) => candles.closeAt(decisions.time[index]),
  };
}
