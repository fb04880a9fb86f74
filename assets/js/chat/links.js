// Links in answers: the first click tells where one leads, the second, on a button that names it, opens it.
//
// An answer repeats what a document says, and a document's author may want a click. Keyboard and middle button count as
// clicks. Knows nothing of what else is in an answer; `ui/chat/safe_markdown.py` has taken that out.

const SCHEMES = ["http:", "https:", "mailto:"];

let dialog = null;

/** Ask before any link inside `selector` is followed. */
export function askBeforeLinks(selector) {
  for (const type of ["click", "auxclick"]) {
    document.addEventListener(
      type,
      (event) => {
        const link = event.target.closest?.(`${selector} :is(a, area)`);
        if (!link || event.button === 2) return;
        event.preventDefault();
        event.stopPropagation();
        ask(link);
      },
      true,
    );
  }
  document.addEventListener("pointerdown", (event) => dialog && !dialog.contains(event.target) && close(false), true);
}

function ask(link) {
  close(false);
  const address = new URL(link.href.baseVal ?? link.href ?? "", document.baseURI);
  const opens = SCHEMES.includes(address.protocol);
  const tell = document.createElement("p");
  // The address as the browser understands it: names in other scripts appear in their encoded form.
  const name = Object.assign(document.createElement("b"), { textContent: address.href });
  tell.append(...(opens ? ["Opens ", name, " in a new tab."] : ["This link leads to no web page."]));
  dialog = document.createElement("div");
  dialog.className = "link-dialog";
  dialog.setAttribute("role", "dialog");
  dialog.setAttribute("aria-label", "Link in the answer");
  const leave = button("Cancel", () => close(true));
  dialog.append(tell, leave);
  if (opens) {
    leave.before(
      button("Open", () => {
        window.open(address.href, "_blank", "noopener,noreferrer");
        close(true);
      }),
    );
  }
  dialog.link = link;
  dialog.addEventListener("keydown", (event) => {
    // The key that opened this may still be held.
    if (event.key === "Enter" && event.repeat) event.preventDefault();
    if (event.key !== "Escape") return;
    event.preventDefault();
    close(true);
  });
  document.body.append(dialog);
  const box = link.getBoundingClientRect();
  const left = Math.min(box.left, document.documentElement.clientWidth - dialog.offsetWidth - 8);
  const below = box.bottom + 6 + dialog.offsetHeight < window.innerHeight;
  dialog.style.left = `${Math.max(8, left)}px`;
  dialog.style.top = `${Math.max(8, below ? box.bottom + 6 : box.top - 6 - dialog.offsetHeight)}px`;
  dialog.querySelector("button").focus();
}

function button(text, onClick) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: text });
  made.addEventListener("click", onClick);
  return made;
}

function close(returnFocus) {
  if (returnFocus && dialog?.link.isConnected) dialog.link.focus();
  dialog?.remove();
  dialog = null;
}
