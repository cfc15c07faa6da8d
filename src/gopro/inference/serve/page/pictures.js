// The pictures: taken in by dropping, pasting and choosing, shown large, as a strip to choose from; and the samples.

const shown = document.getElementById("shown");
const strip = document.getElementById("strip");
const refused = document.getElementById("refused");
const files = document.getElementById("files");
const samples = document.querySelector("#samples ul");

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

/** What is asked about: whoever asks keeps `answers` (head → answer) and, if it cannot be read, the `error`. */
class Picture {
  constructor(file, caption) {
    Object.assign(this, { file, caption, url: URL.createObjectURL(file), answers: new Map(), error: "" });
  }
}

export class Pictures {
  /** `chosen` is called when another picture is to be asked about, `current`, which is none at first. */
  constructor(limits, chosen) {
    Object.assign(this, { limits, chosen, all: [], current: null });
    this.listen();
  }

  /** Takes files in and shows the first of them. They are read now, for what lies on disk may change or go. */
  async add(files) {
    const refusals = [];
    const added = [];
    for (const file of files) {
      if (this.all.length + added.length === this.limits.pictures) {
        refusals.push(`At most ${this.limits.pictures} pictures at a time: ${file.name} and what follows are left out.`);
        break;
      }
      if (file.size > this.limits.upload_bytes) {
        const most = megabytes(this.limits.upload_bytes);
        refusals.push(`${file.name} has ${megabytes(file.size)}, this server takes ${most}: make it smaller.`);
        continue;
      }
      try {
        added.push(new Picture(new File([await file.arrayBuffer()], file.name, { type: file.type }), file.name));
      } catch {
        refusals.push(`${file.name} cannot be read: give picture files, not folders.`);
      }
    }
    refused.textContent = refusals.join("\n");
    refused.hidden = !refusals.length;
    this.all.push(...added);
    if (added.length) this.choose(added[0]);
  }

  /** Offers a sample. It is none of the strip's pictures, which are the person's own. */
  offer(file, label) {
    const picture = new Picture(file, `Sample: ${label}`);
    const item = document.createElement("li");
    picture.button = item.appendChild(this.button(picture, picture.caption));
    samples.append(item);
    samples.parentElement.hidden = false;
  }

  choose(picture) {
    for (const button of document.querySelectorAll(".pictures [aria-current]")) button.removeAttribute("aria-current");
    this.current = picture;
    this.chosen();
  }

  remove(picture) {
    const index = this.all.indexOf(picture);
    const next = this.all[index + 1] ?? this.all[index - 1] ?? null;
    this.all.splice(index, 1);
    URL.revokeObjectURL(picture.url);
    picture.button.parentElement.remove();
    this.choose(picture === this.current ? next : this.current);
    (strip.hidden ? files : next.button).focus();
  }

  /** `top` gives what to write below a picture of the strip. */
  draw(top) {
    const picture = this.current;
    document.body.classList.toggle("begun", picture !== null);
    shown.hidden = picture === null;
    strip.hidden = this.all.length < (this.all.includes(picture) ? 2 : 1);
    for (const other of this.all) {
      if (!other.button) strip.append(this.inStrip(other));
      other.button.classList.toggle("broken", Boolean(other.error));
      other.button.querySelector("span").textContent = other.error ? "unreadable" : top(other);
    }
    if (!picture) return;
    const image = document.getElementById("picture");
    if (image.getAttribute("src") !== picture.url) image.src = picture.url;
    image.alt = picture.caption;
    document.getElementById("caption").textContent = picture.caption;
    picture.button.setAttribute("aria-current", "true");
  }

  button(picture, title) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", title, onclick: () => this.choose(picture) });
    button.append(Object.assign(document.createElement("img"), { src: picture.url, alt: title }));
    return button;
  }

  inStrip(picture) {
    const item = document.createElement("li");
    picture.button = this.button(picture, picture.file.name);
    picture.button.append(document.createElement("span"));
    picture.button.setAttribute("aria-keyshortcuts", "Delete");
    picture.button.onkeydown = ({ key }) => (key === "Delete" || key === "Backspace") && this.remove(picture);
    const remove = document.createElement("button");
    Object.assign(remove, { type: "button", tabIndex: -1, className: "remove", onclick: () => this.remove(picture) });
    remove.setAttribute("aria-label", `Remove ${picture.file.name}`);
    item.append(picture.button, remove);
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
