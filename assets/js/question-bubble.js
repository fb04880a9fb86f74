// A question of the conversation: its text as it was typed, and a box to edit it.
//
// The text comes from Python as the element's own text, and is never taken for markup. Button and box are in a shadow
// root: Gradio patches what stands in the open whenever the conversation changes. What is sent goes to Python as an
// event on the window (`ui/chat_panel.py`).

const STYLE_SHEET = new URL("../css/question-bubble.css", import.meta.url);
const SHOWN = `
  <link rel="stylesheet" href="${STYLE_SHEET}">
  <slot></slot><button type="button" class="edit" data-part="edit" hidden>Edit</button>
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
  static observedAttributes = ["turn"];

  connectedCallback() {
    if (this.parts) return;
    const root = this.attachShadow({ mode: "open" });
    root.innerHTML = SHOWN;
    this.parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    this.slotted = root.querySelector("slot");
    this.parts.edit.addEventListener("click", () => this.edit());
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
    this.slotted.hidden = editing;
    this.parts.form.hidden = !editing;
    this.parts.edit.hidden = editing || !this.hasAttribute("turn");
  }

  edit() {
    const { box, note } = this.parts;
    box.value = this.textContent;
    note.textContent = this.describeLoss();
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

  describeLoss() {
    const questions = [...document.querySelectorAll("#messages quest-question")];
    const answers = questions.length - questions.indexOf(this);
    return answers === 1 ? "The answer below will be replaced." : `The ${answers} answers below will be replaced.`;
  }
}
