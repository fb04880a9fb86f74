// Models from the hub: a short list of good ones for this machine, any other by its id, and downloads under way.
//
// Asks /models/downloads when it is seen and when the server says that something has changed ("quest-models"). "Use" tells
// whoever holds the element: "quest-use-model" {model}, and of models of the list also {weightBits, contextTokens}, with
// which they fit this machine. What the hub says is set as text, never as markup.

import { button, make, Rows, setText } from "../desk/list-rows.js";
import { DownloadRow, fitOf, fitText, namedState, SuggestionRow } from "./model-download-rows.js";
import { byteCount, counted, number } from "../wording.js";

const STYLE_SHEET = new URL("../../css/model-downloads.css", import.meta.url).pathname;
const ADDRESS = "models/downloads";
const MARKUP = `
  <link rel="stylesheet" href="${STYLE_SHEET}">
  <section>
    <p class="refusal" role="note" hidden></p>
    <ul class="downloads" aria-label="Downloads"></ul>
    <h3>Good models for this machine</h3>
    <p class="machine"></p>
    <ul class="suggestions" aria-label="Good models for this machine"></ul>
    <p class="too-large" hidden></p>
    <form>
      <label for="model-id">Any other model from the hub</label>
      <div class="line">
        <input id="model-id" type="text" autocomplete="off" autocapitalize="off" spellcheck="false" maxlength="300"
          placeholder="owner/name" aria-describedby="model-id-hint">
        <button type="submit">Look it up</button>
      </div>
      <p class="hint" id="model-id-hint">Llama, SmolLM2, Mistral, Qwen2.5 or Qwen3 in safetensors; of a repository of GGUF
        files, owner/name/file.gguf.</p>
    </form>
    <div class="about" hidden></div>
    <p class="said" role="status"></p>
  </section>`;

export class ModelDownloads extends HTMLElement {
  connectedCallback() {
    if (!this.shadowRoot) this.build();
    this.heard = () => this.lookAgain();
    window.addEventListener("quest-models", this.heard);
    // The picker may be on the page, and closed, for hours.
    this.seen = new IntersectionObserver(([entry]) => entry.isIntersecting && this.lookAgain());
    this.seen.observe(this);
  }

  disconnectedCallback() {
    window.removeEventListener("quest-models", this.heard);
    this.seen.disconnect();
  }

