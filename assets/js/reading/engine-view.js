// The engine view: figures of the running answer, and the map of KV pages with a slider back through its steps.
//
// A custom element inside the reading panel's shadow root. Events arrive faster than the screen refreshes: each only
// notes what is new, and one animation frame draws it.

import { currentConversation } from "../chat/conversation.js";
import { openPage } from "../document/open-page.js";
import { PageMap } from "./page-map.js";
import { decodePageReads, fetchPage, fetchStep } from "./telemetry.js";
import { percent } from "./reading-words.js";
import { byteCount, number, pageName } from "../wording.js";

// With reduced motion the map still follows the answer, but does not flicker.
const CALM_REDRAW_MS = 1000;

const STYLE_SHEET = new URL("../../css/engine-view.css", import.meta.url);
// Nothing is seen before the sheet is there, which makes it visible.
const MARKUP = `
  <style>.live-header, .live-figures, .live-map { visibility: hidden; }</style>
  <link rel="stylesheet" href="${STYLE_SHEET}">
  <header class="live-header"><h2>Engine view</h2></header>
  <dl class="live-figures">
    <div><dt>Now</dt><dd><b data-part="speed">–</b> tokens/s</dd></div>
    <div><dt>Average</dt><dd><b data-part="mean-speed">–</b> tokens/s</dd></div>
    <div><dt>First token</dt><dd><b data-part="first-token">–</b> s</dd></div>
    <div><dt>KV read a token</dt><dd><b data-part="bytes">–</b> <span data-part="bytes-unit">MiB</span></dd></div>
    <div title="Of its bytes: keys and values of the selected pages, and the summaries of all pages, by which they are selected">
      <dt>Cache, with summaries</dt><dd><b data-part="read-share">–</b></dd></div>
    <div data-part="missed"><dt>Skipped, about</dt><dd><b data-part="missed-share">–</b></dd></div>
  </dl>
  <section class="live-map" data-part="map">
    <h3>KV pages selected<span data-part="map-caption"></span></h3>
    <div class="map-frame">
      <canvas tabindex="0" data-part="canvas" role="img"
        aria-label="Map of KV pages read, layers by token position. Arrow keys move, Enter shows the page's text."></canvas>
      <div class="map-empty" data-part="map-empty"></div>
      <div class="map-tip" data-part="tip" hidden></div>
    </div>
    <ul class="map-legend" data-part="legend"></ul>
    <div class="map-steps" data-part="steps" data-empty="true">
      <label for="quest-step">Step</label>
      <input type="range" id="quest-step" data-part="slider" min="0" max="0" value="0" step="1">
      <output data-part="step-text" for="quest-step"></output>
      <label class="map-follow"><input type="checkbox" data-part="follow" checked> Follow</label>
    </div>
  </section>
  <section class="page-detail" data-part="page" hidden>
    <header><h3 data-part="page-title"></h3>
      <button type="button" class="page-open" data-part="page-open" hidden></button>
      <button type="button" data-part="page-close" aria-label="Close">✕</button></header>
    <p data-part="page-source"></p>
    <blockquote><span data-part="page-before"></span><mark data-part="page-text"></mark><span data-part="page-after"></span></blockquote>
  </section>
`;

const FIGURES = ["speed", "mean-speed", "first-token", "bytes", "read-share", "missed-share"];
const EMPTY_TEXT = "Here you see which KV pages each step of an answer selects, layer by layer.";
const STEP_0_TEXT = "The first token comes from reading the prompt; the map starts with the second.";

export class EngineView extends HTMLElement {
  connectedCallback() {
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    root.innerHTML = MARKUP;
    this.parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    this.pageSize = Number(this.getAttribute("page-size"));
    this.parts.missed.title =
      "Estimated from the summaries of the unread pages. On novels the true share was " +
      `${this.getAttribute("missed-factor")} times the estimate.`;
    this.map = new PageMap(
      this.parts.canvas,
      (cell) => this.showTip(cell),
      (page) => this.showPage(page),
    );
    this.calm = window.matchMedia("(prefers-reduced-motion: reduce)");
    this.parts.slider.addEventListener("input", () => this.goToStep(Number(this.parts.slider.value)));
    this.parts.follow.addEventListener("change", () => this.follow());
    this.parts["page-close"].addEventListener("click", () => this.closePage());
    this.hear = ({ detail }) => this.receive(detail);
    this.begin = ({ detail }) => this.open(detail.conversationId);
    window.addEventListener("quest-telemetry", this.hear);
    window.addEventListener("quest-opened", this.begin);
    this.open(currentConversation());
  }

