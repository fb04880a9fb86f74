// A style sheet that is fetched once, when its script is, and shared by every element of a kind: a question or an answer
// has its final height from the first frame on, however many of them there are.

/** @param {URL} address @returns {CSSStyleSheet} empty until it has arrived. */
export function sharedSheet(address) {
  const sheet = new CSSStyleSheet();
  fetch(address)
    .then((response) => (response.ok ? response.text() : Promise.reject(new Error(`${address}: ${response.status}`))))
    .then((rules) => sheet.replaceSync(rules))
    .catch((error) => console.error("A style sheet could not be loaded:", error));
  return sheet;
}
