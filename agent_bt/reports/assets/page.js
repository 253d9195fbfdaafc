// What every report's page does: starts, says so if it cannot, switches between light and dark, waits for plotly.

let plotly = null;

// plotly's script is inside the page, or beside it: loaded with it, or asked for only now. False if it is not there.
function plotlyLoaded() {
  plotly ??= new Promise((resolve) => {
    if (window.Plotly) { resolve(true); return; }
    let script = byId("plotly");
    if (script.dataset.src) {
      const asked = el("script", { id: "plotly", src: script.dataset.src });
      script.replaceWith(asked);
      script = asked;
    }
    script.addEventListener("load", () => resolve(true));
    script.addEventListener("error", () => resolve(false));
  });
  return plotly;
}

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
