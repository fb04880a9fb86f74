// The line above the question: what it says, and what it offers.

import assert from "node:assert/strict";
import test from "node:test";

import "./fake-page.mjs";

const { obstacle } = await import("../../assets/js/streams/connection-line.js");

const READY = { reachable: true, asksForKey: false, stage: "ready", message: "", engine: "" };

test("without an obstacle there is nothing to say", () => {
  assert.deepEqual(obstacle(READY), { text: "", offersModels: false });
  assert.equal(obstacle({ ...READY, stage: "loading", message: "Reading" }).text, "");
});

test("in place of a model that cannot be loaded another is offered", () => {
  const { text, offersModels } = obstacle({ ...READY, stage: "failed", message: "The folder is empty." });
  assert.equal(text, "There is no model: The folder is empty.");
  assert.ok(offersModels);
});

test("in place of another engine no model is offered, but how to start without it", () => {
  const message = "http://engine:1 cannot be reached. It is asked again every 5 seconds, by itself.";
  const { text, offersModels } = obstacle({ ...READY, stage: "failed", message, engine: "http://engine:1" });
  assert.ok(text.startsWith(message) && text.includes("without --engine-url") && !text.includes("There is no model"));
  assert.ok(!offersModels);
});

test("a server that is gone comes before all", () => {
  const gone = { ...READY, reachable: false, stage: "failed" };
  assert.match(obstacle(gone).text, /cannot be reached/);
  assert.match(obstacle({ ...gone, asksForKey: true }).text, /another key/);
});
