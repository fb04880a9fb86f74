// One compact line of what the answer looks at, for where the Reading tab is not shown: tokens a second, the document
// pages, and how much of the text. It is a button that opens that tab.

import { PageStrip } from "./page-strip.js";
import { factors, isRunning, reading, shownState } from "./reading-state.js";
import { percent } from "./reading-words.js";
import { duration, number } from "../wording.js";

const STYLE_SHEET = new URL("../../css/live-strip.css", import.meta.url);
const MARKUP = `
  <style>button { visibility: hidden; }</style>
  <link rel="stylesheet" href="${STYLE_SHEET}">
  <button type="button" title="What the model looked at">
    <span class="speed"><b data-part="speed">–</b> tokens/s</span>
    <span class="strip"><canvas data-part="strip" aria-hidden="true"></canvas></span>
    <span class="text" data-part="text"></span>
  </button>
`;

export class LiveStrip extends HTMLElement {
  connectedCallback() {
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    root.innerHTML = MARKUP;
    this.parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    root.querySelector("button").addEventListener("click", () => {
      window.dispatchEvent(new CustomEvent("quest-show-side", { detail: { tab: "reading" } }));
    });
    this.strip = new PageStrip(this.parts.strip, { rows: 2 });
    this.follow = () => this.show();
    window.addEventListener("quest-reading", this.follow);
    this.show();
  }

  disconnectedCallback() {
    window.removeEventListener("quest-reading", this.follow);
    this.strip.close();
  }

  show() {
    // There from the question on, so that it takes its room before the answer streams.
    this.toggleAttribute("empty", !isRunning() && !reading.end);
    const speed = reading.end ? reading.end.mean_tokens_per_s : reading.step?.tokens_per_s;
    setText(this.parts.speed, speed == null ? "–" : speedText(speed));
    setText(this.parts.text, stripText(reading));
    this.strip.show(reading.pages, factors());
  }
}

/** The sentence of the Reading tab in a few words. */
function stripText({ prefill, step, end }) {
  const [state, text] = shownState();
  if (state === "lost" || state === "waiting") return text;
  if (state === "reading") {
    if (prefill.already_read) return "Already read";
    const { done_tokens: done, total_tokens: total, remaining_s: left } = prefill;
    return left == null ? `Reads ${percent(done / total)}` : `Reads, ${duration(left)} left`;
  }
  const figures = end ?? step;
  if (figures?.attended_tokens == null) return text;
  const share = figures.attended_tokens / figures.context_tokens;
  return share > 0.995 ? `All ${number(figures.context_tokens)} tokens a word` : `${percent(share)} of the ${figures.mode === "passages" ? "passages" : "text"} a word`;
}

function speedText(value) {
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}

function setText(part, text) {
  if (part.textContent !== text) part.textContent = text;
}
