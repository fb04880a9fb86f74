// The documents: those of this conversation, and folded below them the others of the library.

import { act, library } from "./library.js";
import { button, make, moreButton, renameInPlace, Rows, setName, setText } from "./list-rows.js";
import { byteCount, counted, duration, namedPages } from "./wording.js";

const NONE = "No document yet. Drop a PDF, EPUB, Word, PowerPoint, web page or text file above.";
const NONE_HERE = "No document in this conversation.";
const NONE_FOUND = "No document has these words.";

export class DocumentList extends HTMLElement {
  connectedCallback() {
    const own = make("ul", { className: "own-documents" });
    const others = make("ul");
    this.none = make("p", { className: "document-none" });
    this.summary = make("summary");
    this.fold = make("details", { className: "other-documents", hidden: true }, this.summary, others);
    this.own = new Rows(own, () => new DocumentRow());
    this.others = new Rows(others, () => new DocumentRow());
    this.replaceChildren(this.none, own, this.fold);
    this.show = () => this.update();
    window.addEventListener("quest-library-shown", this.show);
    // Also before anything is known: what comes later should move as little as it can.
    this.update();
  }

  disconnectedCallback() {
    window.removeEventListener("quest-library-shown", this.show);
  }

  update() {
    const { documents, search } = library;
    const own = documents.filter((one) => one.in_conversation);
    const others = documents.filter((one) => !one.in_conversation);
    this.own.show(own, "document_id");
    this.others.show(others, "document_id");
    this.fold.hidden = !others.length;
    const found = search ? "found in the library" : own.length ? "more in the library" : "in the library";
    setText(this.summary, `${counted(others.length, "document")} ${found}`);
    // Who searches wants to see what is found; afterwards it is as it was.
    if (search && this.openBefore === undefined) {
      this.openBefore = this.fold.open;
      this.fold.open = true;
    } else if (!search && this.openBefore !== undefined) {
      this.fold.open = this.openBefore;
      this.openBefore = undefined;
    }
    this.none.hidden = Boolean(own.length) || (Boolean(search) && Boolean(others.length));
    setText(this.none, search ? NONE_FOUND : others.length ? NONE_HERE : NONE);
  }
}

/** One document: its name, how far it is read, and what can be done with it. */
class DocumentRow {
  constructor() {
    this.name = make("span", { className: "document-name" });
    this.state = make("span", { className: "document-size" });
    this.progress = make("progress", { hidden: true, max: 1 });
    this.notes = make("div", { className: "document-notes" });
    this.found = make("p", { className: "document-found", hidden: true });
    this.quick = button("", () => this.act(this.data.in_conversation ? "take_out_document" : "attach_document"));
    this.quick.className = "row-quick";
    this.retry = button("Try again", () => this.act("retry_document"));
    this.retry.className = "row-retry";
    this.recognise = button("Recognise text", () => this.act("recognise_document"));
    this.recognise.className = "row-retry";
    this.stop = button("Stop", () => this.act("stop_recognising_document"));
    this.stop.className = "row-retry";
    this.actions = make("div", { className: "row-actions", hidden: true });
    this.open = button("Show its pages", () => {
      this.menu.close();
      const { document_id: documentId, page_label: pageLabel } = this.data;
      document.dispatchEvent(new CustomEvent("quest-open-page", { detail: { documentId, pageLabel } }));
    });
    this.name.addEventListener("click", () => !this.open.hidden && this.open.click());
    this.actions.append(
      this.open,
      button("Rename", () => this.rename()),
      button("Remove from the library", () => this.ask()),
    );
    this.menu = moreButton(this.actions);
    this.question = make("div", { className: "row-question", hidden: true });
    this.password = this.passwordForm();
    this.element = make(
      "li",
      {},
      make("div", { className: "row-head" }, this.name, this.quick, this.menu.more),
      this.state,
      this.retry,
      this.recognise,
      this.progress,
      this.stop,
      this.notes,
      this.found,
      this.password,
      this.actions,
      this.question,
    );
  }

  update(data) {
    this.data = data;
    const { name, in_conversation: isHere } = data;
    setText(this.name, name);
    this.name.title = data.file_name && data.file_name !== name ? `${name} (${data.file_name})` : name;
    setText(this.quick, isHere ? "✕" : "Add");
    setName(this.quick, isHere ? `Take ${name} out of this conversation` : `Add ${name} to this conversation`);
    setName(this.menu.more, `More for ${name}`);
    const { text, share, isBad } = stateOf(data);
    setText(this.state, text);
    this.state.classList.toggle("document-missing", isBad);
    this.element.dataset.state = data.state;
    this.open.hidden = data.state !== "read";
    this.progress.hidden = share === undefined;
    if (share === null) this.progress.removeAttribute("value");
    else if (share !== undefined) this.progress.value = share;
    this.progress.setAttribute("aria-label", `Reading ${name}`);
    const isRecognising = data.recognition != null;
    this.recognise.hidden = !data.can_be_recognised || isRecognising;
    setName(this.recognise, `Recognise text in pictures of ${name} (OCR)`);
    this.stop.hidden = !isRecognising;
    setName(this.stop, `Stop recognising text in ${name}`);
    // To read a scan again would find as little.
    this.retry.hidden = data.state !== "failed" || data.can_be_recognised || isRecognising;
    setName(this.retry, `Try to read ${name} again`);
    this.showNotes(notesOf(data));
    this.found.hidden = !data.snippet;
    setText(this.found, data.snippet ? `${data.page_label ? `${namedPages([data.page_label])}: ` : ""}${data.snippet}` : "");
    this.showPassword(data.state === "locked");
  }

