// Names and roles for screen readers where Gradio has none or wrong ones.
//
// Gradio builds these parts anew whenever the page changes, so they are set again.

const MENDS = [
  // A list without items.
  ["#messages .examples[role=list]", { role: "group", "aria-label": "Example questions" }],
  // Nothing is lost by it: the conversation stays in its list.
  ["#messages button[aria-label=Clear]", { "aria-label": "New conversation", title: "New conversation" }],
];

/** Mend them now and whenever the page changes. */
export function nameControls() {
  const mend = () => {
    for (const [selector, attributes] of MENDS) {
      for (const control of document.querySelectorAll(selector)) {
        for (const [name, value] of Object.entries(attributes)) control.setAttribute(name, value);
      }
    }
  };
  mend();
  new MutationObserver(mend).observe(document.body, { subtree: true, childList: true });
}
