// The row below an answer: its sources, Copy, Retry and the race, how fast it came; the rest behind an info button. Where
// the answer was cut, the way to go on.
//
// What there is to tell comes from Python: figures and notes as elements of this one, each with a slot, the sources as
// JSON in an attribute, and the answer as it was written, to be copied. What must be known stands in the open: also the
// passages on the question where nothing supports the answer, for they may be right where the model is wrong.

import { circled } from "./answer-citation.js";
import { openPage } from "../document/open-page.js";
import { sharedSheet } from "../desk/shared-sheet.js";
import { pageName } from "../wording.js";

const STYLE_SHEET = sharedSheet(new URL("../../css/answer-row.css", import.meta.url));
const INFO = `<svg viewBox="0 0 20 20" width="17" height="17" aria-hidden="true">
  <circle cx="10" cy="10" r="7.2"/><path d="M10 9v5M10 6.2v.6"/></svg>`;
const MARKUP = `
  <style>.row, .instead, .details, .said { visibility: hidden; }</style>
  <div class="said">
    <slot name="said"></slot>
    <button type="button" class="go-on" data-part="continue" hidden>Continue</button>
  </div>
  <div class="row">
    <span class="cell sources" data-part="sources" role="group" aria-label="Sources"></span>
    <span class="cell" data-part="copy-cell"><button type="button" data-part="copy">Copy</button></span>
    <span class="cell retry" data-part="retry-cell"><button type="button" data-part="retry" aria-label="Retry">Retry</button></span>
    <span class="cell retry" data-part="race-cell"><button type="button" data-part="race"
      title="Answer it twice, side by side: reading everything, and reading what matters">Race this question</button></span>
    <span class="cell" data-part="speed-cell"><slot name="speed"></slot></span>
    <button type="button" class="info" data-part="info" aria-label="How this answer was made" title="How this answer was made"
      aria-expanded="false" aria-controls="details">${INFO}</button>
  </div>
  <div class="instead" data-part="instead" hidden></div>
  <div class="details" id="details" data-part="details" hidden>
    <slot name="details"></slot>
    <quest-passages data-part="passages"></quest-passages>
  </div>
  <span class="unseen" data-part="told" role="status"></span>
`;
const TOLD_MS = 1800;

export class AnswerRow extends HTMLElement {
  static observedAttributes = ["sources", "turn", "answer", "question", "goes-on"];

  connectedCallback() {
    if (!this.parts) {
      const root = this.attachShadow({ mode: "open" });
      root.adoptedStyleSheets = [STYLE_SHEET];
      root.innerHTML = MARKUP;
      this.parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
      this.parts.copy.addEventListener("click", () => this.copy());
      // The second of a double click would be refused, with a notice.
      this.parts.retry.addEventListener("click", ({ detail }) => detail < 2 && this.retry());
      this.parts.race.addEventListener("click", () => this.race());
      this.parts.continue.addEventListener("click", ({ detail }) => detail < 2 && this.goOn());
      this.parts.info.addEventListener("click", () => this.toggleDetails());
    }
    this.show();
  }

  attributeChangedCallback(name, before, after) {
    if (this.parts && before !== after) this.show();
  }

  /** {citations, passages_found} as the server tells them. */
  get sources() {
    const text = this.getAttribute("sources") ?? "";
    if (this.parsedFrom !== text) {
      this.parsedFrom = text;
      this.parsed = text ? JSON.parse(text) : { citations: [], passages_found: [], unsupported: 0 };
    }
    return this.parsed;
  }

  show() {
    const { sources, passages, instead, details } = this.parts;
    const { citations, passages_found: found, unsupported } = this.sources;
    this.parts["copy-cell"].hidden = !this.getAttribute("answer");
    this.parts["retry-cell"].hidden = !this.hasAttribute("turn");
    // Both need the cache of our own engine.
    const isElsewhere = document.querySelector("meta[name=quest-engine]") !== null;
    this.parts["race-cell"].hidden = isElsewhere || !this.getAttribute("question");
    this.parts.continue.hidden = isElsewhere || !this.hasAttribute("goes-on");
    this.parts["speed-cell"].hidden = !this.querySelector("[slot=speed]");
    const first = new Map();
    for (const one of citations) if (!first.has(one.number)) first.set(one.number, one);
    const isOne = new Set(citations.map((one) => one.document_id)).size <= 1;
    const nothing = unsupported ? [Object.assign(document.createElement("span"), { textContent: "No source found" })] : [];
    sources.replaceChildren(...(first.size ? [...first.values()].map((one) => this.sourceButton(one, isOne)) : nothing));
    sources.hidden = !sources.childNodes.length;
    const standsInstead = Boolean(unsupported && !first.size && found.length);
    const place = standsInstead ? instead : details;
    if (passages.parentElement !== place) place.append(passages);
    instead.hidden = !standsInstead;
    passages.hidden = !found.length;
    passages.toggleAttribute("unfolded", standsInstead);
    passages.setAttribute("passages", JSON.stringify(found));
    passages.setAttribute("heading", standsInstead ? "What the text says on the question" : "Passages found before the answer");
    // Nothing behind the button: no button.
    this.parts.info.hidden = (!found.length || standsInstead) && !this.querySelector("[slot=details]");
    if (this.parts.info.hidden) details.hidden = true;
    window.dispatchEvent(new Event("quest-answer-row"));
  }

  sourceButton(source, isOnlyDocument) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "source";
    const number = Object.assign(document.createElement("b"), { textContent: circled(source.number) });
    button.append(number, ` ${isOnlyDocument ? "" : `${source.document}, `}${pageName(source.page_label)}`);
    button.setAttribute("aria-label", `Source ${source.number}: ${pageName(source.page_label)}, ${source.document}`);
    button.title = source.document;
    button.addEventListener("click", () => openPage(source, this.getAttribute("turn-id")));
    return button;
  }

  async copy() {
    let sentence = "Copied";
    try {
      await navigator.clipboard.writeText(this.getAttribute("answer"));
    } catch {
      // Only pages of this machine, or over HTTPS, may write to the clipboard.
      sentence = "Not allowed here";
    }
    const { copy, told } = this.parts;
    copy.textContent = told.textContent = sentence;
    setTimeout(() => {
      copy.textContent = "Copy";
      told.textContent = "";
    }, TOLD_MS);
  }

  retry() {
    const detail = { turn: Number(this.getAttribute("turn")), question: "" };
    window.dispatchEvent(new CustomEvent("quest-retry", { detail }));
  }

  race() {
    const detail = { question: this.getAttribute("question"), turn_id: this.getAttribute("turn-id") };
    window.dispatchEvent(new CustomEvent("quest-race", { detail }));
  }

  goOn() {
    const detail = { turn_id: this.getAttribute("turn-id") };
    window.dispatchEvent(new CustomEvent("quest-continue", { detail }));
  }

  toggleDetails() {
    const { details, info } = this.parts;
    details.hidden = !details.hidden;
    info.setAttribute("aria-expanded", String(!details.hidden));
  }
}
