// The page of `gopro serve`: sends requests when the image, the class names or the heads change, and draws the answers.
// names.js, images.js and bars.js each manage a part of the page; server.js sends the requests.

import { draw as drawBars, percent, time, top } from "./bars.js";
import { Names } from "./names.js";
import { Images } from "./images.js";
import { predict, RequestError, samples, serverInfo } from "./server.js";

const DEBOUNCE = 120; // ms to wait for further changes of the names
const BUILD_DELAY = 0.8; // s to wait before the first-order head is asked about new names: it must be built for them
const MAX_RETRIES = 5; // of a request to a busy server
const TITLES = { exact: "Trained", zeroshot: "Zero-shot", "first-order": "Fast" }; // in this order
const COMPARE = { zeroshot: "Compare with zero-shot", "first-order": "Compare with the fast approximation" };

const byId = (id) => document.getElementById(id);
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

let info, names, images;
let heads; // the model's own and those it is compared with
let version = 0; // of the names; answers of earlier versions are stale
let requests = new AbortController(); // those in progress; the next change aborts them
let timer = 0;
const problems = new Map(); // head → `{text, temporary, retrying}` if it has no answer

const trained = () => info.heads.includes("zeroshot"); // otherwise the run is zero-shot CLIP itself
const title = (head) => TITLES[trained() ? head : "zeroshot"];
const isFresh = (image, head) => image.answers.get(head)?.version === version;

/** Request what has no answer yet: first the first head for the current image, then everything else. */
async function refresh() {
  clearTimeout(timer);
  requests.abort();
  requests = new AbortController();
  const { signal } = requests;
  const image = images.current;
  problems.clear();
  draw();
  if (!image || image.error || names.current.length < 2) return;
  // The first request makes the server encode the image; the following ones use the cached encoding.
  const [first, ...others] = heads;
  if (!(await ask([image], first, signal))) return;
  await Promise.all([...others.map((head) => askLater(image, head, signal)), askAboutStrip(first, signal)]);
}

/** Ask another head about the current image. */
async function askLater(image, head, signal) {
  if (head === "first-order" && !names.unchanged) await sleep(BUILD_DELAY);
  if (!signal.aborted) await ask([image], head, signal);
}

/** Ask about the other images of the strip, as many per request as the server takes. */
async function askAboutStrip(head, signal) {
  const others = images.all.filter((image) => image !== images.current && !image.error);
  for (const batch of batches(others)) if (!(await ask(batch, head, signal))) return;
}

/** Ask one head about images and store the answers; resolves to true if further requests make sense. */
async function ask(batch, head, signal) {
  batch = batch.filter((image) => !isFresh(image, head));
  if (!batch.length) return true;
  const files = batch.map((image) => image.file);
  const classes = names.unchanged ? null : names.current;
  for (let retries = MAX_RETRIES; ; retries--) {
    let failure;
    try {
      const answers = await predict(files, classes, names.current.length, head, signal);
      if (signal.aborted) return false;
      problems.delete(head);
      batch.forEach((image, i) => {
        image.error = answers[i].error ?? "";
        if (!image.error) image.answers.set(head, { ...answers[i], version });
      });
      draw();
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      if (!(error instanceof RequestError)) throw error;
      failure = error;
    }
    const retrying = failure.retryAfter > 0 && retries > 0;
    // Problems with other images of the strip are shown when they are chosen.
    if (batch.includes(images.current)) {
      const text = failure.message + (retrying ? " (retrying)" : "");
      problems.set(head, { text, temporary: failure.temporary, retrying });
      draw();
    }
    if (!retrying) return !failure.temporary;
    await sleep(failure.retryAfter);
    if (signal.aborted) return false;
  }
}

/** Split images into batches that the server takes in one request. */
function* batches(all) {
  let batch = [];
  let bytes = 0;
  for (const image of all) {
    // Half of the limit, because the class names and the form itself take space too.
    if (batch.length && bytes + image.file.size > info.limits.upload_bytes / 2) {
      yield batch;
      [batch, bytes] = [[], 0];
    }
    batch.push(image);
    bytes += image.file.size;
  }
  if (batch.length) yield batch;
}

