"use strict";
/* A frame large, with its numbers, what each member of the committee made of each object, and its neighbours in time. */
{
  const dialog = M.byId("large");
  let drawn = null;   // the chart that is open
  M.large = -1;       // place of the frame that is shown

  M.open = function (place) {
    const frame = M.frames[place];
    if (!frame) return;
    if (drawn) { M.forgetChart(drawn); drawn = null; }
    M.large = M.current = place;
    const number = M.visible.indexOf(place);
    const move = (step, text, name) => M.el("button", { type: "button", "aria-label": name, title: name, onclick: () => M.step(step) }, text);
    dialog.replaceChildren(
      M.el("header", { class: "large-bar" },
        M.el("h2", { id: "large-title" }, frame.drive_id + " · " + frame.camera),
        M.el("span", { class: "muted" }, number < 0 ? "" : `${number + 1} of ${M.visible.length}`),
        move(-1, "←", "Previous frame (k)"), move(1, "→", "Next frame (j)"),
        M.el("button", { type: "button", class: "close", "aria-label": "Close (Esc)", onclick: M.close }, "✕")),
      M.el("div", { class: "large-body" },
        M.el("div", { class: "stage" }, M.picture(frame, { large: true }), legend()),
        M.el("div", { class: "side", tabindex: "0", role: "region", "aria-label": "Numbers" },
          M.el("p", { class: "line" }, M.el("span", { class: "badge " + (frame.arm || "other") }, M.how(frame)),
            frame.slice ? M.el("span", { class: "badge slice" }, frame.slice) : null,
            frame.disagreements ? M.el("span", { class: "badge dispute" }, `≠ ${M.plural(frame.disagreements, "object")} in dispute`) : null),
          M.el("p", { class: "reason large-reason" }, frame.reason || M.unchosen(frame)),
          M.isReview ? M.verdictBox(place) : null,
          objects(frame), signals(frame), neighbours(frame), facts(frame))));
    if (!dialog.open) dialog.showModal();
    label();
    drawDrive(frame);
    dialog.querySelector(".close").focus({ preventScroll: true });
    M.say(M.alt(frame));
  };

  function label() {
    const boxes = dialog.querySelector(".stage .boxes");
    if (boxes && M.large >= 0) M.labelBoxes(boxes, M.frames[M.large]);
  }
  addEventListener("resize", label);

  M.step = function (step) {
    const next = M.beside(M.large, step);
    if (next >= 0 && next !== M.large) M.open(next);
  };

  M.close = () => dialog.close();
  dialog.addEventListener("close", () => {
    if (drawn) { M.forgetChart(drawn); drawn = null; }
    const place = M.large;
    M.large = -1;
    M.focusCard(place);
  });

  const legend = () => M.el("p", { class: "legend small" }, M.data.members.map((member, index) => {
    const swatch = M.el("i", { class: "swatch" });
    swatch.style.background = M.COLOURS[index];
    return M.el("button", { type: "button", class: "member-switch", "aria-pressed": String(!document.body.classList.contains("hide-m" + index)),
      onclick: (event) => { M.toggleMember(index); event.currentTarget.setAttribute("aria-pressed", String(!document.body.classList.contains("hide-m" + index))); } }, swatch, `${index + 1} ${member.name}`);
  }), M.el("span", { class: "key muted" }, M.legendMark("disputed"), "disagreement"), M.el("span", { class: "key muted" }, M.legendMark("agreed"), "agreed"));

  /* A row an object, a column a member: who saw it, and as what. */
  function objects(frame) {
    if (!frame.boxes.length) return part("Objects", M.el("p", { class: "empty" }, "No member saw anything at its threshold."));
    const matched = new Map();
    for (const box of frame.boxes) {
      if (!matched.has(box.match_id)) matched.set(box.match_id, []);
      matched.get(box.match_id).push(box);
    }
    const best = (boxes) => Math.max(...boxes.map((box) => box.confidence));
    const rows = [...matched].sort((a, b) => b[1][0].disagrees - a[1][0].disagrees || best(b[1]) - best(a[1]));
    const cell = (box) => (box ? M.el("td", {}, M.words(box.class), " ", M.el("span", { class: "muted" }, box.confidence.toFixed(2))) : M.el("td", { class: "muted" }, "not seen"));
    return part("Objects", M.el("div", { class: "scroll tall" }, M.el("table", {},
      M.el("thead", {}, M.el("tr", {}, M.el("th", {}, ""), M.data.members.map((member) => M.el("th", {}, member.name)))),
      M.el("tbody", {}, rows.map(([match, boxes]) => M.el("tr", { onmouseenter: () => mark(match, true), onmouseleave: () => mark(match, false) },
        M.el("td", { title: boxes[0].disagrees ? "the committee disagrees" : "agreed" }, boxes[0].disagrees ? "≠" : "="),
        M.data.members.map((member) => cell(boxes.find((box) => box.detector === member.name)))))))));
  }
  function mark(match, on) {
    dialog.querySelectorAll(".label").forEach((text) => text.classList.toggle("faded", on && text.dataset.match !== String(match)));
  }

  const part = (title, ...content) => M.el("section", {}, M.el("h3", {}, title), ...content);

  function signals(frame) {
    const row = (signal) => {
      const share = frame.percentiles[signal.name];
      const bar = M.el("span", { class: "meter" }, M.el("i"));
      bar.firstChild.style.width = 100 * (share ?? 0) + "%";
      return M.el("tr", { title: signal.doc }, M.el("th", { scope: "row" }, M.words(signal.name)), M.el("td", { class: "num" }, M.value(frame.signals[signal.name])),
        M.el("td", {}, bar), M.el("td", { class: "num" }, M.percent(share)));
    };
    const table = (rows) => M.el("table", { class: "signals" }, M.el("thead", {}, M.el("tr", {}, ["Signal", "Value", "", "Percentile"].map((head) => M.el("th", {}, head)))), M.el("tbody", {}, rows.map(row)));
    const known = M.data.charts.signals;
    const others = known.filter((signal) => !signal.weight);
    const rest = M.el("details", {}, M.el("summary", {}, M.plural(others.length, "more signal")));
    rest.addEventListener("toggle", () => { if (rest.open && rest.children.length === 1) rest.append(M.el("div", { class: "scroll tall" }, table(others))); });
    return part(`Hardness ${M.fixed(frame.hardness, 3)}`, table(known.filter((signal) => signal.weight)), others.length ? rest : null);
  }

  function neighbours(frame) {
    const around = frame.neighbours.map((near) => {
      const place = M.placeOf(near.frame_id);
      const name = place < 0 ? M.el("code", {}, near.frame_id) : M.el("button", { type: "button", class: "link", onclick: () => M.open(place) }, near.frame_id);
      return M.el("tr", {}, M.el("td", { class: "num" }, M.seconds(near.dt_s)), M.el("td", { class: "num" }, M.fixed(near.hardness, 2)), M.el("td", {}, name, place < 0 ? "" : " shown here"));
    });
    return part("Neighbours in time",
      M.el("div", { class: "plot small-plot" }, M.el("canvas", { id: "drive-plot", role: "img", "aria-label": `Hardness over time of drive ${frame.drive_id}, camera ${frame.camera}` })),
      around.length ? M.el("div", { class: "scroll" }, M.el("table", {}, M.el("thead", {}, M.el("tr", {}, ["Apart", "Hardness", "Frame"].map((head) => M.el("th", {}, head)))), M.el("tbody", {}, around)))
        : M.el("p", { class: "empty" }, "No other frame of this camera was sampled within a minute."));
  }

  function drawDrive(frame) {
    const canvas = M.byId("drive-plot");
    const drive = M.data.charts.drives.find((one) => one.drive_id === frame.drive_id && one.camera === frame.camera);
    if (!drive || !frame.captured_at) { canvas.parentElement.replaceChildren(M.el("p", { class: "empty" }, "Nothing is known of the drive around this frame.")); return; }
    const start = Date.parse(drive.started_at);
    const at = (one) => (Date.parse(one.captured_at) - start) / 1000;
    const near = M.frames.filter((one) => one.drive_id === frame.drive_id && one.camera === frame.camera && one.captured_at);
    drawn = M.drawChart(canvas, () => {
      const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      return { type: "scatter", data: { datasets: [
        { label: "this frame", data: [{ x: at(frame), y: frame.hardness }], backgroundColor: style("--accent"), pointRadius: 7, pointStyle: "rectRot", clip: 10 },
        { label: M.data.frames_are === "chosen" ? "chosen" : "shown", data: near.filter((one) => one !== frame).map((one) => ({ x: at(one), y: one.hardness, place: M.frames.indexOf(one) })), backgroundColor: style("--mined"), pointRadius: 4, clip: 10 },
        { label: "drive", data: drive.at_s.map((x, i) => ({ x, y: drive.hardness[i] })), showLine: true, borderColor: style("--pool"), borderWidth: 1.5, pointRadius: 0, backgroundColor: style("--pool") }] },
        options: M.chartOptions(M.axis("seconds into the drive", { scale: { min: 0, max: Math.max(...drive.at_s, at(frame), 1) }, ticks: { maxTicksLimit: 7 } }), M.axis("hardness", { scale: { min: 0, max: 1 }, ticks: { maxTicksLimit: 3 } }),
          { onClick: (event, hits) => { const hit = hits.find((one) => one.element.$context.raw.place !== undefined); if (hit) M.open(hit.element.$context.raw.place); } }) };
    });
  }

  function facts(frame) {
    const place = frame.latitude_deg === null || frame.longitude_deg === null ? null : `${frame.latitude_deg.toFixed(5)}, ${frame.longitude_deg.toFixed(5)}`;
    const rows = [
      ["Frame", frame.frame_id], ["Taken", M.time(frame.captured_at)], ["Vehicle", frame.vehicle_id], ["Recording", frame.recording_id && `${frame.recording_id}, frame ${frame.frame_index}`],
      ["Replaces", frame.replaces], ["Looks like", frame.like], ["Size", frame.width_px && `${frame.width_px} × ${frame.height_px} px`],
      ["Speed", frame.speed_mps === null ? null : `${M.value(3.6 * frame.speed_mps)} km/h`], ["Place", place],
      ["Light", frame.luma_mean === null ? null : `mean luma ${M.value(frame.luma_mean)} of 255${frame.is_night ? ", night" : ""}`], ["Sharpness", frame.sharpness === null ? null : M.value(frame.sharpness)],
      ["Boxes to draw", frame.estimated_boxes === null ? null : M.value(frame.estimated_boxes)], ["Distance to chosen", frame.distance_to_chosen === null ? null : M.value(frame.distance_to_chosen)],
      ...Object.entries(frame.tags), ["State", frame.error ? `${frame.status}: ${frame.error}` : frame.status],
    ];
    return part("Facts", M.el("dl", { class: "facts" }, rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [M.el("dt", {}, name), M.el("dd", {}, value)])));
  }
}
