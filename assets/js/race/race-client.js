// Races of a conversation as the server keeps them (app/web/race_routes.py), and what its events add to one.
//
// docs/race.md says what the fields are.

/** All that is kept: {races, latest, outlook}; null if the server cannot say. */
export async function fetchRaces(conversationId) {
  return (await asked(base(conversationId))).content;
}

/** One race with all that has come so far, or null. */
export async function fetchRace(conversationId, raceId) {
  return (await asked(`${base(conversationId)}/${encodeURIComponent(raceId)}`)).content;
}

/** Begin a race or a sweep: {race} or {error}. */
export async function startRace(conversationId, request) {
  const { content, error } = await asked(base(conversationId), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
  });
  return content ? { race: content } : { error };
}

/** Ask a race to stop; its last event tells when it has. */
export function stopRace(conversationId, raceId) {
  return asked(`${base(conversationId)}/${encodeURIComponent(raceId)}/stop`, { method: "POST" });
}

/** The address of a race as a file. */
export function raceFile(conversationId, raceId) {
  return `${base(conversationId)}/${encodeURIComponent(raceId)}/file`;
}

export function hasEnded(race) {
  return ["finished", "stopped", "failed"].includes(race.state);
}

/** Add to a race what an event tells; false if something before it was missed. */
export function takeEvent(race, event) {
  for (const { side, number, token } of event.tokens) {
    const tokens = race.tokens[side];
    if (number > tokens.length) return false;
    if (number === tokens.length) tokens.push(token);
  }
  for (const name of ["state", "message", "progress", "setting", "text", "result", "points", "answer"]) {
    if (name in event) race[name] = event[name];
  }
  for (const [side, text] of Object.entries(event.last_texts ?? {})) {
    if (race.tokens[side].length) race.tokens[side].at(-1).text = text;
  }
  return true;
}

function base(conversationId) {
  return `conversations/${encodeURIComponent(conversationId)}/races`;
}

async function asked(address, options) {
  try {
    const response = await fetch(address, options);
    const content = await response.json();
    if (response.ok) return { content };
    return { content: null, error: content.error ?? "That could not be done. Reload the page." };
  } catch {
    return { content: null, error: "Quest Chat cannot be reached. Is it still running?" };
  }
}
