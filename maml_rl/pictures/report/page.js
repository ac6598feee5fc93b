"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const probe = document.body.appendChild(document.createElement("span"));
  probe.hidden = true;

  // A colour of the present theme, "@c0" or "@c0/0.2", as plotly reads it.
  function colour(name, opacity) {
    probe.style.color = `var(--${name})`;
    const parts = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3);
    return `rgba(${parts.join(",")},${opacity})`;
  }

  function themed(value) {
    if (Array.isArray(value)) return value.map(themed);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, themed(each)]));
    }
    const named = typeof value === "string" && value.match(/^@([\w-]+)(?:\/([\d.]+))?$/);
    return named ? colour(named[1], named[2] || 1) : value;
  }

  const axis = {gridcolor: "@grid", zerolinecolor: "@line", linecolor: "@line", automargin: true, tickcolor: "@line"};
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: {l: 56, r: 14, t: 10, b: 48},
    hovermode: "closest", hoverlabel: {bgcolor: "@card", bordercolor: "@line", font: {color: "@ink"}, namelength: -1},
    font: {family: getComputedStyle(document.body).fontFamily, size: 12.5, color: "@ink"},
    legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: {size: 12}},
  };
  const config = {responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"]};

  function draw() {
    figures.forEach((figure, place) => {
      const layout = {...base, ...figure.layout};
      for (const name of ["xaxis", "yaxis"]) layout[name] = {...axis, ...figure.layout[name]};
      Plotly.react(`figure-${place}`, themed(figure.data), themed(layout), config);
    });
  }

  function remembered(theme) {
    try {
      if (theme) localStorage.setItem("theme", theme);
      return localStorage.getItem("theme");
    } catch { return null; }  // a browser that keeps nothing for files
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const now = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  if (remembered()) root.dataset.theme = remembered();
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = now() === "dark" ? "light" : "dark";
    remembered(root.dataset.theme);
    draw();
  });
  dark.addEventListener("change", draw);

  const key = cell => cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  function order(a, b) {
    if (typeof a === "number" && typeof b === "number") return isNaN(a) - isNaN(b) || a - b;
    return String(a).localeCompare(String(b), undefined, {numeric: true});
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(each => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (descending ? -1 : 1) * order(key(a.cells[column]), key(b.cells[column])));
      table.tBodies[0].append(...rows);
    }));
  }
  for (const box of document.querySelectorAll("[data-filter]")) {
    box.addEventListener("change", () => box.closest(".tabled").classList.toggle("only-marked", box.checked));
  }
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(button.previousElementSibling.textContent); } catch { return; }
      button.textContent = "copied";
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    });
  }
  draw();
})();
