// Sends one file to the server, and says in words of ours why one could not be sent.
//
// Its bytes are the body of a request (`app/web/document_upload.py`), which looks at what they are; only what need not be
// sent to be known is said here.

import { byteCount } from "../wording.js";

const GONE = "Quest Chat cannot be reached. Is it still running? Drop the file again when it is.";
const UNREADABLE = "cannot be read from its place: it was moved or removed, or you may not open it.";

/** Why a file could not be added: a sentence, and where it is about the format, what can be read. */
export class UploadRefusal extends Error {
  constructor(message, supported = "") {
    super(message);
    this.supported = supported;
  }
}

/**
 * Send a file.
 *
 * @param file to send.
 * @param conversationId whose it becomes.
 * @param mostBytes what the server takes.
 * @param onProgress told the share that is sent.
 * @param signal breaks it off; the promise is then rejected with an AbortError.
 * @returns `{document_id, name, note}`.
 */
export async function sendDocument(file, conversationId, { mostBytes, onProgress, signal }) {
  const named = `"${file.name}"`;
  // A folder has a size of its own, or none, and cannot be read as a file: look before the size is spoken of.
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new UploadRefusal(`${named} ${UNREADABLE}`);
  }
  if (!file.size) throw new UploadRefusal(`${named} is empty. Check that it was saved or downloaded completely.`);
  if (file.size > mostBytes) {
    throw new UploadRefusal(
      `${named} has ${byteCount(file.size)}; at most ${byteCount(mostBytes)} are read. Split it into parts.`,
    );
  }
  const query = new URLSearchParams({ conversation: conversationId, name: file.name });
  return request(`library/documents?${query}`, file, onProgress, signal);
}

/** `fetch` does not tell how much is sent. */
function request(address, file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    const stop = () => sending.abort();
    sending.upload.addEventListener("progress", ({ loaded, total }) => total && onProgress(loaded / total));
    sending.addEventListener("load", () => {
      const answer = parsed(sending.responseText);
      if (answer?.document_id) resolve(answer);
      else reject(new UploadRefusal(answer?.error ?? refused(file, sending.status), answer?.supported));
    });
    sending.addEventListener("error", () => reject(new UploadRefusal(`"${file.name}" was not added. ${GONE}`)));
    sending.addEventListener("abort", () => reject(new DOMException("broken off", "AbortError")));
    sending.addEventListener("loadend", () => signal.removeEventListener("abort", stop));
    signal.addEventListener("abort", stop);
    sending.open("POST", address);
    sending.send(file);
  });
}

function refused(file, status) {
  return `"${file.name}" was not added: the server refused it (${status}). Reload the page and try again.`;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
