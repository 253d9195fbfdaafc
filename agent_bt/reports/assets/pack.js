// Reads the packed blocks of the page, as written by html_pack.py.

const settings = JSON.parse(document.getElementById("settings").textContent);

const parsed = new Promise((resolve) => {
  if (document.readyState !== "loading") resolve();
  else document.addEventListener("DOMContentLoaded", resolve, { once: true });
});

async function inflate(base64) {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function block(id) {
  if (!document.getElementById(id)) await parsed;
  return inflate(document.getElementById(id).textContent);
}

async function blockJson(id) {
  return JSON.parse(new TextDecoder().decode(await block(id)));
}

// name -> { codes: Float64Array of whole numbers (NaN where missing), scale }; a value is code / scale.
async function blockColumns(id) {
  const bytes = await block(id);
  const headLength = new DataView(bytes.buffer).getUint32(0, true);
  const heads = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + headLength)));
  const columns = {};
  let offset = 4 + headLength;
  for (const { name, count, width, decimals, delta, nullable } of heads) {
    const codes = new Float64Array(count);
    let previous = 0;
    for (let row = 0; row < count; row++) {
      let value = 0;
      for (let plane = width - 1; plane >= 0; plane--) value = value * 256 + bytes[offset + plane * count + row];
      if (nullable) {
        if (value === 0) { codes[row] = NaN; continue; }
        value -= 1;
      }
      value = value % 2 ? -(value + 1) / 2 : value / 2;
      codes[row] = delta ? (previous += value) : value;
    }
    columns[name] = { codes, scale: 10 ** decimals };
    offset += width * count;
  }
  return columns;
}

function scaled({ codes, scale }) {
  return scale === 1 ? codes : codes.map((code) => code / scale);
}

// One chunk of full records; decoded on demand, and the last few are kept.
const chunks = new Map();

function chunk(number) {
  if (!chunks.has(number)) {
    chunks.set(number, blockJson(`chunk-${number}`));
    if (chunks.size > 8) chunks.delete(chunks.keys().next().value);
  }
  return chunks.get(number);
}
