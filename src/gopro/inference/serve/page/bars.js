// The answer: a row a class name, a column a head, a bar in each cell.

const FEW = 8;
const table = document.getElementById("bars");
const body = table.tBodies[0];
const more = document.getElementById("more");
const still = matchMedia("(prefers-reduced-motion: reduce)");

export const percent = (p) => (p > 0 && p < 0.0005 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);

export function time(milliseconds) {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
}

let [columns, drawn] = [[], []]; // what was drawn last, and of which names
let expanded = false;
const rows = new Map(); // name → its row

more.addEventListener("click", () => {
  expanded = !expanded;
  draw(columns, drawn);
});

/**
 * A column is `{head, title, of, milliseconds, fresh, failed}`; `of` (name → probability) is null as long as there is no
 * answer, `fresh` says whether it is one to what is asked now.
 */
export function draw(given, names) {
  const shown = names.length > 0 && given.some((column) => column.of);
  table.hidden = more.hidden = !shown;
  table.setAttribute("aria-busy", String(!given.every(({ fresh, failed }) => fresh || failed)));
  if (!shown) return;
  if (given.map((column) => column.head).join() !== columns.map((column) => column.head).join()) {
    body.replaceChildren();
    rows.clear();
  }
  [columns, drawn] = [given, names];
  heading();
  for (const name of rows.keys()) if (!names.includes(name)) rows.delete(name);
  const before = places();
  const ranked = rank(names);
  const likeliest = best(ranked);
  const few = expanded ? ranked : likeliest;
  for (const name of few) if (!rows.has(name)) rows.set(name, row(name));
  body.replaceChildren(...few.map((name) => rows.get(name)));
  if (!still.matches && few.length <= 60) glide(before);
  const tops = columns.map(({ of }) => of && top(of, names));
  for (const name of few) fill(name, tops);
  more.textContent = expanded ? "Show the likeliest only" : `Show all ${names.length}`;
  more.hidden = likeliest.length === names.length;
}

function heading() {
  const blank = document.createElement("td");
  const cells = columns.map(({ head, title, milliseconds, fresh, failed }) => {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.className = head;
    const took = document.createElement("small");
    took.textContent = fresh ? time(milliseconds) : failed ? "–" : "…";
    cell.append(title, " ", took);
    return cell;
  });
  table.tHead.rows[0].replaceChildren(blank, ...cells);
}

function row(name) {
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

/** Names by what the first column that has an answer says. */
function rank(names) {
  const { of } = columns.find((column) => column.of);
  return [...names].sort((one, other) => (of.get(other) ?? -1) - (of.get(one) ?? -1));
}

/** The likeliest few of the first column, and what any other has for the likeliest. */
function best(ranked) {
  const kept = new Set(ranked.slice(0, FEW));
  for (const { of } of columns) if (of) kept.add(top(of, ranked));
  return ranked.filter((name) => kept.has(name));
}

/** The likeliest of the names. */
export function top(of, names) {
  return names.reduce((best, name) => ((of.get(name) ?? -1) > (of.get(best) ?? -1) ? name : best), names[0]);
}

function fill(name, tops) {
  columns.forEach(({ of, fresh }, i) => {
    const cell = rows.get(name).cells[i + 1];
    const p = of?.get(name);
    cell.classList.toggle("stale", !fresh);
    cell.classList.toggle("top", p !== undefined && name === tops[i]);
    cell.querySelector(".share").textContent = p === undefined ? "–" : percent(p);
    const bar = cell.querySelector("i");
    void bar.offsetWidth; // a bar that is new grows from nothing
    bar.style.transform = `translateX(${100 * ((p ?? 0) - 1)}%)`;
  });
}

function places() {
  return new Map([...body.rows].map((row) => [row, row.getBoundingClientRect().top]));
}

/** Rows go from where they were to where they are; new ones appear. */
function glide(before) {
  for (const row of body.rows) {
    const shift = before.has(row) ? before.get(row) - row.getBoundingClientRect().top : null;
    const options = { duration: 320, easing: "cubic-bezier(0.2, 0.8, 0.2, 1)" };
    if (shift === null) row.animate([{ opacity: 0 }, { opacity: 1 }], options);
    else if (shift) row.animate([{ transform: `translateY(${shift}px)` }, { transform: "none" }], options);
  }
}
