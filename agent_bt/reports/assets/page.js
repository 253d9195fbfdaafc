// What every report's page does: starts, says so if it cannot, switches between light and dark, waits for plotly.

// plotly's script is beside the page or inside it; false if it is neither.
const plotlyLoaded = new Promise((resolve) => {
  if (window.Plotly) { resolve(true); return; }
  byId("plotly").addEventListener("load", () => resolve(true));
  byId("plotly").addEventListener("error", () => resolve(false));
});

function noChart() {
  const name = byId("plotly").getAttribute("src");
  return el("p", { class: "gt-empty" }, `No chart: ${name} is not there. Keep it beside the reports, or write the report with --single-file.`);
}

function switchTheme() {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("agent-bt-theme", theme); } catch { /* a file may have no storage */ }
}

function start(main) {
  main().catch((error) => {
    window.__failed = String(error);
    document.querySelector("main").prepend(el("p", { class: "notice strong" }, `The page could not be put together: ${error.message}`));
    throw error;
  });
}
