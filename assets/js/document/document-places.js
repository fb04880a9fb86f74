// Places of the document view that are gone to: the passage that was opened, and hits of the search.

// In the view's height: where a place comes to stand.
const PLACE_AT = 0.28;
const EDGE_PX = 20;
const BESIDE_PX = 40;
// The text of a page may not be there yet.
const TRIES = 40;
const TRY_MS = 50;

export class DocumentPlaces {
  /** @param view the document view, with its `list`, `parts`, `shown`, `showsText`, `marksOf`, `showMarks`, `goTo`, `say`. */
  constructor(view) {
    this.view = view;
    this.passage = null;
  }

  /** The opened passage, as a mark of its page. */
  marksOf(index) {
    const { passage } = this;
    return passage?.index === index && passage.end > passage.start ? [{ ...passage, kind: "passage" }] : [];
  }

  forget() {
    this.passage = null;
  }

  open(index, start, end) {
    this.passage = { index, start, end };
    return this.goToMark(index, "passage");
  }

  /** The pages are shown in another way: the passage stays in view. */
  showAgain() {
    if (this.passage) this.goToMark(this.passage.index, "passage", false);
  }

  showHit(hit) {
    this.view.showMarks();
    if (hit) this.goToMark(hit.page_index, "current");
  }

  /** Bring a page into view, then its mark of that kind, as soon as that is there. */
  async goToMark(index, kind, pulses = true) {
    const { view } = this;
    const wish = (this.wish = Symbol("place"));
    if (!this.isInView(index, kind)) view.goTo(index);
    for (const item of view.list.items.values()) if (item.index !== index) item.showMarks();
    let place = null;
    for (let tries = 0; tries < TRIES && this.wish === wish; tries++) {
      const item = view.list.items.get(index);
      place = (await item?.showMarks(pulses ? kind : "")) ?? item?.firstPlace(kind) ?? null;
      if (place !== null || (!view.showsText && tries) || !view.marksOf(index).length) break;
      await new Promise((resolve) => setTimeout(resolve, TRY_MS));
    }
    if (this.wish !== wish || !view.shown) return;
    const isMissing = place === null && kind === "passage" && this.marksOf(index).length > 0;
    view.say(isMissing ? "The passage could not be marked on this page." : view.shown.message);
    if (place === null || this.isInView(index, kind)) return;
    view.list.scrollTo(index, PLACE_AT * view.parts.pages.clientHeight - place);
    this.scrollSideways(index, kind);
  }

  marks(index, kind) {
    return this.view.list.items.get(index)?.marksOfKind(kind) ?? [];
  }

  isInView(index, kind) {
    const marks = this.marks(index, kind);
    const frame = this.view.parts.pages.getBoundingClientRect();
    const isInside = ({ top, bottom }) => top >= frame.top + EDGE_PX && bottom <= frame.bottom - EDGE_PX;
    return marks.length > 0 && marks.every((mark) => isInside(mark.getBoundingClientRect()));
  }

  scrollSideways(index, kind) {
    const [mark] = this.marks(index, kind);
    const { pages } = this.view.parts;
    if (!mark || pages.scrollWidth <= pages.clientWidth) return;
    pages.scrollLeft += mark.getBoundingClientRect().left - pages.getBoundingClientRect().left - BESIDE_PX;
  }
}
