// The class names as chips that can be edited.

const list = document.querySelector("#names ul");
const input = document.getElementById("name");
const said = document.getElementById("names-said");

/** The names in a pasted text: its lines, or, if it is one line, what commas, semicolons and tabs separate. */
export function split(text) {
  const lines = text.split(/[\r\n]+/).map((line) => line.trim()).filter(Boolean);
  return lines.length > 1 ? lines : text.split(/[,;\t]/).map((part) => part.trim()).filter(Boolean);
}

export class Names {
  /** `changed` is called after every change. */
  constructor(training, limit, changed) {
    Object.assign(this, { training, limit, changed, now: [...training] });
    this.chips = new Map();
    this.listen();
    this.draw();
  }

  /** Whether they are those of training, in which case the server needn't be told. */
  get original() {
    return this.now.length === this.training.length && this.now.every((name, i) => name === this.training[i]);
  }

  /** Replaces all; `word` is what a screen reader says of it. */
  set(names, word) {
    const unique = [...new Set(names)];
    const left = unique.length - this.limit;
    this.now = unique.slice(0, this.limit);
    this.draw();
    if (left > 0) word = `At most ${this.limit} names; the last ${left} ${left === 1 ? "is" : "are"} left out.`;
    said.classList.toggle("spoken", left <= 0); // what was asked for can be seen
    said.textContent = word;
    this.changed();
  }

  add(names) {
    const fresh = names.filter((name) => !this.now.includes(name));
    for (const name of names) if (!fresh.includes(name)) this.flash(name);
    if (fresh.length) this.set([...this.now, ...fresh], fresh.length > 1 ? `${fresh.length} names added.` : `${fresh[0]} added.`);
    else if (names.length) said.textContent = names.length > 1 ? "They are all there." : `${names[0]} is there already.`;
    list.scrollTop = list.scrollHeight;
  }

  /** Takes a name away and moves the focus, if it was there, to its neighbour. */
  remove(name) {
    const index = this.now.indexOf(name);
    const held = this.chips.get(name).contains(document.activeElement);
    this.set(this.now.filter((other) => other !== name), `${name} taken away, ${this.now.length - 1} left.`);
    if (held) this.focus(Math.min(index, this.now.length - 1));
  }

  focus(index) {
    const button = this.chips.get(this.now[index])?.querySelector("button");
    (button ?? input).focus();
  }

  flash(name) {
    const chip = this.chips.get(name);
    chip.scrollIntoView({ block: "nearest" });
    chip.classList.remove("flash");
    void chip.offsetWidth; // so that the animation starts again
    chip.classList.add("flash");
  }

  draw() {
    for (const [name, chip] of this.chips) {
      if (!this.now.includes(name)) {
        chip.remove();
        this.chips.delete(name);
      }
    }
    const chips = this.now.map((name) => {
      if (!this.chips.has(name)) this.chips.set(name, this.chip(name));
      return this.chips.get(name);
    });
    // Moving a chip takes the focus off it, so they are laid anew only where their order changed.
    if (chips.some((chip, i) => list.children[i] !== chip)) list.replaceChildren(...chips);
    this.reachable(chips[0]);
    document.getElementById("count").textContent = this.now.length || "";
    document.getElementById("reset").hidden = this.original;
  }

  chip(name) {
    const chip = document.createElement("li");
    const text = document.createElement("span");
    text.textContent = name;
    const button = document.createElement("button");
    Object.assign(button, { type: "button", tabIndex: -1, title: `Remove ${name}` });
    button.setAttribute("aria-label", `Remove ${name}`);
    button.dataset.name = name;
    chip.append(text, button);
    return chip;
  }

  /** The chips are one stop of the Tab key; arrows go from one to the next. */
  reachable(chip) {
    for (const button of list.querySelectorAll("[tabindex='0']")) button.tabIndex = -1;
    if (chip) chip.querySelector("button").tabIndex = 0;
  }

  listen() {
    list.addEventListener("click", ({ target }) => {
      if (target.dataset.name !== undefined) this.remove(target.dataset.name);
      else if (target === list) input.focus();
    });
    list.addEventListener("focusin", ({ target }) => this.reachable(target.closest("li")));
    list.addEventListener("keydown", (event) => {
      const index = this.now.indexOf(event.target.dataset.name);
      const to = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: this.now.length - 1 }[event.key];
      if (to !== undefined) this.focus(Math.max(0, to));
      else if (event.key === "Backspace" || event.key === "Delete") this.remove(this.now[index]);
      else return;
      event.preventDefault();
    });

    const take = () => {
      const names = split(input.value);
      input.value = "";
      if (names.length) this.add(names);
    };
    input.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      const last = this.now.length - 1;
      if (event.key === "Enter") take();
      else if (input.value || last < 0 || event.repeat) return;
      else if (event.key === "Backspace") this.remove(this.now[last]);
      else if (event.key === "ArrowLeft") this.focus(last);
      else return;
      event.preventDefault();
    });
    input.addEventListener("input", (event) => {
      if (!event.isComposing && input.value.includes(",")) take();
    });
    input.addEventListener("blur", take);
    input.addEventListener("paste", (event) => {
      const names = split(event.clipboardData.getData("text/plain"));
      if (names.length < 2) return;
      event.preventDefault();
      input.value = "";
      this.add(names);
    });

    document.getElementById("reset").onclick = () => {
      this.set(this.training, "These are the names of training.");
      input.focus();
    };
    const dialog = document.getElementById("list");
    const text = dialog.querySelector("textarea");
    document.getElementById("as-list").onclick = () => {
      text.value = this.now.join("\n");
      dialog.returnValue = "";
      dialog.showModal();
      text.setSelectionRange(0, 0);
    };
    dialog.querySelector("[value=cancel]").onclick = () => dialog.close("cancel");
    dialog.onclose = () => {
      const names = text.value.split("\n").map((line) => line.trim()).filter(Boolean);
      if (dialog.returnValue === "ok") this.set(names, `${new Set(names).size} names.`);
    };
  }
}
