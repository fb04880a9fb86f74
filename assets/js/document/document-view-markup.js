// The document view's elements; what they do is in document-view.js.

const STYLE_SHEET = new URL("../../css/document-view.css", import.meta.url);

function icon(path) {
  return `<svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true"><path d="${path}"/></svg>`;
}

const ICONS = {
  search: icon("M8.5 3a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M12.6 12.6L17 17"),
  pages: icon("M3 3h5v6H3zM3 12h5v5H3zM11 4h6M11 7h6M11 13h6M11 16h6"),
  text: icon("M4 5V4h12v1M10 4v12M8 16h4"),
  dark: icon("M15.5 12A6.5 6.5 0 0 1 8 4.5a6.5 6.5 0 1 0 7.5 7.5z"),
  fit: icon("M3 4v12M17 4v12M6 10h8M8.5 7.5L6 10l2.5 2.5M11.5 7.5L14 10l-2.5 2.5"),
  close: icon("M5 5l10 10M15 5L5 15"),
};

/** Nothing is seen before the style sheet is there, which makes it visible. */
export const MARKUP = `
  <style>.frame { visibility: hidden; }</style>
  <link rel="stylesheet" href="${STYLE_SHEET}">
  <div class="frame" data-part="frame">
    <div class="bar" role="group" aria-label="Document view">
      <select data-part="choice" aria-label="Document"></select>
      <span class="jump">
        <input type="text" data-part="jump" aria-label="Go to page" title="Go to page" autocomplete="off" maxlength="80">
        <span data-part="count"></span>
      </span>
      <span class="tools">
        <button type="button" data-part="smaller" aria-label="Zoom out" title="Zoom out (-)">−</button>
        <button type="button" data-part="larger" aria-label="Zoom in" title="Zoom in (+)">+</button>
        <button type="button" data-part="fit" aria-label="Fit the width" title="Fit the width (0)">${ICONS.fit}</button>
        <button type="button" data-part="find" aria-label="Search in the document" title="Search (Ctrl+F)"
          aria-expanded="false">${ICONS.search}</button>
        <button type="button" data-part="strip-toggle" aria-label="Small pages" title="Small pages"
          aria-pressed="false">${ICONS.pages}</button>
        <button type="button" data-part="text-toggle" aria-label="Text instead of images" title="Text instead of images"
          aria-pressed="false">${ICONS.text}</button>
        <button type="button" data-part="dark-toggle" aria-label="Dark pages" title="Dark pages"
          aria-pressed="false">${ICONS.dark}</button>
      </span>
    </div>
    <form class="search" data-part="search" role="search" hidden>
      <input type="search" data-part="words" aria-label="Search in the document" placeholder="Search in the document"
        autocomplete="off" maxlength="200">
      <span class="hits-place" data-part="hits-place" role="status"></span>
      <button type="button" data-part="previous" aria-label="Previous place" title="Previous (Shift+Enter)" disabled>↑</button>
      <button type="button" data-part="next" aria-label="Next place" title="Next (Enter)" disabled>↓</button>
      <button type="button" data-part="end-search" aria-label="End the search" title="End the search">${ICONS.close}</button>
    </form>
    <ul class="hits" data-part="hits" aria-label="Places found" hidden></ul>
    <p class="message" data-part="message" role="status" hidden></p>
    <div class="body" data-part="body">
      <nav class="thumbnails" data-part="thumbnails" aria-label="Small pages"></nav>
      <canvas class="strip" data-part="strip" role="img" aria-label="Pages of the document"></canvas>
      <div class="pages" data-part="pages" role="region" tabindex="0" aria-label="Pages"></div>
    </div>
    <p class="empty" data-part="empty">Add a document, and its pages are shown here.</p>
    <p class="unseen" data-part="told" role="status"></p>
  </div>
`;
