// The documents of the library in one list, each with a tick that puts it into the conversation; the sample books that
// are not in the library yet stand at its end.
//
// A row keeps its place while somebody works in the list: what is in the conversation comes first when a conversation is
// opened, and what is added later comes above.

import { currentConversation } from "../chat/conversation.js";
import { DocumentRow } from "./document-row.js";
import { library } from "./library.js";
import { make, Rows, setText } from "../desk/list-rows.js";

const NONE = "Nothing here yet. Add a document, or drop one anywhere on the page.";
const NONE_FOUND = "No document has these words.";

export class DocumentList extends HTMLElement {
  connectedCallback() {
    if (!this.none) {
      const list = make("ul");
      this.none = make("p", { className: "list-none" });
      this.rows = new Rows(list, () => new DocumentRow());
      this.places = [];
      this.replaceChildren(this.none, list);
    }
    this.show = () => this.update();
    window.addEventListener("quest-library-shown", this.show);
    // Also before anything is known: what comes later should move as little as it can.
    this.update();
  }

  disconnectedCallback() {
    window.removeEventListener("quest-library-shown", this.show);
  }

  update() {
    const { documents, samples = [], search } = library;
    const all = [...documents, ...samples.map((sample) => ({ ...sample, name: sample.title, state: "sample" }))];
    this.rows.show(this.inPlace(all), "document_id");
    // Before the first answer nobody knows whether there is none.
    this.none.hidden = !library.isKnown || documents.length > 0 || (Boolean(search) && samples.length > 0);
    setText(this.none, search ? NONE_FOUND : NONE);
  }

  /** The documents in the order of their rows. */
  inPlace(all) {
    const about = `${currentConversation()} ${library.search}`;
    if (about !== this.orderedFor) {
      this.orderedFor = about;
      this.places = [];
    }
    const isFirst = !this.places.length;
    const known = new Set(this.places);
    const fresh = all.filter((one) => !known.has(one.document_id));
    if (isFirst) fresh.sort((one, other) => rank(one) - rank(other));
    const freshIds = fresh.map((one) => one.document_id);
    // A sample book that is removed from the library is one again, at the end.
    const samples = new Set(fresh.filter((one) => one.state === "sample").map((one) => one.document_id));
    const above = freshIds.filter((id) => !samples.has(id));
    this.places = [...above, ...this.places, ...freshIds.filter((id) => samples.has(id))];
    const byId = new Map(all.map((one) => [one.document_id, one]));
    this.places = this.places.filter((id) => byId.has(id));
    return this.places.map((id) => byId.get(id));
  }
}

function rank(one) {
  return one.in_conversation ? 0 : one.state === "sample" ? 2 : 1;
}