  disconnectedCallback() {
    window.removeEventListener("quest-telemetry", this.hear);
    window.removeEventListener("quest-opened", this.begin);
    this.map.close();
    cancelAnimationFrame(this.frame);
  }

  /** Show a conversation; "" is none yet. */
  open(conversationId) {
    this.conversationId = conversationId;
    this.stepCount = 0;
    this.drawnAt = 0;
    this.shown = this.pending = null;
    this.fetching = this.running = false;
    this.showNothing();
  }

  // Events.

  receive(event) {
    if (event.type === "step") {
      this.pending = event;
      this.frame ??= requestAnimationFrame(() => this.drawPending());
      return;
    }
    // A step that waits for its frame came before this event.
    if (this.pending) this.drawPending(true);
    const { type } = event;
    if (type === "prefill") this.showPrefill(event);
    else if (type === "finished") this.showFinished(event);
    else if (type === "idle") this.showIdle(event);
    else if (type === "closed") this.showClosed(event.sentence);
  }

  drawPending(atOnce = false) {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    const now = performance.now();
    if (!atOnce && this.calm.matches && now - this.drawnAt < CALM_REDRAW_MS) {
      this.frame = requestAnimationFrame(() => this.drawPending());
      return;
    }
    this.drawnAt = now;
    const event = this.pending;
    this.pending = null;
    this.running = true;
    this.stepCount = event.step + 1;
    this.showFigures(event);
    this.showSlider();
    if (this.parts.follow.checked) this.showStep(event);
  }

  showPrefill(event) {
    const { reused_tokens: reusedTokens, done_tokens: doneTokens, total_tokens: totalTokens } = event;
    this.running = true;
    // A new answer: what the slider went back to belongs to the old one.
    this.parts.follow.checked = true;
    this.parts.steps.dataset.empty = "true";
    this.closePage();
    for (const name of FIGURES) this.setFigure(name, null);
    this.parts["map-caption"].textContent = "";
    this.parts["map-empty"].textContent = "";
    this.shown = null;
    this.map.show({ kind: "prefill", reusedTokens, doneTokens, totalTokens });
    this.showLegend([
      ["reused", "In the cache from before"],
      ["cached", "Read now"],
      ["unread", "Still to read"],
    ]);
  }

  showFinished(event) {
    this.running = false;
    this.showEnd(event);
    this.stepCount = event.steps ?? this.stepCount;
    this.showSlider();
  }

  /** The whole answer's figures. */
  showEnd(event) {
    this.setFigure("speed", null);
    this.setFigure("mean-speed", event.mean_tokens_per_s, speedText);
    this.setFigure("first-token", event.time_to_first_token_s, secondsText);
    this.setBytes(event.kv_bytes_read);
    this.setFigure("read-share", event.read_share, percent);
    this.setFigure("missed-share", event.mean_missed_share, percent);
  }

  showClosed(sentence) {
    this.running = false;
    this.showEmpty(sentence);
  }

  async showIdle(event) {
    this.running = false;
    this.stepCount = event.steps ?? 0;
    this.showSlider();
    // After a refresh of the page: the last answer's map is still there. After "clear" there is none any more.
    if (!this.stepCount) this.showNothing();
    else if (!this.shown) await this.goToStep(this.stepCount - 1, true);
    if (event.end && !this.running) this.showEnd(event.end);
  }

  // What is shown.

  /** As before the first answer. */
  showNothing() {
    this.stepCount = 0;
    this.shown = null;
    this.closePage();
    for (const name of FIGURES) this.setFigure(name, null);
    this.parts.follow.checked = true;
    this.showEmpty(EMPTY_TEXT);
    this.showSlider();
  }

  setFigure(part, value, format) {
    this.parts[part].textContent = value == null ? "–" : format(value);
  }

