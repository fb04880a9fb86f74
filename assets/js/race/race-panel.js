// The Race tab: a question box, the races that are kept, and the film or the chart of one of them.
//
// A custom element with a shadow root, because Gradio patches what stands below its own elements. A race belongs to the
// server: this shows what has come, from the start after a reload, and from the tab's telemetry while it runs. While a
// film is on stage, it lies over the conversation: document.documentElement.dataset.race is "stage".

import { currentConversation } from "../chat/conversation.js";
import { saveFile, savePicture } from "./race-picture.js";
import { Film, FILM_MARKUP } from "./race-film.js";
import { RaceForm, FORM_MARKUP } from "./race-form.js";
import { fetchRace, fetchRaces, hasEnded, raceFile, startRace, stopRace, takeEvent } from "./race-client.js";
import { Sweep, SWEEP_MARKUP } from "./race-sweep.js";

const STYLE_SHEET = new URL("../../css/race-panel.css", import.meta.url);
const MARKUP = `
  <style>:host > main { visibility: hidden; }</style>
  <link rel="stylesheet" href="${STYLE_SHEET}">
  <main>
    <header data-part="head" hidden>
      <button type="button" data-part="back">‹ Races</button>
      <button type="button" data-part="stage" aria-pressed="false">Full width</button>
      <span></span>
      <button type="button" data-part="stop">Stop</button>
      <button type="button" data-part="picture" aria-label="Save as picture">Picture</button>
      <button type="button" data-part="file" aria-label="Save as JSON">JSON</button>
    </header>
    ${FORM_MARKUP}${FILM_MARKUP}${SWEEP_MARKUP}
  </main>`;

