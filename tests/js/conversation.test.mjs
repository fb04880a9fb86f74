import assert from "node:assert/strict";
import { test } from "node:test";

import { heard, settled } from "./fake-page.mjs";
import * as tab from "../../assets/js/chat/conversation.js";

// One tab, from its opening on: each test goes on where the one before has ended.

test("a tab whose address names no conversation asks for whichever, and waits for it", async () => {
  assert.equal(tab.wantedConversation(), "");
  assert.equal(tab.currentConversation(), "");
  const values = tab.withConversation("", "Where?");
  const opened = heard("quest-opened");
  tab.showConversation("a");
  assert.deepEqual(await values, ["a", "Where?"]);
  assert.deepEqual(opened, [{ before: "", conversationId: "a" }]);
});

test("the first conversation takes the place of an address without one", () => {
  assert.deepEqual(history.steps, [["replace", "/?c=a"]]);
  assert.equal(tab.wantedConversation(), "a");
});

test("a conversation that is shown already is not opened again", () => {
  const opened = heard("quest-opened");
  tab.showConversation("a");
  assert.deepEqual(opened, []);
});

test("what is asked while another is opened is meant for that one", async () => {
  const wanted = heard("quest-open");
  const [leaving, arrived] = [heard("quest-leaving"), heard("quest-arrived")];
  tab.openConversation("b");
  assert.deepEqual(wanted, [{ conversation_id: "b" }]);
  assert.ok(tab.isLeaving());
  const values = tab.withConversation("a", "Who?");
  tab.showConversation("b");
  assert.deepEqual(await values, ["b", "Who?"]);
  assert.ok(!tab.isLeaving());
  assert.deepEqual([leaving.length, arrived.length], [1, 1]);
});

test("who names no conversation means the one that is shown, not the tab's first", async () => {
  assert.deepEqual(await tab.withConversation(""), ["b"]);
  assert.deepEqual(await tab.withPresentConversation("", 1), ["b", 1]);
});

test("what acts in the conversation that is shown does not wait for another", async () => {
  tab.leaveConversation();
  assert.deepEqual(await tab.withPresentConversation("b", 1), ["b", 1]);
  assert.ok(tab.isLeaving());
});

test("a server that answers with the same conversation ends the leaving", async () => {
  const arrived = heard("quest-arrived");
  tab.arrive("c");
  assert.deepEqual(arrived, []);
  tab.arrive("b");
  await settled();
  assert.equal(arrived.length, 1);
  assert.ok(!tab.isLeaving());
});

test("later conversations are steps that Back takes again", () => {
  assert.deepEqual(history.steps.at(-1), ["push", "/?c=b"]);
  tab.followAddress();
  const wanted = heard("quest-open");
  location.href = "http://127.0.0.1:7860/?c=a";
  window.dispatchEvent(new Event("popstate"));
  assert.deepEqual(wanted, [{ conversation_id: "a" }]);
  tab.showConversation("a");
  assert.equal(history.steps.length, 2);
});

test("an address keeps what else stands in it", () => {
  location.href = "http://127.0.0.1:7860/?theme=dark&c=a";
  assert.equal(tab.addressOf("d e"), "/?theme=dark&c=d+e");
});
