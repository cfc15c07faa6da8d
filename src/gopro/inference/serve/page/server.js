// What is asked of the server. Whatever goes wrong becomes a Refusal, with one line that a person can read.

export class Refusal extends Error {
  /**
   * `status` is HTTP's, 0 where there was no answer; `after` is when to ask again, in seconds, if the server says so;
   * `error` is what it says besides.
   */
  constructor(message, status = 0, after = 0, error = {}) {
    super(message);
    Object.assign(this, { status, after, error });
  }

  /** Whether the same question may well be answered later. */
  get passing() {
    return this.status === 0 || this.status === 401 || this.status === 429 || this.status >= 500;
  }
}

const KEPT = "gopro-key";
let asking = null;

/** Whether there is another key than the one that was refused: the person is asked, once for all requests that wait. */
function newKey(refused) {
  if (sessionStorage.getItem(KEPT) !== refused) return true; // it was given since this request was sent
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key");
    const input = dialog.querySelector("input");
    input.value = "";
    document.getElementById("key-wrong").textContent = refused ? "That is not the key." : "";
    dialog.returnValue = "";
    dialog.querySelector("[value=cancel]").onclick = () => dialog.close("cancel");
    dialog.onclose = () => {
      const given = dialog.returnValue === "ok";
      if (given) sessionStorage.setItem(KEPT, input.value);
      resolve(given);
    };
    dialog.showModal();
  }).finally(() => { asking = null; });
  return asking;
}

async function ask(path, options = {}, read = (response) => response.json()) {
  const key = sessionStorage.getItem(KEPT);
  let response;
  try {
    response = await fetch(path, { ...options, headers: key ? { "X-API-Key": key } : {} });
    if (response.ok) return await read(response);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer. See whether gopro serve is still running.");
  }
  if (response.status === 401) {
    const given = await newKey(key);
    options.signal?.throwIfAborted();
    if (given) return ask(path, options, read);
  }
  const { error } = await response.json().catch(() => ({}));
  const after = Number(response.headers.get("Retry-After")) || 0;
  const message = error?.message ?? `The server answers ${response.status}, without a reason.`;
  throw new Refusal(message, response.status, after, error);
}

/** What the server can do: class names, heads, limits. */
export const about = () => ask("classes");

/** Its samples, each with a `label` and a `file`, in their order and as soon as they are there. */
export async function* samples() {
  const files = (await ask("samples")).map(async ({ name, label }) => {
    const blob = await ask(`samples/${encodeURIComponent(name)}`, {}, (response) => response.blob());
    return { label, file: new File([blob], label, { type: blob.type }) };
  });
  for (const file of files) file.catch(() => {}); // it is told of when its turn comes
  yield* files;
}

/**
 * Asks about images by one head, with all probabilities.
 * `names` is null for those of training. Gives an answer an image: `error`, or `of` (name → probability) and `head`,
 * `encode`, `total` in milliseconds.
 */
export async function predict(files, names, count, head, signal) {
  const form = new FormData();
  for (const file of files) form.append("images", file, file.name || "image");
  for (const name of names ?? []) form.append("classes", name);
  form.append("top_k", count);
  form.append("heads", head);
  let answer;
  try {
    answer = await ask("predict", { method: "POST", body: form, signal });
  } catch (refusal) {
    if (refusal.error?.code === "unreadable") return refusal.error.images; // none of them can be read
    throw refusal;
  }
  const { results, milliseconds } = answer;
  return results.map(({ error, heads }) => {
    if (error) return { error };
    const of = new Map(heads[head].predictions.map(({ name, probability }) => [name, probability]));
    return { of, head: heads[head].milliseconds, encode: milliseconds.encode, total: milliseconds.total };
  });
}
