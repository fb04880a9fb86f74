import assert from "node:assert/strict";
import { test } from "node:test";

import { settled } from "./fake-page.mjs";
import { ImageQueue } from "../../assets/js/document/document-source.js";
import { toUtf16 } from "../../assets/js/document/document-text.js";
import { heatOf } from "../../assets/js/document/document-thumbnails.js";
import { VirtualList } from "../../assets/js/desk/virtual-list.js";

test("a place counted in code points is found in UTF-16, also beyond the end", () => {
  const text = "a\u{1d49c}b\u{1f451}c";
  assert.deepEqual([0, 1, 2, 3, 4, 5, 9].map((place) => toUtf16(text, place)), [0, 1, 3, 4, 6, 7, 7]);
});

test("a page read as usual is not hot, one read four times as much is hottest", () => {
  const read = [1, 2, 4, 16, null].map((score, index) => ({ document_id: "d", page_index: index, read_score: score }));
  const heat = heatOf([...read, { document_id: "other", page_index: 0, read_score: 9 }], "d", Array(5).fill({}));
  assert.deepEqual([...heat], [[1, 0.5], [2, 1], [3, 1]]);
  assert.equal(heatOf([{ document_id: "d", page_index: 7, read_score: 4 }], "d", []).size, 0);
});

test("an item of the list is found by its height, the gap above it included in the one before", () => {
  const list = Object.create(VirtualList.prototype);
  Object.assign(list, { heights: [100, 50, 100], tops: [8, 116, 174, 282] });
  assert.deepEqual([-5, 0, 8, 115, 116, 173, 174, 9000].map((y) => list.indexAt(y)), [0, 0, 0, 0, 1, 1, 2, 2]);
});

test("images nearest to the view come first, at widths of the server's steps, three at a time", async () => {
  const queue = new ImageQueue("d e", (index) => Math.abs(index - 10));
  const asked = [];
  const ends = [];
  globalThis.fetch = (address) => {
    asked.push(address);
    return new Promise((resolve) => ends.push(() => resolve({ ok: true, status: 200, blob: async () => address })));
  };
  const images = [];
  for (const index of [0, 9, 30, 10, 12]) queue.load(index, 310, (image) => images.push(image));
  const cancel = queue.load(11, 310, (image) => images.push(image));
  cancel();
  await settled();
  assert.deepEqual(asked, [10, 9, 12].map((index) => `documents/d%20e/pages/${index}/image?width=400`));
  ends[0]();
  await settled();
  assert.deepEqual(images, [asked[0]]);
  assert.ok(asked[3].includes("/pages/0/"));
});
