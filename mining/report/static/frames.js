"use strict";
/* The contact sheet: a card a frame, boxes drawn over its picture, and the filters, which hide cards and touch nothing else. */
{
  const sheet = M.byId("sheet");
  const bar = M.byId("bar");
  const NO_SLICE = "\u0000none";
  M.cards = [];       // one a frame of M.frames, in the same order: {root, picture}
  M.current = -1;     // the frame that keys act upon, as its place in M.frames
  M.visible = [];     // places of the frames that the filters leave, as they are sorted

  /* -- boxes ---------------------------------------------------------------------------------------------------- */

  const outline = ([x1, y1, x2, y2]) => `M${x1} ${y1}H${x2}V${y2}H${x1}Z`;

  const corner = ([x1, y1, x2, y2], most) => {
    const side = Math.min(most, 0.6 * (x2 - x1), 0.6 * (y2 - y1));
    return `M${x1} ${y1}h${side}l${-side} ${side}Z`;
  };

  /* Few paths and not a rectangle a box: thousands of boxes are on the sheet. */
  M.overlay = function (frame) {
    const width = frame.width_px || 16, height = frame.height_px || 9;
    const drawn = M.svg("svg", { class: "boxes", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "xMidYMid meet", "aria-hidden": "true" });
    const flag = Math.max(width, height) / 45;
    for (const [name, index] of M.memberIndex) {
      const own = frame.boxes.filter((box) => box.detector === name);
      const paths = (boxes) => boxes.map((box) => outline(box.box)).join("");
      const agreed = own.filter((box) => !box.disagrees), disputed = own.filter((box) => box.disagrees);
      const member = M.svg("g", { class: "member m" + index });
      if (agreed.length) member.append(M.svg("path", { class: "agreed", d: paths(agreed) }));
      if (disputed.length) {
        member.append(M.svg("path", { class: "rim", d: paths(disputed) }), M.svg("path", { class: "disputed", d: paths(disputed) }),
          M.svg("path", { class: "flag", d: disputed.map((box) => corner(box.box, flag)).join("") }));
      }
      drawn.append(member);
    }
    return drawn;
  };

  /* Write what each box is, in letters that can be read at the size at which it is shown, none over another. */
  M.labelBoxes = function (drawn, frame) {
    drawn.querySelectorAll("text").forEach((old) => old.remove());
    const width = frame.width_px || 16, height = frame.height_px || 9;
    const { width: wide, height: high } = drawn.getBoundingClientRect();
    if (!wide || !high) return;
    const size = 11.5 / Math.min(wide / width, high / height);
    const taken = [];
    const free = (spot) => !taken.some((other) => spot.x < other.x + other.w && other.x < spot.x + spot.w && spot.y < other.y + size * 1.1 && other.y < spot.y + size * 1.1);
    /* The disputed first: they get the best places. */
    for (const box of [...frame.boxes].sort((a, b) => b.disagrees - a.disagrees || b.confidence - a.confidence)) {
      const index = M.memberIndex.get(box.detector), [x1, y1, x2, y2] = box.box;
      const text = `${box.disagrees ? "≠ " : ""}${index + 1} ${M.words(box.class)} ${box.confidence.toFixed(2)}`;
      const w = text.length * size * 0.63, x = Math.max(0, Math.min(x1, width - w));
      const below = [y2, y2 + size * 1.15, y2 + size * 2.3], above = [y1 - size * 1.25, y1 - size * 2.4, y1 - size * 3.55];
      const tops = (index % 2 ? [...below, ...above] : [...above, ...below]).filter((y) => y >= 0 && y + size <= height);
      const spot = [...tops, y1 + size * 0.1].map((y) => ({ x, y, w })).find(free);
      if (!spot) continue;   // the table beside the picture has it
      taken.push(spot);
      drawn.querySelector(".m" + index).append(M.svg("text", { class: "label", x: spot.x, y: spot.y + size * 0.9, "font-size": size, "data-match": box.match_id }, text));
    }
  };

  /* -- cards ---------------------------------------------------------------------------------------------------- */

  M.alt = function (frame) {
    const seen = frame.classes.length ? "shows " + frame.classes.map(M.words).join(", ") : "nothing seen at the threshold";
    return `Frame of drive ${frame.drive_id}, camera ${frame.camera}, ${M.time(frame.captured_at)}: ${seen}; ` +
      `${frame.boxes.length} ${frame.boxes.length === 1 ? "box" : "boxes"}, the committee disagrees about ${M.plural(frame.disagreements, "object")}; hardness ${M.fixed(frame.hardness, 2)}`;
  };

  M.picture = function (frame, options) {
    const box = M.el("div", { class: "picture" });
    if (frame.image) {
      const image = M.el("img", { alt: M.alt(frame), decoding: "async", loading: "lazy" });
      image.src = options?.large && M.isReview ? frame.image + "?size=large" : frame.image + (M.isReview && !frame.image.startsWith("data:") ? "?size=thumb" : "");
      image.addEventListener("error", () => { image.hidden = true; box.append(missing("the picture could not be loaded")); });
      box.append(image, M.overlay(frame));
    } else {
      box.append(missing(frame.image_error || "no picture was made"));
    }
    return box;
  };
  const missing = (why) => M.el("p", { class: "missing" }, M.el("b", {}, "No picture. "), why);

  M.how = function (frame) {
    if (frame.replaces) return "replacement";
    if (frame.like) return "like another";
    if (!frame.arm) return M.data.frames_are === "chosen" ? "not in the batch" : "hard";
    return frame.arm === "random" ? "random " + frame.rank : "mined " + frame.rank;
  };

  M.unchosen = (frame) => (frame.like ? `Looks like ${frame.like}, of which more were asked for.` : frame.replaces ? `In place of ${frame.replaces}, which was dropped.` : "Not chosen: shown for its hardness.");

  function card(frame, place) {
    const meter = M.el("span", { class: "meter", "aria-hidden": "true" }, M.el("i"));
    meter.firstChild.style.width = 100 * (frame.hardness ?? 0) + "%";
    const root = M.el("article", { class: "card", role: "listitem", tabindex: "-1", "data-frame": frame.frame_id },
      M.el("button", { type: "button", class: "open", tabindex: "-1", "aria-label": "Show large: " + M.alt(frame), onclick: () => M.open(place) }, M.picture(frame)),
      M.el("div", { class: "about" },
        M.el("p", { class: "line" }, M.el("span", { class: "badge " + (frame.arm || "other") }, M.how(frame)),
          frame.slice !== null && frame.slice !== undefined ? M.el("span", { class: "badge slice" }, frame.slice) : null,
          frame.disagreements ? M.el("span", { class: "badge dispute", title: "Objects about which the committee disagrees" }, "≠ " + frame.disagreements) : null,
          M.el("span", { class: "hard" }, meter, M.fixed(frame.hardness, 2))),
        M.el("p", { class: "reason" }, frame.reason || M.unchosen(frame)),
        M.el("p", { class: "muted small where" }, frame.drive_id, " · ", frame.camera, " · ", frame.captured_at ? frame.captured_at.slice(11, 19) : "")));
    root.addEventListener("focus", () => { M.current = place; });
    root.addEventListener("focusin", () => { M.current = place; });
    return { root };
  }

  M.addFrame = function (frame) {
    if (M.frames.includes(frame) && M.cards.length > M.frames.indexOf(frame)) return M.frames.indexOf(frame);
    if (!M.frames.includes(frame)) M.frames.push(frame);
    const place = M.frames.indexOf(frame);
    M.cards[place] = card(frame, place);
    sheet.append(M.cards[place].root);
    M.onCard?.(place);
    return place;
  };
  M.placeOf = (id) => M.frames.findIndex((frame) => frame.frame_id === id);

  /* -- filters -------------------------------------------------------------------------------------------------- */

  const distinct = (values) => [...new Set(values.filter((value) => value !== null && value !== undefined))].sort();
  const select = (name, title, options) => M.el("label", {}, title, M.el("select", { id: "f-" + name, onchange: () => M.filter() },
    M.el("option", { value: "" }, "all"), options.map(([value, text]) => M.el("option", { value }, text))));
  const plain = (values) => values.map((value) => [value, M.words(value)]);
  const signalNames = () => M.data.charts.signals.map((signal) => [signal.name, M.words(signal.name)]);
  const SORTS = {
    rank: ["order of choice", (a, b) => a - b],
    hardness: ["hardest first", (a, b) => (M.frames[b].hardness ?? -1) - (M.frames[a].hardness ?? -1) || a - b],
    disagreement: ["most disagreement first", (a, b) => M.frames[b].disagreements - M.frames[a].disagreements || a - b],
    time: ["time", (a, b) => (M.frames[a].captured_at || "").localeCompare(M.frames[b].captured_at || "") || a - b],
    signal: ["the signal, highest first", (a, b) => percentile(b) - percentile(a) || a - b],
  };
  const percentile = (place) => M.frames[place].percentiles[M.byId("f-signal").value] ?? -1;

  function buildBar() {
    const slices = distinct(M.frames.map((frame) => frame.slice)).map((name) => [name, name]);
    const none = M.frames.some((frame) => frame.slice === null) ? [[NO_SLICE, "in no slice"]] : [];
    const classes = distinct(M.frames.flatMap((frame) => frame.classes));
    const drives = distinct(M.frames.map((frame) => frame.drive_id)).map((name) => [name, name]);
    const range = M.el("input", { id: "f-least", type: "range", min: 0, max: 100, step: 5, value: 0, "aria-label": "Least percentile of the signal", disabled: true, oninput: () => M.filter() });
    bar.append(
      M.el("div", { class: "filters", role: "group", "aria-label": "Filters" },
        select("slice", "Slice", [...slices, ...(slices.length ? none : [])]),
        select("class", "Class", plain(classes)),
        select("drive", "Drive", drives),
        select("arm", "Arm", plain(distinct(M.frames.map((frame) => frame.arm)))),
        select("signal", "Signal", signalNames()),
        M.el("label", { class: "range" }, M.el("span", { id: "f-least-text" }, "at least 0 %"), range),
        M.isReview ? select("verdict", "Verdict", M.VERDICT_FILTERS) : null,
        M.el("label", {}, "Order", M.el("select", { id: "f-sort", onchange: () => M.filter() },
          Object.entries(SORTS).map(([value, [text]]) => M.el("option", { value }, text)))),
        M.el("label", { class: "check" }, M.el("input", { id: "f-dispute", type: "checkbox", onchange: () => M.filter() }), "disagreement only"),
        M.el("button", { type: "button", id: "f-reset", onclick: reset }, "Reset")),
      M.el("div", { class: "row" },
        M.el("div", { class: "legend", role: "group", "aria-label": "Members of the committee: switch their boxes on and off" },
          M.data.members.map((member, index) => {
            const swatch = M.el("i", { class: "swatch" });
            swatch.style.background = M.COLOURS[index];
            return M.el("button", { type: "button", class: "member-switch", "aria-pressed": "true", id: "member-" + index, title: `Boxes of ${member.name} (key ${index + 1}); at least ${M.value(member.threshold)} sure`,
              onclick: () => M.toggleMember(index) }, swatch, `${index + 1} ${member.name}`);
          }),
          M.el("span", { class: "key small muted" }, M.legendMark("disputed"), "disagreement"),
          M.el("span", { class: "key small muted" }, M.legendMark("agreed"), "agreed")),
        M.el("strong", { id: "shown", role: "status" })));
    [M.byId("f-slice"), M.byId("f-class"), M.byId("f-drive"), M.byId("f-arm")].forEach((one) => { one.disabled = one.options.length < 2; });
  }
  M.legendMark = (kind) => M.svg("svg", { class: "boxes mark", viewBox: "0 0 22 14", width: 22, height: 14, "aria-hidden": "true" },
    M.svg("path", { class: kind, d: "M2 2H20V12H2Z" }), kind === "disputed" ? M.svg("path", { class: "flag", d: "M2 2h7l-7 7Z" }) : null);

  function reset() {
    bar.querySelectorAll("select").forEach((one) => { one.selectedIndex = 0; });
    M.byId("f-least").value = 0;
    M.byId("f-dispute").checked = false;
    M.filter();
  }

  M.toggleMember = function (index) {
    const button = M.byId("member-" + index);
    if (!button) return;
    const off = document.body.classList.toggle("hide-m" + index);
    button.setAttribute("aria-pressed", String(!off));
    M.say(`Boxes of ${M.data.members[index].name} ${off ? "hidden" : "shown"}`);
  };

  M.filter = function () {
    const chosen = (name) => M.byId("f-" + name)?.value || "";
    const [slice, of, drive, arm, signal, verdict] = ["slice", "class", "drive", "arm", "signal", "verdict"].map(chosen);
    const least = Number(M.byId("f-least").value) / 100, dispute = M.byId("f-dispute").checked;
    M.byId("f-least").disabled = !signal;
    M.byId("f-least-text").textContent = `at least ${Math.round(100 * least)} %`;
    M.visible = [];
    M.frames.forEach((frame, place) => {
      const passes =
        (!slice || (slice === NO_SLICE ? frame.slice === null : frame.slice === slice)) &&
        (!of || frame.classes.includes(of)) && (!drive || frame.drive_id === drive) && (!arm || frame.arm === arm) &&
        (!signal || (frame.percentiles[signal] ?? -1) >= least) && (!dispute || frame.disagreements > 0) &&
        (!verdict || M.hasVerdict(place, verdict));
      const { root } = M.cards[place];
      if (root.hidden === passes) root.hidden = !passes;   // what is touched is laid out anew
      if (passes) M.visible.push(place);
    });
    const sort = chosen("sort");
    M.visible.sort(SORTS[sort === "signal" && !signal ? "rank" : sort][1]);
    /* Order without moving elements: a grid lays its items out by this. */
    M.visible.forEach((place, order) => {
      const { style } = M.cards[place].root;
      if (style.order !== String(order)) style.order = order;
    });
    M.byId("shown").textContent = `${M.count(M.visible.length)} of ${M.plural(M.frames.length, "frame")}`;
    const none = M.byId("none");
    none.hidden = M.visible.length > 0;
    none.textContent = M.frames.length ? "No frame passes these filters. Reset shows all again." : "There is no frame to show.";
    M.onFilter?.();
  };

  /* -- moving about --------------------------------------------------------------------------------------------- */

  M.focusCard = function (place) {
    if (place < 0 || place >= M.cards.length) return;
    if (M.current >= 0 && M.cards[M.current]) M.cards[M.current].root.tabIndex = -1;
    M.current = place;
    const { root } = M.cards[place];
    root.tabIndex = 0;
    root.focus({ preventScroll: true });
    root.scrollIntoView({ block: "nearest" });
  };
  /* The frame so many places on among those that are shown; the end stays the end. */
  M.beside = function (place, step) {
    const at = M.visible.indexOf(place);
    if (at < 0) return M.visible[0] ?? -1;
    return M.visible[Math.min(Math.max(at + step, 0), M.visible.length - 1)];
  };

  M.startFrames = function () {
    buildBar();
    M.frames.forEach(M.addFrame);
    M.filter();
    if (M.visible.length) M.cards[M.visible[0]].root.tabIndex = 0;
  };
}
