// Which document is shown: one of the conversation's, or one that was opened from elsewhere in the library.

import { library } from "../library/library.js";
import { make } from "../desk/list-rows.js";

export class DocumentChoice {
  /**
   * @param select the element that offers them; a single one is only named.
   * @param onChosen called when another is to be shown; its id is in `documentId`, null for none.
   */
  constructor(select, onChosen) {
    this.select = select;
    this.onChosen = onChosen;
    this.documentId = null;
    select.addEventListener("change", () => this.open(select.value));
    window.addEventListener("quest-library-shown", () => this.update());
    window.addEventListener("quest-opened", () => this.forget());
  }

  open(documentId) {
    this.documentId = documentId;
    this.offered = null;
    this.update();
  }

  /** Another conversation has documents of its own; which, the library tells next. */
  forget() {
    this.documentId = this.offered = null;
  }

  update() {
    // While the library is searched, only what is found is known.
    if (library.search && this.offered) return;
    const read = library.documents.filter((one) => one.state === "read");
    const offered = read.filter((one) => one.in_conversation || one.document_id === this.documentId);
    const key = JSON.stringify(offered.map((one) => [one.document_id, one.name]));
    if (this.offered === key) return;
    this.offered = key;
    this.select.replaceChildren(...offered.map((one) => make("option", { value: one.document_id, textContent: one.name })));
    this.select.disabled = offered.length < 2;
    if (!offered.some((one) => one.document_id === this.documentId)) this.documentId = offered[0]?.document_id ?? null;
    this.select.value = this.documentId ?? "";
    this.select.title = this.select.selectedOptions[0]?.textContent ?? "";
    this.onChosen();
  }
}
