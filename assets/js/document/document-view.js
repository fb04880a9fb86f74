// The document as its author made it, beside the conversation: pages to scroll through, with cited places marked.
//
// A custom element with everything of its own inside. It opens a place when the document hears "quest-open-page" with
// {documentId, pageIndex or pageLabel, startChar, endChar, turnId}, and tells "quest-page-shown" on the window when it
// wants to be seen.

import { currentConversation } from "../chat/conversation.js";
import { closeSide, narrow, showSide } from "../desk/desk.js";
import { DocumentChoice } from "./document-choice.js";
import { PageItem } from "./document-page.js";
import { DocumentPlaces } from "./document-places.js";
import { DocumentSearch } from "./document-search.js";
import { fetchDocument, fetchSources, ImageQueue } from "./document-source.js";
import { Thumbnails } from "./document-thumbnails.js";
import { focusedElement } from "../desk/focus.js";
import { MARKUP } from "./document-view-markup.js";
import { VirtualList } from "../desk/virtual-list.js";
import { number, pageName } from "../wording.js";

// The server ends a process that has been idle for five minutes.
const WARM_MS = 240_000;
const GAP = 14;
const LABEL_HEIGHT = 24;
const NOTE_HEIGHT = 46;
const ZOOM = { least: 0.4, most: 5, step: 1.2 };
// Of a page of text whose height is not known yet.
const GUESSED_TEXT_HEIGHT = 900;
const SEEN_FRAMES = 30;
// Below this width, small pages would leave too little to the pages.
const STRIP_FROM = 520;

export class DocumentView extends HTMLElement {
  connectedCallback() {
    if (this.parts) return;
    const root = this.attachShadow({ mode: "open" });
    root.innerHTML = MARKUP;
    this.parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    const { parts } = this;
    Object.assign(this, { shown: null, zoom: 1, wantsText: false, darkChoice: null });
    this.list = new VirtualList(parts.pages, {
      gap: GAP,
      makeItem: (index) => new PageItem(index, this),
      onView: (...where) => this.showWhere(...where),
    });
    this.thumbnails = new Thumbnails(parts.thumbnails, parts.strip, this, (index) => this.goTo(index));
    this.choice = new DocumentChoice(parts.choice, () => this.load());
    this.places = new DocumentPlaces(this);
    this.search = new DocumentSearch(parts, (hit) => this.places.showHit(hit));
    this.listen();
    this.resizing = new ResizeObserver(() => this.resize());
    this.resizing.observe(parts.pages);
    new MutationObserver(() => this.showDark()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    this.showDark();
    this.choice.update();
  }

  listen() {
    const { parts } = this;
    const on = (part, type, act) => parts[part].addEventListener(type, act);
    on("jump", "change", () => this.jump(parts.jump.value));
    on("jump", "focus", () => parts.jump.select());
    on("jump", "keydown", (event) => event.key === "Enter" && this.jump(parts.jump.value));
    on("smaller", "click", () => this.setZoom(this.zoom / ZOOM.step));
    on("larger", "click", () => this.setZoom(this.zoom * ZOOM.step));
    on("fit", "click", () => this.setZoom(1));
    on("find", "click", () => (this.search.isOpen ? this.endSearch() : this.beginSearch()));
    on("end-search", "click", () => this.endSearch());
    on("strip-toggle", "click", () => this.showStrip(parts.thumbnails.hidden));
    on("text-toggle", "click", () => this.setText(!this.wantsText));
    on("dark-toggle", "click", () => {
      this.darkChoice = !this.isDark;
      this.showDark();
    });
    on("frame", "keydown", (event) => this.press(event));
    on("pages", "wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      this.setZoom(this.zoom * Math.exp(-event.deltaY / 300));
    });
    document.addEventListener("quest-open-page", ({ detail }) => this.openPlace(detail));
    window.addEventListener("quest-opened", () => this.forgetAnswer());
    window.addEventListener("quest-answer-row", () => {
      // Its sources are about to be clicked.
      if (!this.isSeen) this.warmUp();
      this.followAnswer();
    });
    window.addEventListener("quest-side-shown", () => this.arrange());
  }

  // Which document.

  /** Show the opened document as soon as somebody can see it. */
  load() {
    if (!this.isSeen) this.warmUp();
    if (!this.isSeen || this.loadingId === this.choice.documentId) return this.loaded;
    this.places.forget();
    this.loadingId = this.choice.documentId;
    this.loaded = this.loadOpened();
    return this.loaded;
  }

  /** Have the server open the document before anybody looks: its process takes a moment to start, and ends when idle. */
  warmUp() {
    const { documentId } = this.choice;
    const isWarm = this.warmId === documentId && performance.now() - this.warmSince < WARM_MS;
    if (!documentId || isWarm) return;
    [this.warmId, this.warmSince] = [documentId, performance.now()];
    fetchDocument(documentId).catch(() => {});
  }

