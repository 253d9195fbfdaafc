// Two texts line by line: what is equal, what stands on one side only, and how both are shown beside each other.

const MOST_PAIRS = 4_000_000;
const AROUND = 2;
const LEAST_FOLDED = 3;

// [{ kind: "same" | "changed", left, right }]: null where a side has no such line.
function diffLines(left, right) {
  const [a, b] = [left, right].map((text) => (text === "" ? [] : text.split("\n")));
  let first = 0;
  while (first < a.length && first < b.length && a[first] === b[first]) first += 1;
  let [endA, endB] = [a.length, b.length];
  while (endA > first && endB > first && a[endA - 1] === b[endB - 1]) { endA -= 1; endB -= 1; }
  const same = (from, to, source) => source.slice(from, to).map((line) => ({ kind: "same", left: line, right: line }));
  return [...same(0, first, a), ...middle(a.slice(first, endA), b.slice(first, endB)), ...same(endA, a.length, a)];
}

// The longest common subsequence of lines; texts too long for it count as replaced.
function middle(a, b) {
  if (a.length * b.length > MOST_PAIRS) return beside(a, b);
  const width = b.length + 1;
  const lengths = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      lengths[i * width + j] = a[i] === b[j] ? lengths[(i + 1) * width + j + 1] + 1
        : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  const lines = [];
  let removed = [];
  let added = [];
  const flush = () => { lines.push(...beside(removed, added)); removed = []; added = []; };
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      flush();
      lines.push({ kind: "same", left: a[i], right: b[j] });
      i += 1;
      j += 1;
    } else if (j >= b.length || (i < a.length && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) {
      removed.push(a[i]);
      i += 1;
    } else {
      added.push(b[j]);
      j += 1;
    }
  }
  flush();
  return lines;
}

function beside(removed, added) {
  return Array.from({ length: Math.max(removed.length, added.length) }, (_, at) => (
    { kind: "changed", left: removed[at] ?? null, right: added[at] ?? null }));
}

// The lines as a table of two columns; unless `whole`, of equal stretches only what is around a change.
function diffTable(lines, whole) {
  const changed = lines.map((line) => line.kind === "changed");
  const near = lines.map((_, at) => changed.slice(Math.max(0, at - AROUND), at + AROUND + 1).includes(true));
  const box = el("div", { class: "diff" });
  for (let at = 0; at < lines.length; at++) {
    const end = near.indexOf(true, at);
    const last = end < 0 ? lines.length : end;
    if (!whole && last - at >= LEAST_FOLDED) {
      const hidden = lines.slice(at, last);
      const fold = el("button", { type: "button", class: "fold" }, `${number(hidden.length, 0)} equal lines`);
      fold.addEventListener("click", () => fold.replaceWith(...hidden.flatMap(diffLine)));
      box.append(fold);
      at = last - 1;
      continue;
    }
    box.append(...diffLine(lines[at]));
  }
  return box;
}

function diffLine({ kind, left, right }) {
  if (kind === "same" || left === null || right === null) {
    const side = (text, name) => el("div", { class: text === null ? "none" : kind === "same" ? "same" : name }, text ?? "");
    return [side(left, "gone"), side(right, "new")];
  }
  // Of two lines beside each other, what they have in common at both ends is not marked.
  let start = 0;
  while (start < left.length && start < right.length && left[start] === right[start]) start += 1;
  let tail = 0;
  while (tail < Math.min(left.length, right.length) - start && left[left.length - 1 - tail] === right[right.length - 1 - tail]) tail += 1;
  const side = (text, name) => el("div", { class: name },
    text.slice(0, start), el("mark", {}, text.slice(start, text.length - tail)), text.slice(text.length - tail));
  return [side(left, "gone"), side(right, "new")];
}

const countChanged = (lines) => lines.filter((line) => line.kind === "changed").length;
