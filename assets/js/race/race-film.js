// The film of a race: two lanes on one clock, live as the words come, and afterwards as often as one likes.
//
// Both sides share one device, so that live the clock runs slower than any other; a replay runs at the true speed.

import { hasEnded } from "./race-client.js";
import { Lane, LANE_MARKUP } from "./race-lane.js";
import { duration, number } from "../wording.js";

// With reduced motion, words come together that fall into so much time.
const CALM_REDRAW_MS = 500;

export const FILM_MARKUP = `
  <div class="film" data-part="film" hidden>
    <p class="film-question" data-part="question"></p>
    <p class="film-note" data-part="note"></p>
    <progress data-part="progress" max="1" value="0" aria-label="Reading the text" hidden></progress>
    <div class="lanes">${LANE_MARKUP}</div>
    <p class="verdict" data-part="verdict" role="status"></p>
    <div class="film-controls">
      <button type="button" class="main" data-part="play">Replay</button>
      <label class="film-scrub"><span class="hidden">Time in the race</span>
        <input type="range" data-part="scrub" min="0" max="1" step="any" value="0"></label>
      <output data-part="clock">0.0 s</output>
      <label><span class="hidden">Speed of the replay</span><select data-part="speed">
        <option value="1">1×</option><option value="2">2×</option><option value="4">4×</option>
        <option value="8">8×</option></select></label>
    </div>
  </div>`;

export class Film {
  constructor(parts, lanes) {
    this.parts = parts;
    this.lanes = lanes.map((section) => new Lane(section));
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.atS = 0;
    parts.play.addEventListener("click", () => (this.playing ? this.pause() : this.play()));
    parts.scrub.addEventListener("input", () => {
      this.pause();
      this.show(Number(parts.scrub.value));
    });
  }

  /** Show a race from where it is. */
  open(race) {
    this.pause();
    this.race = race;
    for (const lane of this.lanes) lane.begin(race);
    this.parts.question.textContent = race.question;
    this.update();
  }

  /** Show what has come since; of a race that has ended, its end. */
  update() {
    const { race, parts } = this;
    for (const lane of this.lanes) lane.take();
    const ended = hasEnded(race);
    if (ended) for (const lane of this.lanes) lane.end();
    const reading = race.state === "reading" && race.progress;
    parts.progress.hidden = !reading || ended;
    if (reading) parts.progress.value = race.progress.done_tokens / race.progress.total_tokens;
    parts.note.textContent = noteOf(race);
    parts.verdict.textContent = race.result?.sentence ?? (race.state === "failed" ? race.message : "\u00a0");
    parts.verdict.dataset.winner = race.result?.winner ?? "";
    parts.scrub.disabled = parts.play.disabled = parts.speed.disabled = !ended || !race.result || !this.endS;
    parts.scrub.max = this.endS || 1;
    this.show(this.endS);
  }

  /** Seconds of the clock when the last side had finished. */
  get endS() {
    return Math.max(...this.lanes.map((lane) => lane.endS));
  }

  show(seconds) {
    this.atS = seconds;
    const { race, parts } = this;
    const counts = Object.values(race.tokens).map((tokens) => tokens.length);
    const most = hasEnded(race) ? Math.max(...counts) : Math.max(race.setting?.max_new_tokens ?? 0, ...counts);
    for (const lane of this.lanes) lane.show(seconds, most);
    parts.scrub.value = seconds;
    parts.scrub.setAttribute("aria-valuetext", `${seconds.toFixed(1)} of ${this.endS.toFixed(1)} seconds`);
    parts.clock.textContent = `${seconds.toFixed(1)} s`;
  }

  play() {
    if (this.parts.play.disabled) return;
    let last = performance.now();
    let shownAt = 0;
    let at = this.atS >= this.endS ? 0 : this.atS;
    this.playing = true;
    this.parts.play.textContent = "Pause";
    const step = (now) => {
      if (!this.playing) return;
      at += (Math.max(0, now - last) / 1000) * Number(this.parts.speed.value);
      last = now;
      const atEnd = at >= this.endS;
      if (!this.calm.matches || atEnd || now - shownAt >= CALM_REDRAW_MS) {
        shownAt = now;
        this.show(Math.min(at, this.endS));
      }
      if (atEnd) this.pause();
      else requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  pause() {
    this.playing = false;
    this.parts.play.textContent = "Replay";
  }
}

/** What a race is over, or how far it is before its first word. */
export function noteOf(race) {
  if (race.state === "reading" && race.progress && race.progress.done_tokens < race.progress.total_tokens) {
    const { done_tokens: done, total_tokens: total, remaining_s: left } = race.progress;
    const time = left === null ? "" : `, ${duration(left)} left`;
    return `Reading once for both: ${number(done)} of ${number(total)} tokens${time}`;
  }
  if (race.message && race.state !== "failed") return race.message;
  if (!race.text) return "\u00a0";
  const { text_tokens: held, document_tokens: all } = race.text;
  const part = `${number(held)} of the ${number(all)} tokens of the text`;
  const over = held < all ? part : `the whole text, ${number(held)} tokens`;
  const live = race.state === "running" ? ". Both share one device: live it runs slower than the replay" : "";
  return all ? `Over ${over}${live}` : `Without a document${live}`;
}
