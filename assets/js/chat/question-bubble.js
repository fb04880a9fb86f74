// A question of the conversation: its text as it was typed, a box to edit it, and the way to the other turns that were asked
// in its place.
//
// The text comes from Python as the element's own text, and is never taken for markup. Button and box are in a shadow
// root: Gradio patches what stands in the open whenever the conversation changes. What is sent goes to Python as an
// event on the window (`ui/chat/chat_panel.py`).

import { sharedSheet } from "../desk/shared-sheet.js";

const STYLE_SHEET = sharedSheet(new URL("../../css/question-bubble.css", import.meta.url));
const SHOWN = `
  <div class="bubble" data-part="bubble"><slot></slot></div>
  <div class="below" data-part="below">
    <div class="branches" role="group" aria-label="Versions of this question" data-part="branches" hidden>
      <button type="button" data-part="earlier" aria-label="Earlier version">‹</button>
      <span data-part="place"></span>
      <button type="button" data-part="later" aria-label="Later version">›</button>
    </div>
    <button type="button" class="edit" data-part="edit">Edit</button>
  </div>
  <div data-part="form" hidden>
    <textarea data-part="box" aria-label="Edit the question" aria-describedby="note"></textarea>
    <div class="actions">
      <p id="note" data-part="note"></p>
      <button type="button" data-part="cancel">Cancel</button>
      <button type="button" data-part="send">Ask</button>
    </div>
  </div>
`;

export class QuestionBubble extends HTMLElement {
  static observedAttributes = ["turn", "turn-id", "siblings"];

  connectedCallback() {
    if (this.parts) return;
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [STYLE_SHEET];
    root.innerHTML = SHOWN;
    this.parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    this.parts.edit.addEventListener("click", () => this.edit());
    this.parts.earlier.addEventListener("click", () => this.goTo(-1));
    this.parts.later.addEventListener("click", () => this.goTo(1));
    this.parts.send.addEventListener("click", () => this.send());
    this.parts.cancel.addEventListener("click", () => this.leave());
    this.parts.box.addEventListener("input", () => this.fit());
    this.parts.form.addEventListener("keydown", (event) => this.press(event));
    this.show(false);
  }

  attributeChangedCallback() {
    // The conversation has changed: what was edited may not be there any more.
    if (this.parts) this.show(false);
  }

  show(editing) {
    this.toggleAttribute("editing", editing);
    this.parts.bubble.hidden = editing;
    this.parts.form.hidden = !editing;
    this.parts.below.hidden = editing;
    // Its place is kept while the question is being answered: nothing moves when the answer is complete.
    this.parts.below.toggleAttribute("inert", !this.hasAttribute("turn"));
    this.showBranches();
  }

  /** Which of the turns in this place is shown, and whether there are others on either side. */
  showBranches() {
    const { branches, place, earlier, later } = this.parts;
    this.siblings = (this.getAttribute("siblings") ?? "").split(" ").filter(Boolean);
    this.place = this.siblings.indexOf(this.getAttribute("turn-id"));
    branches.hidden = this.place < 0;
    place.textContent = `${this.place + 1}/${this.siblings.length}`;
    place.setAttribute("aria-label", `Version ${this.place + 1} of ${this.siblings.length}`);
    // Not "disabled": the focus would be lost at the end of the row.
    earlier.setAttribute("aria-disabled", this.place <= 0);
    later.setAttribute("aria-disabled", this.place >= this.siblings.length - 1);
  }

  goTo(step) {
    const turnId = this.siblings[this.place + step];
    if (turnId) window.dispatchEvent(new CustomEvent("quest-branch", { detail: { turn_id: turnId } }));
  }

  edit() {
    const { box, note } = this.parts;
    box.value = this.textContent;
    note.textContent = this.describeBranch();
    this.show(true);
    this.fit();
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }

  /** As high as its text. */
  fit() {
    const { box } = this.parts;
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + 2}px`;
  }

  press(event) {
    // An input method takes both keys for its own choice.
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.preventDefault();
      this.leave();
    } else if (event.key === "Enter" && !event.shiftKey && event.target === this.parts.box) {
      event.preventDefault();
      this.send();
    }
  }

  leave() {
    this.show(false);
    this.parts.edit.focus();
  }

  send() {
    const question = this.parts.box.value;
    if (!question.trim()) return;
    const turn = Number(this.getAttribute("turn"));
    this.show(false);
    document.querySelector("#question textarea")?.focus();
    window.dispatchEvent(new CustomEvent("quest-edited", { detail: { turn, question } }));
  }

  describeBranch() {
    const questions = [...document.querySelectorAll("#messages quest-question")];
    const answers = questions.length - questions.indexOf(this);
    const kept = answers === 1 ? "The answer below is kept" : `The ${answers} answers below are kept`;
    return `${kept}; the arrows at the question lead back.`;
  }
}
