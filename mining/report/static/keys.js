"use strict";
/* Keys for everything, the help that lists them, and the start of the page. */
{
  const columns = () => {
    const tops = M.visible.slice(0, 24).map((place) => M.cards[place].root.offsetTop);
    return Math.max(1, tops.filter((top) => top === tops[0]).length);
  };
  const go = (step) => (M.large >= 0 ? M.step(step) : M.focusCard(M.current < 0 ? (M.visible[0] ?? -1) : M.beside(M.current, step)));

  /* [keys, what they do, what is called]; the help is made of this table, so that it cannot be wrong. */
  const KEYS = [
    [["j", "ArrowRight"], "next frame", () => go(1)],
    [["k", "ArrowLeft"], "previous frame", () => go(-1)],
    [["ArrowDown"], "frame below", () => (M.large >= 0 ? null : go(columns()))],
    [["ArrowUp"], "frame above", () => (M.large >= 0 ? null : go(-columns()))],
    [["Enter", "o"], "show the frame large", () => (M.large < 0 && M.current >= 0 ? M.open(M.current) : null)],
    [["Escape"], "close", null],
    [["f"], "go to the filters", () => M.byId("bar").querySelector("select:not(:disabled)")?.focus()],
    [["d"], "only frames about which the committee disagrees", () => { M.byId("f-dispute").click(); }],
    [["r"], "reset the filters", () => M.byId("f-reset").click()],
    [["1–8"], "boxes of a member on and off", null],
    [["t"], "light or dark", () => M.toggleTheme()],
    [["?"], "this help", () => help()],
    ...(M.isReview ? M.REVIEW_KEYS : []),
  ];
  const actions = new Map(KEYS.flatMap(([keys, , action]) => (action ? keys.map((key) => [key, action]) : [])));
  const shownAs = { ArrowRight: "→", ArrowLeft: "←", ArrowDown: "↓", ArrowUp: "↑", Escape: "Esc" };

  function help() {
    const dialog = M.byId("help");
    dialog.replaceChildren(M.el("header", { class: "large-bar" }, M.el("h2", { id: "help-title" }, "Keys"),
      M.el("button", { type: "button", class: "close", "aria-label": "Close (Esc)", onclick: () => dialog.close() }, "✕")),
      M.el("table", { class: "keys" }, M.el("tbody", {}, KEYS.map(([keys, text]) => M.el("tr", {},
        M.el("td", {}, keys.map((key) => M.el("kbd", {}, shownAs[key] || key))), M.el("td", {}, text))))));
    if (!dialog.open) dialog.showModal();
  }
  M.byId("help-open").addEventListener("click", help);

  const types = (element) => element.matches("input:not([type=checkbox]):not([type=range]), textarea, select") || element.isContentEditable;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || types(event.target)) return;
    if (M.byId("help").open || M.byId("drop")?.open) return;
    if (event.key === "Enter" && event.target.matches("button, a, summary, input")) return;
    if (event.key.startsWith("Arrow") && event.target.matches("input, .side, .scroll")) return;
    /* From the top of the page, up and down scroll as everywhere. */
    if (event.key.startsWith("Arrow") && M.large < 0 && !event.target.closest?.(".card")) return;
    if (/^[1-8]$/.test(event.key)) return M.toggleMember(Number(event.key) - 1);
    const action = actions.get(event.key);
    if (!action) return;
    event.preventDefault();
    action(event);
  });

  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }
  M.startFrames();
  if (M.isReview) M.startReview();
  document.documentElement.dataset.ready = "yes";
}
