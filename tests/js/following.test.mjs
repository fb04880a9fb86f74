import assert from "node:assert/strict";
import { test } from "node:test";

import { settled } from "./fake-page.mjs";
import { showConversation } from "../../assets/js/chat/conversation.js";
import { followConversation, lookAgain } from "../../assets/js/chat/following.js";

const TOGETHER_MS = 60;
const looks = [];
let isListening = true;
window.addEventListener("quest-follow", (event) => {
  if (!isListening) return;
  event.preventDefault();
  looks.push(event.detail);
});
followConversation();

// One tab, from its opening on: each test goes on where the one before has ended.

async function looksAfter(happens) {
  looks.length = 0;
  happens();
  await settled(TOGETHER_MS);
  return looks.map(({ conversation_id: id }) => id);
}

function tell(name) {
  return () => window.dispatchEvent(new Event(name));
}

function see(hidden) {
  document.hidden = hidden;
  document.dispatchEvent(new Event("visibilitychange"));
}

test("before there is a conversation nothing is looked at", async () => {
  assert.deepEqual(await looksAfter(lookAgain), []);
});

test("a conversation that opens before somebody listens is looked at as soon as somebody does", async () => {
  isListening = false;
  assert.deepEqual(await looksAfter(() => showConversation("a")), []);
  isListening = true;
  assert.deepEqual(await looksAfter(tell("quest-follow-ready")), ["a"]);
  assert.deepEqual(await looksAfter(tell("quest-follow-ready")), []);
});

test("what comes together is one look, and each look has a greater number", async () => {
  const together = ["quest-changed", "quest-changed", "quest-opened"];
  assert.deepEqual(await looksAfter(() => together.forEach((name) => tell(name)())), ["a"]);
  const { number } = looks[0];
  assert.deepEqual(await looksAfter(tell("quest-changed")), ["a"]);
  assert.ok(looks[0].number > number);
});

test("a hidden tab looks when somebody sees it, once for all that has changed", async () => {
  see(true);
  assert.deepEqual(await looksAfter(tell("quest-changed")), []);
  assert.deepEqual(await looksAfter(tell("quest-changed")), []);
  assert.deepEqual(await looksAfter(() => see(false)), ["a"]);
  assert.deepEqual(await looksAfter(() => see(true)), []);
  assert.deepEqual(await looksAfter(() => see(false)), []);
});
