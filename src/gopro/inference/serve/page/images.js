// The images: dropped, pasted or chosen by the user, shown large and as a strip; and the samples.

const shown = document.getElementById("image");
const noPreview = document.getElementById("no-preview");
const strip = document.getElementById("strip");
const notAdded = document.getElementById("not-added");
const unreadable = document.getElementById("unreadable");
const files = document.getElementById("files");
const samples = document.querySelector("#samples ul");

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

/** An image with its `answers` (head → answer), or with the `error` if the server cannot read it. */
class ImageSource {
  constructor(file, caption) {
    Object.assign(this, { file, caption, url: URL.createObjectURL(file), answers: new Map(), error: "" });
  }
}

export class Images {
  /** `onChoose` is called when `current`, null at first, becomes another image. */
  constructor(limits, onChoose) {
    Object.assign(this, { limits, onChoose, all: [], current: null });
    this.listen();
  }

  /** Add files and show the first of them. They are read now, because they may change or disappear on disk. */
  async add(files) {
    const problems = [];
    const added = [];
    for (const file of files) {
      if (this.all.length + added.length === this.limits.images) {
        problems.push(`At most ${this.limits.images} images at a time: ${file.name} and the files after it were left out.`);
        break;
      }
      if (file.size > this.limits.upload_bytes) {
        const most = megabytes(this.limits.upload_bytes);
        problems.push(`${file.name} is ${megabytes(file.size)}, but this server takes at most ${most}: scale it down.`);
        continue;
      }
      try {
        added.push(new ImageSource(new File([await file.arrayBuffer()], file.name, { type: file.type }), file.name));
      } catch {
        problems.push(`${file.name} cannot be read: choose image files, not folders.`);
      }
    }
    notAdded.textContent = problems.join("\n");
    notAdded.hidden = !problems.length;
    this.all.push(...added);
    if (added.length) this.choose(added[0]);
  }

  /** Add a sample image. It is not part of the strip, which holds the user's own images. */
  addSample(file, label) {
    const image = new ImageSource(file, `Sample: ${label}`);
    const item = document.createElement("li");
    image.button = item.appendChild(this.makeButton(image, image.caption));
    samples.append(item);
    samples.parentElement.hidden = false;
  }

  choose(image) {
    for (const button of document.querySelectorAll("main [aria-current]")) button.removeAttribute("aria-current");
    this.current = image;
    this.onChoose();
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

  /** Draw the images; `caption(image)` is the text below an image of the strip. */
  draw(caption) {
    const image = this.current;
    document.body.classList.toggle("begun", image !== null);
    document.body.classList.toggle("answerable", image !== null && !image.error);
    strip.hidden = this.all.length < (this.all.includes(image) ? 2 : 1);
    for (const other of this.all) {
      if (!other.button) strip.append(this.makeStripItem(other));
      other.button.classList.toggle("broken", Boolean(other.error));
      other.button.querySelector("span").textContent = other.error ? "unreadable" : caption(other);
    }
    // The reason for the current image is shown in place of its answer.
    const reasons = this.all.filter((other) => other.error && other !== image).map((other) => other.error).join("\n");
    if (unreadable.textContent !== reasons) unreadable.textContent = reasons; // not to be read out twice
    unreadable.hidden = !reasons;
    document.getElementById("caption").textContent = image?.caption ?? "";
    if (!image) {
      shown.hidden = noPreview.hidden = true;
      shown.removeAttribute("src");
      return;
    }
    if (shown.getAttribute("src") !== image.url) {
      [shown.hidden, noPreview.hidden, shown.src] = [false, true, image.url];
    }
    if (image.error) shown.hidden = noPreview.hidden = true; // the reason says enough
    shown.alt = image.caption;
    image.button.setAttribute("aria-current", "true");
  }

  makeButton(image, title) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", title, onclick: () => this.choose(image) });
    button.append(Object.assign(document.createElement("img"), { src: image.url, alt: title }));
    return button;
  }

  makeStripItem(image) {
    const item = document.createElement("li");
    image.button = this.makeButton(image, image.file.name);
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
    shown.addEventListener("error", () => {
      shown.hidden = true;
      noPreview.hidden = Boolean(this.current?.error); // without an error: the server reads it, as it does TIFF
    });
    files.addEventListener("change", () => {
      this.add([...files.files]);
      files.value = ""; // so that the same file can be chosen again
    });
    addEventListener("paste", (event) => {
      const pasted = [...event.clipboardData.files];
      if (!pasted.length) return;
      event.preventDefault();
      this.add(pasted);
    });
    let depth = 0; // dragenter and dragleave fire for each element that is crossed
    const track = (event, change) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      depth = Math.max(0, depth + change);
      document.body.classList.toggle("dragging", depth > 0);
    };
    addEventListener("dragenter", (event) => track(event, 1));
    addEventListener("dragover", (event) => track(event, 0));
    addEventListener("dragleave", (event) => track(event, -1));
    addEventListener("drop", (event) => {
      track(event, -depth);
      if (event.dataTransfer.files.length) this.add([...event.dataTransfer.files]);
    });
  }
}