  showFigures(event) {
    this.setFigure("speed", event.tokens_per_s, speedText);
    this.setFigure("mean-speed", event.mean_tokens_per_s, speedText);
    this.setFigure("first-token", event.time_to_first_token_s, secondsText);
    // Step 0 reads nothing: its token comes from the prefill.
    this.setBytes(event.step > 0 ? event.kv_bytes_read : null);
    this.setFigure("read-share", event.step > 0 ? event.read_share : null, percent);
    // The mean so far, as in the sentence above.
    this.setFigure("missed-share", event.mean_missed_share ?? event.missed_share, percent);
  }

  setBytes(bytes) {
    const [amount, unit] = bytes ? byteCount(bytes).split(" ") : ["–", "MiB"];
    this.parts.bytes.textContent = amount;
    this.parts["bytes-unit"].textContent = unit;
  }

  showSlider() {
    const { steps, slider } = this.parts;
    steps.dataset.empty = String(this.stepCount < 2);
    slider.max = Math.max(0, this.stepCount - 1);
    if (this.parts.follow.checked) slider.value = slider.max;
    this.showStepText();
  }

  showStepText() {
    const text = `${number(Number(this.parts.slider.value))} of ${number(Math.max(0, this.stepCount - 1))}`;
    this.parts["step-text"].textContent = text;
    this.parts.slider.setAttribute("aria-valuetext", `Step ${text}`);
  }

  /** Draw a step's map, live or gone back to. */
  showStep(event) {
    this.shown = event;
    if (event.step === 0) {
      this.showEmpty(STEP_0_TEXT);
      return;
    }
    const reads = decodePageReads(event);
    const view = {
      kind: "step",
      reads,
      layers: event.layers,
      pages: event.pages,
      kvHeads: event.kv_heads,
      denseLayers: event.dense_layers,
      alwaysRead: event.always_read_pages ?? [],
      pageSize: this.pageSize,
    };
    this.parts["map-empty"].textContent = "";
    this.map.show(view);
    const looked = event.attended_tokens;
    const share = looked == null ? "" : `${number(Math.round(looked))} of ${number(event.context_tokens)}`;
    const time = event.step_ms == null ? "" : `${event.step_ms.toFixed(event.step_ms < 100 ? 1 : 0)} ms`;
    this.parts["map-caption"].textContent = ["at step " + number(event.step), share, time].filter(Boolean).join(" · ");
    this.showLegend(stepLegend(view));
  }

  showEmpty(text) {
    this.parts["map-caption"].textContent = "";
    this.parts["map-empty"].textContent = text;
    this.map.show({ kind: "empty" });
    this.showLegend([]);
  }

  /** @param entries [class of the swatch, text] each; drawn again only if they change. */
  showLegend(entries) {
    const key = JSON.stringify(entries);
    if (this.legendKey === key) return;
    this.legendKey = key;
    this.parts.legend.replaceChildren(
      ...entries.map(([swatch, text, part]) => {
        const item = document.createElement("li");
        const box = document.createElement("i");
        box.dataset.swatch = swatch;
        if (part !== undefined) box.style.setProperty("--part", part);
        item.append(box, text);
        return item;
      }),
    );
  }

  // Going back through the steps.

  follow() {
    if (this.parts.follow.checked && this.stepCount) this.goToStep(this.stepCount - 1, true);
  }

  /** Show a kept step. While one is fetched, only the newest wish is remembered. */
  async goToStep(step, following = false) {
    this.parts.follow.checked = following;
    this.parts.slider.value = step;
    this.showStepText();
    this.wantedStep = step;
    if (this.fetching) return;
    this.fetching = true;
    let fetched = null;
    while (this.wantedStep !== null) {
      const wanted = this.wantedStep;
      this.wantedStep = null;
      fetched = await fetchStep(this.conversationId, wanted);
    }
    this.fetching = false;
    if (!this.isConnected) return;
    if (fetched) {
      this.showStep(fetched);
      if (!this.running) this.showFigures(fetched);
    } else this.showEmpty("This step is not kept any more.");
  }

  // A cell of the map.

