// The images: taken in by dropping, pasting and choosing, shown large, as a strip to choose from; and the samples.

const shown = document.getElementById("shown");
const strip = document.getElementById("strip");
const refused = document.getElementById("refused");
const files = document.getElementById("files");
const samples = document.querySelector("#samples ul");

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

/** What is asked about: whoever asks keeps `answers` (head → answer) and, if it cannot be read, the `error`. */
class ImageSource {
  constructor(file, caption) {
    Object.assign(this, { file, caption, url: URL.createObjectURL(file), answers: new Map(), error: "" });
  }
}

export class Images {
  /** `chosen` is called when another image is to be asked about, `current`, which is none at first. */
  constructor(limits, chosen) {
    Object.assign(this, { limits, chosen, all: [], current: null });
    this.listen();
  }

  /** Takes files in and shows the first of them. They are read now, for what lies on disk may change or go. */
  async add(files) {
    const refusals = [];
    const added = [];
    for (const file of files) {
      if (this.all.length + added.length === this.limits.images) {
        refusals.push(`At most ${this.limits.images} images at a time: ${file.name} and what follows are left out.`);
        break;
      }
      if (file.size > this.limits.upload_bytes) {
        const most = megabytes(this.limits.upload_bytes);
        refusals.push(`${file.name} has ${megabytes(file.size)}, this server takes ${most}: make it smaller.`);
        continue;
      }
      try {
        added.push(new ImageSource(new File([await file.arrayBuffer()], file.name, { type: file.type }), file.name));
      } catch {
        refusals.push(`${file.name} cannot be read: give image files, not folders.`);
      }
    }
    refused.textContent = refusals.join("\n");
    refused.hidden = !refusals.length;
    this.all.push(...added);
    if (added.length) this.choose(added[0]);
  }

  /** Offers a sample. It is none of the strip's images, which are the person's own. */
  offer(file, label) {
    const image = new ImageSource(file, `Sample: ${label}`);
    const item = document.createElement("li");
    image.button = item.appendChild(this.button(image, image.caption));
    samples.append(item);
    samples.parentElement.hidden = false;
  }

  choose(image) {
    for (const button of document.querySelectorAll(".images [aria-current]")) button.removeAttribute("aria-current");
    this.current = image;
    this.chosen();
  }

  remove(image) {
    const index = this.all.indexOf(image);
    const next = this.all[index + 1] ?? this.all[index - 1] ?? null;
    this.all.splice(index, 1);
    URL.revokeObjectURL(image.url);
    image.button.parentElement.remove();
    this.choose(image === this.current ? next : this.current);
    (strip.hidden ? files : next.button).focus();
  }

  /** `top` gives what to write below an image of the strip. */
  draw(top) {
    const image = this.current;
    document.body.classList.toggle("begun", image !== null);
    shown.hidden = image === null;
    strip.hidden = this.all.length < (this.all.includes(image) ? 2 : 1);
    for (const other of this.all) {
      if (!other.button) strip.append(this.inStrip(other));
      other.button.classList.toggle("broken", Boolean(other.error));
      other.button.querySelector("span").textContent = other.error ? "unreadable" : top(other);
    }
    if (!image) return;
    const element = document.getElementById("image");
    if (element.getAttribute("src") !== image.url) element.src = image.url;
    element.alt = image.caption;
    document.getElementById("caption").textContent = image.caption;
    image.button.setAttribute("aria-current", "true");
  }

  button(image, title) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", title, onclick: () => this.choose(image) });
    button.append(Object.assign(document.createElement("img"), { src: image.url, alt: title }));
    return button;
  }

  inStrip(image) {
    const item = document.createElement("li");
    image.button = this.button(image, image.file.name);
    image.button.append(document.createElement("span"));
    image.button.setAttribute("aria-keyshortcuts", "Delete");
    image.button.onkeydown = ({ key }) => (key === "Delete" || key === "Backspace") && this.remove(image);
    const remove = document.createElement("button");
    Object.assign(remove, { type: "button", tabIndex: -1, className: "remove", onclick: () => this.remove(image) });
    remove.setAttribute("aria-label", `Remove ${image.file.name}`);
    item.append(image.button, remove);
    return item;
  }

  listen() {
    files.addEventListener("change", () => {
      this.add([...files.files]);
      files.value = ""; // the same file may be chosen again
    });
    addEventListener("paste", (event) => {
      const pasted = [...event.clipboardData.files];
      if (!pasted.length) return;
      event.preventDefault();
      this.add(pasted);
    });
    let depth = 0; // dragenter and dragleave come for each element that is crossed
    const over = (event, change) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      depth = Math.max(0, depth + change);
      document.body.classList.toggle("dragging", depth > 0);
    };
    addEventListener("dragenter", (event) => over(event, 1));
    addEventListener("dragover", (event) => over(event, 0));
    addEventListener("dragleave", (event) => over(event, -1));
    addEventListener("drop", (event) => {
      over(event, -depth);
      if (event.dataTransfer.files.length) this.add([...event.dataTransfer.files]);
    });
  }
}
