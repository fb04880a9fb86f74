import assert from "node:assert/strict";
import { test } from "node:test";

import { fakeCanvas } from "./fake-page.mjs";
import { PageStrip } from "../../assets/js/reading/page-strip.js";

function strip(count, { width = 400, height = 64, factors = null, documents = 1 } = {}) {
  const chosen = [];
  const pointed = [];
  const canvas = fakeCanvas(width, height);
  const made = new PageStrip(canvas, { onChoose: (page) => chosen.push(page), onPoint: (page) => pointed.push(page) });
  made.fit();
  const pages = Array.from({ length: count }, (_, index) => ({ documentId: Math.floor((index * documents) / count) }));
  made.show(pages, factors);
  const press = (key) => made.press({ key, preventDefault() {} });
  return { made, canvas, chosen, pointed, press };
}

test("few pages stand in one row, no cell wider than the most", () => {
  const { made } = strip(10);
  assert.deepEqual([made.size.rows, made.size.columns, made.size.cellWidth, made.size.share], [1, 10, 26, 1]);
});

test("rows are added before pages share a cell", () => {
  const { made } = strip(120);
  assert.equal(made.size.rows, 3);
  assert.equal(made.size.share, 1);
  assert.ok(made.size.cellWidth >= 8);
});

test("every page is in one cell, wherever cells stand for several", () => {
  for (const count of [1, 49, 50, 51, 199, 200, 201, 216, 245, 333, 432, 1000, 1541]) {
    const { made } = strip(count);
    const { rows, columns } = made.size;
    let next = 0;
    for (let cell = 0; made.firstPage(cell) < count; cell++) {
      assert.ok(cell < rows * columns, `${count} pages need more than ${rows} rows of ${columns} cells`);
      assert.equal(made.firstPage(cell), next);
      next = made.firstPage(cell + 1);
      for (let page = made.firstPage(cell); page < next; page++) assert.equal(made.cellOf(page), cell);
    }
    assert.equal(next, count);
  }
});

test("a cell shows the page most looked at, and leads to it", () => {
  const factors = Array(1000).fill(1);
  factors[503] = 4;
  const { made } = strip(1000, { factors });
  const { x, y } = made.place(made.cellOf(503));
  assert.equal(made.pageAt({ clientX: x + 1, clientY: y + 1 }), 503);
});

test("beside the cells there is no page", () => {
  const { made } = strip(10);
  assert.equal(made.pageAt({ clientX: 265, clientY: 5 }), null);
  assert.equal(made.pageAt({ clientX: 5, clientY: 70 }), null);
  assert.equal(made.pageAt({ clientX: 255, clientY: 5 }), 9);
});

test("another document begins with a line", () => {
  const lines = (documents) => strip(10, { documents }).canvas.filled.filter(([, , width]) => width === 1).length;
  assert.deepEqual([1, 2, 5].map(lines), [0, 1, 4]);
});

test("keys begin at the page most looked at and stay within the pages", () => {
  const { chosen, pointed, press } = strip(5, { factors: [1, 1, 3, 1, null] });
  press("ArrowRight");
  press("ArrowRight");
  press("End");
  press("ArrowRight");
  press("Enter");
  press("Home");
  press("ArrowLeft");
  assert.deepEqual(pointed, [2, 3, 4, 0]);
  assert.deepEqual(chosen, [4]);
});

test("factors of other pages than those shown are not drawn", () => {
  assert.equal(strip(5, { factors: [1, 2] }).made.factors, null);
});
