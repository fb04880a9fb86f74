// The Race tab while no race is shown: what a race is, the question box, how long it will take, and the races kept.
//
// What is typed is kept per conversation in the browser until it is raced.

import { counted, duration, number, when } from "../wording.js";

const BUDGETS = [128, 256, 512, 1024, 2048, 4096];
const ANSWER_TOKENS = [32, 64, 128, 256, 512];
// Who races against dense attention, and whose budget it is.
const ABOUT = {
  quest: "and by Quest, which looks at the part that matters",
  exact:
    "and by Exact, which drafts some words from the part that matters and checks them together against the whole text",
};
const LOOKS = { quest: "Quest looks", exact: "Drafts look" };
const DRAFTS_KEY = "quest-chat-race-drafts";
const KEPT_DRAFTS = 20;

export const FORM_MARKUP = `
  <form class="race-form" data-part="form">
    <h2>Race</h2>
    <p>One question, answered twice at the same time: by dense attention, which looks at the whole text for each word,
      <span data-part="about"></span>. You see both write at their true speed.</p>
    <label class="race-label" for="race-question">Question</label>
    <textarea id="race-question" data-part="box" rows="3" maxlength="20000"
      placeholder="A question about the text"></textarea>
    <p class="race-turn" data-part="turn" hidden>As it was asked, after what came before it.
      <button type="button" data-part="forget">Ask it anew</button></p>
    <div class="race-choices">
      <label>Dense attention against <select data-part="attention"><option value="quest">Quest</option>
        <option value="exact">Exact</option></select></label>
      <label><span data-part="looks"></span> at <select data-part="budget">${options(BUDGETS)}</select> tokens</label>
      <label>Answers of up to <select data-part="length">${options(ANSWER_TOKENS)}</select> tokens</label>
    </div>
    <label class="race-longer" data-part="longer" hidden><input type="checkbox" data-part="window">
      <span data-part="longerText"></span></label>
    <p class="race-quiet" data-part="outlook" aria-live="polite">&nbsp;</p>
    <p class="race-error" data-part="error" role="alert" hidden></p>
    <div class="race-buttons">
      <button type="submit" class="main">Start the race</button>
      <button type="button" data-part="startSweep">Compare budgets</button>
    </div>
    <p class="race-quiet" data-part="sweepNote"></p>
    <section data-part="keptSection" hidden><h3>Kept races</h3><ul class="race-kept" data-part="kept"></ul></section>
  </form>`;

function options(values) {
  return values.map((value) => `<option value="${value}">${number(value)}</option>`).join("");
}

