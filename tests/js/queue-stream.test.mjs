import assert from "node:assert/strict";
import { test } from "node:test";

import { QueueStream } from "../../assets/js/streams/queue-stream.js";

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

/** An event is asked for, and the answer is there at once. */
function take(stream, eventId) {
  stream.asked();
  stream.taken(eventId);
}

test("an event taken after the server closed the stream, and before that is heard, is told of", () => {
  const { stream, connections, heard } = streamed();
  take(stream, "first");
  connections[0].onText(message("process_completed", "first"));
  // Here the server closes the stream and takes another; its answer is quicker.
  take(stream, "second");
  connections[0].onText(CLOSE);
  assert.equal(connections.length, 2);
  assert.equal(connections[1].address, "/queue/data?session_hash=a");
  connections[1].onText(message("process_completed", "second"));
  assert.equal(heard.text, message("process_completed", "first") + message("process_completed", "second"));
  assert.deepEqual(heard.ends, []);
});

test("the client never hears that the server has closed the stream", () => {
  const { stream, connections, heard } = streamed();
  take(stream, "one");
  connections[0].onText(message("process_completed", "one") + CLOSE);
  connections[0].onEnd(false);
  assert.equal(heard.text, message("process_completed", "one"));
  assert.deepEqual(heard.ends, []);
  assert.ok(connections[0].isClosed);
});

test("there is no connection while nothing is pending, and one with the next event", () => {
  const { stream, connections } = streamed();
  take(stream, "one");
  take(stream, "two");
  assert.equal(connections.length, 1);
  connections[0].onText(message("process_completed", "one") + message("process_completed", "two") + CLOSE);
  assert.equal(connections.length, 1);
  take(stream, "three");
  assert.equal(connections.length, 2);
});

test("messages that are quicker than the answer to their request wait, and so do all after them", () => {
  const { stream, connections, heard } = streamed();
  take(stream, "one");
  stream.asked();
  stream.asked();
  const [first, early, last] = ["one", "two", "three"].map((id) => message("process_generating", id));
  connections[0].onText(first + early + last);
  assert.equal(heard.text, first);
  stream.taken("three");
  assert.equal(heard.text, first);
  connections[0].onText(message("process_completed", "two"));
  stream.taken("two");
  assert.equal(heard.text, first + early + last + message("process_completed", "two"));
});

test("an event that has ended before its request was answered is not waited for afterwards", () => {
  const { stream, connections } = streamed();
  take(stream, "one");
  stream.asked();
  connections[0].onText(message("process_completed", "two") + message("process_completed", "one") + CLOSE);
  stream.taken("two");
  assert.ok(connections[0].isClosed);
  assert.equal(connections.length, 1);
});

test("nobody waits for a request that was refused", () => {
  const { stream, connections, heard } = streamed();
  take(stream, "one");
  stream.asked();
  const other = message("process_generating", "of nobody here");
  connections[0].onText(other);
  assert.equal(heard.text, "");
  stream.refused();
  assert.equal(heard.text, other);
});

test("the end of a connection comes after its messages that wait", () => {
  const { stream, connections, heard } = streamed();
  take(stream, "one");
  stream.asked();
  connections[0].onText(message("process_generating", "two"));
  connections[0].onEnd(true);
  assert.deepEqual(heard.ends, []);
  stream.taken("two");
  assert.equal(heard.text, message("process_generating", "two"));
  assert.deepEqual(heard.ends, [true]);
});

test("without an event there is nothing to wait for", () => {
  const { stream, connections, heard } = streamed();
  stream.asked();
  connections[0].onText(message("heartbeat", null));
  assert.equal(heard.text, message("heartbeat", null));
});

test("messages come whole, wherever the connection cuts them", () => {
  const { stream, connections, heard } = streamed();
  take(stream, "one");
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
  take(stream, "one");
  const words = message("process_generating", "one", { output: { data: ['{"msg":"close_stream"}'] } });
  connections[0].onText(words);
  assert.equal(heard.text, words);
  assert.ok(!connections[0].isClosed);
});

test("a connection that breaks with an event pending is broken to the client, once", () => {
  const { stream, connections, heard } = streamed();
  take(stream, "one");
  connections[0].onEnd(true);
  connections[0].onEnd(true);
  assert.deepEqual(heard.ends, [true]);
});

test("a connection that ends without a word is a broken one", () => {
  const { stream, connections, heard } = streamed();
  take(stream, "one");
  connections[0].onEnd(false);
  assert.deepEqual(heard.ends, [true]);
});

test("a connection that breaks with nothing pending is replaced with the next event", () => {
  const { stream, connections, heard } = streamed();
  connections[0].onEnd(true);
  assert.deepEqual(heard.ends, []);
  take(stream, "one");
  connections[1].onText(message("process_completed", "one"));
  assert.equal(heard.text, message("process_completed", "one"));
});

test("of a connection that was given up nothing is heard any more", () => {
  const { stream, connections, heard, leave } = streamed();
  take(stream, "one");
  leave();
  assert.ok(connections[0].isClosed);
  connections[0].onText(message("process_completed", "one"));
  connections[0].onEnd(true);
  take(stream, "two");
  assert.equal(connections.length, 1);
  assert.equal(heard.text, "");
  assert.deepEqual(heard.ends, []);
});

test("to the client the stream begins once", () => {
  const { stream, connections, heard } = streamed();
  connections[0].onStart(200);
  take(stream, "one");
  connections[0].onText(message("process_completed", "one") + CLOSE);
  take(stream, "two");
  connections[1].onStart(200);
  assert.deepEqual(heard.status, [200]);
  assert.deepEqual(heard.ends, []);
});

test("a later connection that is refused is a broken one", () => {
  const { stream, connections, heard } = streamed();
  connections[0].onStart(200);
  take(stream, "one");
  connections[0].onText(message("process_completed", "one") + CLOSE);
  take(stream, "two");
  connections[1].onStart(404);
  assert.deepEqual(heard.ends, [true]);
});