  showTip(cell) {
    const { tip } = this.parts;
    tip.hidden = !cell;
    if (!cell) return;
    const { view } = this.map;
    const tokens = `Tokens ${number(cell.firstPage * this.pageSize)} to ${number((cell.lastPage + 1) * this.pageSize - 1)}`;
    const pages = cell.lastPage > cell.firstPage ? `pages ${cell.firstPage} to ${cell.lastPage}` : `page ${cell.firstPage}`;
    const lines = [`Layer ${cell.layer}, ${pages}`, tokens, readText(view, cell)];
    tip.replaceChildren(...lines.map((line) => Object.assign(document.createElement("div"), { textContent: line })));
    // Beside the pointer, on the side with room.
    const frame = this.parts.canvas.parentElement;
    const left = cell.x + 14 + tip.offsetWidth > frame.clientWidth ? cell.x - 14 - tip.offsetWidth : cell.x + 14;
    tip.style.left = `${Math.max(0, left)}px`;
    tip.style.top = `${Math.max(0, cell.y - tip.offsetHeight - 8)}px`;
  }

  async showPage(page) {
    const found = await fetchPage(this.conversationId, page);
    if (!this.isConnected) return;
    this.map.markPage(page);
    this.parts.page.hidden = false;
    const [firstToken, lastToken] = [found?.first_token ?? page * this.pageSize, found?.last_token];
    this.parts["page-title"].textContent =
      `KV page ${number(page)}, tokens ${number(firstToken)} to ${number(lastToken ?? firstToken + this.pageSize - 1)}`;
    this.parts["page-source"].textContent = found ? sourceText(found) : "This page is gone.";
    this.showOpen(found);
    this.parts["page-before"].textContent = found?.text_before ?? "";
    this.parts["page-text"].textContent = found?.text ?? "";
    this.parts["page-after"].textContent = found?.text_after ?? "";
  }

  /** Where the page's text stands in its document, on the page itself: at once, and again with the button. */
  showOpen(found) {
    const part = found?.parts?.[0];
    const { "page-open": open } = this.parts;
    open.hidden = !part;
    if (!part) return;
    open.textContent = `Show ${pageName(part.page_label)}`;
    const last = found.parts.findLast((one) => one.page_index === part.page_index && one.document_id === part.document_id);
    open.onclick = () => openPage({ ...part, end_char: last.end_char });
    openPage({ ...part, end_char: last.end_char });
  }

  /** Hide the text of a page; false if none is shown. */
  closePage() {
    if (this.parts.page.hidden) return false;
    const hadFocus = this.parts.page.contains(this.shadowRoot.activeElement);
    this.parts.page.hidden = true;
    this.map.markPage(null);
    if (hadFocus) this.parts.canvas.focus();
    return true;
  }
}

/** Legend of a step's map; with many kv heads only the ends of the scale are named. */
function stepLegend(view) {
  const { reads, kvHeads, denseLayers, alwaysRead } = view;
  if (!reads) return [["dense", "Dense: every page is read"]];
  const counts = kvHeads <= 4 ? [...Array(kvHeads).keys()].map((index) => index + 1) : [1, Math.ceil(kvHeads / 2), kvHeads];
  const entries = counts.map((count) => [
    "read",
    `${count} of ${kvHeads} kv heads`,
    kvHeads === 1 ? 1 : (count - 1) / (kvHeads - 1),
  ]);
  entries.unshift(["unread", "Not read"]);
  if (alwaysRead.length) entries.push(["always", "Always read"]);
  if (denseLayers) entries.push(["dense", "Dense layer"]);
  return entries;
}

function readText(view, cell) {
  if (!view.reads || cell.layer < view.denseLayers) return "Dense layer: reads every page";
  if (view.alwaysRead.includes(cell.mostReadPage)) return "Always read";
  if (!cell.count) return "Not read";
  const which = cell.lastPage > cell.firstPage ? `Page ${cell.mostReadPage} read` : "Read";
  return `${which} by ${cell.count} of ${view.kvHeads} kv heads`;
}

function sourceText(found) {
  const names = { conversation: "From the conversation", instructions: "From the instructions to the model" };
  const parts = (found.parts ?? []).map((part) => `${part.document}, ${pageName(part.page_label)}`);
  return parts.length ? parts.join("; ") : (names[found.role] ?? "");
}

function speedText(value) {
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}

function secondsText(value) {
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
