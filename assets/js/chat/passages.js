// Passages of the documents that bear on a question: there before the model's first word, each a step from its page.
//
// They come as JSON in an attribute; their texts are set as text.

import { openPage } from "../document/open-page.js";
import { pageName } from "../wording.js";

const STYLE_SHEET = new URL("../../css/passages.css", import.meta.url);
const MARKUP = `
  <style>details { visibility: hidden; }</style>
  <link rel="stylesheet" href="${STYLE_SHEET}">
  <details data-part="fold"><summary data-part="summary"></summary><ul data-part="list"></ul></details>
`;

export class Passages extends HTMLElement {
  static observedAttributes = ["passages", "heading", "unfolded"];

  connectedCallback() {
    if (!this.parts) {
      const root = this.attachShadow({ mode: "open" });
      root.innerHTML = MARKUP;
      this.parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    }
    this.show();
  }

  attributeChangedCallback(name, before, after) {
    if (this.parts && before !== after) this.show();
  }

  show() {
    const { fold, summary, list } = this.parts;
    // What the user has folded or opened stays so until the answer begins or ends.
    const wanted = this.hasAttribute("unfolded");
    if (this.wanted !== wanted) fold.open = this.wanted = wanted;
    summary.textContent = this.getAttribute("heading") ?? "Passages";
    const data = this.getAttribute("passages") ?? "[]";
    if (this.shown === data) return;
    this.shown = data;
    const passages = JSON.parse(data);
    const isOne = new Set(passages.map((one) => one.document_id)).size <= 1;
    list.replaceChildren(...passages.map((passage) => row(passage, isOne)));
  }
}

function row(passage, isOnlyDocument) {
  const button = document.createElement("button");
  button.type = "button";
  const name = document.createElement("b");
  name.textContent = `${pageName(passage.page_label)}${isOnlyDocument ? "" : `, ${passage.document}`}`;
  const text = document.createElement("span");
  text.textContent = passage.text.replace(/\s+/g, " ").trim();
  button.append(name, text);
  button.addEventListener("click", () => openPage(passage));
  const item = document.createElement("li");
  item.append(button);
  return item;
}
