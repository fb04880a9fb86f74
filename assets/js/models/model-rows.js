// Rows of the model picker: a model with what it would take, one that cannot be used, and a folder that was named.

import { button, make, setName, setText } from "../desk/list-rows.js";
import { byteCount, number } from "../wording.js";

const PARTS = [
  ["weights", "weights_bytes", "Weights"],
  ["cache", "cache_bytes", "Conversation"],
  ["work", "work_bytes", "Work"],
];
const FULL = 100;

/** "135M", "4.0B". */
function parameterCount(count) {
  return count >= 1e9 ? `${(count / 1e9).toFixed(1)}B` : `${Math.max(1, Math.round(count / 1e6))}M`;
}

/** A model: its size and window, the memory that it would take, and the button that has it used. */
export class ModelRow {
  constructor({ use, shorten }) {
    this.name = make("h4");
    this.inUse = make("span", { className: "picker-in-use", textContent: "In use", hidden: true });
    this.use = button("Use", () => use(this.data.model));
    this.about = make("p", { className: "quiet" });
    this.bar = make("div", { className: "picker-bar" });
    this.bar.setAttribute("role", "img");
    this.parts = PARTS.map(([name]) => this.bar.appendChild(make("i", { className: `part-${name}` })));
    this.takes = make("p", { className: "picker-takes" });
    this.why = make("p", { className: "picker-why", hidden: true });
    this.shorter = button("", () => shorten(this.data.estimate.fitting_tokens));
    this.shorter.className = "picker-shorter";
    this.note = make("p", { className: "quiet", hidden: true });
    this.element = make(
      "li",
      {},
      make("div", { className: "picker-head" }, this.name, this.inUse, this.use),
      this.about,
      this.bar,
      this.takes,
      this.why,
      this.shorter,
      this.note,
    );
  }

  update(data) {
    this.data = data;
    const { name, model, state, estimate, free, isLoading } = data;
    const isChosen = state.reference === model;
    const isPresent = isChosen && state.stage === "ready";
    setText(this.name, name);
    this.element.classList.toggle("is-present", isPresent);
    setText(this.inUse, isChosen && isLoading ? "Loading" : "In use");
    this.inUse.hidden = !(isPresent || (isChosen && isLoading));
    const isSame = isPresent && state.context_tokens === estimate.context_tokens;
    setText(this.use, isPresent ? "Load again" : "Use");
    setName(this.use, `${isPresent ? "Load again" : "Use"}: ${name}, ${number(estimate.context_tokens)} tokens`);
    this.use.hidden = isSame;
    this.use.disabled = isLoading || estimate.fit === "no";
    const facts = [
      `${parameterCount(data.parameters)} parameters`,
      data.format,
      byteCount(data.file_bytes),
      `made for ${number(data.window_tokens)} tokens`,
      data.place,
    ];
    setText(this.about, facts.filter(Boolean).join(" · "));
    this.about.title = data.path;
    this.showEstimate(estimate, free);
    setText(this.note, data.demonstration_note && `${data.demonstration_note.split(". ")[0]}.`);
    this.note.hidden = !data.demonstration_note;
  }

  showEstimate(estimate, free) {
    const { total_bytes: total, fit, reason, fitting_tokens: fitting } = estimate;
    const whole = Math.max(total, free, 1);
    PARTS.forEach(([, field], index) => (this.parts[index].style.width = `${(FULL * estimate[field]) / whole}%`));
    this.bar.classList.toggle("too-much", fit === "no");
    this.bar.hidden = !total;
    const parts = PARTS.map(([, field, label]) => `${label.toLowerCase()} ${byteCount(estimate[field])}`).join(", ");
    const text = `About ${byteCount(total)} for ${number(estimate.context_tokens)} tokens: ${parts}`;
    this.bar.setAttribute("aria-label", `${text}; ${byteCount(free)} are free`);
    setText(this.takes, total ? text : "");
    setText(this.why, reason);
    this.why.hidden = !reason;
    this.why.classList.toggle("bad", fit === "no");
    this.shorter.hidden = fit !== "no" || fitting < 2048;
    if (!this.shorter.hidden) setText(this.shorter, `Up to ${number(fitting)} tokens would fit`);
  }
}

/** A model that cannot be used, and why. */
export class UnusableRow {
  constructor() {
    this.name = make("h4");
    this.place = make("p", { className: "quiet" });
    this.reason = make("p", { className: "bad" });
    this.element = make("li", {}, this.name, this.reason, this.place);
  }

  update({ name, reason, path }) {
    setText(this.name, name);
    setText(this.reason, reason);
    setText(this.place, path);
  }
}

/** A folder that is looked through, and the button that ends it. */
export class FolderRow {
  constructor(remove) {
    this.path = make("span");
    this.remove = button("Remove", () => remove(this.data.path));
    this.element = make("li", {}, this.path, this.remove);
  }

  update(data) {
    this.data = data;
    setText(this.path, data.path);
    setName(this.remove, `Look in ${data.path} no longer`);
  }
}
