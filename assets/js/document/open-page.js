// Asks whoever shows documents (document-view.js) to open one at a place.

/** @param place with document_id, page_index, start_char and end_char, as the server names them. */
export function openPage({ document_id: documentId, page_index: pageIndex, start_char: startChar, end_char: endChar }, turnId = null) {
  const detail = { documentId, pageIndex, startChar, endChar, turnId };
  document.dispatchEvent(new CustomEvent("quest-open-page", { detail }));
}
