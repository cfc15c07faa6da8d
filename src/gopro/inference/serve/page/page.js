// The page of `gopro serve`: which image, which names, which heads; and asking the server when one of them changes.
// names.js, images.js and bars.js each keep a part of the page, server.js talks.

import { draw as drawBars, percent, time, top } from "./bars.js";
import { Names } from "./names.js";
import { Images } from "./images.js";
import { about, predict, Refusal, samples } from "./server.js";

const SETTLE = 120; // ms without another change of names before the server is asked
const BUILD = 0.8; // s without one before a first-order head is asked for names of one's own, which has it built
const PATIENCE = 5; // times that a busy server is asked again by itself
const TITLES = { exact: "Exact head", "first-order": "First-order head", zeroshot: "Zero-shot CLIP" };

const byId = (id) => document.getElementById(id);
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

let info, names, images;
let heads; // those that are shown
let version = 0; // of the names; an answer about other names than these is stale
let asked = new AbortController(); // what is under way; a later question ends it
let timer = 0;
const problems = new Map(); // head → why it has no answer: `{text, passing, again}`, whether it is asked again by itself

const title = (head) => (head === "exact" && !info.heads.includes("first-order") ? info.method : TITLES[head]);
const isFresh = (image, head) => image.answers.get(head)?.version === version;

/** Asks for what is not answered yet: the first head about the image that is shown, then all else. */
async function refresh() {
  clearTimeout(timer);
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  const image = images.current;
  problems.clear();
  draw();
  if (!image || image.error || !names.now.length) return;
  // The first head to be asked has the image encoded, the others find that done.
  const [lead, ...rest] = heads;
  if (!(await put([image], lead, signal))) return;
  await Promise.all([...rest.map((head) => follow(image, head, signal)), fillStrip(lead, signal)]);
}

/** Asks another head about the image. */
async function follow(image, head, signal) {
  if (head === "first-order" && !names.original) await sleep(BUILD);
  if (!signal.aborted) await put([image], head, signal);
}

/** Asks about the strip's other images, as many at once as the server takes. */
async function fillStrip(head, signal) {
  const others = images.all.filter((image) => image !== images.current && !image.error);
  for (const part of parts(others)) if (!(await put(part, head, signal))) return;
}

/** Asks one head about images and keeps the answers; whether it is worth asking for more. */
async function put(asking, head, signal) {
  asking = asking.filter((image) => !isFresh(image, head));
  if (!asking.length) return true;
  const files = asking.map((image) => image.file);
  const own = names.original ? null : names.now;
  for (let left = PATIENCE; ; left--) {
    let refusal;
    try {
      const answers = await predict(files, own, names.now.length, head, signal);
      if (signal.aborted) return false;
      problems.delete(head);
      asking.forEach((image, i) => {
        image.error = answers[i].error ?? "";
        if (!image.error) image.answers.set(head, { ...answers[i], version });
      });
      draw();
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      if (!(error instanceof Refusal)) throw error;
      refusal = error;
    }
    const again = refusal.after > 0 && left > 0;
    // About the strip's others the person hears when they choose them.
    if (asking.includes(images.current)) {
      const text = refusal.message + (again ? "; this page does." : "");
      problems.set(head, { text, passing: refusal.passing, again });
      draw();
    }
    if (!again) return !refusal.passing;
    await sleep(refusal.after);
    if (signal.aborted) return false;
  }
}

/** Images in parts that the server takes at once. */
function* parts(all) {
  let part = [];
  let bytes = 0;
  for (const image of all) {
    // Half of what it takes: names and the form's own lines come on top.
    if (part.length && bytes + image.file.size > info.limits.upload_bytes / 2) {
      yield part;
      [part, bytes] = [[], 0];
    }
    part.push(image);
    bytes += image.file.size;
  }
  if (part.length) yield part;
}

