import assert from "node:assert/strict";
import { test } from "node:test";

import { detailsOf, lossOf, notesOf, stateOf } from "../../assets/js/library/document-wording.js";

const BOOK = { name: "a.pdf", file_name: "a.pdf", state: "read", page_count: 12, tokens: "1,204" };

function inChat(reading) {
  return stateOf({ ...BOOK, in_conversation: true, reading });
}

test("a document that is read for the model has a share and the time that is left", () => {
  const reading = { stage: "model", share: 0.42, remaining_s: 65 };
  const text = "12 pages, 1,204 tokens, being read 42 %, 1 min 5 s left";
  assert.deepEqual(inChat(reading), { text, share: 0.42, look: "reading" });
  assert.equal(inChat({ ...reading, share: 1 }).text, "12 pages, 1,204 tokens, being read 100 %");
});

test("a document is told as read only in the chat that it is in", () => {
  assert.equal(inChat({ stage: "read" }).text, "12 pages, 1,204 tokens, read");
  assert.deepEqual(stateOf({ ...BOOK, reading: { stage: "read" } }), { text: "12 pages, 1,204 tokens", look: "idle" });
});

test("what failed is said without the name that stands above it", () => {
  assert.equal(stateOf({ ...BOOK, state: "failed", message: '"a.pdf" is damaged.' }).text, "Failed: Damaged.");
  assert.equal(stateOf({ ...BOOK, state: "failed", message: "No room." }).text, "Failed: No room.");
  assert.equal(stateOf({ ...BOOK, state: "locked" }).text, "Locked: it needs its password.");
});

test("a text that is being extracted has a bar, without an end as long as nobody knows it", () => {
  const known = stateOf({ ...BOOK, state: "reading", progress: 0.4 });
  assert.deepEqual(known, { text: "Being read 40 %", share: 0.4, look: "reading" });
  assert.equal(stateOf({ ...BOOK, state: "reading" }).share, null);
});

test("pages that are pictures are named, or counted and named", () => {
  assert.deepEqual(notesOf({ ...BOOK, picture_pages: ["3"] }), [
    ["picture", "page 3 is a picture: its text cannot be read"],
  ]);
  assert.deepEqual(notesOf({ ...BOOK, picture_pages: ["3", "4"] }), [
    ["picture", "2 pages are pictures: their text cannot be read (pages 3 and 4)"],
  ]);
  assert.deepEqual(notesOf(BOOK), []);
});

test("details leave out what is not known", () => {
  const names = detailsOf({ ...BOOK, conversation_count: 1 }).map(([name, text]) => `${name}: ${text}`);
  const length = "Length: 12 pages, 1,204 tokens";
  assert.deepEqual(names, ["File: a.pdf", length, "Used in: 1 chat", "Kept by the model: nothing"]);
});

test("who removes a document is told what goes with it", () => {
  assert.equal(lossOf({ ...BOOK, conversation_count: 0 }), "Remove “a.pdf” for good? Its file and text go.");
  const loss = lossOf({ ...BOOK, kept_bytes: 2 << 20, conversation_count: 2 });
  assert.ok(loss.endsWith("text and what the model keeps of it (2.0 MiB) go. 2 chats lose it."));
});
