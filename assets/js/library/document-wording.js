// What is said of a document in its row: how far it is, what there is to know of its pages, its details.

import { byteCount, counted, duration, namedPages, number, when } from "../wording.js";

/**
 * What is said of how far a document is read.
 *
 * @returns `text`; `share`, of a bar, null for one without an end, undefined for none; `look`, by which the row is drawn.
 */
export function stateOf(data) {
  if (data.state === "sample") return { text: sampleText(data), look: "sample" };
  if (data.recognition != null) {
    const text = readingText(data.recognition, null, "Text is being recognised");
    return { text, share: data.recognition || null, look: "reading" };
  }
  if (data.state === "failed") return { text: `Failed: ${aboutIt(data)}`, look: "failed" };
  if (data.state === "locked") return { text: aboutIt(data) || "Locked: it needs its password.", look: "locked" };
  if (data.state === "reading") {
    return { text: readingText(data.progress, null), share: data.progress ?? null, look: "reading" };
  }
  return readState(data);
}

/** A document's message without the name that stands above it: `"a.pdf" is damaged.` is `Damaged.` there. */
function aboutIt({ message = "", name, file_name: fileName }) {
  for (const begin of [`"${name}" `, `"${fileName}" `]) {
    if (!message.startsWith(begin)) continue;
    const rest = message.slice(begin.length).replace(/^is /, "");
    return rest.charAt(0).toUpperCase() + rest.slice(1);
  }
  return message;
}

/** Of a document whose text is there. */
function readState(data) {
  const size = sizeOf(data);
  const reading = data.in_conversation ? data.reading : null;
  switch (reading?.stage) {
    case "model":
    case "text": {
      const text = `${size}, ${readingText(reading.share, reading.remaining_s, "being read")}`;
      return { text, share: reading.share, look: "reading" };
    }
    case "waiting":
      return { text: `${size}, waits to be read`, look: "waiting" };
    case "passages":
      return { text: `${size}, read in passages`, look: "read" };
    case "failed":
      return { text: `${size}. Not read ahead: ${reading.message}`, look: "failed" };
    case "read":
      return { text: `${size}, read`, look: "read" };
    default:
      return { text: size, look: "idle" };
  }
}

function readingText(share, remainingSeconds, verb = "Being read") {
  const part = share == null ? "" : ` ${Math.round(100 * share)} %`;
  const left = remainingSeconds == null || share >= 1 ? "" : `, ${duration(remainingSeconds)} left`;
  return `${verb}${part}${left}`;
}

function sizeOf({ page_count: pages, tokens }) {
  return [pages ? counted(pages, "page") : "", tokens ? `${tokens} tokens` : ""].filter(Boolean).join(", ");
}

function sampleText({ author, page_count: pages, reading }) {
  const size = [counted(pages, "page"), reading ? `${reading.tokens} tokens` : ""].filter(Boolean).join(", ");
  return `${author}. ${size}`;
}

/** What reading a sample book takes here, and what of it fits the window; nothing is guessed. */
function sampleNotes({ reading }) {
  if (!reading) return [["idle", "How long reading it takes is told when the model is loaded."]];
  const { fits, reading: first, window_tokens: windowTokens, window_share: share } = reading;
  const notes = [];
  if (!fits) {
    const given = `a question gets the passages that bear on it, up to ${Math.round(100 * share)} % of the book`;
    notes.push(["idle", `Longer than the model's window of ${number(windowTokens)} tokens: ${given}.`]);
  }
  const what = fits ? "it" : "those";
  if (!first) return [...notes, ["idle", `Time to read ${what}: not measured on this machine yet.`]];
  const least = first.is_least ? "more than" : "about";
  const since = first.is_of_this_run ? "" : ", as last measured";
  return [...notes, ["idle", `Time to read ${what}: ${least} ${roughly(first.seconds)}${since}.`]];
}

/** An estimate has no seconds beyond the first minutes. */
function roughly(seconds) {
  if (seconds < 10) return duration(seconds);
  if (seconds < 90) return `${5 * Math.round(seconds / 5)} s`;
  return `${number(Math.round(seconds / 60))} min`;
}

/** What there is to say of pages and encoding, each with how it is drawn. */
export function notesOf(data) {
  if (data.state === "sample") return sampleNotes(data);
  const { picture_pages: pictures = [], unreadable_pages: unreadable = [], assumed_encoding: encoding } = data;
  const { garbled_pages: garbled = [], recognised_pages: recognised = [] } = data;
  const notes = [];
  if (data.state === "read" && data.file_is_there === false) {
    const still = "its text is still here and is answered from, but its pages cannot be shown";
    notes.push(["missing", `Its file is gone from the data folder: ${still}. Add the file again to have them.`]);
  }
  if (data.recognition_message) notes.push(["failed", data.recognition_message]);
  if (pictures.length === 1) notes.push(["picture", `${namedPages(pictures)} is a picture: its text cannot be read`]);
  else if (pictures.length) {
    const many = `${counted(pictures.length, "page")} are pictures: their text cannot be read (${namedPages(pictures)})`;
    notes.push(["picture", many]);
  }
  if (garbled.length) {
    const which = garbled.length === 1 ? namedPages(garbled) : counted(garbled.length, "page");
    const listed = garbled.length === 1 ? "" : ` (${namedPages(garbled)})`;
    const layers = garbled.length === 1 ? `the text layer of ${which} is` : `the text layers of ${which} are`;
    notes.push(["picture", `${layers} unreadable: text recognition (OCR) is needed${listed}`]);
  }
  if (unreadable.length) {
    notes.push(["failed", `${counted(unreadable.length, "page")} unreadable (${namedPages(unreadable)})`]);
  }
  if (recognised.length) {
    const how = recognised.length === 1 ? "was recognised in a picture" : "were recognised in pictures";
    notes.push(["idle", `${namedPages(recognised)} ${how} (OCR) and may have errors`]);
  }
  if (encoding) notes.push(["idle", `encoding not certain, read as ${encoding}`]);
  return notes;
}

/** Names and values of a document's details. */
export function detailsOf(data) {
  const { conversation_count: conversations } = data;
  return [
    ["File", data.file_name],
    ["Size", data.file_bytes ? byteCount(data.file_bytes) : ""],
    ["Length", sizeOf(data)],
    ["Added", data.added_at ? when(data.added_at) : ""],
    ["Used in", conversations ? counted(conversations, "chat") : "no chat"],
    ["Kept by the model", data.kept_bytes ? byteCount(data.kept_bytes) : "nothing"],
  ].filter(([, text]) => text);
}

/** What goes with a document that is removed. */
export function lossOf({ name, kept_bytes: bytes, conversation_count: conversations }) {
  const kept = bytes ? ` and what the model keeps of it (${byteCount(bytes)})` : "";
  const losing = conversations > 0 ? ` ${counted(conversations, "chat")} ${conversations === 1 ? "loses" : "lose"} it.` : "";
  return `Remove “${name}” for good? Its file and text${kept} go.${losing}`;
}
