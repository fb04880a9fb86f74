// Run before anything is drawn, and no module for that reason: the theme, and the zones as they were left.
//
// Gradio chooses its theme by the same rule, but later; what the zones are is told in desk.js and side-handle.js.

{
  const wanted = new URLSearchParams(location.search).get("__theme");
  const isDark = wanted === "dark" || (wanted !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.body.classList.toggle("dark", isDark);
  const root = document.documentElement;
  const isNarrow = matchMedia("(max-width: 1180px)").matches;
  root.dataset.side = isNarrow ? "closed" : (localStorage.getItem("quest-chat-side") ?? "open");
  root.dataset.sideTab = "reading";
  const width = Number(localStorage.getItem("quest-chat-side-width"));
  if (width) root.style.setProperty("--quest-side-width", `min(${width}px, 100vw - 680px)`);
}
