// The conversations, which people call chats: open, rename, export and delete them.

import { addressOf, currentConversation, openConversation } from "../chat/conversation.js";
import { act, library } from "./library.js";
import { button, make, moreButton, renameInPlace, Rows, setName, setText } from "../desk/list-rows.js";
import { counted, when } from "../wording.js";

const UNDO_MS = 10_000;
const NONE = "Chats appear here once they have begun.";
const NONE_FOUND = "No chat has these words.";

export class ConversationList extends HTMLElement {
  connectedCallback() {
    if (!this.none) this.build();
    this.show = () => this.update();
    window.addEventListener("quest-library-shown", this.show);
    window.addEventListener("quest-opened", this.show);
    // Also before anything is known: what comes later should move as little as it can.
    this.update();
  }

  build() {
    const list = make("ul");
    this.none = make("p", { className: "list-none" });
    this.undo = make("div", { className: "conversation-undo", hidden: true });
    this.undo.setAttribute("role", "status");
    this.rows = new Rows(list, () => new ConversationRow((conversation) => this.offerUndo(conversation)));
    const head = make("div", { className: "list-head" }, make("h2", { textContent: "Chats" }));
    // Below the list, so that no row moves when it comes or goes.
    this.replaceChildren(head, this.none, list, this.undo);
  }

  disconnectedCallback() {
    window.removeEventListener("quest-library-shown", this.show);
    window.removeEventListener("quest-opened", this.show);
  }

  update() {
    this.rows.show(library.conversations, "conversation_id");
    this.none.hidden = !library.isKnown || library.conversations.length > 0;
    setText(this.none, library.search ? NONE_FOUND : NONE);
    this.focusCameBack();
  }

  /** A deleted conversation can be brought back for a while. */
  offerUndo({ conversation_id: conversationId, title, wasOpen }) {
    clearTimeout(this.undoTimer);
    const bringBack = button("Undo", () => {
      this.closeUndo();
      this.cameBack = conversationId;
      act("undelete_conversation", { conversation_id: conversationId, was_open: wasOpen });
    });
    this.undo.replaceChildren(make("span", { textContent: `“${title}” deleted.` }), bringBack);
    this.undo.hidden = false;
    bringBack.focus();
    const closeLater = () => {
      clearTimeout(this.undoTimer);
      this.undoTimer = setTimeout(() => this.closeUndo(), UNDO_MS);
    };
    // Nobody is hurried who is about to press it.
    this.undo.onpointerenter = () => clearTimeout(this.undoTimer);
    this.undo.onpointerleave = bringBack.onblur = closeLater;
    if (document.activeElement !== bringBack) closeLater();
  }

  /** Whoever has brought one back goes on there, unless they are elsewhere already. */
  focusCameBack() {
    const row = this.rows.rows.get(this.cameBack);
    if (!row) return;
    this.cameBack = null;
    if (document.activeElement === document.body) row.name.focus();
  }

  closeUndo() {
    clearTimeout(this.undoTimer);
    this.undo.hidden = true;
  }
}

class ConversationRow {
  constructor(onDeleted) {
    this.onDeleted = onDeleted;
    this.name = make("a", { className: "conversation-title" });
    this.name.addEventListener("click", (event) => this.open(event));
    this.about = make("p", { className: "conversation-about" });
    this.actions = make("div", { className: "row-actions", hidden: true });
    this.markdown = make("a", { textContent: "Export Markdown", download: "" });
    this.json = make("a", { textContent: "Export JSON", download: "" });
    this.actions.append(
      button("Rename", () => this.rename()),
      this.markdown,
      this.json,
      button("Delete", () => this.delete()),
    );
    this.menu = moreButton(this.actions);
    this.element = make(
      "li",
      {},
      make("div", { className: "row-head" }, this.name, this.menu.more),
      this.about,
      this.actions,
    );
  }

  update(data) {
    this.data = data;
    const { conversation_id: conversationId, title } = data;
    setText(this.name, title);
    this.name.title = title;
    this.name.href = addressOf(conversationId);
    const isCurrent = conversationId === currentConversation();
    this.element.classList.toggle("is-current", isCurrent);
    this.element.classList.toggle("is-answering", Boolean(data.answering));
    if (isCurrent) this.name.setAttribute("aria-current", "page");
    else this.name.removeAttribute("aria-current");
    setText(this.about, aboutOf(data));
    setName(this.menu.more, `More for ${title}`);
    const exported = `conversations/${encodeURIComponent(conversationId)}/export`;
    this.markdown.href = `${exported}.md`;
    this.json.href = `${exported}.json`;
  }

  open(event) {
    // With a key held, the browser opens the address in another tab or window.
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    if (this.data.conversation_id !== currentConversation()) openConversation(this.data.conversation_id);
  }

  rename() {
    this.menu.close();
    const { title, conversation_id: conversationId } = this.data;
    renameInPlace(this.name, title, `New name of ${title}`, (given) =>
      act("rename_conversation", { conversation_id: conversationId, title: given }),
    );
  }

  delete() {
    this.menu.close();
    const { conversation_id: conversationId } = this.data;
    act("delete_conversation", { conversation_id: conversationId });
    this.onDeleted({ ...this.data, wasOpen: conversationId === currentConversation() });
  }
}

function aboutOf({ turns, document_names: documents = [], updated_at: updatedAt, answering }) {
  const names = documents.length > 1 ? `${documents[0]} and ${documents.length - 1} more` : documents[0];
  const since = answering ? "answering" : when(updatedAt);
  return [since, turns ? counted(turns, "question") : "", names].filter(Boolean).join(" · ");
}
