"use strict";
/* What every part of the page uses: the data, making elements, numbers for people, light and dark.
   Text from outside reaches the page through textContent and attributes only, never as HTML. */
const M = {};
M.data = JSON.parse(document.getElementById("data").textContent);
M.frames = M.data.frames;
M.isReview = M.data.mode === "review";

/* Okabe and Ito's colours, told apart by the colour-blind too; one a member of the committee, as in `mining clip --boxes`. */
M.COLOURS = ["#56b4e9", "#e69f00", "#f0e442", "#cc79a7", "#009e73", "#d55e00", "#0072b2", "#ffffff"];
M.memberIndex = new Map(M.data.members.map((member, index) => [member.name, index]));

M.byId = (id) => document.getElementById(id);

/* el("p", {class: "x", onclick: f, hidden: true}, "text", child, ...) */
M.el = function (tag, properties, ...children) {
  return M.fill(document.createElement(tag), properties, ...children);
};
M.svg = function (tag, properties, ...children) {
  return M.fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, ...children);
};
M.fill = function (element, properties, ...children) {
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
};

M.fixed = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
M.percent = (value) => (value === null || value === undefined ? "–" : Math.round(100 * value) + " %");
M.count = (value) => value.toLocaleString("en-US");
M.value = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toString());
M.seconds = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(Math.abs(value) < 10 ? 1 : 0) + " s";
M.time = (iso) => (iso ? iso.slice(0, 10) + " " + iso.slice(11, 19) + " UTC" : "time unknown");
M.words = (name) => name.replaceAll("_", " ");
M.plural = (count, what) => M.count(count) + " " + what + (count === 1 ? "" : "s");

M.say = (text) => { M.byId("said").textContent = text; };

M.banner = function (text) {
  const banner = M.byId("banner");
  banner.hidden = !text;
  banner.textContent = text || "";
};

/* Light and dark: what the system prefers, until somebody chooses. A mail client may forbid storage. */
M.remembered = function (key, value) {
  try {
    if (value !== undefined) localStorage.setItem(key, value);
    return localStorage.getItem(key);
  } catch { return null; }
};
M.isDark = () => getComputedStyle(document.documentElement).getPropertyValue("--is-dark").trim() === "1";
M.onTheme = [];
M.setTheme = function (theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  M.byId("theme").textContent = M.isDark() ? "Light" : "Dark";
  M.onTheme.forEach((changed) => changed());
};
M.toggleTheme = function () {
  const theme = M.isDark() ? "light" : "dark";
  M.remembered("mining-theme", theme);
  M.setTheme(theme);
};
M.byId("theme").addEventListener("click", M.toggleTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => M.setTheme());
M.setTheme(["light", "dark"].includes(M.remembered("mining-theme")) ? M.remembered("mining-theme") : null);
