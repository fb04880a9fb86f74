// Which model answers, or how far another is; a click opens the picker.
//
// The server draws it first, so that something is there from the beginning, and Gradio may draw it again while the first
// model loads. From then on it asks /models/state whenever it is told that something has changed.

import { checkServer, server } from "../streams/connection.js";
import { askForDialog } from "../desk/dialogs.js";
import { make, setText } from "../desk/list-rows.js";
import { askModels } from "./model-requests.js";
import { number } from "../wording.js";

const LOST = "Quest Chat cannot be reached";

export class ModelStatus extends HTMLElement {
  connectedCallback() {
    if (!this.button) this.build();
    this.heard = () => this.lookAgain();
    // Gradio may also put its own back into this same element.
    this.watch ??= new MutationObserver(() => {
      if (this.button.parentElement === this && this.children.length === 2) return;
      this.replaceChildren(this.button, this.said);
      this.lookAgain();
    });
    this.watch.observe(this, { childList: true });
    window.addEventListener("quest-models", this.heard);
    window.addEventListener("quest-server", this.heard);
    this.lookAgain();
  }

  disconnectedCallback() {
    this.watch.disconnect();
    window.removeEventListener("quest-models", this.heard);
    window.removeEventListener("quest-server", this.heard);
  }

  build() {
    const drawn = this.querySelector(".model-status");
    this.text = make("span", { className: "model-text", textContent: drawn?.querySelector(".model-text")?.textContent ?? "" });
    this.lost = make("span", { className: "model-lost", textContent: LOST });
    this.said = make("span", { className: "only-read-out" });
    this.said.setAttribute("role", "status");
    this.button = make("button", { type: "button", className: "model-status" }, make("i"), this.text, this.lost);
    this.button.dataset.stage = drawn?.dataset.stage ?? "starting";
    this.button.setAttribute("aria-haspopup", "dialog");
    this.button.addEventListener("click", () => askForDialog("models"));
    this.replaceChildren(this.button, this.said);
    this.name(this.text.textContent);
  }

  name(text, isElsewhere = false) {
    // Of another engine none can be chosen here.
    const label = isElsewhere ? `Model: ${text}` : `Model: ${text}. Choose another`;
    if (this.button.title === label) return;
    this.button.title = label;
    this.button.setAttribute("aria-label", label);
  }

  async lookAgain() {
    if (!server.reachable) return;
    const state = await askModels("/state");
    if (!state.error && this.isConnected) this.show(state);
  }

  show(state) {
    const { stage, model, device, message, context_tokens: tokens, engine_url: engine } = state;
    const isReady = stage === "ready";
    const before = this.button.dataset.stage;
    this.button.dataset.stage = stage;
    setText(this.text, isReady ? model : stage === "failed" ? "No model" : message || "Loading the model");
    this.name(isReady ? `${model}, ${number(tokens)} tokens, ${device}` : message || "Loading", Boolean(engine));
    if (before !== stage) {
      const said = stage === "ready" ? state.notice || `${model} is ready.` : stage === "failed" ? message : "Loading a model";
      setText(this.said, said);
      // Others hear of it from there, seconds later.
      checkServer();
    }
  }
}
