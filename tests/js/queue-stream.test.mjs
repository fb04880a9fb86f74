import assert from "node:assert/strict";
import { test } from "node:test";

import { QueueStream } from "../../assets/js/queue-stream.js";

const CLOSE = message("close_stream", null);

function message(msg, eventId, rest = {}) {
  return `data: ${JSON.stringify({ msg, event_id: eventId, ...rest })}\n\n`;
}

/** A stream, and its connections: the listeners of each, and whether it is closed. */
function streamed() {
  const connections = [];
  const stream = new QueueStream((address, listeners) => {
    const connection = { address, ...listeners, isClosed: false };
    connections.push(connection);
    return () => (connection.isClosed = true);
  });
  const heard = { status: [], text: "", ends: [] };
  const leave = stream.hear("/queue/data?session_hash=a", {
    onStart: (status) => heard.status.push(status),
    onText: (text) => (heard.text += text),
    onEnd: (isBroken) => heard.ends.push(isBroken),
  });
  return { stream, connections, heard, leave };
}

test("an event taken after the server closed the stream, and before that is heard, is told of", () => {
  const { stream, connections, heard } = streamed();
  stream.taken("first");
  connections[0].onText(message("process_completed", "first"));
  // Here the server closes the stream and takes another; its answer is quicker.
  stream.taken("second");
  connections[0].onText(CLOSE);
  assert.equal(connections.length, 2);
  assert.equal(connections[1].address, "/queue/data?session_hash=a");
  connections[1].onText(message("process_completed", "second"));
  assert.equal(heard.text, message("process_completed", "first") + message("process_completed", "second"));
  assert.deepEqual(heard.ends, []);
});

test("the client never hears that the server has closed the stream", () => {
  const { stream, connections, heard } = streamed();
  stream.taken("one");
  connections[0].onText(message("process_completed", "one") + CLOSE);
  connections[0].onEnd(false);
  assert.equal(heard.text, message("process_completed", "one"));
  assert.deepEqual(heard.ends, []);
  assert.ok(connections[0].isClosed);
});

test("there is no connection while nothing is pending, and one with the next event", () => {
  const { stream, connections } = streamed();
  stream.taken("one");
  stream.taken("two");
  assert.equal(connections.length, 1);
  connections[0].onText(message("process_completed", "one") + message("process_completed", "two") + CLOSE);
  assert.equal(connections.length, 1);
  stream.taken("three");
  assert.equal(connections.length, 2);
});

test("an event that has ended before its request was answered is not waited for", () => {
  const { stream, connections } = streamed();
  stream.taken("one");
  connections[0].onText(message("process_completed", "two") + message("process_completed", "one"));
  stream.taken("two");
  connections[0].onText(CLOSE);
  assert.equal(connections.length, 1);
});

test("messages come whole, wherever the connection cuts them", () => {
  const { stream, connections, heard } = streamed();
  stream.taken("one");
  const words = message("process_generating", "one", { output: { data: ["a\n\nb", "}"] } });
  const text = words + message("process_completed", "one") + CLOSE;
  const parts = [];
  for (const character of text) {
    const before = heard.text.length;
    connections[0].onText(character);
    if (heard.text.length > before) parts.push(heard.text.slice(before));
  }
  assert.equal(parts.length, 2);
  assert.ok(parts.every((part) => part.startsWith("data: ") && part.endsWith("\n\n")));
  assert.ok(connections[0].isClosed);
});

test("words of an answer are no end of the stream", () => {
  const { stream, connections, heard } = streamed();
  stream.taken("one");
  const words = message("process_generating", "one", { output: { data: ['{"msg":"close_stream"}'] } });
  connections[0].onText(words);
  assert.equal(heard.text, words);
  assert.ok(!connections[0].isClosed);
});

test("a connection that breaks with an event pending is broken to the client, once", () => {
  const { stream, connections, heard } = streamed();
  stream.taken("one");
  connections[0].onEnd(true);
  connections[0].onEnd(true);
  assert.deepEqual(heard.ends, [true]);
});

test("a connection that ends without a word is a broken one", () => {
  const { stream, connections, heard } = streamed();
  stream.taken("one");
  connections[0].onEnd(false);
  assert.deepEqual(heard.ends, [true]);
});

test("a connection that breaks with nothing pending is replaced with the next event", () => {
  const { stream, connections, heard } = streamed();
  connections[0].onEnd(true);
  assert.deepEqual(heard.ends, []);
  stream.taken("one");
  connections[1].onText(message("process_completed", "one"));
  assert.equal(heard.text, message("process_completed", "one"));
});

test("of a connection that was given up nothing is heard any more", () => {
  const { stream, connections, heard, leave } = streamed();
  stream.taken("one");
  leave();
  assert.ok(connections[0].isClosed);
  connections[0].onText(message("process_completed", "one"));
  connections[0].onEnd(true);
  stream.taken("two");
  assert.equal(connections.length, 1);
  assert.equal(heard.text, "");
  assert.deepEqual(heard.ends, []);
});

test("to the client the stream begins once", () => {
  const { stream, connections, heard } = streamed();
  connections[0].onStart(200);
  stream.taken("one");
  connections[0].onText(message("process_completed", "one") + CLOSE);
  stream.taken("two");
  connections[1].onStart(200);
  assert.deepEqual(heard.status, [200]);
  assert.deepEqual(heard.ends, []);
});

test("a later connection that is refused is a broken one", () => {
  const { stream, connections, heard } = streamed();
  connections[0].onStart(200);
  stream.taken("one");
  connections[0].onText(message("process_completed", "one") + CLOSE);
  stream.taken("two");
  connections[1].onStart(404);
  assert.deepEqual(heard.ends, [true]);
});