  build() {
    const root = this.attachShadow({ mode: "open" });
    root.innerHTML = MARKUP;
    this.find = (selector) => root.querySelector(selector);
    this.states = new Map();
    const acts = {
      post: (action, values) => this.post(action, values),
      use: (model, fit) => this.use(model, fit),
    };
    this.downloads = new Rows(this.find(".downloads"), () => new DownloadRow(acts));
    this.suggestions = new Rows(this.find(".suggestions"), () => new SuggestionRow(acts));
    this.find("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.lookUp(this.find("#model-id").value.trim());
    });
  }

  /** Ask the server now; while it is being asked, once more afterwards. */
  async lookAgain() {
    if (!this.checkVisibility()) return;
    this.askAgain = this.isAsking;
    if (this.isAsking) return;
    this.isAsking = true;
    const told = await ask(ADDRESS);
    this.isAsking = false;
    if (!told.error) this.show(told);
    if (this.askAgain) this.lookAgain();
  }

  show(told) {
    const { refusal, memory, suggestions, downloads, too_large: tooLarge, free_bytes: free } = told;
    const under = new Map(downloads.map((one) => [one.model, one]));
    const refusalLine = this.find(".refusal");
    refusalLine.hidden = !refusal;
    setText(refusalLine, refusal);
    this.find("form").hidden = Boolean(refusal);
    const listed = new Set(suggestions.map((one) => one.model));
    // A model of the list has its download in its own row: nothing moves when it begins.
    this.downloads.show(downloads.filter((one) => !listed.has(one.model)), "model");
    this.suggestions.show(
      suggestions.map((one) => ({ ...one, download: under.get(one.model), isRefused: Boolean(refusal) })),
      "model",
    );
    const where = memory.is_gpu ? `${memory.name} with ${byteCount(memory.bytes)}` : `${byteCount(memory.bytes)} of memory, no GPU`;
    setText(this.find(".machine"), `${where}. Downloads may take ${byteCount(free)} of the disk.`);
    const large = this.find(".too-large");
    large.hidden = !tooLarge;
    setText(large, `${counted(tooLarge, "larger model")} ${tooLarge === 1 ? "is" : "are"} not shown: too much for this machine.`);
    this.tellChanges(downloads);
  }

  /** Say, for who does not see it, what has become of a download. */
  tellChanges(downloads) {
    const states = new Map(downloads.map((one) => [one.model, one.state]));
    for (const one of downloads) {
      const before = this.states.get(one.model);
      if (before && before !== one.state && namedState(one.state)) this.say(`${one.model}: ${namedState(one.state)}`);
    }
    this.states = states;
  }

  say(text, isBad = false) {
    const said = this.find(".said");
    said.classList.toggle("bad", isBad);
    setText(said, text);
  }

  async post(action, values) {
    const told = await ask(`${ADDRESS}/${action}`, values);
    this.say(told.error ?? "", Boolean(told.error));
    await this.lookAgain();
  }

  use(model, fit = {}) {
    const detail = { model, ...fit };
    this.dispatchEvent(new CustomEvent("quest-use-model", { detail, bubbles: true, composed: true }));
  }

  /** Ask the hub about a model, and show what it says before anything is downloaded. */
  async lookUp(model) {
    const about = this.find(".about");
    about.hidden = true;
    if (!model) return this.find("#model-id").focus();
    const submit = this.find("form button");
    submit.disabled = true;
    this.say("The hub is being asked…");
    const told = await ask(`${ADDRESS}/about`, { model });
    submit.disabled = false;
    this.say(told.error ?? "", Boolean(told.error));
    if (told.error) return undefined;
    about.replaceChildren(...this.describe(told));
    about.hidden = false;
    return about.querySelector("button").focus();
  }

  describe(told) {
    const { model, licence, page, is_gated: isGated, is_here: isHere } = told;
    const size = byteCount(told.download_bytes);
    const kept = told.present_bytes && !isHere ? ` (${byteCount(told.present_bytes)} of it is here)` : "";
    const window = told.window_tokens ? `, reads ${number(told.window_tokens)} tokens` : "";
    const link = make("a", { href: page, target: "_blank", rel: "noopener noreferrer", textContent: licence || "not stated" });
    const terms = make("p", {}, "Licence: ", link, isGated ? ", which you have accepted on the hub" : "");
    const close = () => {
      this.find(".about").hidden = true;
      this.find("#model-id").focus();
    };
    const get = button(isHere ? "Use" : "Download", () => {
      close();
      if (isHere) return this.use(told.place, told.fits ? fitOf(told) : {});
      this.find("#model-id").value = "";
      return this.post("start", { model });
    });
    get.className = told.fits === false ? "" : "main";
    const parts = [
      make("h4", { textContent: model }),
      make("p", { textContent: `${size}${kept}${window}` }),
      terms,
      make("p", { className: told.fits === false ? "warn" : "quiet", textContent: fitText(told) }),
      make("div", { className: "line" }, get, button("Not now", close)),
    ];
    if (told.download_bytes - told.present_bytes > told.free_bytes) {
      parts.splice(-1, 1, make("p", { className: "bad", textContent: `The disk has room for ${byteCount(told.free_bytes)}: free some space first.` }));
      parts.push(make("div", { className: "line" }, button("Close", close)));
    }
    return parts;
  }
}

/** The server's answer, or {error: a sentence}. */
async function ask(address, values) {
  const options = values && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(values),
  };
  try {
    const response = await fetch(address, { cache: "no-store", ...options });
    if (response.ok) return await response.json();
    return { error: "The server could not do that. Load the page anew." };
  } catch {
    return { error: "The server does not answer. Is Quest Chat still running?" };
  }
}
