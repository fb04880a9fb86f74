// A question of the conversation: its text as it was typed, and a box to edit it.
//
// The text comes from Python as the element's own text and is never taken for markup. What is sent goes to Python as an
// event on the window (`ui/chat_panel.py`); the page that comes back brings the new bubble.

export class QuestionBubble extends HTMLElement {
  connectedCallback() {
    if (this.question === undefined) this.question = this.textContent;
    this.show();
  }

  show() {
    const text = Object.assign(document.createElement("span"), { className: "question-text", textContent: this.question });
    this.replaceChildren(text);
    if (!this.hasAttribute("turn")) return;
    const edit = Object.assign(document.createElement("button"), {
      type: "button",
      className: "question-edit",
      textContent: "Edit",
    });
    edit.addEventListener("click", () => this.edit());
    this.append(edit);
  }

  edit() {
    const box = document.createElement("textarea");
    box.value = this.question;
    box.setAttribute("aria-label", "Edit the question");
    const note = Object.assign(document.createElement("p"), { className: "question-note", textContent: this.note() });
    note.id = `question-note-${this.getAttribute("turn")}`;
    box.setAttribute("aria-describedby", note.id);
    const send = Object.assign(document.createElement("button"), { type: "button", className: "question-send", textContent: "Ask" });
    const leave = Object.assign(document.createElement("button"), { type: "button", textContent: "Cancel" });
    const row = Object.assign(document.createElement("div"), { className: "question-actions" });
    row.append(note, leave, send);
    this.replaceChildren(box, row);
    box.addEventListener("keydown", (event) => {
      // An input method takes Enter for its own choice.
      if (event.isComposing || event.key !== "Enter" || event.shiftKey) return;
      event.preventDefault();
      this.send(box.value);
    });
    this.onkeydown = (event) => {
      if (event.key !== "Escape" || event.isComposing) return;
      event.preventDefault();
      this.leave();
    };
    send.addEventListener("click", () => this.send(box.value));
    leave.addEventListener("click", () => this.leave());
    const fit = () => {
      box.style.height = "auto";
      box.style.height = `${box.scrollHeight + 2}px`;
    };
    box.addEventListener("input", fit);
    fit();
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }

  leave() {
    this.onkeydown = null;
    this.show();
    this.querySelector(".question-edit")?.focus();
  }

  send(question) {
    if (!question.trim()) return;
    const turn = Number(this.getAttribute("turn"));
    this.onkeydown = null;
    this.show();
    document.querySelector("#question textarea")?.focus();
    window.dispatchEvent(new CustomEvent("quest-edited", { detail: { turn, question } }));
  }

  /** What will be lost. */
  note() {
    const questions = [...document.querySelectorAll("#messages quest-question")];
    const answers = questions.length - questions.indexOf(this);
    return answers === 1 ? "The answer below will be replaced." : `The ${answers} answers below will be replaced.`;
  }
}
