// Rows of the library's lists: kept while what they show changes, so that focus, open boxes and half-typed names stay.
//
// Names come from files and from people: they are set as text, never as markup.

/** An element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const { dataset, ...others } = properties;
  const element = Object.assign(document.createElement(tag), others);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}

/** A button with a text, and a longer name for screen readers where the text alone says too little. */
export function button(text, onClick, name) {
  const made = make("button", { type: "button", textContent: text });
  if (name) setName(made, name);
  made.addEventListener("click", onClick);
  return made;
}

/** Name a control for screen readers and pointers. */
export function setName(control, name) {
  if (control.title === name) return;
  control.title = name;
  control.setAttribute("aria-label", name);
}

/** Set a text only if it differs: what is set is read out anew. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Rows of one list by key: made, updated, moved and removed as the data says. */
export class Rows {
  /**
   * @param list the element that holds them.
   * @param makeRow makes a row, an object with `element` and `update(data)`.
   */
  constructor(list, makeRow) {
    this.list = list;
    this.makeRow = makeRow;
    this.rows = new Map();
  }

  /** Show `data`, whose key is in its property `key`. */
  show(data, key) {
    const kept = new Set(data.map((one) => one[key]));
    for (const [name, row] of this.rows) {
      if (kept.has(name)) continue;
      row.element.remove();
      this.rows.delete(name);
    }
    data.forEach((one, index) => {
      let row = this.rows.get(one[key]);
      if (!row) this.rows.set(one[key], (row = this.makeRow()));
      row.update(one);
      // A row that is where it belongs is not touched: moving it would take its focus.
      if (this.list.children[index] !== row.element) this.list.insertBefore(row.element, this.list.children[index] ?? null);
    });
  }
}

/** The button that shows and hides a row's further actions. */
export function moreButton(actions) {
  const more = button("⋯", () => show(actions.hidden), "");
  more.className = "row-more";
  more.setAttribute("aria-expanded", "false");
  const show = (open) => {
    actions.hidden = !open;
    more.setAttribute("aria-expanded", String(open));
    if (open) actions.scrollIntoView({ block: "nearest" });
  };
  actions.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented) return;
    event.preventDefault();
    show(false);
    more.focus();
  });
  const close = () => {
    // What is hidden cannot keep the focus.
    if (actions.contains(document.activeElement)) more.focus();
    show(false);
  };
  return { more, close };
}

/** Put a box in the place of a name; Enter and leaving it take what it holds, Escape does not. */
export function renameInPlace(name, text, label, onNamed) {
  const box = make("input", { type: "text", value: text, className: "row-rename", maxLength: 200 });
  box.setAttribute("aria-label", label);
  let isOver = false;
  const end = (isTaken) => {
    if (isOver) return;
    isOver = true;
    const given = box.value.trim();
    const hadFocus = document.activeElement === box;
    box.remove();
    name.hidden = false;
    if (hadFocus) name.closest("li").querySelector(".row-more").focus();
    if (isTaken && given && given !== text) onNamed(given);
  };
  box.addEventListener("keydown", (event) => {
    // An input method takes both keys for its own choice.
    if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    end(event.key === "Enter");
  });
  box.addEventListener("blur", () => end(true));
  name.hidden = true;
  name.after(box);
  box.focus();
  box.select();
}
