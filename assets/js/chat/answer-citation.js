// In an answer's sentence: the number of its source, and the sign of a sentence that has none.
//
// Each has a small box that tells more when it is pointed at or has the focus, in the browser's top layer: the answer's
// bubble cuts off whatever leaves it.

import { openPage } from "../document/open-page.js";
import { pageName } from "../wording.js";

const STYLE_SHEET = new URL("../../css/answer-citation.css", import.meta.url);
const MARKUP = `
  <style>.tip { display: none; }</style>
  <link rel="stylesheet" href="${STYLE_SHEET}">
  <button type="button" data-part="button"></button>
  <span class="tip" data-part="tip" popover="manual" role="tooltip" id="tip"></span>
`;
const QUOTE_CHARACTERS = 240;
const AS_USUAL = 1.15;
const ONE = 0x2460;

/** "①" to "⑳", then "(21)". */
export function circled(number) {
  return number <= 20 ? String.fromCharCode(ONE + number - 1) : `(${number})`;
}

class Sign extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    const root = this.attachShadow({ mode: "open" });
    root.innerHTML = MARKUP;
    this.parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    const { button } = this.parts;
    button.setAttribute("aria-describedby", "tip");
    this.addEventListener("pointerenter", () => this.showTip());
    this.addEventListener("pointerleave", () => this.hideTip());
    button.addEventListener("focus", () => button.matches(":focus-visible") && this.showTip());
    button.addEventListener("blur", () => this.hideTip());
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.isTipShown) return;
      event.preventDefault();
      this.hideTip();
    });
  }

  disconnectedCallback() {
    this.hideTip();
  }

  get isTipShown() {
    return this.parts.tip.matches(":popover-open");
  }

  showTip() {
    const { tip, button } = this.parts;
    if (this.isTipShown || !this.isConnected) return;
    this.fillTip(tip);
    if (!tip.childNodes.length) return;
    tip.showPopover();
    const box = button.getBoundingClientRect();
    const width = document.documentElement.clientWidth;
    const isBelow = box.bottom + 8 + tip.offsetHeight < window.innerHeight;
    tip.style.left = `${Math.max(8, Math.min(box.left - 12, width - tip.offsetWidth - 8))}px`;
    tip.style.top = `${isBelow ? box.bottom + 6 : Math.max(8, box.top - 6 - tip.offsetHeight)}px`;
  }

  hideTip() {
    if (this.parts && this.isTipShown) this.parts.tip.hidePopover();
  }
}

/** A number; the row below the answer has its source. */
export class AnswerCitation extends Sign {
  connectedCallback() {
    super.connectedCallback();
    const { button } = this.parts;
    this.number = Number(this.getAttribute("number"));
    button.className = "citation";
    button.textContent = circled(this.number);
    button.onclick = () => {
      this.hideTip();
      if (this.source) openPage(this.source, this.row.getAttribute("turn-id"));
    };
    this.name();
    // The row comes with the next message.
    queueMicrotask(() => this.name());
  }

  static observedAttributes = ["place"];

  attributeChangedCallback() {
    if (this.parts) this.name();
  }

  name() {
    const label = `Source ${this.number}${this.source ? `: ${pageName(this.source.page_label)}` : ""}`;
    this.parts.button.setAttribute("aria-label", label);
  }

  get row() {
    let message = this.closest(".message-row");
    // The thought, or Gradio's buttons, may stand between.
    for (let far = 0; message && far < 4; far++) {
      const row = message.querySelector("quest-answer-row");
      if (row) return row;
      message = message.nextElementSibling;
    }
    return null;
  }

  get source() {
    const citations = this.row?.sources.citations ?? [];
    const own = citations[Number(this.getAttribute("place") ?? -1)];
    return own?.number === this.number ? own : citations.find((one) => one.number === this.number);
  }

  fillTip(tip) {
    this.name();
    const { source } = this;
    tip.replaceChildren();
    if (!source) return;
    tip.append(
      element("b", `${pageName(source.page_label)}, ${source.document}`),
      element("q", shortened(source.text)),
      ...signals(source).map((sentence) => element("span", sentence, "signal")),
    );
  }
}

/** A sentence that no passage supports ends here. */
export class NoSource extends Sign {
  connectedCallback() {
    super.connectedCallback();
    const { button } = this.parts;
    button.className = "no-source";
    button.textContent = "?";
    button.setAttribute("aria-label", "No source found for this sentence");
    button.onclick = () => this.showTip();
  }

  fillTip(tip) {
    tip.replaceChildren(
      element("b", "No source found"),
      element("span", "No passage of the documents supports this sentence.", "signal"),
    );
  }
}

/** Which of the two signals support a citation, each as a sentence. */
export function signals({ text_score: text, read_score: read }) {
  const sentences = [];
  if (text > 0) sentences.push("The text supports this sentence.");
  if (read == null) return sentences;
  const times = `${read.toLocaleString("en", { maximumSignificantDigits: 2 })} times as much as usual`;
  if (read >= AS_USUAL) sentences.push(`The model looked here (${times}).`);
  else sentences.push(`The model did not look here more than usual (${times}).`);
  return sentences;
}

function shortened(text) {
  const plain = text.replace(/\s+/g, " ").trim();
  return plain.length <= QUOTE_CHARACTERS ? plain : `${plain.slice(0, QUOTE_CHARACTERS).trimEnd()} …`;
}

function element(tag, textContent, className = "") {
  return Object.assign(document.createElement(tag), { textContent, className });
}