/** Draw the answers; those about earlier names stay visible, paler, until the new ones arrive. */
function draw() {
  const image = images.current;
  const [first] = heads;
  const best = (probabilities) => (names.current.length ? top(probabilities, names.current) : "");
  images.draw((other) => (isFresh(other, first) ? best(other.answers.get(first).probabilities) : ""));
  const columns = heads.map((head) => {
    const answer = image?.error ? null : image?.answers.get(head);
    const fresh = Boolean(answer && isFresh(image, head));
    const failed = problems.has(head) && !problems.get(head).retrying;
    return { head, title: title(head), probabilities: answer?.probabilities, milliseconds: answer?.head, fresh, failed };
  });
  drawBars(columns, names.current);
  drawProblems(image);
  const [{ probabilities, fresh }] = columns;
  const line = byId("best");
  line.className = probabilities ? (fresh ? "" : "stale") : "hint";
  if (probabilities && names.current.length > 1) {
    const name = best(probabilities);
    const share = Object.assign(document.createElement("span"), { textContent: percent(probabilities.get(name) ?? 0) });
    line.replaceChildren(name, " ", share);
  } else line.textContent = hint(image);
  byId("times").textContent = fresh && names.current.length ? duration(image.answers.get(first)) : "";
  const status = fresh ? line.textContent : "";
  if (byId("status").textContent !== status) byId("status").textContent = status; // not to be read out twice
}

function hint(image) {
  if (!names.current.length) return "Add two class names.";
  if (names.current.length < 2) return "Add another class name: a single one would always get 100 %.";
  if (!image) return "Choose an image to see what it is.";
  if (image.error) return "";
  return byId("trouble").hidden ? "Classifying the image …" : "";
}

function duration({ encode, total }) {
  return `${time(total)} in total, ${encode ? `including ${time(encode)} to encode the image` : "with the image already encoded"}`;
}

function drawProblems(image) {
  const current = image?.error ? [["", { text: image.error }]] : [...problems];
  const lines = new Map(); // by text, so that a problem of several heads is shown once
  for (const [head, { text, temporary }] of current) {
    const general = temporary || !head || head === heads[0];
    if (!lines.has(text)) lines.set(text, general ? text : `${title(head)}: ${text}`);
  }
  const retrying = current.some(([, problem]) => problem.retrying);
  const temporary = current.some(([, problem]) => problem.temporary);
  byId("trouble").classList.toggle("waiting", retrying);
  showProblem([...lines.values()].join("\n"), temporary && !retrying ? refresh : null);
}

/** Show a problem, or none if `text` is empty; `retry` is called by the button "Try again". */
function showProblem(text, retry) {
  const trouble = byId("trouble");
  const same = trouble.firstChild?.textContent === text && Boolean(retry) === trouble.children.length > 1;
  if (same && !text === trouble.hidden) return; // not to be read out twice
  trouble.replaceChildren(Object.assign(document.createElement("p"), { textContent: text }));
  const button = { type: "button", textContent: "Try again", onclick: retry };
  if (retry) trouble.append(Object.assign(document.createElement("button"), button));
  trouble.hidden = !text;
}

/** Add a checkbox for each head that the model can be compared with; all are off at first. */
function addHeads() {
  heads = ["exact"];
  const others = Object.keys(COMPARE).filter((head) => info.heads.includes(head));
  const boxes = others.map((head) => Object.assign(document.createElement("input"), { type: "checkbox", value: head }));
  for (const box of boxes) {
    const label = Object.assign(document.createElement("label"), { className: box.value });
    label.append(box, COMPARE[box.value]);
    byId("heads").append(label);
    box.onchange = () => {
      heads = ["exact", ...boxes.filter((other) => other.checked).map((other) => other.value)];
      refresh();
    };
  }
  byId("heads").hidden = byId("meaning").hidden = boxes.length === 0;
  for (const entry of document.querySelectorAll("#meaning dl div")) entry.hidden = !info.heads.includes(entry.className);
}

async function start() {
  showProblem("", null);
  try {
    info = await serverInfo();
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    byId("about").textContent = "";
    showProblem(error.message, start);
    return;
  }
  const parts = [info.method, " trained on ", info.data, " with the backbone ", info.backbone];
  const bold = (textContent) => Object.assign(document.createElement("b"), { textContent });
  byId("about").replaceChildren(...parts.map((part, i) => (i % 2 ? part : bold(part))));
  document.title = `GOPro: ${info.data}`;
  images = new Images(info.limits, refresh);
  names = new Names(info.classes, info.limits.names, () => {
    version++;
    requests.abort();
    draw();
    clearTimeout(timer);
    timer = setTimeout(refresh, DEBOUNCE);
  });
  addHeads();
  draw();
  try {
    for await (const { file, label } of samples()) images.addSample(file, label);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error; // the page works without samples too
  }
}

start();