export class RaceForm {
  constructor(parts, { tokenBudget, onStart, onOpen }) {
    this.parts = parts;
    this.onStart = onStart;
    this.onOpen = onOpen;
    this.conversationId = "";
    this.turnId = "";
    this.outlook = null;
    parts.budget.value = tokenBudget;
    parts.length.value = "128";
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
    });
    parts.startSweep.addEventListener("click", () => this.start(true));
    parts.forget.addEventListener("click", () => {
      this.setTurn("");
      keepDraft(this.conversationId, parts.box.value);
    });
    parts.box.addEventListener("input", () => {
      this.setTurn("");
      keepDraft(this.conversationId, parts.box.value);
    });
    parts.box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.start();
    });
    parts.attention.addEventListener("change", () => {
      this.chosen = true;
      this.tellAttention();
      this.tellOutlook();
    });
    this.tellAttention();
    for (const part of ["length", "window"]) parts[part].addEventListener("change", () => this.tellOutlook());
  }

  get isShown() {
    return !this.parts.form.hidden;
  }

  hide() {
    this.parts.form.hidden = true;
  }

  unhide() {
    this.parts.form.hidden = false;
    // A question from elsewhere has been raced: the draft that it stood in for comes back.
    if (this.turnId && this.parts.error.hidden) this.restore();
  }

  restore() {
    this.parts.box.value = drafts()[this.conversationId] ?? "";
    this.setTurn("");
  }

  /** Another conversation. */
  begin(conversationId) {
    // What was typed before the server had opened one belongs to it.
    const typed = this.conversationId ? "" : this.parts.box.value;
    this.conversationId = conversationId;
    this.chosen = false;
    this.parts.box.value = typed || (drafts()[conversationId] ?? "");
    if (typed) keepDraft(conversationId, typed);
    this.parts.window.checked = false;
    this.setTurn("");
    this.refuse("");
  }

  fill(question, turnId) {
    this.parts.box.value = question;
    if (!turnId) keepDraft(this.conversationId, question);
    this.setTurn(turnId);
    this.refuse("");
    if (!turnId) this.parts.box.focus();
  }

  setTurn(turnId) {
    this.turnId = turnId;
    this.parts.turn.hidden = !turnId;
  }

  /** Show what is kept, and what a race would be. */
  show({ races, outlook }) {
    this.outlook = outlook;
    this.followPreset();
    this.parts.keptSection.hidden = !races.length;
    this.parts.kept.replaceChildren(...races.map((race) => this.keptRow(race)));
    this.tellOutlook();
  }

  /** What the page's preset reads races, until somebody chooses otherwise. */
  followPreset() {
    if (this.chosen) return;
    const preset = document.querySelector("#attention input:checked")?.value ?? this.outlook?.attention;
    this.parts.attention.value = preset === "exact" ? "exact" : "quest";
    this.tellAttention();
  }

  tellAttention() {
    const { about, attention, looks } = this.parts;
    about.textContent = ABOUT[attention.value];
    looks.textContent = LOOKS[attention.value];
  }

  keptRow(race) {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    const title = document.createElement("b");
    title.textContent = race.question;
    const note = document.createElement("span");
    const what = race.kind === "sweep" ? "Budgets" : race.headline || "Race";
    note.textContent = `${what} · ${race.state === "failed" ? race.sentence : race.state} · ${when(race.asked_at)}`;
    button.append(title, note);
    button.addEventListener("click", () => this.onOpen(race.race_id));
    row.append(button);
    return row;
  }

  tellOutlook() {
    const { parts, outlook } = this;
    if (!outlook) return;
    const longer = outlook.ready && outlook.window_tokens;
    parts.longer.hidden = !longer;
    if (longer) {
      const time =
        outlook.reading_s === null
          ? "how long that takes is not known yet"
          : `that takes about ${duration(outlook.reading_s)}`;
      parts.longerText.textContent =
        `Over as much of the text as the window holds: ${number(outlook.window_tokens)} of ` +
        `${number(outlook.document_tokens)} tokens instead of passages of ${number(outlook.text_tokens)}. It is read ` +
        `first, once for both; ${time}.`;
    }
    const tokens = Number(parts.length.value);
    if (!outlook.ready) parts.outlook.textContent = "The model is being loaded; a race will wait for it.";
    else {
      const wholeS = parts.attention.value === "exact" ? outlook.exact_race_s : outlook.race_s;
      const raceS = wholeS === null ? null : (wholeS * tokens) / outlook.max_new_tokens;
      const time =
        raceS === null
          ? "How long it takes is not known before the first."
          : `Takes about ${duration(raceS)}, less if the answers are shorter.`;
      parts.outlook.textContent =
        outlook.mode === "none" ? `Without a document both have little to look at. ${time}` : time;
    }
    const sweepS = outlook.ready && outlook.sweep_s !== null
      ? ` in about ${duration(outlook.sweep_s + this.budgets().length * outlook.sweep_s_per_budget)}`
      : "";
    parts.sweepNote.textContent =
      `Compare budgets measures${sweepS}, for ${counted(this.budgets().length, "budget")}, how fast Quest is and how ` +
      "often it chooses the same words as dense attention. Either leaves the conversation as it is.";
  }

  /** Those that leave something out; the least where none does. */
  budgets() {
    const tokens = this.parts.window.checked ? this.outlook?.window_tokens : this.outlook?.text_tokens;
    const fewer = BUDGETS.filter((budget) => !tokens || budget < tokens);
    return fewer.length ? fewer : BUDGETS.slice(0, 1);
  }

  start(isSweep = false) {
    const { parts } = this;
    const question = parts.box.value.trim();
    if (!question) {
      this.refuse("Write a question first.");
      parts.box.focus();
      return;
    }
    this.refuse("");
    // The preset may have changed since the form was filled, and the server not have answered yet.
    this.followPreset();
    this.onStart({
      question,
      turn_id: this.turnId,
      whole_window: !parts.longer.hidden && parts.window.checked,
      options: {
        attention: parts.attention.value,
        token_budget: Number(parts.budget.value),
        max_new_tokens: Number(parts.length.value),
      },
      budgets: isSweep ? this.budgets() : [],
    });
  }

  /** Say why there is no race; "" takes that back. */
  refuse(sentence) {
    this.parts.error.textContent = sentence;
    this.parts.error.hidden = !sentence;
  }
}

function drafts() {
  try {
    return JSON.parse(localStorage.getItem(DRAFTS_KEY)) ?? {};
  } catch {
    return {};
  }
}

function keepDraft(conversationId, text) {
  if (!conversationId) return;
  const { [conversationId]: _, ...others } = drafts();
  const kept = Object.entries(text ? { ...others, [conversationId]: text } : others).slice(-KEPT_DRAFTS);
  localStorage.setItem(DRAFTS_KEY, JSON.stringify(Object.fromEntries(kept)));
}
