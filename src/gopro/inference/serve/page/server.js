// Requests to the server. Every failure becomes a RequestError with a message that a person can read.

export class RequestError extends Error {
  /**
   * `status` is the HTTP status, 0 if there was no response; `retryAfter` the seconds to wait before another try, 0 if
   * the server names none; `error` the server's own description.
   */
  constructor(message, status = 0, retryAfter = 0, error = {}) {
    super(message);
    Object.assign(this, { status, retryAfter, error });
  }

  /** True if the same request may succeed later. */
  get temporary() {
    return this.status === 0 || this.status === 401 || this.status === 429 || this.status >= 500;
  }
}

const STORED = "gopro-key";
let dialogClosed = null; // a promise while the dialog for the key is open

/** Ask the user for another key than `rejected`, once for all requests that wait; resolves to false if they cancel. */
function askForKey(rejected) {
  if (sessionStorage.getItem(STORED) !== rejected) return true; // it was entered after this request was sent
  dialogClosed ??= new Promise((resolve) => {
    const dialog = document.getElementById("key");
    const input = dialog.querySelector("input");
    input.value = "";
    document.getElementById("key-wrong").textContent = rejected ? "This key is wrong." : "";
    dialog.returnValue = "";
    dialog.querySelector("[value=cancel]").onclick = () => dialog.close("cancel");
    dialog.onclose = () => {
      const entered = dialog.returnValue === "ok";
      if (entered) sessionStorage.setItem(STORED, input.value);
      resolve(entered);
    };
    dialog.showModal();
  }).finally(() => { dialogClosed = null; });
  return dialogClosed;
}

async function send(path, options = {}, read = (response) => response.json()) {
  const key = sessionStorage.getItem(STORED);
  let response;
  try {
    response = await fetch(path, { ...options, headers: key ? { "X-API-Key": key } : {} });
    if (response.ok) return await read(response);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError("The server does not answer. Check that gopro serve is still running.");
  }
  if (response.status === 401) {
    const entered = await askForKey(key);
    options.signal?.throwIfAborted();
    if (entered) return send(path, options, read);
  }
  const { error } = await response.json().catch(() => ({}));
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  const message = error?.message ?? `The server answered with status ${response.status} and gave no reason.`;
  throw new RequestError(message, response.status, retryAfter, error);
}

/** Get the class names, heads and limits of the server. */
export const serverInfo = () => send("classes");

/** Yield the samples in order, each with a `label` and a `file`, as soon as they arrive. */
export async function* samples() {
  const files = (await send("samples")).map(async ({ name, label }) => {
    const blob = await send(`samples/${encodeURIComponent(name)}`, {}, (response) => response.blob());
    return { label, file: new File([blob], label, { type: blob.type }) };
  });
  for (const file of files) file.catch(() => {}); // the loop that awaits it reports the error
  yield* files;
}

/**
 * Ask one head for the probabilities of all class names. `names` is null for those of the run.
 * Returns one answer per image: `error`, or `probabilities` (name → probability) and the times `head`, `encode` and
 * `total` in milliseconds.
 */
export async function predict(files, names, count, head, signal) {
  const form = new FormData();
  for (const file of files) form.append("images", file, file.name || "image");
  for (const name of names ?? []) form.append("classes", name);
  form.append("top_k", count);
  form.append("heads", head);
  let response;
  try {
    response = await send("predict", { method: "POST", body: form, signal });
  } catch (error) {
    if (error.error?.code === "unreadable") return error.error.images; // not one image can be read
    throw error;
  }
  const { results, milliseconds } = response;
  return results.map(({ error, heads }) => {
    if (error) return { error };
    const predictions = [...heads[head].predictions].reverse(); // of two classes with one name, the likelier one counts
    const probabilities = new Map(predictions.map(({ name, probability }) => [name, probability]));
    return { probabilities, head: heads[head].milliseconds, encode: milliseconds.encode, total: milliseconds.total };
  });
}
