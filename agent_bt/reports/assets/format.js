// Formats values and creates elements; text is always inserted as text, never as markup.

const DASH = "–";
const minus = (text) => text.replace("-", "\u2212");
const number = (value, decimals = 2) => value === null || value === undefined || Number.isNaN(value) ? DASH
  : minus(value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }));
const percent = (share, decimals = 2) => share === null || Number.isNaN(share) ? DASH : `${number(100 * share, decimals)}%`;
const significant = (value, digits = 8) => value === null || value === undefined || Number.isNaN(value) ? DASH
  : minus(value.toLocaleString("en-US", { maximumSignificantDigits: digits }));
// A price or a quantity of any magnitude.
const worth = (value) => value === null || value === undefined ? DASH
  : Math.abs(value) >= 1e6 ? number(value, 0) : Math.abs(value) >= 100 ? number(value) : significant(value, 6);
const plain = (value) => value === null || value === undefined || value === "" ? DASH
  : typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
const milliseconds = (value) => value === null || Number.isNaN(value) ? DASH : `${number(value, 0)} ms`;
const instant = (ms, seconds = false) => new Date(ms).toISOString().slice(0, seconds ? 19 : 16).replace("T", " ");
const span = (ms) => {
  if (ms === null || ms === undefined) return DASH;
  const units = [["d", 86400000], ["h", 3600000], ["min", 60000], ["s", 1000]];
  const [name, size] = units.find(([, length]) => ms >= length) ?? units[3];
  return `${significant(ms / size, 3)} ${name}`;
};

function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const byId = (id) => document.getElementById(id);

// Filled: the decision made an order; hollow: it made none.
const GLYPHS = { BUY: ["▲", "△"], SELL: ["▼", "▽"], HOLD: ["•", "•"], failed: ["✕", "✕"], both: ["◆", "◇"] };
