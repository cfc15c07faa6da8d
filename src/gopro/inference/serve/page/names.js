// The class names, as chips that can be edited.

const list = document.querySelector("#names ul");
const input = document.getElementById("name");
const status = document.getElementById("names-status");

/** Write a class name as the server does, whose answer is looked up by name: see `clean_name` in class_names.py. */
const clean = (name) => name.normalize("NFC").replaceAll("_", " ").trim().replace(/\s+/g, " ");

/** Split a text into names, one per line. */
const lines = (text) => text.split(/[\r\n]+/).map(clean).filter(Boolean);

/** Split a pasted text into names: at line ends or, if it is a single line, at commas, semicolons and tabs. */
export function split(text) {
  return lines(text).length > 1 ? lines(text) : text.split(/[,;\t]/).map(clean).filter(Boolean);
}

export class Names {
  /** `training` are the names of the run; `onChange` is called after every change of `current`. */
  constructor(training, limit, onChange) {
    Object.assign(this, { training, limit, onChange, current: [...training] });
    this.chips = new Map();
    this.listen();
    this.draw();
  }

  /** True if the names are those of the run, which need not be sent. */
  get unchanged() {
    return this.current.length === this.training.length && this.current.every((name, i) => name === this.training[i]);
  }

  /** Replace all names; `message` is for screen readers. */
  set(names, message) {
    const unique = [...new Set(names)];
    const extra = unique.length - this.limit;
    this.current = unique.slice(0, this.limit);
    this.draw();
    if (extra > 0) message = `At most ${this.limit} names: the last ${extra === 1 ? "one was" : `${extra} were`} left out.`;
    status.classList.toggle("visually-hidden", extra <= 0); // a person sees what they added, but not what was left out
    status.textContent = message;
    this.onChange();
  }

  add(names) {
    const fresh = names.filter((name) => !this.current.includes(name));
    for (const name of names) if (!fresh.includes(name)) this.flash(name);
    if (fresh.length) this.set([...this.current, ...fresh], fresh.length > 1 ? `${fresh.length} names added.` : `${fresh[0]} added.`);
    else if (names.length) status.textContent = names.length > 1 ? "All of these are already in the list." : `${names[0]} is already in the list.`;
    list.scrollTop = list.scrollHeight;
  }

  /** Remove a name and, if it had the focus, move the focus to its neighbour. */
  remove(name) {
    const index = this.current.indexOf(name);
    const focused = this.chips.get(name).contains(document.activeElement);
    this.set(this.current.filter((other) => other !== name), `${name} removed, ${this.current.length - 1} left.`);
    if (focused) this.focus(Math.min(index, this.current.length - 1));
  }

  focus(index) {
    const button = this.chips.get(this.current[index])?.querySelector("button");
    (button ?? input).focus();
  }

  flash(name) {
    const chip = this.chips.get(name);
    chip.scrollIntoView({ block: "nearest" });
    chip.classList.remove("flash");
    void chip.offsetWidth; // forces a layout, so that the animation restarts
    chip.classList.add("flash");
  }

  draw() {
    for (const [name, chip] of this.chips) {
      if (!this.current.includes(name)) {
        chip.remove();
        this.chips.delete(name);
      }
    }
    const chips = this.current.map((name) => {
      if (!this.chips.has(name)) this.chips.set(name, this.makeChip(name));
      return this.chips.get(name);
    });
    // Moving a chip takes the focus from it, so do so only if the order has changed.
    if (chips.some((chip, i) => list.children[i] !== chip)) list.replaceChildren(...chips);
    this.makeTabStop(chips[0]);
    document.getElementById("count").textContent = this.current.length || "";
    document.getElementById("reset").hidden = this.unchanged;
  }

  makeChip(name) {
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

  /** Make this chip the one that Tab reaches; arrow keys lead to the others. */
  makeTabStop(chip) {
    for (const button of list.querySelectorAll("[tabindex='0']")) button.tabIndex = -1;
    if (chip) chip.querySelector("button").tabIndex = 0;
  }

  listen() {
    list.addEventListener("click", ({ target }) => {
      if (target.dataset.name !== undefined) this.remove(target.dataset.name);
      else if (target === list) input.focus();
    });
    list.addEventListener("focusin", ({ target }) => this.makeTabStop(target.closest("li")));
    list.addEventListener("keydown", (event) => {
      const index = this.current.indexOf(event.target.dataset.name);
      const to = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: this.current.length - 1 }[event.key];
      if (to !== undefined) this.focus(Math.max(0, to));
      else if (event.key === "Backspace" || event.key === "Delete") this.remove(this.current[index]);
      else return;
      event.preventDefault();
    });

    const addTyped = () => {
      const names = split(input.value);
      input.value = "";
      if (names.length) this.add(names);
    };
    input.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      const last = this.current.length - 1;
      if (event.key === "Enter") addTyped();
      else if (input.value || last < 0 || event.repeat) return;
      else if (event.key === "Backspace") this.remove(this.current[last]);
      else if (event.key === "ArrowLeft") this.focus(last);
      else return;
      event.preventDefault();
    });
    input.addEventListener("input", (event) => {
      if (!event.isComposing && input.value.includes(",")) addTyped();
    });
    input.addEventListener("blur", addTyped);
    input.addEventListener("paste", (event) => {
      const names = split(event.clipboardData.getData("text/plain"));
      if (names.length < 2) return;
      event.preventDefault();
      input.value = "";
      this.add(names);
    });

    document.getElementById("reset").onclick = () => {
      this.set(this.training, "Reset to the names of the trained model.");
      input.focus();
    };
    const dialog = document.getElementById("list");
    const text = dialog.querySelector("textarea");
    document.getElementById("as-list").onclick = () => {
      text.value = this.current.join("\n");
      dialog.returnValue = "";
      dialog.showModal();
      text.setSelectionRange(0, 0);
    };
    dialog.querySelector("[value=cancel]").onclick = () => dialog.close("cancel");
    dialog.onclose = () => {
      const names = lines(text.value);
      if (dialog.returnValue === "ok") this.set(names, `${new Set(names).size} ${new Set(names).size === 1 ? "name" : "names"}.`);
    };
  }
}
