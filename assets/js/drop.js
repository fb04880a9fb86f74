// Files may be dropped anywhere on the page: they go to the drop zone of the documents.
//
// Otherwise a browser opens a file that misses the zone and leaves the page. Text that is dragged is not touched.

const INPUT = "#document-files input[type=file]";

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
    event.dataTransfer.dropEffect = document.querySelector(INPUT) ? "copy" : "none";
  });
  window.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    show((depth = 0) > 0);
    // The zone has taken it.
    if (event.defaultPrevented) return;
    event.preventDefault();
    handOver(event.dataTransfer.files);
  });
}

function carriesFiles(event) {
  return event.dataTransfer?.types.includes("Files") ?? false;
}

function handOver(files) {
  const input = document.querySelector(INPUT);
  // An encrypted file waits in the zone for its password, and there is no room for another.
  if (!input || !files.length) return;
  input.files = files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}