/** Draws what is known; of what is asked anew, the last answer, paler. */
function draw() {
  const image = images.current;
  const [lead] = heads;
  const best = (of) => (names.now.length ? top(of, names.now) : "");
  images.draw((other) => (isFresh(other, lead) ? best(other.answers.get(lead).of) : ""));
  const columns = heads.map((head) => {
    const answer = image?.error ? null : image?.answers.get(head);
    const fresh = Boolean(answer && isFresh(image, head));
    const failed = problems.has(head) && !problems.get(head).again;
    return { head, title: title(head), of: answer?.of, milliseconds: answer?.head, fresh, failed };
  });
  drawBars(columns, names.now);
  drawProblems(image);
  const [{ of, fresh }] = columns;
  const line = byId("best");
  line.className = of ? (fresh ? "" : "stale") : "hint";
  if (of && names.now.length) {
    const share = Object.assign(document.createElement("span"), { textContent: percent(of.get(best(of)) ?? 0) });
    line.replaceChildren(best(of), " ", share);
  } else line.textContent = hint(image);
  byId("times").textContent = fresh && names.now.length ? cost(image.answers.get(lead)) : "";
  const said = fresh ? line.textContent : "";
  if (byId("said").textContent !== said) byId("said").textContent = said;
}

function hint(image) {
  if (!names.now.length) return "Add a class name to ask about.";
  if (!image) return "Choose an image, and here is what it may be.";
  return byId("trouble").hidden ? "Looking at the image …" : "";
}

function cost({ encode, total }) {
  const tower = encode ? `Encoding the image took ${time(encode)}` : "The image was encoded before";
  return `${tower}, the whole answer ${time(total)}.`;
}

function drawProblems(image) {
  const found = image?.error ? [["", { text: image.error }]] : [...problems];
  const lines = new Map(); // what several heads say is said once
  for (const [head, { text, passing }] of found) {
    const whole = passing || !head || head === heads[0];
    if (!lines.has(text)) lines.set(text, whole ? text : `${title(head)}: ${text}`);
  }
  const [wait, retry] = ["again", "passing"].map((kind) => found.some(([, problem]) => problem[kind]));
  byId("trouble").classList.toggle("waiting", wait);
  say([...lines.values()].join("\n"), retry && !wait ? refresh : null);
}

/** Shows what went wrong, nothing if that is empty; `again` is what the button for trying again does. */
function say(text, again) {
  const trouble = byId("trouble");
  const same = trouble.firstChild?.textContent === text && Boolean(again) === trouble.children.length > 1;
  if (same && !text === trouble.hidden) return; // not to be read out twice
  trouble.replaceChildren(Object.assign(document.createElement("p"), { textContent: text }));
  const retry = { type: "button", textContent: "Try again", onclick: again };
  if (again) trouble.append(Object.assign(document.createElement("button"), retry));
  trouble.hidden = !text;
}

/** The boxes that choose the heads; one stays. */
function offerHeads() {
  heads = info.heads;
  const boxes = info.heads.map((head) => Object.assign(document.createElement("input"), { type: "checkbox", checked: true, value: head }));
  for (const box of boxes) {
    const label = Object.assign(document.createElement("label"), { className: box.value });
    label.append(box, title(box.value));
    byId("heads").append(label);
    box.onchange = () => {
      if (!boxes.some((other) => other.checked)) box.checked = true;
      heads = boxes.filter((other) => other.checked).map((other) => other.value);
      refresh();
    };
  }
  byId("heads").hidden = boxes.length < 2;
  byId("meaning").hidden = !info.heads.includes("first-order"); // the others' texts are not encoded for an image
}

async function start() {
  say("", null);
  try {
    info = await about();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    byId("about").textContent = "";
    say(error.message, start);
    return;
  }
  const told = [info.method, " trained on ", info.data, ", backbone ", info.backbone];
  const bold = (textContent) => Object.assign(document.createElement("b"), { textContent });
  byId("about").replaceChildren(...told.map((part, i) => (i % 2 ? part : bold(part))));
  document.title = `GOPro: ${info.data}`;
  images = new Images(info.limits, refresh);
  names = new Names(info.classes, info.limits.names, () => {
    version++;
    asked.abort();
    draw();
    clearTimeout(timer);
    timer = setTimeout(refresh, SETTLE);
  });
  offerHeads();
  draw();
  try {
    for await (const { file, label } of samples()) images.offer(file, label);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error; // the page works without samples as well
  }
}

start();
