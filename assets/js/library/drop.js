// Files may be dropped anywhere on the page: they are added to the library and to the conversation.
//
// Otherwise a browser opens a file that is dropped and leaves the page. Text that is dragged is not touched.

/** Take dropped files over the whole window. */
export function takeDrops() {
  // Counts elements entered and left: leaving one for its child is not leaving the window.
  let depth = 0;
  const show = (dragging) => document.documentElement.classList.toggle("file-drag", dragging);
  window.addEventListener("dragenter", (event) => carriesFiles(event) && show(++depth > 0));
  window.addEventListener("dragleave", (event) => carriesFiles(event) && show((depth = Math.max(0, depth - 1)) > 0));
  window.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  window.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    show((depth = 0) > 0);
    document.querySelector("quest-add-documents")?.takeDropped(event.dataTransfer);
  });
}

function carriesFiles(event) {
  return event.dataTransfer?.types.includes("Files") ?? false;
}
