// Keeps a message of Gradio's out of the console that is of no use to anybody.
//
// Its client closes the stream of an upload's progress with a function that only says that it is not there, twice at
// each upload. The server ends that stream with the upload.

const MESSAGE = "Method not implemented.";

/** Warn of everything else as ever. */
export function quietUploads() {
  const warn = console.warn.bind(console);
  console.warn = (...words) => words[0] === MESSAGE || warn(...words);
}
