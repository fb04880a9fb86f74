// A long vertical list of which only the items near the view exist: a thousand pages cost no more than ten.
//
// The height of each item is known or guessed; a better one may come later, and what is in view then stays where it is.
// Knows nothing of what the items are.

// Of the view's height, above and below it.
const MARGIN = 1;
// Faster than so many view heights a frame, nobody reads.
const FLYING = 0.8;
const SETTLE_MS = 90;

export class VirtualList {
  /**
   * @param scroller the element that scrolls; takes a child of the list's own.
   * @param gap pixels between items, and before the first.
   * @param makeItem called with an index; returns {element, close()}.
   * @param onView called after each change with the first and last visible index, the one at the upper third of the
   *   view, and whether the list is scrolled too fast to be read.
   */
  constructor(scroller, { gap, makeItem, onView }) {
    Object.assign(this, { scroller, gap, makeItem, onView });
    this.content = document.createElement("div");
    this.content.className = "list-content";
    scroller.replaceChildren(this.content);
    this.items = new Map();
    this.heights = new Float64Array(0);
    this.tops = new Float64Array(1);
    this.anchor = { index: 0, share: 0 };
    this.onScroll = () => {
      this.keepAnchor();
      this.frame ??= requestAnimationFrame(() => this.draw());
    };
    scroller.addEventListener("scroll", this.onScroll, { passive: true });
    this.resizing = new ResizeObserver(() => this.draw());
    this.resizing.observe(scroller);
  }

  close() {
    this.scroller.removeEventListener("scroll", this.onScroll);
    this.resizing.disconnect();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.settling);
    this.clear();
    this.content.remove();
  }

  clear() {
    for (const item of this.items.values()) item.close();
    this.items.clear();
    this.content.replaceChildren();
  }

  /** Show items of these heights, the same place of the same item in view as before. */
  setHeights(heights) {
    this.heights = Float64Array.from(heights);
    this.anchor.index = Math.min(this.anchor.index, Math.max(0, this.heights.length - 1));
    this.measure();
  }

  setHeight(index, height) {
    if (Math.abs(this.heights[index] - height) < 0.5) return;
    this.heights[index] = height;
    this.changed ??= requestAnimationFrame(() => {
      this.changed = null;
      this.measure();
    });
  }

  measure() {
    this.tops = new Float64Array(this.heights.length + 1);
    this.tops[0] = this.gap;
    for (let index = 0; index < this.heights.length; index++) {
      this.tops[index + 1] = this.tops[index] + this.heights[index] + this.gap;
    }
    this.content.style.height = `${this.tops.at(-1)}px`;
    for (const [index, item] of this.items) item.element.style.top = `${this.tops[index]}px`;
    this.restore();
  }

  /** Put an item at the top of the view, or so many pixels below it. */
  scrollTo(index, offset = 0) {
    if (!this.heights.length) return;
    const place = Math.min(Math.max(0, index), this.heights.length - 1);
    this.anchor = { index: place, share: -offset / this.heights[place] };
    this.restore();
  }

  /** Scroll no further than it takes to have the item in view. */
  reveal(index) {
    const { scrollTop, clientHeight } = this.scroller;
    if (this.tops[index] < scrollTop) this.scrollTo(index, this.gap);
    else if (this.tops[index + 1] > scrollTop + clientHeight) {
      this.scrollTo(index, clientHeight - this.heights[index] - this.gap);
    }
  }

  restore() {
    const { index, share } = this.anchor;
    if (!this.heights.length) return;
    const wanted = Math.round(this.tops[index] + share * this.heights[index]);
    const before = this.scroller.scrollTop;
    if (Math.abs(before - wanted) >= 1) {
      this.scroller.scrollTop = wanted;
      // At the end of the list nothing moves, and nothing is told.
      this.isRestoring = this.scroller.scrollTop !== before;
    }
    this.draw();
  }

  keepAnchor() {
    // It was not the user, and the wish may lie beyond what can be scrolled to yet.
    if (this.isRestoring) {
      this.isRestoring = false;
      return;
    }
    if (!this.heights.length || !this.scroller.clientHeight) return;
    const { scrollTop } = this.scroller;
    const index = this.indexAt(scrollTop);
    this.anchor = { index, share: (scrollTop - this.tops[index]) / Math.max(1, this.heights[index]) };
  }

  /** The item at a height, by bisection. */
  indexAt(y) {
    let [low, high] = [0, this.heights.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.tops[middle] <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    const { scrollTop, clientHeight } = this.scroller;
    if (!this.heights.length || !clientHeight) return;
    const isFlying = Math.abs(scrollTop - (this.drawnAt ?? scrollTop)) > FLYING * clientHeight;
    this.drawnAt = scrollTop;
    const first = this.indexAt(scrollTop - MARGIN * clientHeight);
    const last = this.indexAt(scrollTop + (1 + MARGIN) * clientHeight);
    for (const [index, item] of this.items) {
      if (index >= first && index <= last) continue;
      item.close();
      item.element.remove();
      this.items.delete(index);
    }
    for (let index = first; index <= last; index++) {
      if (this.items.has(index)) continue;
      const item = this.makeItem(index);
      item.element.style.top = `${this.tops[index]}px`;
      this.items.set(index, item);
      this.insert(index, item.element);
    }
    clearTimeout(this.settling);
    if (isFlying) this.settling = setTimeout(() => this.draw(), SETTLE_MS);
    const atEnd = scrollTop + clientHeight >= this.tops.at(-1) - 1;
    const current = atEnd && scrollTop > 0 ? this.lastCurrent(scrollTop, clientHeight) : this.indexAt(scrollTop + clientHeight / 3);
    this.onView(this.indexAt(scrollTop), this.indexAt(scrollTop + clientHeight), current, isFlying);
  }

  /** At the end of the list the last items never come up to the upper third: then the one that was gone to counts. */
  lastCurrent(scrollTop, clientHeight) {
    return Math.max(this.indexAt(scrollTop + clientHeight / 3), this.anchor.index);
  }

  /** In their order, for the keyboard and for screen readers. */
  insert(index, element) {
    const later = [...this.items.keys()].filter((other) => other > index);
    this.content.insertBefore(element, later.length ? this.items.get(Math.min(...later)).element : null);
  }
}
