// What the answer of this tab has looked at so far: one state, put together from the telemetry, for all that shows it.
//
// Whoever shows it hears "quest-reading" on the window, at most once a frame. While an answer is made, the server is
// gone or the model loads, "quest-live-state" {state} tells of each change: "idle", "waiting", "reading", "answering",
// "lost".

import { server } from "../streams/connection.js";
import { decodeBytes } from "./telemetry.js";

/**
 * `state`, `stateText`: what goes on. `queued`, `prefill`, `step`, `end`: the last event of each kind of the present
 * answer, or null. `closed`: why the conversation is not there, "" if it is. `documents`: as the server lists the pages
 * in context. `pages`: the same without their documents, each {documentId, name, index, label}. `heat`: a byte for each
 * of them, or null; `heatOf`: "selection" or "attention".
 */
export const reading = {};

// How the end of an answer is called; any other is just "Finished".
const ENDINGS = { cancelled: "Stopped", failed: "Failed" };
// What is said of a model that is not there, while nothing goes on.
const SERVER_STATES = { starting: "Loading the model", loading: "Loading the model", failed: "No model" };
// The byte of a page's usual level, and how many more are twice as much; 0 is not known. See app/chat/answers/reads/live_reading.py.
const USUAL_LEVEL = 128;
const LEVELS_A_DOUBLING = 24;

let conversation = "";
let told = "";
let frame = null;
let listing = 0;

/** Begin to follow the telemetry. */
export function followReading() {
  forget();
  window.addEventListener("quest-telemetry", ({ detail }) => take(detail));
  window.addEventListener("quest-opened", ({ detail }) => open(detail.conversationId));
  window.addEventListener("quest-server", tell);
}

/** How many times as much as usual each page was looked at; null where it is not known. */
export function factors() {
  return reading.heat ? Array.from(reading.heat, (level) => (level ? 2 ** ((level - USUAL_LEVEL) / LEVELS_A_DOUBLING) : null)) : null;
}

/** Whether an answer is being made. */
export function isRunning() {
  return ["waiting", "reading", "answering"].includes(reading.state);
}

function open(conversationId) {
  conversation = conversationId;
  forget();
  tell();
}

function forget() {
  Object.assign(reading, { state: "idle", stateText: "Idle", closed: "", documents: [], pages: [] });
  forgetAnswer();
}

function forgetAnswer() {
  Object.assign(reading, { queued: null, prefill: null, step: null, end: null, heat: null, heatOf: "selection" });
}

function take(event) {
  const { type } = event;
  if (type === "queued" || type === "prefill") takeBeginning(event);
  else if (type === "step") takeStep(event);
  else if (type === "finished") takeEnd(event);
  else if (type === "idle") takeIdle(event);
  else if (type === "closed") Object.assign(reading, { state: "idle", stateText: "Closed", closed: event.sentence });
  else return;
  tell();
}

function takeBeginning(event) {
  if (!isRunning() || reading.step) {
    forgetAnswer();
    list();
  }
  reading[event.type] = event;
  const ahead = event.jobs_ahead;
  if (event.type === "prefill") Object.assign(reading, { state: "reading", stateText: event.already_read ? "Answering" : "Reading" });
  else Object.assign(reading, { state: "waiting", stateText: ahead > 0 ? `Waiting, ${ahead} ahead` : "Starting" });
}

function takeStep(event) {
  // Who comes in the middle of an answer has heard nothing of its beginning.
  if (!isRunning()) list();
  Object.assign(reading, { state: "answering", stateText: "Answering", step: event, end: null });
  if (event.heat) takeHeat(event.heat, "selection");
}

function takeEnd(event) {
  Object.assign(reading, { state: "idle", stateText: ENDINGS[event.finish_reason] ?? "Finished", end: event });
  if (event.heat) takeHeat(event.heat, event.heat_of);
}

/** After a reload the last answer's figures are still there, after a restart of the server some of them. */
function takeIdle(event) {
  Object.assign(reading, { state: "idle", stateText: "Idle" });
  forgetAnswer();
  if (event.end) takeEnd(event.end);
  list();
}

function takeHeat(heat, heatOf) {
  reading.heat = decodeBytes(heat);
  reading.heatOf = heatOf;
}

/** Ask which document pages are in context. */
async function list() {
  const asked = ++listing;
  const found = await fetchPages(conversation);
  if (asked !== listing || !found) return;
  reading.documents = found.documents;
  reading.pages = found.documents.flatMap(({ document_id: documentId, name, pages }) =>
    pages.map(([index, label]) => ({ documentId, name, index, label })),
  );
  if (found.end && !reading.end && !isRunning()) takeEnd(found.end);
  tell();
}

async function fetchPages(conversationId) {
  try {
    const response = await fetch(`conversations/${encodeURIComponent(conversationId)}/document-pages`);
    return response.ok ? await response.json() : null;
  } catch {
    // The server has stopped; the page says so by its connection.
    return null;
  }
}

function tell() {
  const state = server.reachable ? reading.state : "lost";
  if (state !== told) {
    told = state;
    window.dispatchEvent(new CustomEvent("quest-live-state", { detail: { state } }));
  }
  // A hidden tab draws no frames, and need not.
  frame ??= requestAnimationFrame(() => {
    frame = null;
    window.dispatchEvent(new Event("quest-reading"));
  });
}

/** What goes on, unless the server or the model cannot do anything: [state, text]. */
export function shownState() {
  if (!server.reachable) return ["lost", "Not connected"];
  if (reading.state === "idle" && server.stage in SERVER_STATES) return ["idle", SERVER_STATES[server.stage]];
  return [reading.state, reading.stateText];
}
