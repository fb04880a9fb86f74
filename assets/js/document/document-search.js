// Search in the shown document: a list of places, one of them the current one, all of them marked on their pages.

import { fetchHits } from "./document-source.js";
import { make } from "../desk/list-rows.js";
import { counted, number, pageName } from "../wording.js";

const PAUSE_MS = 200;
const LIMIT = 200;
const MARKED_ON_A_PAGE = 40;

export class DocumentSearch {
  /**
   * @param parts elements of the view: "search" (a form), "words", "hits-place", "hits", "previous", "next".
   * @param onHits called when the places have changed, with the one to go to, or null.
   */
  constructor(parts, onHits) {
    this.parts = parts;
    this.onHits = onHits;
    this.hits = [];
    this.place = -1;
    parts.words.addEventListener("input", () => this.lookSoon());
    parts.previous.addEventListener("click", () => this.step(-1));
    parts.next.addEventListener("click", () => this.step(1));
    parts.search.addEventListener("submit", (event) => event.preventDefault());
    parts.words.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      if (parts.words.value.trim() !== this.words) this.look();
      else this.step(event.shiftKey ? -1 : 1);
    });
    parts.hits.addEventListener("click", ({ target }) => {
      const row = target.closest("button");
      if (row) this.goTo(Number(row.dataset.place));
    });
  }

  get isOpen() {
    return !this.parts.search.hidden;
  }

  open() {
    this.parts.search.hidden = false;
    this.parts.words.focus();
    this.parts.words.select();
  }

  close() {
    this.parts.search.hidden = true;
    this.parts.words.value = "";
    this.forget();
  }

  /** Another document is shown: its places are others. */
  setDocument(documentId) {
    this.documentId = documentId;
    this.forget();
    if (this.isOpen && this.parts.words.value.trim()) this.look();
  }

  /** Each mark is asked for by itself: of a word that stands everywhere, not all are. */
  marksOf(index) {
    return this.hits
      .filter((hit) => hit.page_index === index)
      .filter((hit, number) => number < MARKED_ON_A_PAGE || hit === this.hits[this.place])
      .map((hit) => ({ start: hit.start_char, end: hit.end_char, kind: hit === this.hits[this.place] ? "hit current" : "hit" }));
  }

  forget() {
    clearTimeout(this.timer);
    this.controller?.abort();
    const hadHits = this.hits.length > 0;
    [this.hits, this.place, this.words] = [[], -1, ""];
    this.parts.hits.replaceChildren();
    this.parts["hits-place"].textContent = "";
    this.showButtons();
    if (hadHits) this.onHits(null);
  }

  lookSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), PAUSE_MS);
  }

  async look() {
    clearTimeout(this.timer);
    const words = this.parts.words.value.trim();
    if (words === this.words) return;
    this.forget();
    this.words = words;
    if (!words || !this.documentId) return;
    this.controller = new AbortController();
    const { signal } = this.controller;
    this.parts["hits-place"].textContent = "Searching";
    let found;
    try {
      found = await fetchHits(this.documentId, words, LIMIT, signal);
    } catch {
      return;
    }
    if (signal.aborted) return;
    this.hits = found?.hits ?? [];
    this.more = Boolean(found?.more);
    this.showList();
    if (this.hits.length) this.goTo(0);
    else this.parts["hits-place"].textContent = found ? "Not found" : "The search has failed";
  }

  showList() {
    this.parts.hits.replaceChildren(
      ...this.hits.map((hit, place) => {
        const row = make("button", { type: "button" }, make("b", { textContent: pageName(hit.page_label) }), ` ${hit.snippet}`);
        row.dataset.place = place;
        return make("li", {}, row);
      }),
    );
    this.showButtons();
  }

  showButtons() {
    for (const name of ["previous", "next"]) this.parts[name].disabled = this.hits.length < 2;
    this.parts.hits.hidden = !this.hits.length;
  }

  step(by) {
    if (this.hits.length) this.goTo((this.place + by + this.hits.length) % this.hits.length);
  }

  goTo(place) {
    this.place = place;
    const rows = [...this.parts.hits.querySelectorAll("button")];
    for (const row of rows) row.removeAttribute("aria-current");
    rows[place]?.setAttribute("aria-current", "true");
    rows[place]?.scrollIntoView({ block: "nearest" });
    const all = this.more ? `the first ${number(this.hits.length)}` : number(this.hits.length);
    this.parts["hits-place"].textContent = `${number(place + 1)} of ${all}`;
    this.parts["hits-place"].title = `${counted(this.hits.length, "place")}${this.more ? " and more" : ""}`;
    this.onHits(this.hits[place]);
  }
}
