// A chat before its first question: the questions to begin with, and how far its documents are read.
//
// Both stand in a message that Python makes (`ui/chat/start_message.py`); how far reading is comes with the library's list.

import { library } from "../library/library.js";
import { duration } from "../wording.js";

/** Ask a question to begin with when it is pressed. */
export function askFromStart() {
  document.addEventListener("click", ({ target, detail }) => {
    const button = target.closest?.("#messages .start button[data-ask]");
    // Of a double click, the first.
    if (!button || detail > 1) return;
    window.dispatchEvent(new CustomEvent("quest-ask", { detail: { question: button.textContent } }));
  });
}

/** One line, and a bar while there is something to wait for. Its height is kept either way. */
export class ReadingLine extends HTMLElement {
  connectedCallback() {
    this.listener ??= () => this.show();
    window.addEventListener("quest-library-shown", this.listener);
    this.show();
  }

  disconnectedCallback() {
    window.removeEventListener("quest-library-shown", this.listener);
  }

  show() {
    const own = library.documents.filter((one) => one.in_conversation && one.reading);
    const { text, share } = told(own);
    if (this.told === text && this.share === share) return;
    Object.assign(this, { told: text, share });
    const bar = document.createElement("progress");
    Object.assign(bar, { max: 1, value: share ?? 0, ariaLabel: "Read" });
    this.replaceChildren(Object.assign(document.createElement("span"), { textContent: text }), ...(share === null ? [] : [bar]));
  }
}

function told(own) {
  const reads = own.find(({ reading }) => reading.stage === "text" || reading.stage === "model");
  if (reads) {
    const { share, remaining_s: left } = reads.reading;
    const rest = left ? `, ${duration(left)} left` : "";
    return { text: `Read so far: ${Math.round(100 * share)} %${rest}`, share };
  }
  const waits = own.find(({ reading }) => reading.stage === "waiting");
  if (waits) return { text: waits.reading.message || "Read as soon as other work is done", share: null };
  if (own.some(({ reading }) => reading.stage === "passages")) {
    return { text: "Longer than the model can hold at once: each question is given the passages that fit it.", share: null };
  }
  return { text: "", share: null };
}
