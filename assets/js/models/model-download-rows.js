// Rows of models to download: one that is suggested, and one that is on its way.

import { button, make, setName, setText } from "../desk/list-rows.js";
import { byteCount, duration, number } from "../wording.js";

const NAMED_STATES = {
  downloading: "is being downloaded",
  waiting: "waits for the network",
  paused: "paused",
  failed: "could not be downloaded",
  done: "is downloaded and checked",
};
const RUNNING = ["starting", "downloading", "checking", "waiting", "queued"];

/** A state worth telling, in words; undefined of others. */
export function namedState(state) {
  return NAMED_STATES[state];
}

/** With what a model of the list fits this machine. */
export function fitOf({ weight_bits: weightBits, context_tokens: contextTokens }) {
  return { weightBits, contextTokens };
}

/** A model that this machine can hold: what it is good for, its licence, and what it takes. */
export class SuggestionRow {
  /** @param acts `post(action, values)` and `use(model, fit)`. */
  constructor(acts) {
    this.name = make("h4");
    this.best = make("span", { className: "best", textContent: "Best to begin with", hidden: true });
    this.good = make("p");
    this.licence = make("a", { target: "_blank", rel: "noopener noreferrer" });
    this.size = make("span");
    this.memory = make("p", { className: "quiet" });
    this.get = button("", () => {
      const { model, is_here: isHere } = this.data;
      if (isHere) acts.use(model, fitOf(this.data));
      else acts.post("start", { model });
    });
    this.state = make("span", { className: "quiet" });
    this.line = make("div", { className: "line" }, this.get, this.state);
    this.download = new DownloadRow(acts, "div");
    this.download.name.hidden = true;
    this.element = make(
      "li",
      {},
      make("div", { className: "head" }, this.name, this.best),
      this.good,
      make("p", { className: "quiet" }, this.size, " · licence ", this.licence),
      this.memory,
      this.line,
      this.download.element,
    );
  }

  update(data) {
    this.data = data;
    const { name, is_here: isHere, download } = data;
    const [left, taken] = download ? [this.line, this.download] : [this.download.element, this];
    const hadFocus = left.contains(this.element.getRootNode().activeElement);
    this.line.hidden = Boolean(download);
    this.download.element.hidden = !download;
    if (download) this.download.update({ ...download, fit: fitOf(data) });
    if (hadFocus) (taken.main ?? taken.get).focus();
    setText(this.name, name);
    this.best.hidden = !data.is_recommended;
    setText(this.good, data.good_for);
    setText(this.size, `${byteCount(data.download_bytes)} to download · reads ${number(data.window_tokens)} tokens`);
    setText(this.licence, data.licence);
    this.licence.href = data.page;
    setText(this.memory, memoryText(data));
    this.get.hidden = data.isRefused && !isHere;
    setText(this.get, isHere ? "Use" : "Download");
    setName(this.get, isHere ? `Use ${name}` : `Download ${name}, ${byteCount(data.download_bytes)}, ${data.licence}`);
    this.get.className = data.is_recommended && !isHere ? "main" : "";
    setText(this.state, isHere ? "On this machine" : "");
  }
}

/** What the hub's model takes of this machine; what of it is known. */
export function fitText(told) {
  if (told.fits === null) return "What it takes of the memory is told once it is here.";
  return told.fits ? memoryText(told) : "It is too large for the memory of this machine, even with its weights in 4 bits.";
}

function memoryText({ memory_bytes: memory, weight_bits: bits, context_tokens: tokens, is_slow: isSlow }) {
  const weights = bits === 16 ? "" : `, its weights in ${bits} bits`;
  const slow = isSlow ? " Slow without a GPU." : "";
  return `Takes about ${byteCount(memory)} of memory for ${number(tokens)} tokens${weights}.${slow}`;
}

