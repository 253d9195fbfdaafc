// Common to all reports: start the page or show its error, switch between light and dark, wait for plotly.

let plotly = null;

// plotly's script is inside the page or next to it, loaded with the page or only now. False if it is missing.
function plotlyLoaded() {
  plotly ??= new Promise((resolve) => {
    if (window.Plotly) { resolve(true); return; }
    let script = byId("plotly");
    if (script.dataset.src) {
      const requested = el("script", { id: "plotly", src: script.dataset.src });
      script.replaceWith(requested);
      script = requested;
    }
    script.addEventListener("load", () => resolve(true));
    script.addEventListener("error", () => resolve(false));
  });
  return plotly;
}

function noChart() {
  const name = byId("plotly").getAttribute("src");
  return el("p", { class: "gt-empty" }, `No chart: ${name} is missing. Keep it next to the reports, or write the report with --single-file.`);
}

function switchTheme() {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("agent-bt-theme", theme); } catch { /* a file may have no storage */ }
}

function start(main) {
  main().catch((error) => {
    window.__failed = String(error);
    document.querySelector("main").prepend(el("p", { class: "notice strong" }, `The page could not be built: ${error.message}`));
    throw error;
  });
}
