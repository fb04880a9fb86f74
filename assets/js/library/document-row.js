// A row of the library: a document or a sample book, its tick, how far it is read, and what can be done with it.

import { detailsOf, lossOf, notesOf, stateOf } from "./document-wording.js";
import { act, library } from "./library.js";
import { button, make, moreButton, renameInPlace, setName, setText } from "../desk/list-rows.js";
import { namedPages } from "../wording.js";

export class DocumentRow {
  constructor() {
    this.tick = make("input", { type: "checkbox" });
    this.tick.addEventListener("change", () => this.include());
    this.name = button("", () => this.openPages());
    this.name.className = "document-name";
    this.title = make("span");
    this.name.append(this.title);
    this.state = make("p", { className: "document-state" });
    this.progress = make("progress", { max: 1 });
    this.notes = make("div", { className: "document-notes" });
    this.found = button("", () => this.openPages());
    this.found.className = "document-found";
    this.retry = this.doing("Try again", "retry_document");
    this.recognise = this.doing("Recognise text", "recognise_document");
    this.stop = this.doing("Stop", "stop_recognising_document");
    this.password = this.passwordForm();
    this.actions = make("div", { className: "row-actions", hidden: true });
    this.open = button("Show its pages", () => this.openPages());
    this.details = make("dl", { className: "row-details", hidden: true });
    const details = button("Details", () => this.showDetails());
    const remove = button("Remove from the library", () => this.ask());
    this.actions.append(this.open, button("Rename", () => this.rename()), details, remove);
    this.menu = moreButton(this.actions);
    this.question = make("div", { className: "row-question", hidden: true });
    this.element = make(
      "li",
      {},
      make("div", { className: "row-head" }, make("label", { className: "row-tick" }, this.tick), this.name, this.menu.more),
      make(
        "div",
        { className: "row-body" },
        this.state,
        this.progress,
        this.notes,
        make("div", { className: "row-doing" }, this.retry, this.recognise, this.stop),
        this.password,
        this.found,
        this.actions,
        this.details,
        this.question,
      ),
    );
  }

  /** A button in plain sight, for a state in which there is one thing to do. */
  doing(text, action) {
    const made = button(text, () => this.act(action));
    made.className = "row-do";
    return made;
  }

  update(data) {
    this.data = data;
    // Also if nothing has changed: what somebody has ticked may have been refused. What is told of the time before it is
    // done would undo it for a moment, and a further click would mean the contrary.
    if (library.isSettled || !this.key) this.tick.checked = Boolean(data.in_conversation);
    const key = JSON.stringify(data);
    if (key === this.key) return;
    this.key = key;
    const focused = this.element.contains(document.activeElement) ? document.activeElement : null;
    const { name } = data;
    const isSample = data.state === "sample";
    setText(this.title, name);
    this.name.title = data.file_name && data.file_name !== name ? `${name} (${data.file_name})` : name;
    const canOpen = data.state === "read";
    if (canOpen) this.name.removeAttribute("aria-disabled");
    else this.name.setAttribute("aria-disabled", "true");
    setName(this.tick, `Include ${name} in this chat`);
    this.menu.more.hidden = isSample;
    setName(this.menu.more, `More for ${name}`);
    this.open.hidden = !canOpen;
    this.showState(stateOf(data));
    this.showNotes(notesOf(data));
    this.found.hidden = !data.snippet;
    setText(this.found, data.snippet ? `${data.page_label ? `${namedPages([data.page_label])}: ` : ""}${data.snippet}` : "");
    this.showDoings();
    this.showPassword(data.state === "locked");
    if (!this.details.hidden) this.fillDetails();
    // What was clicked may have nothing to do any more.
    if (focused && focused.offsetParent === null) (isSample ? this.tick : this.menu.more).focus();
  }

  showState({ text, share, look }) {
    setText(this.state, text);
    this.element.dataset.look = look;
    this.element.dataset.state = this.data.state;
    this.element.classList.toggle("in-chat", Boolean(this.data.in_conversation));
    this.progress.classList.toggle("is-idle", share === undefined);
    if (share == null) this.progress.removeAttribute("value");
    else this.progress.value = share;
    this.progress.setAttribute("aria-label", `Reading ${this.data.name}`);
    this.progress.setAttribute("aria-hidden", String(share === undefined));
  }

  showDoings() {
    const { name, state, recognition, can_be_recognised: canBeRecognised } = this.data;
    const isRecognising = recognition != null;
    this.recognise.hidden = !canBeRecognised || isRecognising;
    setName(this.recognise, `Recognise text in pictures of ${name} (OCR)`);
    this.stop.hidden = !isRecognising;
    setName(this.stop, `Stop recognising text in ${name}`);
    // To read a scan again would find as little.
    this.retry.hidden = state !== "failed" || canBeRecognised || isRecognising;
    setName(this.retry, `Try to read ${name} again`);
  }

  showNotes(notes) {
    const key = JSON.stringify(notes);
    if (this.notesKey === key) return;
    this.notesKey = key;
    this.notes.replaceChildren(...notes.map(([look, text]) => make("p", { dataset: { look }, textContent: text })));
  }

  include() {
    const isWanted = this.tick.checked;
    if (this.data.state === "sample") this.act("add_sample_document");
    else this.act(isWanted ? "attach_document" : "take_out_document");
  }

  openPages() {
    if (this.data.state !== "read") return;
    this.menu.close();
    const { document_id: documentId, page_label: pageLabel } = this.data;
    document.dispatchEvent(new CustomEvent("quest-open-page", { detail: { documentId, pageLabel } }));
  }

  passwordForm() {
    const box = make("input", { type: "password", autocomplete: "off", required: true, placeholder: "Password" });
    const form = make("form", { className: "row-password", hidden: true }, box, make("button", { textContent: "Open" }));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.act("unlock_document", { password: box.value });
      box.value = "";
      box.focus();
    });
    return form;
  }

  showPassword(isLocked) {
    this.password.hidden = !isLocked;
    this.password.querySelector("input").setAttribute("aria-label", `Password of ${this.data.name}`);
  }

  showDetails() {
    this.details.hidden = false;
    this.fillDetails();
    this.menu.close();
    this.menu.more.focus();
  }

  fillDetails() {
    const close = button("Close", () => {
      this.details.hidden = true;
      this.menu.more.focus();
    }, `Close the details of ${this.data.name}`);
    close.className = "row-do";
    const pairs = detailsOf(this.data);
    const key = JSON.stringify(pairs);
    if (this.detailsKey === key) return;
    this.detailsKey = key;
    const told = pairs.map(([term, text]) =>
      make("div", {}, make("dt", { textContent: term }), make("dd", { textContent: text })),
    );
    this.details.replaceChildren(...told, make("div", {}, make("dt"), make("dd", {}, close)));
  }

  rename() {
    this.menu.close();
    const { name } = this.data;
    renameInPlace(this.name, name, `New name of ${name}`, (given) => this.act("rename_document", { name: given }));
  }

  /** Ask once, and name what goes with it. */
  ask() {
    this.menu.close();
    this.details.hidden = true;
    const leave = button("Keep", () => {
      this.question.hidden = true;
      this.menu.more.focus();
    });
    const remove = button("Remove", () => {
      this.question.hidden = true;
      this.menu.more.focus();
      this.act("remove_document");
    });
    remove.className = "row-remove";
    this.question.replaceChildren(make("p", { textContent: lossOf(this.data) }), remove, leave);
    this.question.hidden = false;
    leave.focus();
    this.question.scrollIntoView({ block: "nearest" });
  }

  act(action, values) {
    act(action, { document_id: this.data.document_id, ...values });
  }
}
