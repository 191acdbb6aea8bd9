"use strict";
/* The charts. Each is a figure with a title, a picture, words for who cannot see it, and its numbers as a table. */
{
  const charts = M.data.charts;
  const grid = M.byId("chart-grid");
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colours = () => ({ pool: style("--pool"), mined: style("--mined"), random: style("--random") });
  const share = (counts) => {
    const sum = counts.reduce((a, b) => a + b, 0);
    return counts.map((count) => (sum ? (100 * count) / sum : 0));
  };
  const batchIs = M.data.frames_are === "chosen" ? "batch" : "frames shown";
  const all = [];

  function figure(title, said, options) {
    const { wide, control, note } = options || {};
    const canvas = M.el("canvas", { role: "img", "aria-label": title + ". " + said });
    const box = M.el("div", { class: "plot" }, canvas);
    const made = M.el("figure", { class: wide ? "chart wide" : "chart" },
      M.el("figcaption", {}, M.el("h3", {}, title), control || null), box,
      M.el("p", { class: "muted small" }, said, note ? " " + note : null));
    grid.append(made);
    return { made, canvas, box };
  }

  function empty(title, text) {
    grid.append(M.el("figure", { class: "chart" }, M.el("figcaption", {}, M.el("h3", {}, title)),
      M.el("p", { class: "empty" }, text)));
  }

  function numbers(made, heads, rows) {
    made.querySelector("details")?.remove();
    made.append(M.el("details", {}, M.el("summary", {}, "Numbers"), M.table(heads, rows)));
  }

  /* `make` gives Chart.js' options in the colours of now; it is asked again when light and dark change. */
  function draw(canvas, make) {
    const entry = { make, chart: new Chart(canvas, make()) };
    all.push(entry);
    return entry;
  }
  function redraw(entry) {
    const next = entry.make();
    entry.chart.data = next.data;
    entry.chart.options = next.options;
    entry.chart.update("none");
    entry.after?.();
  }
  M.onTheme.push(() => all.forEach(redraw));
  M.drawChart = draw;
  M.forgetChart = function (entry) {
    entry.chart.destroy();
    all.splice(all.indexOf(entry), 1);
  };

  M.table = (heads, rows) => M.el("div", { class: "scroll" }, M.el("table", {},
    M.el("thead", {}, M.el("tr", {}, heads.map((head) => M.el("th", {}, head)))),
    M.el("tbody", {}, rows.map((row) => M.el("tr", {}, row.map((cell) =>
      M.el("td", { class: typeof cell === "number" ? "num" : null }, typeof cell === "number" ? M.value(cell) : cell)))))));

  M.axis = (title, more) => ({
    title: { display: Boolean(title), text: title, color: style("--muted") },
    ticks: { color: style("--muted"), ...more?.ticks },
    grid: { color: style("--line") },
    border: { color: style("--line") },
    ...more?.scale,
  });
  M.chartOptions = (x, y, more) => ({
    responsive: true, maintainAspectRatio: false, animation: false,
    plugins: { legend: { display: more?.legend !== false, labels: { color: style("--text"), boxWidth: 8, boxHeight: 8, usePointStyle: true } },
      tooltip: { callbacks: more?.tooltip || {} } },
    scales: { x, y }, onClick: more?.onClick, indexAxis: more?.across ? "y" : "x",
  });
  /* The pool as a wide bar, the batch as a narrow one before it. Few random frames make no shares: 3 of them would be 33 % each. */
  const FEW = 20;
  const counted = (counts) => counts.reduce((a, b) => a + b, 0);
  const behind = (set) => ({ ...set, grouped: false, barPercentage: 1, categoryPercentage: 0.94, order: 3 });
  const before = (set, narrow) => ({ ...set, grouped: false, barPercentage: narrow || 0.55, categoryPercentage: 0.94, order: narrow ? 1 : 2 });
  const ofShare = { label: (item) => `${item.dataset.label}: ${(item.chart.options.indexAxis === "y" ? item.parsed.x : item.parsed.y).toFixed(1)} %` };

  function hardness() {
    const { bins, pool, mined, random } = charts.hardness;
    if (!pool.some(Boolean)) return empty("Hardness", "No frame of this footage is scored yet.");
    const labels = pool.map((_, i) => (i / bins).toFixed(2) + "–" + ((i + 1) / bins).toFixed(2));
    const mean = M.data.summary.hardness_mean;
    const said = `Mean hardness ${M.fixed(mean.pool, 2)} in the pool` +
      (mean.mined === null ? "." : `, ${M.fixed(mean.mined, 2)} in the mined frames` +
        (mean.random === null ? "." : `, ${M.fixed(mean.random, 2)} in the ${counted(random)} drawn at random${counted(random) < FEW ? " (too few to draw)" : ""}.`));
    const { made, canvas } = figure("Hardness", said);
    draw(canvas, () => {
      const colour = colours();
      const sets = [behind({ label: "pool", data: share(pool), backgroundColor: colour.pool })];
      if (mined.some(Boolean)) sets.push(before({ label: M.data.frames_are === "chosen" ? "mined" : batchIs, data: share(mined), backgroundColor: colour.mined }));
      if (counted(random) >= FEW) sets.push(before({ label: "random", data: share(random), backgroundColor: colour.random }, 0.2));
      return { type: "bar", data: { labels, datasets: sets },
        options: M.chartOptions(M.axis("hardness", { ticks: { maxTicksLimit: 6 }, scale: { grid: { display: false } } }), M.axis("% of frames"), { tooltip: ofShare }) };
    });
    numbers(made, ["hardness", "pool", "mined", "random"], labels.map((label, i) => [label, pool[i], mined[i], random[i]]));
  }

  function signals() {
    const known = charts.signals;
    const blended = known.filter((signal) => signal.weight);
    if (!blended.length) return empty("Signals", "No signal has a value in this footage.");
    const batch = blended.some((signal) => signal.batch_mean !== null);
    const best = [...blended].sort((a, b) => (b.batch_mean ?? 0) - (a.batch_mean ?? 0))[0];
    const { made, canvas } = figure("Signals of hardness",
      batch ? `Mean percentile of each signal that hardness blends. The ${batchIs} stands out most in ${M.words(best.name)} (${M.percent(best.batch_mean)}).`
        : "Mean percentile of each signal that hardness blends, in the pool.");
    draw(canvas, () => {
      const colour = colours();
      return { type: "bar",
        data: { labels: blended.map((signal) => M.words(signal.name)), datasets: [
          { label: "pool", data: blended.map((signal) => 100 * signal.pool_mean), backgroundColor: colour.pool },
          { label: batchIs, data: blended.map((signal) => (signal.batch_mean === null ? null : 100 * signal.batch_mean)), backgroundColor: colour.mined }] },
        options: M.chartOptions(M.axis("mean percentile", { scale: { min: 0, max: 100 } }), M.axis("", { scale: { grid: { display: false } } }), { across: true, tooltip: ofShare }) };
    });
    numbers(made, ["signal", "weight", "pool", batchIs], blended.map((s) => [s.name, s.weight, s.pool_mean, s.batch_mean ?? "–"]));

    const select = M.el("select", { "aria-label": "Signal" }, known.map((signal, i) => M.el("option", { value: i }, M.words(signal.name))));
    const one = figure("One signal", "", { control: select });
    const words = one.made.querySelector("p");
    const steps = known[0].pool.length;
    const labels = known[0].pool.map((_, i) => Math.round((100 * i) / steps) + "–" + Math.round((100 * (i + 1)) / steps) + " %");
    const chart = draw(one.canvas, () => {
      const signal = known[Number(select.value)];
      const colour = colours();
      return { type: "bar",
        data: { labels, datasets: [behind({ label: "pool", data: share(signal.pool), backgroundColor: colour.pool }),
          before({ label: batchIs, data: share(signal.batch), backgroundColor: colour.mined })] },
        options: M.chartOptions(M.axis("percentile in the committee's reference", { ticks: { maxTicksLimit: 6 }, scale: { grid: { display: false } } }), M.axis("% of frames"), { tooltip: ofShare }) };
    });
    chart.after = () => {
      const signal = known[Number(select.value)];
      words.textContent = signal.doc + ".";
      one.canvas.setAttribute("aria-label", `Percentiles of ${M.words(signal.name)}, pool against ${batchIs}`);
      numbers(one.made, ["percentile", "pool", batchIs], labels.map((label, i) => [label, signal.pool[i], signal.batch[i]]));
    };
    select.addEventListener("change", () => redraw(chart));
    chart.after();
  }

  function slices() {
    const rows = charts.slices;
    if (!rows.length) return empty("Slices and quotas", M.data.batch_id ? "This batch has no quotas." : "There is no batch, so there are no quotas to fill.");
    const most = Math.max(1, ...rows.map((row) => Math.max(row.chosen, row.floor)));
    const lacking = rows.filter((row) => row.chosen < row.floor);
    const body = rows.map((row) => {
      const bar = M.el("div", { class: "quota" + (row.lack ? " lacks" : "") });
      const part = M.el("span", {}), floor = M.el("i", { title: "wanted at least " + row.floor });
      part.style.width = (100 * row.chosen) / most + "%";
      floor.style.left = (100 * row.floor) / most + "%";
      bar.append(part);
      if (row.floor) bar.append(floor);
      return M.el("tr", {}, M.el("th", { scope: "row" }, row.slice), M.el("td", { class: "num" }, String(row.chosen)),
        M.el("td", { class: "num" }, row.floor ? "≥ " + row.floor : "–"), M.el("td", { class: "num" }, "≤ " + row.ceiling),
        M.el("td", { class: "num" }, M.count(row.eligible)), M.el("td", { class: "wide-cell" }, bar, row.lack ? M.el("p", { class: "bad-text small" }, row.lack) : null));
    });
    grid.append(M.el("figure", { class: "chart wide" }, M.el("figcaption", {}, M.el("h3", {}, "Slices and quotas")),
      M.el("p", { class: "muted small" }, lacking.length ? `${lacking.length} of ${M.plural(rows.length, "slice")} hold${lacking.length === 1 ? "s" : ""} fewer frames than wanted.` : "Every slice holds what its quota asks for.", M.data.night ? " Counted over the whole batch." : ""),
      M.el("div", { class: "scroll tall" }, M.el("table", {}, M.el("thead", {}, M.el("tr", {}, ["Slice", "Chosen", "Floor", "Ceiling", "Eligible", "Chosen against the floor"].map((head, i) => M.el("th", { class: i > 0 && i < 5 ? "num" : null }, head)))),
        M.el("tbody", {}, body)))));
  }

  function hours() {
    const { pool, batch } = charts.hours;
    if (!pool.some(Boolean)) return empty("Time of day", "No frame of this footage is scored yet.");
    const top = pool.indexOf(Math.max(...pool));
    const { made, canvas } = figure("Time of day (UTC)", `Most of the pool was taken between ${top}:00 and ${top + 1}:00.`);
    draw(canvas, () => {
      const colour = colours();
      return { type: "bar", data: { labels: pool.map((_, hour) => String(hour)), datasets: [
        behind({ label: "pool", data: share(pool), backgroundColor: colour.pool }), before({ label: batchIs, data: share(batch), backgroundColor: colour.mined })] },
        options: M.chartOptions(M.axis("hour", { scale: { grid: { display: false } } }), M.axis("% of frames"), { tooltip: ofShare }) };
    });
    numbers(made, ["hour", "pool", batchIs], pool.map((count, hour) => [String(hour), count, batch[hour]]));
  }

  function classes() {
    const rows = charts.classes;
    if (!rows.length) return empty("Classes", "No member of the committee saw anything at its threshold.");
    const frames = charts.hardness.pool.reduce((a, b) => a + b, 0), chosen = M.frames.length;
    const { made, canvas, box } = figure("Classes", `Frames in which any member sees the class at its threshold; most often ${rows[0].class}.`);
    box.style.height = Math.max(240, 60 + 26 * rows.length) + "px";
    draw(canvas, () => {
      const colour = colours();
      return { type: "bar", data: { labels: rows.map((row) => M.words(row.class)), datasets: [
        { label: "pool", data: rows.map((row) => (100 * row.pool) / frames), backgroundColor: colour.pool },
        { label: batchIs, data: rows.map((row) => (chosen ? (100 * row.batch) / chosen : 0)), backgroundColor: colour.mined }] },
        options: M.chartOptions(M.axis("% of frames"), M.axis("", { ticks: { autoSkip: false }, scale: { grid: { display: false } } }), { across: true, tooltip: ofShare }) };
    });
    numbers(made, ["class", "pool", batchIs], rows.map((row) => [row.class, row.pool, row.batch]));
  }

  /* Points of the pool, the frames of the page over them; a click on one of these opens it. */
  function scatter(canvas, points, axes) {
    const arms = (random) => points.chosen.filter((point) => (M.frames[point[2]].arm === "random") === random).map(([x, y, frame]) => ({ x, y, frame }));
    return draw(canvas, () => {
      const colour = colours();
      const sets = [{ label: M.data.frames_are === "chosen" ? "mined" : batchIs, data: arms(false), backgroundColor: colour.mined, borderColor: style("--panel"), borderWidth: 1, pointRadius: points.chosen.length > 200 ? 3 : 4.5, pointHoverRadius: 7 },
        { label: "random", data: arms(true), backgroundColor: colour.random, borderColor: style("--panel"), borderWidth: 1, pointStyle: "triangle", pointRadius: 6, pointHoverRadius: 8 },
        { label: "pool", data: points.pool.map(([x, y]) => ({ x, y })), backgroundColor: colour.pool, pointRadius: 1.6, pointHoverRadius: 1.6, borderWidth: 0 }];
      const named = (item) => (item.raw.frame === undefined ? "a frame of the pool" : M.frames[item.raw.frame].drive_id + ", hardness " + M.fixed(M.frames[item.raw.frame].hardness, 2));
      return { type: "scatter", data: { datasets: sets.filter((set) => set.data.length) },
        options: M.chartOptions(axes()[0], axes()[1], { tooltip: { label: named }, onClick: (event, hits) => {
          const hit = hits.find((one) => one.element.$context.raw.frame !== undefined);
          if (hit) M.open(hit.element.$context.raw.frame);
        } }) };
    });
  }
  const sampleNote = (shown, of) => (shown < of ? `The pool's points are a sample: ${M.count(shown)} of ${M.count(of)}.` : "");

  function map() {
    const points = charts.map;
    if (!points.pool.length) return empty("Where", "The telemetry of this footage has no positions, so there is no map.");
    const drives = [...new Set(points.chosen.map((point) => M.frames[point[2]].drive_id))].sort();
    const zoom = M.el("select", { "aria-label": "Show on the map" }, M.el("option", { value: "" }, "everything"), drives.map((name) => M.el("option", { value: name }, name)));
    const { canvas } = figure("Where", `Where the frames were taken: ${M.count(points.pool_frames)} frames have a position, of these ${M.count(points.chosen.length)} shown as chosen. North is up.`,
      { control: zoom, note: sampleNote(points.pool.length, points.pool_frames) });
    const degrees = { ticks: { maxTicksLimit: 7, includeBounds: false, maxRotation: 0, format: { maximumFractionDigits: 5 } } };
    const entry = scatter(canvas, points, () => [M.axis("longitude, degrees", degrees), M.axis("latitude, degrees", degrees)]);
    /* All of it, or around the frames shown of one drive: a fleet in several cities would be a dot each. */
    const zoomed = (drive) => points.chosen.filter((point) => M.frames[point[2]].drive_id === drive);
    entry.after = () => {
      /* As many metres to a pixel across as up and down. */
      const { width, height } = entry.chart.chartArea;
      if (!width || !height) return;
      const shown = zoom.value ? zoomed(zoom.value) : [...points.pool, ...points.chosen];
      const range = (axis) => [Math.min(...shown.map((p) => p[axis])), Math.max(...shown.map((p) => p[axis]))];
      const [west, east] = range(0), [south, north] = range(1);
      const narrowing = Math.max(0.01, Math.cos((((south + north) / 2) * Math.PI) / 180));
      const perPixel = Math.max((1.15 * Math.max(east - west, 0.002) * narrowing) / width, (1.15 * Math.max(north - south, 0.002)) / height);
      const scales = entry.chart.options.scales;
      [scales.x.min, scales.x.max] = [-1, 1].map((side) => (west + east) / 2 + (side * perPixel * width) / 2 / narrowing);
      [scales.y.min, scales.y.max] = [-1, 1].map((side) => (south + north) / 2 + (side * perPixel * height) / 2);
      entry.chart.update("none");
    };
    zoom.addEventListener("change", () => entry.after());
    entry.after();
    new ResizeObserver(() => requestAnimationFrame(entry.after)).observe(canvas.parentElement);
  }

  function embedding() {
    const points = charts.embedding;
    if (!points.pool.length) return empty("What the frames look like", "Too few frames have an embedding to draw them.");
    const pool = charts.hardness.pool.reduce((a, b) => a + b, 0);
    const { canvas } = figure("What the frames look like", "Embeddings of the first detector along the two directions in which they differ most (PCA): near each other is alike.",
      { note: sampleNote(points.pool.length, pool) });
    scatter(canvas, points, () => points.explained.map((part, i) => M.axis(`direction ${i + 1}: ${M.percent(part)} of the variance`, { ticks: { display: false } })));
  }

  hardness(); signals(); hours(); classes(); map(); embedding(); slices();
}