/** A download: how far it is, and what can be done about it. */
export class DownloadRow {
  /**
   * @param acts as for `SuggestionRow`.
   * @param tag of its element.
   */
  constructor(acts, tag = "li") {
    this.acts = acts;
    this.name = make("h4");
    this.progress = make("progress", { max: 1 });
    this.text = make("p", { className: "numbers" });
    this.message = make("p", { className: "message" });
    // One button for what is most likely wanted: it keeps the focus when it changes.
    this.main = button("", () => this.doMain());
    this.cancel = button("Cancel", () => this.askOrDismiss());
    this.buttons = make("div", { className: "line" }, this.main, this.cancel);
    this.question = make("div", { className: "question", hidden: true });
    this.element = make(tag, { className: "download" }, this.name, this.progress, this.text, this.message, this.buttons, this.question);
  }

  update(data) {
    this.data = data;
    const { model, state, done_bytes: done, total_bytes: total, message } = data;
    this.element.dataset.state = state;
    // It has come to its end while the question stood there.
    if (state === "done" && !this.question.hidden) this.closeQuestion();
    setText(this.name, model);
    if (total) this.progress.value = done / total;
    else if (RUNNING.includes(state)) this.progress.removeAttribute("value");
    else this.progress.value = 0;
    this.progress.setAttribute("aria-label", `Download of ${model}`);
    setText(this.text, numbersOf(data));
    setText(this.message, state === "waiting" ? `${message}. It is tried again by itself; what is here stays.` : message);
    this.message.hidden = !message;
    const [label, name] = this.mainLabel();
    setText(this.main, label);
    setName(this.main, name);
    this.main.className = label === "Pause" ? "" : "main";
    setText(this.cancel, state === "done" ? "Close" : "Cancel");
    setName(this.cancel, state === "done" ? `Close the line of ${model}` : `Cancel the download of ${model}`);
  }

  mainLabel() {
    const { model, state } = this.data;
    if (state === "done") return ["Use", `Use ${model}`];
    if (RUNNING.includes(state)) return ["Pause", `Pause the download of ${model}`];
    return ["Resume", `Resume the download of ${model}`];
  }

  doMain() {
    const { model, state, place, fit } = this.data;
    if (state === "done") this.acts.use(place, fit);
    else this.acts.post(RUNNING.includes(state) ? "pause" : "resume", { model });
  }

  /** Ask whether to keep what is there, if there is any. */
  askOrDismiss() {
    const { model, state, done_bytes: done } = this.data;
    const cancel = (keep) => {
      this.closeQuestion();
      this.acts.post("cancel", { model, keep });
    };
    if (state === "done" || !done) {
      cancel(state === "done");
      return;
    }
    const goOn = button("Back", () => {
      this.closeQuestion();
      this.cancel.focus();
    });
    this.question.replaceChildren(
      make("p", { textContent: `Keep the ${byteCount(done)} that are here, to go on another time?` }),
      make("div", { className: "line" }, button("Keep them", () => cancel(true)), button("Remove them", () => cancel(false)), goOn),
    );
    this.question.hidden = false;
    this.buttons.hidden = true;
    this.question.querySelector("button").focus();
  }

  closeQuestion() {
    this.question.hidden = true;
    this.buttons.hidden = false;
  }
}

function numbersOf({ state, done_bytes: done, total_bytes: total, bytes_per_s: speed, remaining_s: remaining }) {
  if (state === "done") return `${byteCount(total)}, downloaded and checked`;
  if (state === "starting" && !total) return "The hub is being asked…";
  if (state === "queued") return done ? `Waits its turn; ${byteCount(done)} are here` : "Waits its turn";
  const parts = [total ? `${byteCount(done)} of ${byteCount(total)}` : ""];
  if (state === "checking") parts.push("what is here is being checked");
  if (state === "paused") parts.push("paused");
  if (speed) parts.push(`${byteCount(speed)}/s`);
  if (remaining !== null && remaining > 1) parts.push(`${duration(remaining)} left`);
  return parts.filter(Boolean).join(" · ");
}
