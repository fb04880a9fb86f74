// Defines the elements of the library, and what holds for files on all of the page.

import { AddDocuments } from "./add-documents.js";
import { ConversationList } from "./conversation-list.js";
import { DocumentList } from "./document-list.js";
import { takeDrops } from "./drop.js";
import { watchLibrary } from "./library.js";

/** Called once, as the page starts. */
export function defineLibrary() {
  watchLibrary();
  customElements.define("quest-add-documents", AddDocuments);
  customElements.define("quest-documents", DocumentList);
  customElements.define("quest-conversations", ConversationList);
  takeDrops();
}
