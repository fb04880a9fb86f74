import assert from "node:assert/strict";
import { test } from "node:test";

import { heard, server, settled } from "./fake-page.mjs";
import { server as connection } from "../../assets/js/streams/connection.js";
import { factors, followReading, isRunning, reading, shownState } from "../../assets/js/reading/reading-state.js";
import { percent, readingSentence, smallPrint } from "../../assets/js/reading/reading-words.js";
import { decodeBytes } from "../../assets/js/reading/telemetry.js";

const PAGES = "conversations/a/document-pages";
const FIGURES = { context_tokens: 10000, attended_tokens: 1024, mean_missed_share: 0.12, layers: 30, kv_heads: 3 };
const STEP = { type: "step", step: 3, attention: "quest", ...FIGURES };

server.answers[PAGES] = { documents: [{ document_id: "d", name: "a.pdf", pages: [[0, "i"], [1, "1"]] }], end: null };
followReading();

function take(event) {
  window.dispatchEvent(new CustomEvent("quest-telemetry", { detail: event }));
}

function base64(...bytes) {
  return btoa(String.fromCharCode(...bytes));
}

// One tab, from its opening on: each test goes on where the one before has ended.

test("an answer goes from waiting through reading to its words", () => {
  const states = heard("quest-live-state");
  window.dispatchEvent(new CustomEvent("quest-opened", { detail: { conversationId: "a" } }));
  take({ type: "queued", jobs_ahead: 2 });
  assert.deepEqual([reading.state, reading.stateText, isRunning()], ["waiting", "Waiting, 2 ahead", true]);
  take({ type: "prefill", done_tokens: 500, total_tokens: 2000, remaining_s: 3 });
  assert.equal(readingSentence(reading), "Reads the text first: 500 of 2,000 tokens, about 3 s left.");
  take(STEP);
  assert.deepEqual(states.map(({ state }) => state), ["idle", "waiting", "reading", "answering"]);
});

test("the pages in context are asked for once an answer", async () => {
  await settled();
  assert.deepEqual(server.asked, [PAGES]);
  assert.deepEqual(reading.pages.map(({ label }) => label), ["i", "1"]);
});

test("bytes of heat are times the usual level, and 0 is not known", () => {
  take({ ...STEP, heat: base64(0, 128, 152, 104) });
  assert.deepEqual(factors(), [null, 1, 2, 0.5]);
  assert.deepEqual([...decodeBytes(base64(0, 255))], [0, 255]);
});

test("a step says how much it looked at and what it skipped", () => {
  const looks = "For each word the model looks at 1,024 of 10,000 tokens (10 %)";
  assert.equal(readingSentence(reading), `${looks} and skips an estimated 12 % of its attention.`);
  const token = "A token is a word or part of one; each of 90 heads chooses its own.";
  assert.equal(smallPrint(reading, "1.2"), `${token} On novels the true share was 1.2 times the estimate.`);
});

test("almost all is all, and dense attention needs no reason", () => {
  const all = { ...STEP, attended_tokens: 9960 };
  const short = "For each word the model looks at all 10,000 tokens: the text is short enough for that.";
  assert.equal(readingSentence({ state: "answering", step: all }), short);
  assert.equal(
    readingSentence({ state: "answering", step: { ...all, attention: "dense" } }),
    "For each word the model looks at all 10,000 tokens.",
  );
  assert.equal(
    readingSentence({ state: "answering", step: { ...all, attention: "auto" } }),
    "For each word the model looks at all 10,000 tokens: at this length that is not slower.",
  );
  const plain = "A token is a word or part of one; the model looks anew for each.";
  assert.equal(smallPrint({ step: { ...all, attention: "auto" }, end: null }, "1.2"), plain);
});

test("a choice that was made to be faster says so", () => {
  const print = smallPrint({ step: { ...STEP, attention: "auto", mean_missed_share: null }, end: null }, "1.2");
  assert.equal(
    print,
    "A token is a word or part of one; each of 90 heads chooses its own. At this length looking at all would be slower.",
  );
});

test("of speculative decoding it is told how many drafts were accepted", () => {
  const exact = { ...STEP, attention: "exact", attended_tokens: 10000, mean_missed_share: null };
  const looks = "For each word the model looks at all 10,000 tokens.";
  const drafted = { ...exact, drafted_tokens: 1091, accepted_tokens: 73 };
  assert.equal(readingSentence({ state: "answering", step: drafted }), `${looks} 73 of 1,091 drafted tokens accepted.`);
  const none = { ...exact, drafted_tokens: 0, accepted_tokens: 0 };
  assert.equal(readingSentence({ state: "answering", step: none }), looks);
  assert.equal(smallPrint({ step: drafted }, "1.2"), "A token is a word or part of one; the model looks anew for each.");
});

test("the end of an answer is called by its reason", () => {
  take({ type: "finished", finish_reason: "cancelled" });
  assert.deepEqual([reading.state, reading.stateText, isRunning()], ["idle", "Stopped", false]);
  assert.equal(readingSentence(reading), "Stopped before the model had looked anywhere.");
});

test("the next answer forgets what the last one looked at", () => {
  take({ type: "queued", jobs_ahead: 0 });
  assert.deepEqual([reading.step, reading.end, factors()], [null, null, null]);
});

test("a server that is gone comes before what goes on", () => {
  connection.reachable = false;
  assert.deepEqual(shownState(), ["lost", "Not connected"]);
  connection.reachable = true;
  assert.deepEqual(shownState(), ["waiting", "Starting"]);
});

test("a conversation that is closed says why", () => {
  take({ type: "closed", sentence: "There is no such conversation." });
  assert.equal(readingSentence(reading), "There is no such conversation.");
});

test("small shares have a decimal, the smallest a bound", () => {
  assert.deepEqual([0.0004, 0.045, 0.0996, 0.15].map(percent), ["less than 0.1 %", "4.5 %", "10 %", "15 %"]);
});
