// A question that got no word of an answer: why, and a button that asks it again.
//
// The question box offers it, too, to be asked in other words (`drafts.js`); asked from here, the box is emptied.

import { setQuestion, typedQuestion } from "./drafts.js";

export class AskAgain extends HTMLElement {
  static observedAttributes = ["question"];

  connectedCallback() {
    this.show();
  }

  attributeChangedCallback() {
    if (this.isConnected) this.show();
  }

  show() {
    this.querySelector("button")?.remove();
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Ask again" });
    button.addEventListener("click", ({ detail }) => detail < 2 && this.ask());
    this.append(" ", button);
  }

  ask() {
    const question = this.getAttribute("question");
    if (typedQuestion() === question) setQuestion("");
    window.dispatchEvent(new CustomEvent("quest-ask", { detail: { question } }));
  }
}
