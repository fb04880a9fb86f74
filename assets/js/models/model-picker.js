// The models on this machine: what each would take of the memory, and which one answers.
//
// The dialog "models". Asks /models while it is open; names and reasons are set as text, never as markup.

import { closeDialog, openDialog } from "../desk/dialogs.js";
import { make, Rows, setText } from "../desk/list-rows.js";
import { FolderRow, ModelRow, UnusableRow } from "./model-rows.js";
import { askModels } from "./model-requests.js";
import { byteCount, counted, number } from "../wording.js";

const LOOKING_MS = 700;
const MARKUP = `
  <div class="dialog-head"><h2>Models</h2><button type="button" class="dialog-close" aria-label="Close">✕</button></div>
  <div class="picker-state" role="status" hidden><p></p><div class="picker-progress" aria-hidden="true"><i></i></div></div>
  <p class="picker-error" role="alert" hidden></p>
  <div class="picker-choices">
    <label>Reads up to <select name="context"></select></label>
    <label>Weights <select name="bits">
      <option value="16">as they are (16 bits)</option><option value="8">8 bits</option><option value="4">4 bits</option>
    </select></label>
  </div>
  <p class="picker-memory"></p>
  <ul class="picker-models" aria-label="Models on this machine"></ul>
  <p class="picker-looking">Looking for models…</p>
  <details class="picker-unusable" hidden><summary></summary><ul aria-label="Models that cannot be used"></ul></details>
  <quest-model-downloads></quest-model-downloads>
  <section class="picker-folders" aria-label="Folders">
    <h3>Look in another folder</h3>
    <form><input name="folder" type="text" autocomplete="off" spellcheck="false" maxlength="4096"
      aria-label="Path of a folder with models, or of a .gguf file" placeholder="/path/to/models">
      <button type="submit">Look there</button></form>
    <p class="quiet">A folder in Hugging Face layout (safetensors), a folder with such folders or .gguf files, or one
      .gguf file. Also looked in: the data folder, the caches of the hub and of llama.cpp, LM Studio, Ollama.</p>
    <ul class="picker-named" aria-label="Folders that you have named"></ul>
    <p class="picker-notes quiet" hidden></p>
  </section>`;

export class ModelPicker extends HTMLElement {
  connectedCallback() {
    if (this.heardOpen) return;
    this.heardOpen = ({ detail }) => detail.dialog === "models" && this.open();
    window.addEventListener("quest-open-dialog", this.heardOpen);
    window.addEventListener("quest-models", () => this.lookAgain());
  }

  get isOpen() {
    return document.documentElement.dataset.dialog === "models";
  }

  build() {
    this.innerHTML = MARKUP;
    this.find = (selector) => this.querySelector(selector);
    const acts = { use: (model) => this.use({ model }), shorten: (tokens) => this.shorten(tokens) };
    this.rows = new Rows(this.find(".picker-models"), () => new ModelRow(acts));
    this.unusable = new Rows(this.find(".picker-unusable ul"), () => new UnusableRow());
    this.folders = new Rows(this.find(".picker-named"), () => new FolderRow((path) => this.tellFolder(path, true)));
    for (const select of this.querySelectorAll("select")) select.addEventListener("change", () => this.lookAgain());
    this.find("form").addEventListener("submit", (event) => {
      event.preventDefault();
      const field = this.find("[name=folder]");
      if (field.value.trim()) this.tellFolder(field.value, false).then((isTaken) => isTaken && (field.value = ""));
      else field.focus();
    });
    this.addEventListener("quest-use-model", ({ detail: { model, weightBits, contextTokens } }) =>
      this.use({ model, weightBits, contextTokens }),
    );
  }

  open() {
    if (!this.rows) this.build();
    openDialog(this.closest("#model-picker") ?? this, "models", "Models");
    this.say("");
    this.lookAgain();
  }

  /** Ask the server now; while it is being asked, once more afterwards. */
  async lookAgain() {
    clearTimeout(this.timer);
    if (!this.isOpen) return;
    this.asksAgain = this.isAsking;
    if (this.isAsking) return;
    this.isAsking = true;
    const wanted = new URLSearchParams();
    const { context, bits } = this.chosen();
    if (context) wanted.set("context_tokens", context);
    if (bits) wanted.set("weight_bits", bits);
    const told = await askModels(`?${wanted}`);
    this.isAsking = false;
    if (told.error) this.say(told.error);
    else this.show(told);
    if (this.asksAgain) this.lookAgain();
    else if (told.is_looking) this.timer = setTimeout(() => this.lookAgain(), LOOKING_MS);
  }

