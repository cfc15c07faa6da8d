// The table of predictions: one row per class name, one column per head, one bar per cell.

const SHORT = 8; // rows of the shortened table
const table = document.getElementById("bars");
const body = table.tBodies[0];
const more = document.getElementById("more");
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

export const percent = (p) => (p > 0 && p < 0.0005 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);

export function time(milliseconds) {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
}

let [columns, names] = [[], []]; // as last drawn
let expanded = false;
const rows = new Map(); // name → its row

more.addEventListener("click", () => {
  expanded = !expanded;
  draw(columns, names);
});

/**
 * Draw the table. A column is `{head, title, probabilities, milliseconds, fresh, failed}`: `probabilities` (class name →
 * probability) is null until there is an answer, and `fresh` is false if the answer is about earlier class names.
 */
export function draw(newColumns, newNames) {
  const shown = newNames.length > 0 && newColumns.some((column) => column.probabilities);
  table.hidden = more.hidden = !shown;
  table.setAttribute("aria-busy", String(!newColumns.every(({ fresh, failed }) => fresh || failed)));
  if (!shown) return;
  if (newColumns.map((column) => column.head).join() !== columns.map((column) => column.head).join()) {
    body.replaceChildren();
    rows.clear();
  }
  [columns, names] = [newColumns, newNames];
  drawHeadings();
  for (const name of rows.keys()) if (!names.includes(name)) rows.delete(name);
  const before = positions();
  const ranked = rank();
  const likeliest = shorten(ranked);
  const visible = expanded ? ranked : likeliest;
  for (const name of visible) if (!rows.has(name)) rows.set(name, makeRow(name));
  body.replaceChildren(...visible.map((name) => rows.get(name)));
  if (!reducedMotion.matches && visible.length <= 60) animate(before);
  const tops = columns.map(({ probabilities }) => probabilities && top(probabilities, names));
  for (const name of visible) fill(name, tops);
  more.textContent = expanded ? "Show only the most likely" : `Show all ${names.length}`;
  more.hidden = likeliest.length === names.length;
}

function drawHeadings() {
  const blank = document.createElement("td");
  const cells = columns.map(({ head, title, milliseconds, fresh, failed }) => {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.className = head;
    const duration = document.createElement("small");
    duration.textContent = fresh ? time(milliseconds) : failed ? "–" : "…";
    cell.append(title, " ", duration);
    return cell;
  });
  table.tHead.rows[0].replaceChildren(blank, ...cells);
}

function makeRow(name) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  row.append(head);
  for (const column of columns) {
    const cell = row.insertCell();
    cell.className = column.head;
    const bar = document.createElement("span");
    bar.className = "bar";
    bar.append(document.createElement("i"));
    const share = document.createElement("span");
    share.className = "share";
    cell.append(bar, share);
  }
  return row;
}

/** Sort the names by the first column that has an answer. */
function rank() {
  const { probabilities } = columns.find((column) => column.probabilities);
  return [...names].sort((a, b) => (probabilities.get(b) ?? -1) - (probabilities.get(a) ?? -1));
}

/** Select the likeliest names of the first column, and the likeliest name of every other column. */
function shorten(ranked) {
  const selected = new Set(ranked.slice(0, SHORT));
  for (const { probabilities } of columns) if (probabilities) selected.add(top(probabilities, ranked));
  return ranked.filter((name) => selected.has(name));
}

/** Return the likeliest of the names. */
export function top(probabilities, names) {
  const probability = (name) => probabilities.get(name) ?? -1;
  return names.reduce((best, name) => (probability(name) > probability(best) ? name : best), names[0]);
}

function fill(name, tops) {
  columns.forEach(({ probabilities, fresh }, i) => {
    const cell = rows.get(name).cells[i + 1];
    const p = probabilities?.get(name);
    cell.classList.toggle("stale", !fresh);
    cell.classList.toggle("top", p !== undefined && name === tops[i]);
    cell.querySelector(".share").textContent = p === undefined ? "–" : percent(p);
    const bar = cell.querySelector("i");
    void bar.offsetWidth; // forces a layout, so that a new bar grows from 0
    bar.style.transform = `translateX(${100 * ((p ?? 0) - 1)}%)`;
  });
}

function positions() {
  return new Map([...body.rows].map((row) => [row, row.getBoundingClientRect().top]));
}

/** Move the rows smoothly from their former positions, and fade new ones in. */
function animate(before) {
  for (const row of body.rows) {
    const shift = before.has(row) ? before.get(row) - row.getBoundingClientRect().top : null;
    const options = { duration: 320, easing: "cubic-bezier(0.2, 0.8, 0.2, 1)" };
    if (shift === null) row.animate([{ opacity: 0 }, { opacity: 1 }], options);
    else if (shift) row.animate([{ transform: `translateY(${shift}px)` }, { transform: "none" }], options);
  }
}