  showNotes(notes) {
    const key = JSON.stringify(notes);
    if (this.notesKey === key) return;
    this.notesKey = key;
    this.notes.replaceChildren(
      ...notes.map(([className, text]) => make("span", { className, textContent: text })),
    );
  }

  passwordForm() {
    const box = make("input", { type: "password", autocomplete: "off", required: true });
    const form = make("form", { className: "row-password", hidden: true }, box, make("button", { textContent: "Open" }));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.act("unlock_document", { password: box.value });
      box.value = "";
    });
    return form;
  }

  showPassword(isLocked) {
    if (this.password.hidden !== isLocked) return;
    this.password.hidden = !isLocked;
    const box = this.password.querySelector("input");
    box.setAttribute("aria-label", `Password of ${this.data.name}`);
    box.placeholder = "Password";
  }

  rename() {
    this.menu.close();
    const { name } = this.data;
    renameInPlace(this.name, name, `New name of ${name}`, (given) => this.act("rename_document", { name: given }));
  }

  /** Ask once, and name what goes with it. */
  ask() {
    this.menu.close();
    const leave = button("Keep", () => {
      this.question.hidden = true;
      this.menu.more.focus();
    });
    const remove = button("Remove", () => {
      this.question.hidden = true;
      this.act("remove_document");
    });
    remove.className = "row-remove";
    this.question.replaceChildren(make("p", { textContent: lossOf(this.data) }), remove, leave);
    this.question.hidden = false;
    leave.focus();
  }

  act(action, values) {
    act(action, { document_id: this.data.document_id, ...values });
  }
}

/** What is said of how far a document is read; `share` is of a bar, null for one without an end, undefined for none. */
function stateOf(data) {
  if (data.recognition != null) {
    return { text: readingText(data.recognition, null, "Text is being recognised"), share: data.recognition || null, isBad: false };
  }
  if (data.state === "failed") return { text: `Failed: ${data.message}`, isBad: true };
  if (data.state === "locked") return { text: data.message || "Locked: it needs its password.", isBad: true };
  if (data.state === "reading") return { text: readingText(data.progress, null), share: data.progress ?? null, isBad: false };
  const size = sizeOf(data);
  const reading = data.in_conversation ? data.reading : null;
  if (reading?.stage === "model" || reading?.stage === "text") {
    return { text: `${size}, ${readingText(reading.share, reading.remaining_s, "being read")}`, share: reading.share, isBad: false };
  }
  if (reading?.stage === "waiting") return { text: `${size}, waits to be read`, isBad: false };
  if (reading?.stage === "passages") return { text: `${size}, read in passages`, isBad: false };
  if (reading?.stage === "failed") return { text: `${size}. Not read ahead: ${reading.message}`, isBad: true };
  if (reading?.stage === "read") return { text: `${size}, read`, isBad: false };
  return { text: size, isBad: false };
}

function readingText(share, remainingSeconds, verb = "Being read") {
  const part = share == null ? "" : ` ${Math.round(100 * share)} %`;
  const left = remainingSeconds == null || share >= 1 ? "" : `, ${duration(remainingSeconds)} left`;
  return `${verb}${part}${left}`;
}

function sizeOf({ page_count: pages, tokens }) {
  return [pages ? counted(pages, "page") : "", tokens ? `${tokens} tokens` : ""].filter(Boolean).join(", ");
}

function notesOf(data) {
  const { picture_pages: pictures = [], unreadable_pages: unreadable = [], assumed_encoding: encoding } = data;
  const { garbled_pages: garbled = [], recognised_pages: recognised = [] } = data;
  const notes = [];
  if (data.recognition_message) notes.push(["document-missing", data.recognition_message]);
  if (pictures.length === 1) notes.push(["document-missing", `${namedPages(pictures)} is a picture: its text cannot be read`]);
  else if (pictures.length) {
    const many = `${counted(pictures.length, "page")} are pictures: their text cannot be read (${namedPages(pictures)})`;
    notes.push(["document-missing", many]);
  }
  if (garbled.length) {
    const which = garbled.length === 1 ? namedPages(garbled) : counted(garbled.length, "page");
    const listed = garbled.length === 1 ? "" : ` (${namedPages(garbled)})`;
    const layers = garbled.length === 1 ? `the text layer of ${which} is` : `the text layers of ${which} are`;
    notes.push(["document-missing", `${layers} unreadable: text recognition (OCR) is needed${listed}`]);
  }
  if (unreadable.length) {
    notes.push(["document-missing", `${counted(unreadable.length, "page")} unreadable (${namedPages(unreadable)})`]);
  }
  if (recognised.length) {
    const how = recognised.length === 1 ? "was recognised in a picture" : "were recognised in pictures";
    notes.push(["document-note", `${namedPages(recognised)} ${how} (OCR) and may have errors`]);
  }
  if (encoding) notes.push(["document-note", `encoding not certain, read as ${encoding}`]);
  return notes;
}

function lossOf({ name, kept_bytes: bytes, conversation_count: conversations }) {
  const kept = bytes ? ` and what the model keeps of it (${byteCount(bytes)})` : "";
  const losing =
    conversations > 0 ? ` ${counted(conversations, "conversation")} ${conversations === 1 ? "loses" : "lose"} it.` : "";
  return `Remove “${name}” for good? Its file and text${kept} go.${losing}`;
}