  async loadOpened() {
    const { documentId } = this.choice;
    this.controller?.abort();
    this.controller = new AbortController();
    this.forgetDocument();
    if (!documentId) return;
    let found;
    try {
      found = await fetchDocument(documentId, this.controller.signal);
    } catch {
      return;
    }
    if (documentId !== this.choice.documentId) return;
    if (!found?.pages?.length) {
      this.loadingId = null;
      this.say(found?.error ?? found?.message ?? "This document cannot be shown.");
      return;
    }
    this.showDocument(found);
  }

  forgetDocument() {
    for (const list of [this.list, this.thumbnails.list]) {
      list.clear();
      list.setHeights([]);
    }
    this.images?.close();
    this.thumbnailImages?.close();
    this.shown = null;
    this.say("");
    this.parts.body.hidden = true;
    this.parts.empty.hidden = Boolean(this.choice.documentId);
    this.parts.jump.value = this.parts.count.textContent = "";
    this.parts.jump.disabled = true;
  }

  showDocument(found) {
    this.shown = found;
    this.images = new ImageQueue(found.document_id, (index) => Math.abs(index - this.current));
    this.thumbnailImages = new ImageQueue(found.document_id, (index) => Math.abs(index - this.current));
    this.current = 0;
    this.parts.body.hidden = false;
    this.parts.jump.disabled = false;
    this.parts.count.textContent = `of ${number(found.pages.length)}`;
    this.parts.jump.size = Math.min(14, Math.max(3, ...found.pages.map((page) => page.label.length)));
    this.parts.pages.setAttribute("aria-label", `Pages of ${found.name}`);
    this.say(found.message);
    this.list.setHeights([]);
    this.showStrip(this.stripChoice ?? this.offsetWidth >= STRIP_FROM);
    this.layOut();
    this.goTo(0);
    this.thumbnails.show();
    this.search.setDocument(found.document_id);
    this.followAnswer();
  }

  say(text) {
    this.parts.message.hidden = !text;
    this.parts.message.textContent = text ?? "";
  }

  // Sizes.

  get showsText() {
    return this.wantsText || !this.hasImages;
  }

  get hasImages() {
    return this.shown?.kind === "pdf" && this.shown.can_render;
  }

  imageSize(index) {
    const page = this.shown.pages[index];
    const width = Math.max(80, Math.floor((this.parts.pages.clientWidth - 2 * GAP) * this.zoom));
    return { width, height: Math.round((width * page.height) / (page.width || 1)) };
  }

  layOut() {
    if (!this.shown || !this.parts.pages.clientWidth) return;
    const { pages } = this.shown;
    const isText = this.showsText;
    this.parts.pages.classList.toggle("shows-text", isText);
    this.parts.pages.style.setProperty("--zoom", this.zoom);
    const known = this.list.heights;
    const heights = pages.map((page, index) =>
      isText
        ? known.length === pages.length && this.laidOutAs === "text"
          ? known[index]
          : GUESSED_TEXT_HEIGHT
        : this.imageSize(index).height + LABEL_HEIGHT + (page.note ? NOTE_HEIGHT : 0),
    );
    this.laidOutAs = isText ? "text" : "images";
    this.list.content.style.width = isText ? "" : `${this.imageSize(0).width + 2 * GAP}px`;
    this.list.setHeights(heights);
    for (const item of this.list.items.values()) item.fit();
    const { parts } = this;
    for (const name of ["text-toggle", "strip-toggle"]) parts[name].hidden = !this.hasImages;
    parts["dark-toggle"].hidden = isText;
    parts["text-toggle"].setAttribute("aria-pressed", String(isText));
    if (!this.hasImages) parts.thumbnails.hidden = true;
  }

  resize() {
    if (!this.isSeen) return;
    this.load();
    if (this.laidOutWidth === this.parts.pages.clientWidth) return;
    this.laidOutWidth = this.parts.pages.clientWidth;
    this.layOut();
  }

  setHeight(index, height) {
    if (this.showsText) this.list.setHeight(index, height);
  }

  setZoom(zoom) {
    this.zoom = Math.min(ZOOM.most, Math.max(ZOOM.least, zoom));
    if (Math.abs(this.zoom - 1) < 0.04) this.zoom = 1;
    this.layOut();
    this.tell(`${Math.round(100 * this.zoom)} %`);
  }

  setText(wantsText) {
    this.wantsText = wantsText;
    this.list.clear();
    this.layOut();
    this.places.showAgain();
  }

  showStrip(isShown) {
    this.parts.thumbnails.hidden = !isShown || !this.hasImages;
    this.parts["strip-toggle"].setAttribute("aria-pressed", String(!this.parts.thumbnails.hidden));
    if (this.shown) this.stripChoice = isShown;
  }

  get isDark() {
    return this.darkChoice ?? document.body.classList.contains("dark");
  }

  showDark() {
    this.toggleAttribute("dark", document.body.classList.contains("dark"));
    this.toggleAttribute("dark-pages", this.isDark);
    this.parts["dark-toggle"].setAttribute("aria-pressed", String(this.isDark));
    this.thumbnails.drawStrip();
  }

  // Where it is.

  showWhere(first, last, current, isFlying) {
    this.images?.hold(isFlying);
    this.thumbnailImages?.hold(isFlying);
    this.current = current;
    this.thumbnails.setCurrent(current);
    const { label } = this.shown.pages[current];
    if (this.shadowRoot.activeElement !== this.parts.jump) this.parts.jump.value = label;
  }

