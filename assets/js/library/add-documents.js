// The head of the library: "Add documents", what is being added, and what could not be.
//
// One file after the other, so that an upload takes one of the few connections that a browser allows; those that can be
// read are added, the others are named, with what to do.

import { withConversation } from "../chat/conversation.js";
import { sendDocument } from "./document-upload.js";
import { lookAgain } from "./library.js";
import { button, make, setName, setText } from "../desk/list-rows.js";
import { counted } from "../wording.js";

const FOLDER = "is a folder. Open it and drop the documents in it.";
const CAN_BE_READ = "What can be read:";

export class AddDocuments extends HTMLElement {
  connectedCallback() {
    if (this.input) return;
    this.waiting = [];
    this.total = 0;
    this.input = make("input", { type: "file", multiple: true, accept: this.getAttribute("accept"), tabIndex: -1 });
    this.input.setAttribute("aria-hidden", "true");
    this.input.addEventListener("change", () => {
      this.take([...this.input.files]);
      // So that the same file can be chosen again.
      this.input.value = "";
    });
    const add = button("Add documents", () => this.input.click());
    add.className = "add-documents";
    add.title = `Add documents to this chat, or drop them anywhere. ${CAN_BE_READ} ${this.getAttribute("supported")}`;
    const head = make("div", { className: "list-head" }, ...this.children, add);
    this.adding = make("div", { className: "adding", hidden: true });
    this.addingText = make("span");
    this.progress = make("progress", { max: 1 });
    this.progress.setAttribute("aria-label", "Adding documents");
    const stop = button("Stop", () => this.stop(), "Stop adding documents");
    this.adding.append(this.addingText, stop, this.progress);
    this.problems = make("div", { className: "add-problems", hidden: true });
    this.problems.setAttribute("role", "alert");
    this.said = make("p", { className: "only-read-out" });
    this.said.setAttribute("role", "status");
    this.replaceChildren(head, this.input, this.adding, this.problems, this.said);
  }

  /** Files and folders that were dropped on the page. */
  takeDropped(transfer) {
    const files = [];
    const folders = [];
    for (const item of transfer.items) {
      if (item.kind !== "file") continue;
      const entry = item.webkitGetAsEntry?.();
      if (entry?.isDirectory) folders.push(entry.name);
      else if (item.getAsFile()) files.push(item.getAsFile());
    }
    this.take(files, folders);
  }

  /** Add files, one after the other; returns when all of these are added or refused. */
  async take(files, folders = []) {
    if (!files.length && !folders.length) return;
    const isFirst = !this.isBusy;
    if (isFirst) this.begin();
    // Of the chat that is open now, whichever is open when their turn comes.
    const conversation = withConversation("");
    this.waiting.push(...files.map((file) => ({ file, conversation })));
    this.total += files.length;
    for (const name of folders) this.refuse(`"${name}" ${FOLDER}`);
    if (isFirst) await this.work();
  }

  begin() {
    this.isBusy = true;
    this.stopping = new AbortController();
    this.refusals = [];
    this.notes = [];
    this.supported = "";
    this.added = [];
    this.total = 0;
    this.showProblems();
  }

  async work() {
    const mostBytes = Number(this.getAttribute("most-bytes"));
    for (let number = 1; this.waiting.length && !this.stopping.signal.aborted; number += 1) {
      const next = this.waiting.shift();
      const { file } = next;
      const [conversationId] = await next.conversation;
      this.showAdding(file.name, number, 0);
      const onProgress = (share) => this.showAdding(file.name, number, share);
      try {
        const added = await sendDocument(file, conversationId, { mostBytes, onProgress, signal: this.stopping.signal });
        this.added.push(added.name);
        if (added.note) this.notes.push(added.note);
        // The server tells of it, too, but no sooner.
        lookAgain();
      } catch (error) {
        if (error.name === "AbortError") this.waiting.unshift(next);
        else this.refuse(error.message, error.supported);
      }
    }
    this.end();
  }

  end() {
    const left = this.waiting.splice(0);
    if (left.length) this.refuse(`Stopped: ${counted(left.length, "file was", "files were")} not added.`);
    const hadFocus = this.adding.contains(document.activeElement);
    this.adding.hidden = true;
    if (hadFocus) this.querySelector(".add-documents").focus();
    this.isBusy = false;
    setText(this.said, this.added.length ? `Added: ${this.added.join(", ")}.` : "");
    this.showProblems();
  }

  stop() {
    this.stopping.abort();
  }

  refuse(message, supported = "") {
    this.refusals.push(message);
    this.supported ||= supported;
    this.showProblems();
  }

  showAdding(name, number, share) {
    const which = this.total > 1 ? `${number} of ${this.total}: ` : "";
    setText(this.addingText, `Adding ${which}${name}`);
    this.addingText.title = name;
    this.progress.value = share;
    this.adding.hidden = false;
  }

  showProblems() {
    const sentences = [...this.refusals, ...this.notes];
    // Without the endings, which take more room than they tell.
    if (this.supported) sentences.push(`${CAN_BE_READ} ${this.supported.replaceAll(/ \([^)]*\)/g, "")}.`);
    this.problems.hidden = !sentences.length;
    this.problems.classList.toggle("is-hint", !this.refusals.length);
    if (!sentences.length) return this.problems.replaceChildren();
    const close = button("✕", () => {
      this.problems.hidden = true;
      this.querySelector(".add-documents").focus();
    });
    setName(close, "Close this message");
    this.problems.replaceChildren(close, ...sentences.map((textContent) => make("p", { textContent })));
  }
}
