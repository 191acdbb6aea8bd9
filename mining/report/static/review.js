"use strict";
/* Verdicts: keep, drop, more like this. Each is sent until the server has it; what others decide is asked for every few seconds. */
{
  const KINDS = { keep: "Keep", drop: "Drop", more: "More like this" };
  const REASONS = ["blurred, dark or dirty", "nothing to label", "much like another frame", "private: faces, plates or a place", "the detectors are right here", "not worth a labeler's time"];
  const POLL_MS = 3000, RETRY_MS = 3000;
  const me = M.data.reviewer || "";
  const verdicts = new Map();   // frame_id -> [{reviewer, verdict, reason, at}], as the server knows them
  const waiting = [];           // verdicts that the server does not have yet, in order
  let version = 0, sending = false, unreachable = false, problem = "", note = "", progress = null;

  M.VERDICT_FILTERS = [["mine-none", "not reviewed by me"], ["none", "reviewed by nobody"], ["keep", "keep"], ["drop", "drop"], ["more", "more like this"], ["contradiction", "contradictions"], ["replacement", "came in the review"], ["outside", "not in the batch"]];

  async function call(path, body) {
    const response = await fetch(path, body === undefined ? { cache: "no-store" } : { method: "POST", headers: { "Content-Type": "application/json", "X-Mining": "1" }, body: JSON.stringify(body) });
    let answer = null;
    try { answer = await response.json(); } catch { /* not from our server: said below */ }
    if (!response.ok || answer === null) {
      const error = new Error(answer?.error || `the server answered ${response.status}`);
      error.refused = response.status >= 400 && response.status < 500;
      throw error;
    }
    return answer;
  }
  M.call = call;

  /* -- what is known --------------------------------------------------------------------------------------------- */

  /* With what still waits: a verdict shows at once. */
  function known(id) {
    const others = (verdicts.get(id) || []).filter((one) => one.reviewer !== me);
    const last = waiting.findLast((one) => one.frame_id === id);
    const mine = last ? (last.verdict ? { reviewer: me, verdict: last.verdict, reason: last.reason, pending: true } : null) : (verdicts.get(id) || []).find((one) => one.reviewer === me);
    return { mine: mine || null, others };
  }
  const all = (id) => { const { mine, others } = known(id); return mine ? [mine, ...others] : others; };
  const contradicted = (id) => { const found = new Set(all(id).map((one) => one.verdict)); return found.has("drop") && (found.has("keep") || found.has("more")); };

  M.hasVerdict = function (place, wanted) {
    const frame = M.frames[place], found = all(frame.frame_id);
    if (wanted === "mine-none") return !known(frame.frame_id).mine;
    if (wanted === "none") return !found.length;
    if (wanted === "contradiction") return contradicted(frame.frame_id);
    if (wanted === "replacement") return Boolean(frame.replaces || frame.like);
    if (wanted === "outside") return frame.in_batch === false;
    return found.some((one) => one.verdict === wanted);
  };

  /* -- what is shown --------------------------------------------------------------------------------------------- */

  function controls(place) {
    const frame = M.frames[place], { mine, others } = known(frame.frame_id);
    const buttons = Object.entries(KINDS).map(([kind, text]) => M.el("button", { type: "button", class: kind + (mine?.pending ? " pending" : ""), "aria-pressed": String(mine?.verdict === kind),
      onclick: () => M.decide(place, mine?.verdict === kind ? null : kind) }, text));
    const said = [...(mine?.reason ? [["you", mine]] : []), ...others.map((one) => [one.reviewer, one])].map(([who, one]) => M.el("li", {}, M.el("b", {}, who), ": ", KINDS[one.verdict]?.toLowerCase() || one.verdict, one.reason ? " – " + one.reason : ""));
    return [M.el("div", { class: "verdicts", role: "group", "aria-label": "Your verdict" }, buttons, contradicted(frame.frame_id) ? M.el("span", { class: "badge contradiction" }, "contradiction") : null,
      frame.in_batch === false ? M.el("span", { class: "badge" }, "not in the batch") : null),
      said.length ? M.el("ul", { class: "others" }, said) : null];
  }
  M.verdictBox = (place) => M.el("div", { id: "large-verdict" }, controls(place));

  function show(place) {
    const frame = M.frames[place], { root } = M.cards[place], found = all(frame.frame_id);
    let box = root.querySelector(".review");
    if (!box) { box = M.el("div", { class: "review" }); root.querySelector(".about").append(box); }
    const focused = box.contains(document.activeElement) ? document.activeElement.className.split(" ")[0] : null;
    box.replaceChildren(...controls(place).filter(Boolean));
    if (focused) box.querySelector("." + focused)?.focus({ preventScroll: true });
    root.classList.toggle("is-outside", frame.in_batch === false);
    root.classList.toggle("is-dropped", found.some((one) => one.verdict === "drop"));
    root.classList.toggle("is-kept", found.some((one) => one.verdict === "keep") && !contradicted(frame.frame_id));
    root.classList.toggle("is-contradicted", contradicted(frame.frame_id));
    if (M.large === place && M.byId("large-verdict")) {
      const inside = M.byId("large-verdict").contains(document.activeElement) ? document.activeElement.className.split(" ")[0] : null;
      M.byId("large-verdict").replaceChildren(...controls(place).filter(Boolean));
      if (inside) M.byId("large-verdict").querySelector("." + inside)?.focus({ preventScroll: true });
    }
  }
  M.onCard = show;

  function showState() {
    const mine = M.frames.filter((frame) => known(frame.frame_id).mine).length, clashes = M.frames.filter((frame) => contradicted(frame.frame_id)).length;
    progress.meter.style.width = (M.frames.length ? (100 * mine) / M.frames.length : 0) + "%";
    progress.text.textContent = `${mine} of ${M.frames.length} reviewed by you` + (clashes ? `, ${M.plural(clashes, "contradiction")}` : "") + (waiting.length ? `, ${waiting.length} being saved` : "");
    progress.note.textContent = note;
    M.banner(problem || (unreachable ? (waiting.length ? `The server does not answer: ${M.plural(waiting.length, "verdict")} not saved yet. Trying again; leave this page open.` : "The server does not answer: what others decide is not shown. Trying again.") : ""));
  }
  function showFrame(id) {
    const place = M.placeOf(id);
    if (place >= 0) show(place);
    showState();
  }

  /* -- deciding -------------------------------------------------------------------------------------------------- */

  M.decide = function (place, verdict) {
    if (place < 0) return;
    if (verdict === "drop") return askReason(place);
    put(place, verdict, null);
  };

  function put(place, verdict, reason) {
    const frame = M.frames[place];
    problem = note = "";
    waiting.push({ frame_id: frame.frame_id, verdict, reason });
    showFrame(frame.frame_id);
    M.say(verdict ? `${KINDS[verdict]}: ${frame.frame_id}` : `verdict taken back: ${frame.frame_id}`);
    if (verdict === "keep" || verdict === "drop") onward(place);
    send();
  }
  function onward(place) {
    const next = M.beside(place, 1);
    if (next < 0 || next === place) return;
    if (M.large >= 0) M.open(next);
    else M.focusCard(next);
  }

  function askReason(place) {
    const dialog = M.byId("drop");
    const give = (reason) => { dialog.close(); put(place, "drop", reason); };
    const free = M.el("input", { type: "text", id: "drop-reason", maxlength: 500, autocomplete: "off", placeholder: "or in your own words" });
    dialog.replaceChildren(M.el("header", { class: "large-bar" }, M.el("h2", { id: "drop-title" }, "Why drop this frame?"), M.el("button", { type: "button", class: "close", "aria-label": "Close without a verdict (Esc)", onclick: () => dialog.close() }, "✕")),
      M.el("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); if (free.value.trim()) give(free.value.trim()); else free.focus(); } },
        REASONS.map((reason, i) => M.el("button", { type: "button", class: "choice", onclick: () => give(reason) }, M.el("kbd", {}, String(i + 1)), reason)),
        M.el("label", { class: "hidden", for: "drop-reason" }, "Reason in your own words"), free, M.el("button", { type: "submit", class: "primary" }, "Drop")));
    dialog.onkeydown = (event) => { if (/^[1-6]$/.test(event.key) && event.target !== free) { event.preventDefault(); event.stopPropagation(); give(REASONS[Number(event.key) - 1]); } };
    dialog.showModal();
    dialog.querySelector(".choice").focus();
  }

  /* One after another, in order; what the server refuses is said, what it did not get is sent again. */
  async function send() {
    if (sending) return;
    sending = true;
    while (waiting.length) {
      const next = waiting[0];
      try {
        const answer = await call("api/verdicts", next);
        unreachable = false;
        const others = (verdicts.get(next.frame_id) || []).filter((one) => one.reviewer !== me);
        verdicts.set(next.frame_id, next.verdict ? [...others, { reviewer: me, verdict: next.verdict, reason: next.reason }] : others);
        waiting.shift();
        /* `version` stays: the poll brings what others did in between. */
        if (answer.replacement) note = addFrames([answer.replacement]) ? "Another frame took its place: it is at the end of the sheet." : "";
        if (answer.similar?.length && addFrames(answer.similar)) note = `${M.plural(answer.similar.length, "frame")} like this one came to the end of the sheet: keep takes one into the batch.`;
        if (answer.note) note = answer.note;
        showFrame(next.frame_id);
      } catch (error) {
        if (error.refused) {
          waiting.shift();
          problem = `Not saved: ${error.message} (${next.verdict || "taking back"}, frame ${next.frame_id})`;
          showFrame(next.frame_id);
        } else {
          unreachable = true;
          showState();
          await new Promise((done) => setTimeout(done, RETRY_MS));
        }
      }
    }
    sending = false;
    showState();
  }

  async function undo() {
    if (waiting.length) { note = "Not undone: a verdict was still being saved. Press u again."; showState(); return; }
    try {
      const answer = await call("api/undo", {});
      problem = "";
      note = answer.frame_id ? "Undone." : "There is nothing of yours to undo.";
      if (!answer.frame_id) { showState(); return; }
      const others = (verdicts.get(answer.frame_id) || []).filter((one) => one.reviewer !== me);
      verdicts.set(answer.frame_id, answer.verdict ? [...others, { reviewer: me, verdict: answer.verdict, reason: null }] : others);
      showFrame(answer.frame_id);
      poll();
      const place = M.placeOf(answer.frame_id);
      if (place >= 0) { if (M.large >= 0) M.open(place); else M.focusCard(place); }
      M.say(`Undone: ${answer.frame_id}`);
    } catch (error) {
      /* It may have arrived all the same, and a second one would take back another verdict: so it is not sent again by itself. */
      problem = `Undo failed: ${error.message}. See whether the verdict still stands, and press u again if so.`;
      showState();
    }
  }

  /* -- what others do -------------------------------------------------------------------------------------------- */

  /* Replacements, and what looks like a frame. Says how many are new. */
  function addFrames(frames) {
    const added = frames.filter((frame) => M.placeOf(frame.frame_id) < 0);
    for (const frame of added) {
      if (Array.isArray(frame.verdict)) verdicts.set(frame.frame_id, frame.verdict);
      M.addFrame(frame);
    }
    if (added.length) M.filter();
    return added.length;
  }

  async function poll() {
    try {
      const answer = await call("api/verdicts?since=" + version);
      const moved = answer.version !== version;
      version = answer.version;
      unreachable = unreachable && waiting.length > 0;
      for (const [id, found] of Object.entries(answer.verdicts)) verdicts.set(id, found);
      for (const [id, isIn] of Object.entries(answer.in_batch || {})) { const frame = M.frames[M.placeOf(id)]; if (frame) frame.in_batch = isIn; }
      [...Object.keys(answer.verdicts), ...Object.keys(answer.in_batch || {})].forEach((id) => { const place = M.placeOf(id); if (place >= 0) show(place); });
      if (answer.added) addFrames((await call("api/frames")).frames);
      if (moved && M.byId("f-verdict").value) M.filter();
    } catch (error) {
      if (error.refused) problem = `The server refused: ${error.message}`;
      else unreachable = true;
    }
    showState();
  }

  const acting = () => (M.large >= 0 ? M.large : M.current);
  M.REVIEW_KEYS = [
    [["y"], "keep", () => M.decide(acting(), "keep")],
    [["n"], "drop, with a reason", () => M.decide(acting(), "drop")],
    [["m"], "more like this", () => M.decide(acting(), "more")],
    [["Backspace"], "take back your verdict on this frame", () => M.decide(acting(), null)],
    [["u"], "undo your last verdict", undo],
  ];

  M.startReview = function () {
    /* The cookie holds the token now: it need not stand in the address bar and the history. */
    if (location.search) history.replaceState(null, "", location.pathname);
    const meter = M.el("i"), text = M.el("span", { id: "progress", role: "status" });
    progress = { meter, text, note: M.el("span", { id: "note", class: "small muted", role: "status" }) };
    M.byId("bar").lastElementChild.append(M.el("span", { class: "progress" }, M.el("span", { class: "meter", "aria-hidden": "true" }, meter), text),
      M.el("button", { type: "button", title: "Undo your last verdict (u)", onclick: undo }, "Undo"), progress.note);
    for (const frame of M.frames) if (Array.isArray(frame.verdict)) verdicts.set(frame.frame_id, frame.verdict);
    M.frames.forEach((_, place) => show(place));
    showState();
    poll();
    setInterval(() => { if (!document.hidden) poll(); }, POLL_MS);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
    addEventListener("beforeunload", (event) => { if (waiting.length) event.preventDefault(); });
  };
}
