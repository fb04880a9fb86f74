import assert from "node:assert/strict";
import { test } from "node:test";

import { byteCount, counted, duration, namedPages, number, pageName, when } from "../../assets/js/wording.js";

test("counts have their plural and a thousand its comma", () => {
  assert.equal(counted(1, "page"), "1 page");
  assert.equal(counted(1204, "page"), "1,204 pages");
  assert.equal(counted(0, "reply", "replies"), "0 replies");
  assert.equal(number(1234567), "1,234,567");
});

test("a time span has minutes from sixty seconds on, and is never nothing", () => {
  assert.deepEqual([0, 0.4, 59.4, 59.6, 125].map(duration), ["1 s", "1 s", "59 s", "1 min 0 s", "2 min 5 s"]);
});

test("a size has the largest unit that keeps it above one", () => {
  assert.deepEqual(
    [0, 1023, 1024, 3040870, 150 * 2 ** 20, 5 * 2 ** 40].map(byteCount),
    ["0 B", "1023 B", "1.0 KiB", "2.9 MiB", "150 MiB", "5120 GiB"],
  );
});

test("pages are named, the fourth and later counted", () => {
  assert.equal(namedPages(["2"]), "page 2");
  assert.equal(namedPages(["2", "5"]), "pages 2 and 5");
  assert.equal(namedPages(["2", "5", "9"]), "pages 2, 5 and 9");
  assert.equal(namedPages(["2", "5", "9", ...Array(31).fill("x")]), "pages 2, 5, 9 and 31 more");
  assert.equal(namedPages(["Chapter I"]), 'page "Chapter I"');
});

test("a page is called by its number, a chapter by its name", () => {
  assert.equal(pageName("xiv"), "p. xiv");
  assert.equal(pageName("The Prince"), "The Prince");
});

test("a time of today has hours, one of this year no year", () => {
  const now = new Date();
  assert.match(when(now / 1000), /^\d\d:\d\d$/);
  const early = new Date(now.getFullYear() - 3, 10, 3, 12);
  assert.equal(when(early / 1000), `3 Nov ${early.getFullYear()}`);
  const yesterday = new Date(now.getTime() - 25 * 3_600_000);
  assert.doesNotMatch(when(yesterday / 1000), /:/);
});