export class RacePanel extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    const root = this.attachShadow({ mode: "open" });
    root.innerHTML = MARKUP;
    const parts = (this.parts = Object.fromEntries(
      [...root.querySelectorAll("[data-part]")].map((one) => [one.dataset.part, one]),
    ));
    this.film = new Film(parts, [...root.querySelectorAll(".lane")]);
    this.sweep = new Sweep(parts);
    this.form = new RaceForm(parts, {
      tokenBudget: this.getAttribute("token-budget"),
      onStart: (request) => this.start(request),
      onOpen: (raceId) => this.openKept(raceId),
    });
    this.race = null;
    parts.back.addEventListener("click", () => this.close());
    parts.stage.addEventListener("click", () => this.takeStage(!this.onStage));
    parts.stop.addEventListener("click", () => stopRace(this.conversationId, this.race.race_id));
    parts.picture.addEventListener("click", () => savePicture(this.race, this));
    parts.file.addEventListener("click", () => saveFile(raceFile(this.conversationId, this.race.race_id), this.race));
    root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.onStage) return;
      event.stopPropagation();
      this.takeStage(false);
    });
    window.addEventListener("quest-opened", () => this.look());
    window.addEventListener("quest-changed", () => this.look());
    window.addEventListener("quest-library", () => this.form.isShown && this.look());
    window.addEventListener("quest-race-event", ({ detail }) => this.hear(detail));
    window.addEventListener("quest-race", ({ detail }) => this.ask(detail));
    window.addEventListener("quest-side-shown", ({ detail }) => this.seen(detail.tab));
    const stage = new MutationObserver(() => this.followStage());
    stage.observe(document.documentElement, { attributeFilter: ["data-race"] });
    this.look();
  }

  get onStage() {
    return document.documentElement.dataset.race === "stage";
  }

  /** What is kept, and the race that runs, if one does. */
  async look() {
    const conversationId = currentConversation();
    const isOther = conversationId !== this.conversationId;
    if (isOther) {
      this.conversationId = conversationId;
      this.close();
      this.form.begin(conversationId);
    }
    if (!conversationId) return;
    const kept = await fetchRaces(conversationId);
    if (!kept || conversationId !== this.conversationId) return;
    this.form.show(kept);
    const { latest } = kept;
    if (latest && !hasEnded(latest) && this.race?.race_id !== latest.race_id) this.open(latest, false);
  }

  /** A question from elsewhere: at once if it was asked before, else into the box. */
  ask({ question, turn_id: turnId }) {
    window.dispatchEvent(new CustomEvent("quest-show-side", { detail: { tab: "race" } }));
    this.close();
    this.form.fill(question, turnId);
    if (turnId) this.form.start();
  }

  async start(request) {
    if (!this.conversationId) {
      await new Promise((opened) => window.addEventListener("quest-opened", opened, { once: true }));
    }
    const conversationId = this.conversationId;
    const { race, error } = await startRace(conversationId, request);
    if (conversationId !== this.conversationId) return;
    if (error) this.form.refuse(error);
    else {
      this.open(race, true);
      // A short race may have been told of, to its end, before the answer was here.
      this.catchUp();
    }
  }

  async openKept(raceId) {
    const race = await fetchRace(this.conversationId, raceId);
    if (race) this.open(race, true);
    else this.look();
  }

  open(race, takesStage) {
    this.race = race;
    this.wasLeft = false;
    const isFilm = race.kind === "race";
    this.form.hide();
    this.parts.head.hidden = false;
    this.parts.film.hidden = !isFilm;
    this.parts.sweep.hidden = isFilm;
    (isFilm ? this.film : this.sweep).open(race);
    this.showState();
    const { side, sideTab } = document.documentElement.dataset;
    const isSeen = side === "open" && sideTab === "race";
    this.takeStage(isFilm && (takesStage || isSeen));
    if (takesStage) this.parts.back.focus();
  }

  /** Back to the question box. */
  close() {
    this.takeStage(false);
    this.film.pause();
    this.race = null;
    for (const name of ["head", "film", "sweep"]) this.parts[name].hidden = true;
    this.form.unhide();
  }

  takeStage(takes) {
    const root = document.documentElement;
    if (takes === this.onStage) return;
    if (takes) root.dataset.race = "stage";
    else delete root.dataset.race;
  }

  /** The stage was taken, or left by whatever way: the desk says what can be reached (desk.js). */
  followStage() {
    const { side, sideTab } = document.documentElement.dataset;
    this.wasLeft = !this.onStage;
    this.parts.stage.setAttribute("aria-pressed", String(this.onStage));
    this.parts.stage.textContent = this.onStage ? "Beside the chat" : "Full width";
    if (this.onStage || side === "open") {
      const tab = this.onStage ? "race" : sideTab;
      window.dispatchEvent(new CustomEvent("quest-show-side", { detail: { tab } }));
    } else document.getElementById("chat-zone")?.toggleAttribute("inert", false);
  }

  /** Another tab of the right zone was chosen, or this one. */
  seen(tab) {
    if (tab !== "race") this.takeStage(false);
    else if (this.race?.kind === "race" && !hasEnded(this.race) && !this.wasLeft) this.takeStage(true);
    else if (!this.race) this.look();
  }

  hear(event) {
    if (event.race_id !== this.race?.race_id) {
      this.look();
      return;
    }
    this.toldMeanwhile?.push(event);
    if (takeEvent(this.race, event)) this.redraw();
    else this.catchUp();
  }

  async catchUp() {
    if (this.toldMeanwhile) return;
    const toldMeanwhile = (this.toldMeanwhile = []);
    const raceId = this.race.race_id;
    const race = await fetchRace(this.conversationId, raceId);
    this.toldMeanwhile = null;
    if (raceId !== this.race?.race_id) {
      // Another was opened meanwhile, and has waited for this.
      if (this.race) this.catchUp();
      return;
    }
    if (!race) return;
    for (const event of toldMeanwhile) takeEvent(race, event);
    this.race = race;
    (race.kind === "race" ? this.film : this.sweep).open(race);
    this.showState();
  }

  /** Once a frame at the most. */
  redraw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (!this.race) return;
      (this.race.kind === "race" ? this.film : this.sweep).update();
      this.showState();
      if (hasEnded(this.race)) this.look();
    });
  }

  showState() {
    const { race, parts } = this;
    const ended = hasEnded(race);
    parts.stop.hidden = ended;
    parts.picture.hidden = parts.file.hidden = !ended || race.state === "failed";
    parts.stage.hidden = race.kind !== "race";
  }
}
