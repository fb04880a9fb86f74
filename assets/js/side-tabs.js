// The column beside the conversation shows one of two things: the document's page, or what the model reads.
//
// Which one is for the user alone to say, by a tab or by opening a page: an answer that begins changes nothing, and says
// with a dot on its tab that there is something to see. What is shown stands in the document element's data-column, which
// the style sheets follow; who has to know hears "quest-column".

const MARKUP = `
  <style>
    [role="tablist"] { display: flex; gap: 4px; border-bottom: 1px solid var(--quest-line); }
    button {
      position: relative; padding: 6px 14px 8px; border: 0; border-bottom: 2px solid transparent; margin-bottom: -1px;
      background: none; color: var(--quest-quiet); font: inherit; font-size: 14px; cursor: pointer;
    }
    button[aria-selected="true"] { border-color: var(--quest-accent); color: var(--quest-accent); font-weight: 550; }
    button:hover { color: var(--body-text-color); }
    button:focus-visible { outline: 2px solid var(--quest-accent); outline-offset: -2px; border-radius: 4px; }
    :host([answering]) button[data-column="reading"]::after {
      content: ""; display: inline-block; width: 7px; height: 7px; margin-left: 7px; border-radius: 50%;
      background: var(--quest-accent); vertical-align: 1px;
    }
  </style>
  <div role="tablist" aria-label="Beside the conversation">
    <button type="button" role="tab" data-column="page">Page</button>
    <button type="button" role="tab" data-column="reading">Reading</button>
  </div>
`;
const CHAT_TAB = "#main-tabs button[role=tab]";
const ANSWERING = ["waiting", "reading", "answering"];

export class ColumnTabs extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    this.attachShadow({ mode: "open" }).innerHTML = MARKUP;
    this.tabs = [...this.shadowRoot.querySelectorAll("button")];
    for (const tab of this.tabs) tab.addEventListener("click", () => this.show(tab.dataset.column));
    this.shadowRoot.addEventListener("keydown", (event) => this.press(event));
    window.addEventListener("quest-page-shown", () => {
      // A document can be opened from the library while the comparison is shown.
      if (!this.getClientRects().length) document.querySelector(CHAT_TAB)?.click();
      this.show("page");
    });
    window.addEventListener("quest-page-left", () => this.show("reading"));
    window.addEventListener("quest-live-state", ({ detail }) => this.toggleAttribute("answering", ANSWERING.includes(detail.state)));
    this.show("reading");
  }

  show(column) {
    document.documentElement.dataset.column = column;
    for (const tab of this.tabs) {
      const isChosen = tab.dataset.column === column;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
    }
    window.dispatchEvent(new Event("quest-column"));
  }

  press(event) {
    if (!["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
    event.preventDefault();
    const other = this.tabs.find((tab) => tab.tabIndex === -1);
    this.show(other.dataset.column);
    other.focus();
  }
}
