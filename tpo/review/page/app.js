// The page: two tabs, filters, a list, a card, and keys.

import { ask, el, say, words } from "./dom.js";
import { ItemView } from "./items.js";
import { List } from "./list.js";
import { PairView } from "./pairs.js";

const $ = (id) => document.getElementById(id);
history.replaceState(null, "", "/"); // the token is in a cookie by now, and need not stay in the address

// Whatever was asked for and did not come is told, wherever it was asked for.
addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  say(event.reason.message, 0);
});

const card = $("card");
const list = new List($("rows"), select);
const views = { pairs: new PairView(card, list), items: new ItemView(card, list) };
const kept = { pairs: null, items: null }; // filters of the tab that is not shown
let view = views.pairs;
const overview = {}; // of each tab, once it was shown

const KEYS = [
  ["n / p", "next, previous"],
  ["← / →", "frame before, frame after"],
  ["space", "play the frames"],
  ["/", "search"],
  ["Esc", "leave the search or this help"],
  ["?", "this help"],
];

async function select(position) {
  view.shown = null; // no key may mean what is not on the screen any more
  if (position !== null) await view.open(position);
  else card.replaceChildren(el("p", { class: "empty", text: overview[view.name].problem || "Nothing is like that. Choose less above the list." }));
}

async function refresh() {
  const wanted = Object.fromEntries([...new FormData($("filters"))].map(([name, value]) => [name, value.trim()]));
  kept[view.name] = wanted;
  const asked = view;
  const positions = await ask(`/api/${view.name}`, wanted);
  if (asked !== view) return;
  const { count, problem } = overview[view.name];
  $("count").textContent = `${positions.length.toLocaleString("en")} of ${count.toLocaleString("en")}${problem ? ` · ${problem}` : ""}`;
  list.show(positions, `/api/${view.name}/rows`, (row) => view.row(row));
}

function drawFilters() {
  const { choices } = overview[view.name];
  const wanted = kept[view.name] ?? view.defaults(choices);
  const fields = view.fields.map(([name, label, fixed]) => {
    const options = (fixed ?? choices[name]).map((value) => el("option", { value, text: words(value) }));
    const select = el("select", { name }, el("option", { value: "", text: "any" }), ...options);
    select.value = wanted[name] ?? "";
    return el("label", {}, el("span", { text: label }), select);
  });
  const search = el("input", { type: "search", name: "text", maxlength: 200, placeholder: "Search", "aria-label": "Search", value: wanted.text ?? "" });
  $("filters").replaceChildren(search, ...fields);
}

async function show(name) {
  view.film?.stop();
  view = views[name];
  for (const one of Object.keys(views)) $(`tab-${one}`).setAttribute("aria-pressed", String(one === name));
  overview[name] ??= await ask(`/api/overview/${name}`);
  if (view !== views[name]) return;
  drawFilters();
  await Promise.all([refresh(), tellWho()]);
}

async function tellWho() {
  $("who").replaceChildren(el("span", { dir: "auto", text: overview.pairs.reviewer }), ` · ${await views.pairs.told(overview.pairs.reviewer)}`);
}
views.pairs.onSaid = tellWho;

function help() {
  const keys = [...view.keys, ...KEYS].map(([key, what]) => el("tr", {}, el("th", { scope: "row" }, el("kbd", { text: key })), el("td", { text: what })));
  const close = el("button", { type: "button", text: "Close", on: { click: () => $("help").close() } });
  $("help").replaceChildren(el("h2", { text: "Keys" }), el("table", {}, el("tbody", {}, ...keys)), close);
  $("help").showModal();
}

const ACTIONS = {
  n: () => list.move(1),
  j: () => list.move(1),
  p: () => list.move(-1),
  k: () => list.move(-1),
  ArrowRight: () => view.film?.step(1),
  ArrowLeft: () => view.film?.step(-1),
  " ": () => view.film?.play(),
  "/": () => $("filters").elements.text.focus(),
  "?": help,
};

async function press(event) {
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing || $("help").open || event.ctrlKey || event.metaKey || event.altKey || event.repeat && event.key.length === 1) return;
  if ([" ", "Enter"].includes(event.key) && event.target.matches("button")) return;
  const own = view.keys.find(([keys]) => keys.split(" or ").includes(event.key));
  const action = own ? own[2] : ACTIONS[event.key];
  if (!action) return;
  event.preventDefault();
  await action();
}

let typed = 0;
document.addEventListener("keydown", press);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("change", refresh);
$("filters").addEventListener("input", (event) => {
  if (event.target.name !== "text") return;
  clearTimeout(typed);
  typed = setTimeout(refresh, 200);
});
for (const name of Object.keys(views)) $(`tab-${name}`).addEventListener("click", () => show(name));
$("help-button").addEventListener("click", help);
$("toggle-list").addEventListener("click", () => {
  const open = document.body.classList.toggle("list-is-open");
  $("toggle-list").setAttribute("aria-expanded", String(open));
});
$("rows").addEventListener("click", () => {
  document.body.classList.remove("list-is-open");
  $("toggle-list").setAttribute("aria-expanded", "false");
});

show("pairs");
