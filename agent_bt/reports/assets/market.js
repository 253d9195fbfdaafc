// Candles and curves: decoded once, merged to the interval that fits the zoom.

const MINUTE = 60000;
const STEPS = [1, 2, 3, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1440, 4320, 10080, 43200].map((minutes) => minutes * MINUTE);

// The first position in ascending `times` whose time is at least `time`.
function position(times, time) {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1; else high = middle;
  }
  return low;
}

class Candles {
  // Load the candles of the symbol at this position in `settings.symbols`.
  static async load(symbol) {
    const packed = await blockColumns(`candles-${symbol}-block`);
    const candles = new Candles();
    const { close, open, high, low } = packed;
    const count = close.codes.length;
    candles.time = packed.time.codes;
    candles.span = packed.span.codes[0];
    candles.decimals = Math.round(Math.log10(close.scale));
    for (let row = 1; row < count; row++) open.codes[row] += close.codes[row - 1];
    if (count) open.codes[0] = packed.first_open.codes[0];
    for (let row = 0; row < count; row++) {
      const o = open.codes[row];
      const c = close.codes[row];
      high.codes[row] += Math.max(o, c);
      low.codes[row] = Math.min(o, c) - low.codes[row];
    }
    for (const name of ["open", "high", "low", "close", "volume"]) candles[name] = scaled(packed[name]);
    return candles;
  }

  // The shortest step with at most `most` candles in `range` ms.
  stepFor(range, most) {
    return STEPS.find((step) => step >= this.span && range / step <= most) ?? STEPS[STEPS.length - 1];
  }

  // Candles of `step` ms that begin in [from, to); x is the middle of each.
  merged(from, to, step) {
    const out = { x: [], open: [], high: [], low: [], close: [], volume: [], start: [] };
    let bucket = NaN;
    let at = -1;
    for (let row = position(this.time, Math.floor(from / step) * step); row < this.time.length && this.time[row] < to; row++) {
      const start = Math.floor(this.time[row] / step) * step;
      if (start !== bucket) {
        bucket = start;
        at += 1;
        out.start.push(start);
        out.x.push(start + step / 2);
        out.open.push(this.open[row]);
        out.high.push(this.high[row]);
        out.low.push(this.low[row]);
        out.close.push(this.close[row]);
        out.volume.push(this.volume[row]);
        continue;
      }
      if (this.high[row] > out.high[at]) out.high[at] = this.high[row];
      if (this.low[row] < out.low[at]) out.low[at] = this.low[row];
      out.close[at] = this.close[row];
      out.volume[at] += this.volume[row];
    }
    return out;
  }

  // Close of the last bar that closed at or before `time`, NaN before the first and a while after the last one.
  closeAt(time) {
    const last = position(this.time, time - this.span + 1) - 1;
    return last >= 0 && time - this.time[last] <= 86400000 + this.span ? this.close[last] : NaN;
  }

  // Rows of the last `count` bars that closed at or before `time`: [first, last).
  windowAt(time, count) {
    const last = position(this.time, time - this.span + 1);
    return [Math.max(0, last - count), last];
  }
}

class Curves {
  static async load() {
    const packed = await blockColumns("curves-block");
    const curves = new Curves();
    curves.time = packed.time.codes;
    curves.names = ["strategy", "buy_and_hold", "random", "sma"].filter((name) => name in packed);
    for (const name of [...curves.names, "drawdown"]) curves[name] = scaled(packed[name]);
    return curves;
  }

  // At most about 2 * buckets points of one curve in [from, to]: lowest and highest of each bucket, in their order.
  thinned(name, from, to, buckets) {
    const values = this[name];
    const first = Math.max(0, position(this.time, from) - 1);
    const last = Math.min(this.time.length, position(this.time, to) + 1);
    const size = Math.max(1, Math.ceil((last - first) / buckets));
    const x = [];
    const y = [];
    for (let start = first; start < last; start += size) {
      let low = start;
      let high = start;
      for (let row = start + 1; row < Math.min(start + size, last); row++) {
        if (values[row] < values[low]) low = row;
        if (values[row] > values[high]) high = row;
      }
      for (const row of low < high ? [low, high] : low > high ? [high, low] : [low]) { x.push(this.time[row]); y.push(values[row]); }
    }
    return { x, y };
  }
}
