// What the model looked at: a sentence, the document pages, and below them the engine's own view.
//
// A custom element, so that it starts wherever Gradio puts its tag; with a shadow root, because Gradio patches what stands
// below its own elements. It also tells the page which conversation the tab shows: its tag comes from the server with it.

import { currentConversation, showConversation } from "../chat/conversation.js";
import { hearAgain } from "./live-stream.js";
import { openPage } from "../document/open-page.js";
import { PageStrip } from "./page-strip.js";
import { factors, reading, shownState } from "./reading-state.js";
import { readingSentence, readsAll, smallPrint } from "./reading-words.js";
import { counted, pageName } from "../wording.js";

const STYLE_SHEET = new URL("../../css/reading-panel.css", import.meta.url);
// Nothing is seen before the sheet is there, which makes it visible.
const MARKUP = `
  <style>:host > section { visibility: hidden; }</style>
  <link rel="stylesheet" href="${STYLE_SHEET}">
  <section class="looked">
    <header>
      <h2>What the model looked at</h2>
      <span class="state" data-part="state" role="status">Idle</span>
    </header>
    <p class="sentence" data-part="sentence"></p>
    <progress data-part="progress" value="0" max="1" aria-label="Reading the document"></progress>
    <p class="print" data-part="print"></p>
  </section>
  <section class="pages" data-part="pages">
    <header>
      <h3>By document page</h3>
      <span class="scale" data-part="scale" aria-hidden="true">as usual <i></i><i></i><i></i><i></i><i></i><i></i> more</span>
    </header>
    <div class="strip"><canvas data-part="strip" tabindex="0" role="slider" aria-label="Pages of the document"
      aria-valuemin="1" aria-valuemax="1" aria-valuenow="1" aria-valuetext="No page"></canvas></div>
    <p class="pointed" data-part="pointed"></p>
    <p class="most"><span data-part="most-text">Most above usual:</span> <span data-part="most"></span></p>
    <p class="print" data-part="how"></p>
  </section>
`;
// From so many times its usual level on, a page is named; the three most looked at.
const NAMED_FROM = 1.15;
const NAMED_PAGES = 3;
const HOW = {
  selection: "So far, by the parts chosen, against what a neutral text makes it choose. At the end by all of its attention.",
  attention: "By all of its attention, against what a neutral text gets; the middle page counts as usual. A hint, no proof.",
  none: "",
  dense: "With Exact the model looks everywhere; what it looked at most is measured at the end of the answer.",
  auto: "At this length the model looks everywhere; what it looked at most is measured at the end of the answer.",
  short: "The text is short enough to be looked at as a whole; what it looked at most is measured at the end.",
  waits: "Compared with what a neutral text makes it choose, after the first words.",
};

export class ReadingPanel extends HTMLElement {
  static observedAttributes = ["conversation-id"];

  connectedCallback() {
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    root.innerHTML = MARKUP;
    this.parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    this.engine = document.createElement("quest-engine-view");
    for (const name of ["page-size", "missed-factor"]) this.engine.setAttribute(name, this.getAttribute(name));
    root.append(this.engine);
    this.strip = new PageStrip(this.parts.strip, {
      onPoint: (page) => this.showPointed(page),
      onChoose: (page) => this.openPage(page),
    });
    this.follow = () => this.show();
    window.addEventListener("quest-reading", this.follow);
    this.show();
    this.open(this.getAttribute("conversation-id"));
  }

  disconnectedCallback() {
    window.removeEventListener("quest-reading", this.follow);
    this.strip.close();
  }

  attributeChangedCallback(name, before, conversationId) {
    if (this.strip && before !== conversationId) this.open(conversationId);
  }

  /** Show a conversation; "" is none yet. */
  open(conversationId) {
    if (!conversationId) return;
    if (conversationId === currentConversation()) hearAgain();
    else showConversation(conversationId);
  }

  /** Hide the text of a KV page; false if none is shown. */
  closePage() {
    return this.engine.closePage();
  }

  show() {
    const { parts } = this;
    const [state, text] = shownState();
    this.dataset.state = state;
    setText(parts.state, text);
    setText(parts.sentence, readingSentence(reading));
    setText(parts.print, smallPrint(reading, this.getAttribute("missed-factor")));
    this.showProgress(state);
    const found = factors();
    this.strip.show(reading.pages, found);
    this.showPointed(this.strip.pointed);
    this.showMost(found ?? []);
    setText(parts.how, HOW[this.how(found)]);
    parts.pages.dataset.empty = String(!reading.pages.length);
  }

  showProgress(state) {
    const { prefill } = reading;
    const { progress } = this.parts;
    const shown = state === "reading" && !prefill.already_read && prefill.done_tokens < prefill.total_tokens;
    progress.dataset.shown = String(shown);
    if (shown) Object.assign(progress, { max: prefill.total_tokens, value: prefill.done_tokens });
  }

  how(found) {
    if (!reading.pages.length) return "none";
    if (found) return reading.heatOf;
    if (!reading.step) return "none";
    if (readsAll(reading.step)) return "dense";
    if (reading.step.attended_tokens < reading.step.context_tokens) return "waits";
    return reading.step.attention === "auto" ? "auto" : "short";
  }

  /** The page that is pointed at, or how many there are. */
  showPointed(page) {
    const { pointed, strip } = this.parts;
    const { pages, documents } = reading;
    let text = "";
    if (page !== null && pages[page]) text = `${this.pageText(page)}. Enter or a click opens it.`;
    else if (pages.length) text = `${counted(pages.length, "page")} of ${documents.length === 1 ? documents[0].name : counted(documents.length, "document")}`;
    setText(pointed, text);
    strip.setAttribute("aria-valuemax", Math.max(1, pages.length));
    strip.setAttribute("aria-valuenow", (page ?? 0) + 1);
    strip.setAttribute("aria-valuetext", page === null || !pages[page] ? text || "No page" : this.pageText(page));
  }

  pageText(page) {
    const { label, name } = reading.pages[page];
    const factor = factors()?.[page];
    const heat = factor == null ? "" : `: ${timesText(factor)}`;
    return `${pageName(label)}, ${name}${heat}`;
  }

  /** Buttons of the pages most above their usual level; changed only when they are others. */
  showMost(found) {
    const named = found
      .map((factor, page) => [factor ?? 0, page])
      .filter(([factor]) => factor >= NAMED_FROM)
      .sort((one, other) => other[0] - one[0])
      .slice(0, NAMED_PAGES)
      .map(([, page]) => page)
      .filter((page) => reading.pages[page]);
    const key = named.map((page) => `${reading.pages[page].documentId} ${reading.pages[page].index}`).join();
    this.parts["most-text"].hidden = !named.length;
    if (this.namedKey === key) return;
    this.namedKey = key;
    this.parts.most.replaceChildren(
      ...named.map((page) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = pageName(reading.pages[page].label);
        button.title = reading.pages[page].name;
        button.setAttribute("aria-label", `${button.textContent}, ${button.title}`);
        button.addEventListener("click", () => this.openPage(page));
        return button;
      }),
    );
  }

  openPage(page) {
    const { documentId, index } = reading.pages[page];
    openPage({ document_id: documentId, page_index: index, start_char: 0, end_char: 0 });
  }
}

function timesText(factor) {
  if (factor < 0.8) return "less than usual";
  if (factor < 1.15) return "as much as usual";
  return `${factor >= 10 ? factor.toFixed(0) : factor.toFixed(1)} times its usual level`;
}

/** Telling the same again would be announced again. */
function setText(part, text) {
  if (part.textContent !== text) part.textContent = text;
}
