import assert from "node:assert/strict";
import { test } from "node:test";

import "./fake-page.mjs";
import { hasEnded, takeEvent } from "../../assets/js/race/race-client.js";
import { Film, noteOf } from "../../assets/js/race/race-film.js";
import { attentionOf, draftStrip, draftWords, draftsOf, Lane, nameOf, percent } from "../../assets/js/race/race-lane.js";

function token(at_s, text = "a") {
  return { at_s, text };
}

function race() {
  return { state: "running", tokens: { dense: [], quest: [] }, result: null };
}

test("events add their tokens once, in their order", () => {
  const own = race();
  const first = { tokens: [{ side: "quest", number: 0, token: token(0.1) }] };
  const second = { tokens: [{ side: "quest", number: 1, token: token(0.2) }], state: "finished" };
  assert.ok(takeEvent(own, first));
  assert.ok(takeEvent(own, first));
  assert.ok(takeEvent(own, second));
  assert.deepEqual(own.tokens.quest.map(({ at_s: at }) => at), [0.1, 0.2]);
  assert.equal(own.state, "finished");
});

test("an event after one that was missed is not taken", () => {
  const own = race();
  assert.equal(takeEvent(own, { tokens: [{ side: "dense", number: 1, token: token(1) }] }), false);
  assert.deepEqual(own.tokens.dense, []);
});

test("the last text of a side is put right, if it has any", () => {
  const own = race();
  takeEvent(own, { tokens: [{ side: "quest", number: 0, token: token(0.1, "cit") }] });
  takeEvent(own, { tokens: [], last_texts: { quest: "city", dense: "" } });
  assert.equal(own.tokens.quest[0].text, "city");
});

test("a race is over when it is finished, stopped or failed", () => {
  const states = ["waiting", "reading", "running", "finished", "stopped", "failed"];
  assert.deepEqual(states.filter((state) => hasEnded({ state })), ["finished", "stopped", "failed"]);
});

function lane(times, finished = null) {
  const made = Object.create(Lane.prototype);
  const result = finished === null ? null : { quest: { finished_s: finished } };
  return Object.assign(made, { side: "quest", times, race: { result } });
}

test("a lane has so many tokens at a time, those of that moment included", () => {
  const { tokensAt } = Lane.prototype;
  const own = lane([0.5, 1, 1, 2]);
  assert.deepEqual([0, 0.5, 0.99, 1, 1.5, 9].map((at) => tokensAt.call(own, at)), [0, 1, 1, 3, 3, 4]);
  assert.equal(tokensAt.call(lane([]), 1), 0);
});

test("a lane ends with its result, or with its last token so far", () => {
  assert.equal(lane([]).endS, 0);
  assert.equal(lane([0.5, 2]).endS, 2);
  assert.equal(lane([0.5, 2], 2.25).endS, 2.25);
});

test("the film lasts until the slower lane has finished", () => {
  assert.equal(Object.assign(Object.create(Film.prototype), { lanes: [lane([1], 3), lane([2], 5)] }).endS, 5);
});

test("the light of a page is the share of it that the word looked at", () => {
  const own = Object.assign(Object.create(Lane.prototype), { race: { text: { pages: [{}, {}] } }, looked: [25] });
  assert.deepEqual(own.shares(), [0.25, 0]);
  assert.deepEqual(Object.assign(own, { looked: "all" }).shares(), [1, 1]);
  assert.deepEqual(Object.assign(own, { looked: null }).shares(), [0, 0]);
});

const ROUNDS = [[0, 0], [0, 0], [3, 2], [0, 0], [0, 0], [4, 0], [0, 0]];
const exact = { attention: "exact", tokens: { quest: ROUNDS.map(([drafted, accepted]) => ({ drafted, accepted })) } };

test("the second lane is what the race says, and Quest's in files that do not say it", () => {
  const names = [exact, { attention: "quest" }, {}].map((one) => nameOf(one, "quest"));
  assert.deepEqual(names, ["Exact", "Quest", "Quest"]);
  assert.equal(attentionOf(exact, "dense"), "dense");
});

test("the first tokens of a round are its accepted drafts", () => {
  const { drafted, accepted, wasDrafted } = draftsOf(exact.tokens.quest);
  assert.deepEqual([drafted, accepted], [7, 2]);
  assert.deepEqual(wasDrafted, [false, false, true, true, false, false, false]);
});

test("the strip of an exact lane has a cell for each token, those to come unlit", () => {
  const { cells, shares, words } = draftStrip(exact, 4, 6);
  assert.equal(cells.length, 6);
  assert.deepEqual(shares.map((share) => share > 0.5), [false, false, true, true, false, false]);
  assert.deepEqual(shares.map((share) => share > 0), [true, true, true, true, false, false]);
  assert.equal(words, "2 of 3 drafts accepted, in full colour");
  assert.deepEqual([draftWords(0, 0, 4), draftWords(0, 0, 0)], ["Nothing drafted", ""]);
});

test("a note tells what is read, then what the race is over", () => {
  const progress = { done_tokens: 500, total_tokens: 2000, remaining_s: null };
  assert.equal(noteOf({ state: "reading", progress }), "Reading once for both: 500 of 2,000 tokens");
  const part = { text_tokens: 1000, document_tokens: 6310 };
  assert.equal(noteOf({ state: "finished", text: part }), "Over 1,000 of the 6,310 tokens of the text");
  const whole = { text_tokens: 900, document_tokens: 900 };
  assert.match(noteOf({ state: "running", text: whole }), /^Over the whole text, 900 tokens\. Both share one device/);
  assert.equal(noteOf({ state: "finished", text: { text_tokens: 0, document_tokens: 0 } }), "Without a document");
});

test("a share below one in a hundred has a decimal", () => {
  const told = [0, 0.004, 0.0094, 0.0095, 0.154, 1].map(percent);
  assert.deepEqual(told, ["0 %", "0.4 %", "0.9 %", "1 %", "15 %", "100 %"]);
});
