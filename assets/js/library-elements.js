// Defines the elements of the library, and what holds for files on all of the page.

import { ConversationList } from "./conversation-list.js";
import { DocumentList } from "./document-list.js";
import { takeDrops } from "./drop.js";
import { watchLibrary } from "./library.js";
import { quietUploads } from "./quiet-uploads.js";

/** Called once, as the page starts. */
export function defineLibrary() {
  quietUploads();
  watchLibrary();
  customElements.define("quest-documents", DocumentList);
  customElements.define("quest-conversations", ConversationList);
  takeDrops();
}
