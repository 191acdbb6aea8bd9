"use strict";
/* The SQL box: one query that reads, its rows as a table, a chart, or a contact sheet. */
{
  const form = M.byId("sql-form"), text = M.byId("sql-text"), state = M.byId("sql-state"), answer = M.byId("sql-answer");
  const SHOWN_ROWS = 1000, SHOWN_FRAMES = 200, CHART_ROWS = 200;
  let running = 0, chart = null;

  async function run() {
    const number = ++running;
    if (chart) { M.forgetChart(chart); chart = null; }
    answer.replaceChildren();
    state.textContent = "Running…";
    try {
      const found = await M.call("api/sql", { sql: text.value });
      if (number === running) show(found);
    } catch (error) {
      if (number !== running) return;
      state.textContent = "";
      answer.replaceChildren(M.el("pre", { class: "bad-text", role: "alert" }, error.message));
    }
  }

  function show({ columns, rows, truncated, seconds }) {
    state.textContent = `${M.plural(rows.length, "row")} in ${seconds.toFixed(2)} s` + (truncated ? "; there are more, which are not shown" : "");
    if (!rows.length) return answer.replaceChildren(M.el("p", { class: "empty" }, "The query gave no rows."));
    const isNumber = (column) => rows.some((row) => typeof row[column] === "number") && rows.every((row) => row[column] === null || typeof row[column] === "number");
    const value = columns.findIndex((_, i) => i > 0 && isNumber(i));
    const frame = columns.findIndex((column) => column.name === "frame_id");
    const ways = [["Table", () => table(columns, rows)]];
    if (value > 0) ways.push(["Chart", (into) => plot(into, columns, rows, value)]);
    if (frame >= 0) ways.push(["Contact sheet", () => sheet(columns, rows, frame)]);
    const panel = M.el("div", { role: "tabpanel" });
    const tabs = ways.map(([name, make]) => M.el("button", { type: "button", role: "tab", "aria-selected": "false", onclick: () => pick(name, make) }, name));
    const pick = (name, make) => {
      tabs.forEach((tab) => tab.setAttribute("aria-selected", String(tab.textContent === name)));
      if (chart) { M.forgetChart(chart); chart = null; }
      panel.replaceChildren();
      const made = make(panel);
      if (made) panel.replaceChildren(made);
    };
    answer.replaceChildren(M.el("div", { class: "tabs", role: "tablist" }, tabs), panel);
    pick(...ways[0]);
  }

  const shown = (cell) => (cell === null || cell === undefined ? "–" : typeof cell === "object" ? JSON.stringify(cell) : typeof cell === "number" && !Number.isInteger(cell) ? M.value(cell) : String(cell));

  function table(columns, rows) {
    const made = M.table(columns.map((column) => column.name), rows.slice(0, SHOWN_ROWS).map((row) => row.map(shown)));
    made.classList.add("tall");
    return rows.length > SHOWN_ROWS ? M.el("div", {}, made, M.el("p", { class: "muted" }, `The first ${M.count(SHOWN_ROWS)} of ${M.count(rows.length)} rows.`)) : made;
  }

  function plot(into, columns, rows, value) {
    const few = rows.slice(0, CHART_ROWS), title = `${columns[value].name} by ${columns[0].name}`;
    const canvas = M.el("canvas", { role: "img", "aria-label": title });
    into.replaceChildren(M.el("div", { class: "plot" }, canvas), M.el("p", { class: "muted small" }, title + (few.length < rows.length ? `, the first ${CHART_ROWS} rows` : "")));
    chart = M.drawChart(canvas, () => ({ type: "bar", data: { labels: few.map((row) => shown(row[0])), datasets: [{ label: columns[value].name, data: few.map((row) => row[value]), backgroundColor: getComputedStyle(document.documentElement).getPropertyValue("--mined").trim() }] },
      options: M.chartOptions(M.axis(columns[0].name, { scale: { grid: { display: false } } }), M.axis(columns[value].name), { legend: false }) }));
  }

  function sheet(columns, rows, column) {
    const few = rows.slice(0, SHOWN_FRAMES);
    return M.el("div", {}, M.el("div", { class: "strip" }, few.map((row) => {
      const place = M.placeOf(row[column]);
      const words = columns.map((one, i) => (i === column ? null : `${one.name} ${shown(row[i])}`)).filter(Boolean).join(", ");
      const picture = place < 0 ? M.el("p", { class: "empty" }, "not in this batch") : M.el("button", { type: "button", class: "open", "aria-label": "Show large: " + M.alt(M.frames[place]), onclick: () => M.open(place) }, M.picture(M.frames[place]));
      return M.el("figure", {}, picture, M.el("figcaption", {}, M.el("code", {}, shown(row[column])), " ", words));
    })), few.length < rows.length ? M.el("p", { class: "muted" }, `The first ${SHOWN_FRAMES} of ${M.count(rows.length)} frames.`) : null);
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); run(); });
  text.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); } });
}
