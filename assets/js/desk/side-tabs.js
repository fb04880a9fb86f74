// The tabs of the right zone: the document's page, what the model reads, and the race.
//
// Which one is shown is for the user alone to say, by a tab or by opening a page. What is shown stands in the root
// element (desk.js). A dot tells of a tab on which something happens while another one is shown.

import { closeSide, showSide } from "./desk.js";

const MARKUP = `
  <style>
    :host { display: flex; align-items: stretch; border-bottom: 1px solid var(--quest-line); }
    [role="tablist"] { display: flex; flex: 1; gap: 4px; }
    button {
      position: relative; min-height: var(--quest-target); padding: 6px 14px 8px; border: 0; background: none;
      color: var(--quest-quiet); font: inherit; font-size: 14px; cursor: pointer;
    }
    [role="tab"] { border-bottom: 2px solid transparent; margin-bottom: -1px; }
    [aria-selected="true"] { border-color: var(--quest-accent); color: var(--quest-accent); font-weight: 550; }
    button:hover { color: var(--quest-text); }
    button:focus-visible { outline: 2px solid var(--quest-accent); outline-offset: -2px; border-radius: 4px; }
    :host([answering]) [data-tab="reading"]:not([aria-selected="true"])::after {
      content: ""; position: absolute; top: 8px; right: 3px; width: 7px; height: 7px; border-radius: 50%;
      background: var(--quest-accent);
    }
    .close { min-width: var(--quest-target); padding: 0; }
    svg { fill: none; stroke: currentcolor; stroke-width: 1.6; stroke-linecap: round; vertical-align: middle; }
  </style>
  <div role="tablist" aria-label="Beside the conversation">
    <button type="button" role="tab" data-tab="page">Page</button>
    <button type="button" role="tab" data-tab="reading">Reading</button>
    <button type="button" role="tab" data-tab="race">Race</button>
  </div>
  <button type="button" class="close" aria-label="Close the side" title="Close"><svg viewBox="0 0 20 20" width="18"
    height="18" aria-hidden="true"><path d="M5 5l10 10M15 5L5 15"/></svg></button>
`;
const ANSWERING = ["waiting", "reading", "answering"];

export class SideTabs extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    this.attachShadow({ mode: "open" }).innerHTML = MARKUP;
    this.tabs = [...this.shadowRoot.querySelectorAll("[role=tab]")];
    for (const tab of this.tabs) tab.addEventListener("click", () => showSide(tab.dataset.tab));
    this.shadowRoot.querySelector("[role=tablist]").addEventListener("keydown", (event) => this.press(event));
    this.shadowRoot.querySelector(".close").addEventListener("click", closeSide);
    window.addEventListener("quest-side-shown", () => this.show());
    window.addEventListener("quest-live-state", ({ detail }) =>
      this.toggleAttribute("answering", ANSWERING.includes(detail.state)),
    );
    this.show();
  }

  show() {
    for (const tab of this.tabs) {
      const isChosen = tab.dataset.tab === document.documentElement.dataset.sideTab;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
    }
  }

  focusTab() {
    this.tabs.find((tab) => tab.tabIndex === 0).focus();
  }

  press(event) {
    const { tabs } = this;
    const at = tabs.findIndex((tab) => tab.tabIndex === 0);
    const places = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 };
    if (!(event.key in places)) return;
    event.preventDefault();
    const tab = tabs.at(places[event.key] % tabs.length);
    showSide(tab.dataset.tab);
    tab.focus();
  }
}