  chosen() {
    const context = this.find("[name=context]").value;
    const bits = this.hasBits ? this.find("[name=bits]").value : "";
    return { context: context && Number(context), bits: bits && Number(bits) };
  }

  show(told) {
    const { state, memory, models, folders, notes } = told;
    if (!this.hasBits) {
      this.hasBits = true;
      this.find("[name=bits]").value = String(told.weight_bits);
    }
    this.showContexts(told.context_choices, models);
    this.showState(state, models.find((one) => one.model === state.reference)?.name ?? state.model);
    const usable = models.filter((one) => !one.reason);
    const unusable = models.filter((one) => one.reason);
    const isLoading = state.stage === "loading" || state.stage === "starting";
    const free = memory && memory.free_bytes + memory.held_bytes;
    this.rows.show(
      usable.map((one) => ({ ...one, state, isLoading, free })),
      "model",
    );
    this.unusable.show(unusable, "model");
    const details = this.find(".picker-unusable");
    details.hidden = !unusable.length;
    setText(details.querySelector("summary"), `${counted(unusable.length, "model")} that cannot be used`);
    this.folders.show(folders.map((path) => ({ path })), "path");
    this.find(".picker-looking").hidden = !told.is_looking;
    const line = this.find(".picker-notes");
    line.hidden = !notes.length;
    setText(line, notes.join(" "));
    const where = memory && (memory.device === "cuda" ? memory.name : "This computer");
    setText(
      this.find(".picker-memory"),
      memory ? `${where} has ${byteCount(free)} of ${byteCount(memory.total_bytes)} free for a model.` : "",
    );
  }

  /** Windows that some model can be given. */
  showContexts(choices, models) {
    const select = this.find("[name=context]");
    const longest = Math.max(0, ...models.map((one) => one.longest_tokens ?? 0));
    const offered = choices.filter((tokens) => tokens <= longest).map(String);
    if (select.options.length === offered.length + 1) return;
    const { value } = select;
    select.replaceChildren(
      new Option("as much as the model can", ""),
      ...offered.map((tokens) => new Option(`${number(Number(tokens))} tokens`, tokens)),
    );
    select.value = offered.includes(value) ? value : "";
  }

  showState({ stage, message, notice }, name) {
    const isLoading = stage === "loading" || stage === "starting";
    const text = isLoading ? `${name}: ${message}` : stage === "failed" ? message : notice;
    const box = this.find(".picker-state");
    box.hidden = !text;
    box.dataset.kind = isLoading ? "loading" : "bad";
    setText(box.querySelector("p"), text);
  }

  shorten(tokens) {
    const select = this.find("[name=context]");
    const fitting = [...select.options].map((one) => Number(one.value)).filter((value) => value && value <= tokens);
    if (!fitting.length) return;
    select.value = String(Math.max(...fitting));
    this.lookAgain();
    select.focus();
  }

  /** Change to a model; where an answer is being made, ask what is to become of it. */
  async use({ model, weightBits, contextTokens, stop = false }) {
    const { context, bits } = this.chosen();
    const values = {
      model,
      context_tokens: contextTokens ?? (context || null),
      weight_bits: weightBits ?? (bits || null),
      stop,
    };
    const told = await askModels("/switch", values);
    if (told.running) this.askToStop(told.error, () => this.use({ model, weightBits, contextTokens, stop: true }));
    else this.say(told.error ?? "");
    await this.lookAgain();
  }

  askToStop(sentence, goOn) {
    const stop = make("button", { type: "button", className: "main", textContent: "Stop and change the model" });
    const wait = make("button", { type: "button", textContent: "Wait" });
    stop.addEventListener("click", () => {
      this.say("");
      goOn();
    });
    wait.addEventListener("click", () => closeDialog());
    this.say(sentence, stop, wait);
    stop.focus();
  }

  async tellFolder(path, remove) {
    const told = await askModels("/folders", { path, remove });
    this.say(told.error ?? "");
    await this.lookAgain();
    return !told.error;
  }

  say(text, ...buttons) {
    const line = this.find(".picker-error");
    line.hidden = !text;
    line.replaceChildren(make("span", { textContent: text }), ...buttons);
  }
}