  goTo(index) {
    this.list.scrollTo(index, GAP);
  }

  jump(label) {
    const wanted = label.trim().toLowerCase();
    const { pages } = this.shown ?? { pages: [] };
    if (!wanted || !pages.length) return;
    let index = pages.findIndex((page) => page.label.toLowerCase() === wanted);
    if (index < 0) index = pages.findIndex((page) => page.label.toLowerCase().startsWith(wanted) && !/^\d+$/.test(wanted));
    if (index < 0 && /^\d+$/.test(wanted)) index = Math.min(pages.length, Math.max(1, Number(wanted))) - 1;
    if (index < 0) {
      this.tell(`There is no page ${label.trim()}.`);
      this.parts.jump.value = pages[this.current].label;
      return;
    }
    this.goTo(index);
    this.parts.jump.value = pages[index].label;
    this.tell(pageName(pages[index].label));
  }

  tell(text) {
    this.parts.told.textContent = text;
  }

  // Places.

  marksOf(index) {
    return [...this.places.marksOf(index), ...this.search.marksOf(index)];
  }

  showMarks() {
    for (const item of this.list.items.values()) item.showMarks();
  }

  /** Open a document at a place, and mark that. */
  async openPlace({ documentId, pageIndex, pageLabel, startChar = 0, endChar = 0, turnId = null }) {
    this.cameFrom = focusedElement();
    window.dispatchEvent(new Event("quest-page-shown"));
    // Where another part of the page has to make room first, that takes a moment.
    for (let frame = 0; frame < SEEN_FRAMES && !this.isSeen; frame++) await new Promise(requestAnimationFrame);
    this.arrange();
    if (documentId !== this.choice.documentId) this.choice.open(documentId);
    await this.load();
    if (!this.shown || this.shown.document_id !== documentId) return;
    const { pages, name } = this.shown;
    const wanted = pageIndex ?? pages.findIndex((page) => page.label === pageLabel);
    const index = Math.min(pages.length - 1, Math.max(0, wanted));
    this.parts.pages.focus({ preventScroll: true });
    if (turnId) this.followAnswer(turnId);
    await this.places.open(index, startChar, endChar);
    this.tell(`${pageName(pages[index].label)} of ${name}${endChar > startChar ? ", with the passage marked" : ""}`);
  }

  // What an answer read.

  forgetAnswer() {
    this.places.forget();
    this.cameFrom = null;
    if (this.shown) this.thumbnails.setHeat([]);
  }

  /** Show what the last answer read, or the one whose source was opened. */
  followAnswer(turnId = null) {
    clearTimeout(this.following);
    this.following = setTimeout(() => this.showAnswer(turnId), 60);
  }

  async showAnswer(wantedId) {
    const rows = [...document.querySelectorAll("quest-answer-row[turn-id]")];
    const turnId = wantedId ?? rows.at(-1)?.getAttribute("turn-id");
    if (!this.shown || !this.isSeen) return;
    const found = turnId ? await fetchSources(currentConversation(), turnId) : null;
    if (!this.shown) return;
    const cited = (found?.citations ?? []).filter((one) => one.document_id === this.shown.document_id);
    this.thumbnails.setHeat(found?.pages_read ?? [], cited.map((one) => one.page_index));
  }

  // Being seen.

  get isSeen() {
    return this.parts.frame.getClientRects().length > 0;
  }

  /** Its tab may have been opened. */
  arrange() {
    this.load();
    this.list.restore();
  }

  /** Back to where a place was opened from. */
  leave() {
    const { cameFrom } = this;
    this.cameFrom = null;
    // A place on the map of KV pages is on the other tab.
    const isHidden = cameFrom?.isConnected && !cameFrom.getClientRects().length;
    if (isHidden) showSide("reading");
    else if (narrow.matches) closeSide();
    if (cameFrom?.isConnected) cameFrom.focus();
  }

  beginSearch() {
    this.search.open();
    this.parts.find.setAttribute("aria-expanded", "true");
  }

  endSearch() {
    this.search.close();
    this.parts.find.setAttribute("aria-expanded", "false");
    this.showMarks();
    this.parts.pages.focus({ preventScroll: true });
  }

  press(event) {
    if (event.isComposing || event.defaultPrevented) return;
    if ((event.ctrlKey || event.metaKey) && event.key === "f" && this.shown) {
      event.preventDefault();
      this.beginSearch();
    } else if (event.key === "Escape") {
      // Not for the page, which would stop an answer.
      event.preventDefault();
      if (this.search.isOpen) this.endSearch();
      else this.leave();
    } else if (!event.ctrlKey && !event.metaKey && !event.altKey && event.target.localName !== "input") {
      const zooms = { "+": this.zoom * ZOOM.step, "=": this.zoom * ZOOM.step, "-": this.zoom / ZOOM.step, 0: 1 };
      if (!(event.key in zooms)) return;
      event.preventDefault();
      this.setZoom(zooms[event.key]);
    }
  }
}
