import assert from "node:assert/strict";
import { test } from "node:test";

import "./fake-page.mjs";
import { AnswerCitation, circled, signals } from "../../assets/js/chat/answer-citation.js";

test("numbers are circled as far as there are such characters", () => {
  assert.deepEqual([1, 9, 20, 21].map(circled), ["①", "⑨", "⑳", "(21)"]);
});

test("the two signals are told apart, and what is not known is not told", () => {
  assert.deepEqual(signals({ text_score: 0.8, read_score: null }), ["The text supports this sentence."]);
  const looked = "The model looked here (3.2 times as much as usual).";
  assert.deepEqual(signals({ text_score: 0, read_score: 3.24 }), [looked]);
  const both = signals({ text_score: 0.1, read_score: 1.1 });
  assert.equal(both[1], "The model did not look here more than usual (1.1 times as much as usual).");
  assert.deepEqual(signals({ text_score: 0 }), []);
});

/** A citation in a message, whose answer's row stands so many messages below. */
function citation(attributes, citations, far = 1) {
  const row = { sources: { citations } };
  let message = { querySelector: () => row, nextElementSibling: null };
  for (let between = 0; between < far; between++) message = { querySelector: () => null, nextElementSibling: message };
  const made = Object.assign(new AnswerCitation(), { closest: () => message, number: Number(attributes.number) });
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

test("of two sources with a number, a citation has the one at its place", () => {
  const citations = [{ number: 1, page_label: "5" }, { number: 2 }, { number: 1, page_label: "9" }];
  assert.equal(citation({ number: 1, place: 2 }, citations).source.page_label, "9");
  assert.equal(citation({ number: 1, place: 0 }, citations).source.page_label, "5");
});

test("a citation without a place, or at one of another number, has the first of its number", () => {
  const citations = [{ number: 1 }, { number: 2, page_label: "7" }];
  assert.equal(citation({ number: 2 }, citations).source.page_label, "7");
  assert.equal(citation({ number: 2, place: 0 }, citations).source.page_label, "7");
  assert.equal(citation({ number: 3 }, citations).source, undefined);
});

test("the row is found below the thought, and not in another answer far below", () => {
  assert.notEqual(citation({ number: 1 }, [{ number: 1 }], 3).row, null);
  assert.equal(citation({ number: 1 }, [{ number: 1 }], 4).row, null);
});
