// The line above the conversation: its title, and the buttons of the zones that are not in sight.

import { act, library } from "../library/library.js";
import { currentConversation, leaveConversation } from "./conversation.js";

const NEW = "New chat";

function icon(path) {
  return `<svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true"><path d="${path}"/></svg>`;
}

const MARKUP = `
  <button type="button" class="open-library" data-desk="library" aria-label="Library" title="Library"
    >${icon("M3 5h14M3 10h14M3 15h9")}</button>
  <h2></h2>
  <button type="button" class="new-chat" aria-label="New chat" title="New chat">${icon("M10 4v12M4 10h12")}</button>
  <button type="button" class="toggle-side" data-desk="side" aria-label="Page, reading and race" title="Page, reading and race"
    >${icon("M3 4h14v12H3zM12 4v12")}</button>
`;

export class ChatTitle extends HTMLElement {
  connectedCallback() {
    if (this.heading) return;
    this.innerHTML = MARKUP;
    // What was drawn until now is covered.
    document.getElementById("desk-frame")?.remove();
    this.heading = this.querySelector("h2");
    this.querySelector(".new-chat").addEventListener("click", beginChat);
    for (const type of ["quest-library-shown", "quest-opened"]) window.addEventListener(type, () => this.show());
    this.show();
  }

  show() {
    const shown = library.conversations.find((one) => one.conversation_id === currentConversation());
    // While the library is searched, only what is found is known.
    if (!shown && library.search) return;
    const title = shown?.title || NEW;
    if (this.heading.textContent === title) return;
    this.heading.textContent = title;
    this.heading.title = title;
  }
}

/** Begin a new conversation in this tab. */
export function beginChat() {
  leaveConversation();
  act("new");
}

/** The button in the library's zone does it, too. */
export function listenForNewChat() {
  document.addEventListener("click", ({ target }) => target.closest?.("#new-chat") && beginChat());
}
