// The script of the review page: every step asks the server for the parts that change and puts each in its place.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const byId = id => document.getElementById(id);
const token = document.querySelector('meta[name="form-token"]').content;
document.documentElement.classList.remove("plain");

// ---------------------------------------------------------------------------------------------- asking

/** Ask the server; returns whether it did what was asked. The parts of its answer are on the page then. */
async function ask(address, options = {}) {
  const headers = { "X-Parts": "1", ...(options.method === "POST" ? { "X-Form-Token": token } : {}) };
  let answer, text;
  try {
    answer = await fetch(address, { ...options, headers, redirect: "error" });
    text = await answer.text();
  } catch {
    complain("The server does not answer. It may have been ended in the terminal: start taskmill review again.");
    return false;
  }
  if (!text.includes("<template")) {
    complain(new DOMParser().parseFromString(text, "text/html").body.textContent.trim() || "The server gave no answer.");
    return false;
  }
  swap(text);
  return answer.ok;
}

function complain(text) {
  byId("problem").textContent = text;
}

/** Put every part in the place of the element with its id; what was typed, ticked and focused stays. */
function swap(text) {
  const parts = new DOMParser().parseFromString(text, "text/html");
  for (const part of all("template", parts)) {
    const old = byId(part.dataset.for);
    if (!old || part.content.childElementCount === 1 && old.outerHTML === part.content.firstElementChild.outerHTML) continue;
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    const kept = all("input[id]", old).filter(i => i.type === "checkbox" ? i.checked !== i.defaultChecked : i.value !== i.defaultValue);
    const open = old.querySelector("a.open")?.getAttribute("aria-expanded") === "true";
    old.replaceWith(document.adoptNode(part.content));
    for (const input of kept) {
      const now = byId(input.id);
      if (now && now.type === "checkbox") now.checked = input.checked;
      else if (now && now.type !== "file") now.value = input.value;
    }
    if (open) byId(part.dataset.for)?.querySelector("a.open")?.setAttribute("aria-expanded", "true");
    if (focused && byId(focused)) byId(focused).focus({ preventScroll: true });
    if (part.dataset.for === "dialog") showDialog();
    if (part.dataset.for === "said") forget();
  }
  count();
}

let timer = 0;
function forget() {
  clearTimeout(timer);
  timer = setTimeout(() => { byId("said").textContent = ""; }, 6000);
}

function showDialog() {
  const dialog = byId("dialog");
  dialog.removeAttribute("open");
  dialog.showModal();
  const long = dialog.scrollHeight > dialog.clientHeight; // it is read from its top, before anything is done
  (long ? byId("dialog-title") : byId("dialog-apply") || byId("dialog-close"))?.focus();
}

/** What the page shows, so that the answer to a step has no more parts than that. */
function shown(data) {
  const pairs = all("tr.pair");
  const near = pairs.filter(row => row.getClientRects().length);
  for (const row of near) data.append("shown", row.dataset.pair);
  for (const open of all(".evidence[data-pair]")) data.append("opened", open.dataset.pair);
  for (const group of all(".group")) data.append("groups", group.dataset.group);
}

function query() {
  const form = byId("filter");
  if (!form) return "";
  const data = new URLSearchParams(new FormData(form));
  for (const [name, value] of [...data]) if (!value) data.delete(name);
  return data.toString();
}

/** Send a form; returns whether the step was done. */
async function step(form, button) {
  const data = new FormData(form, button || null);
  const address = button?.getAttribute("formaction") || form.getAttribute("action");
  for (const input of all("input:not([type=hidden])", form)) if (input.type !== "checkbox") input.defaultValue = input.value;
  data.set("view", query());
  shown(data);
  const body = form.enctype === "multipart/form-data" ? data : new URLSearchParams(data);
  const slow = form.dataset.slow;
  if (slow) { byId("said").textContent = slow; clearTimeout(timer); }
  document.documentElement.classList.add("busy");
  if (button) button.disabled = true;
  const done = await ask(address, { method: "POST", body });
  document.documentElement.classList.remove("busy");
  if (button) button.disabled = false;
  if (slow) byId("said").textContent = "";
  if (done && form.hasAttribute("data-closes")) {
    byId("dialog").close();
    unselect();
  }
  return done;
}

document.addEventListener("submit", event => {
  const form = event.target;
  if (form.id === "filter") {
    event.preventDefault();
    filter();
  } else if (form.hasAttribute("data-step")) {
    event.preventDefault();
    step(form, event.submitter);
  }
});

// ----------------------------------------------------------------------------------------------- list

let asked = 0, waiting = 0;
async function filter() {
  const mine = ++asked, words = query();
  const answer = await fetch(`list?${words}`, { headers: { "X-Parts": "1" } }).catch(() => null);
  const text = answer ? await answer.text() : "";
  if (mine !== asked) return; // a later filter is on its way
  if (!text.includes("<template")) return complain("The server does not answer.");
  if (answer.ok) complain("");
  swap(text);
  history.replaceState(null, "", `./?${words}`);
}

document.addEventListener("input", event => {
  if (event.target.form?.id !== "filter") return;
  clearTimeout(waiting);
  waiting = setTimeout(filter, event.target.tagName === "INPUT" && event.target.type !== "checkbox" ? 120 : 0);
});

document.addEventListener("toggle", event => {
  const body = event.target.open && event.target.querySelector(":scope > .in");
  if (body && body.querySelector("table.plain-only")) openGroup(body);
}, true);

async function openGroup(body) {
  const table = body.querySelector("table");
  if (table.dataset.asked) return;
  table.dataset.asked = "1";
  const group = encodeURIComponent(body.closest(".group").dataset.group);
  if (!await ask(`rows?${byId("bulk").elements.view.value}&group=${group}`)) return delete table.dataset.asked;
  table.prepend(document.importNode(byId("head").content, true));
  table.classList.remove("plain-only");
}

/** Open or close the evidence of a pair. */
async function openPair(link) {
  const row = link.closest("tr"), next = row.nextElementSibling;
  if (next?.classList.contains("evidence")) {
    if (next.contains(document.activeElement)) link.focus();
    next.remove();
    link.setAttribute("aria-expanded", "false");
    return;
  }
  const place = document.createElement("tr");
  place.id = `e${row.id.slice(1)}`;
  row.after(place);
  link.setAttribute("aria-expanded", "true");
  if (!await ask(link.getAttribute("href"))) {
    place.remove();
    link.setAttribute("aria-expanded", "false");
  } else if (evidenceOf(row)?.querySelector(".texts")?.getBoundingClientRect().top > 0.7 * innerHeight) {
    row.scrollIntoView({ block: "start" }); // what the two share is why one opens a pair
  }
}

document.addEventListener("click", event => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  const link = event.target.closest("a.open, a[data-more], #open-merge, #open-help, #help-close, #unselect, #dialog-close, [data-together]");
  if (!link) return;
  if (link.id === "unselect") return unselect();
  if (link.id === "dialog-close") return;
  if (link.dataset.together !== undefined) return together(link);
  event.preventDefault();
  if (link.id === "open-help") help();
  else if (link.id === "open-merge") byId("merge").scrollIntoView({ block: "center" }), byId("file").focus({ preventScroll: true });
  else if (link.id === "help-close") scrollTo({ top: 0 }), byId("open-help").focus();
  else if (link.matches("a.open")) openPair(link);
  else ask(link.dataset.get);
});

function help() {
  byId("help").scrollIntoView({ block: "center" });
  byId("help-close").focus({ preventScroll: true });
}

// ------------------------------------------------------------------------------------------ selection

function ticked() {
  return all('.group input[type="checkbox"]:checked');
}

function count() {
  const form = byId("bulk");
  if (!form) return;
  const everything = byId("all").checked;
  const groups = ticked().filter(i => i.name === "group").length, pairs = ticked().filter(i => i.name === "pair").length;
  const several = (number, name) => number ? `${number} ${name}${number === 1 ? "" : "s"}` : "";
  const text = everything ? "everything here" : [several(groups, "group"), several(pairs, "pair")].filter(Boolean).join(" and ");
  byId("selected").textContent = text ? `${text} selected` : "";
  form.classList.toggle("on", Boolean(text));
}

/** Select a group alone and go to what can be done with it. */
function together(button) {
  unselect();
  button.closest(".group").querySelector(":scope > input").checked = true;
  count();
  const action = byId("bulk").elements.action;
  if (button.dataset.together) action.value = button.dataset.together;
  action.focus({ preventScroll: true });
}

function unselect() {
  for (const input of ticked()) input.checked = false;
  if (byId("all")) byId("all").checked = false;
  count();
}

document.addEventListener("change", event => {
  if (event.target.matches('.group input[type="checkbox"], #all')) count();
});

// ----------------------------------------------------------------------------------------------- keys

function places() {
  return all("[data-move]").filter(place => place.getClientRects().length);
}

/** The line that has the focus, itself or through what is open below it. */
function here() {
  const at = document.activeElement;
  if (at.matches("[data-move]")) return at;
  const row = at.closest("tr.evidence")?.previousElementSibling || at.closest("tr.pair");
  return row?.querySelector("a.open") || at.closest(".group")?.querySelector("summary") || null;
}

function move(by) {
  const found = places(), now = found.indexOf(here());
  const next = found[now < 0 ? 0 : Math.max(0, Math.min(found.length - 1, now + by))];
  if (next) goTo(next);
}

function goTo(place) {
  place.focus({ preventScroll: true });
  place.scrollIntoView({ block: "nearest" });
}

const rowHere = () => here()?.closest("tr.pair") || null;
const evidenceOf = row => row.nextElementSibling?.classList.contains("evidence") ? row.nextElementSibling : null;

/** Decide the pair of the focus and go on to the next that waits, open when this one was. */
async function decide(number) {
  const row = rowHere() || document.querySelector("article.evidence");
  if (!row) return complain("First go to a pair, with j and k or a click.");
  const id = row.id, wasOpen = row.matches("tr") && evidenceOf(row);
  const form = document.createElement("form");
  form.action = "decide";
  const why = wasOpen ? wasOpen.querySelector('input[name="why"]') : row.querySelector?.('input[name="why"]');
  const fields = { pair: row.dataset.pair, action: ["keep", "drop_train_task", "drop_eval_task", "drop_train_examples", "drop_eval_examples"][number - 1], why: why ? why.value : "", revision: byId("bulk")?.elements.revision.value || "" };
  for (const [name, value] of Object.entries(fields)) {
    const input = document.createElement("input");
    Object.assign(input, { type: "hidden", name, value });
    form.append(input);
  }
  if (!await step(form) || !row.matches("tr")) return;
  const next = await nextWaiting(byId(id));
  if (wasOpen && evidenceOf(byId(id))) await openPair(byId(id).querySelector("a.open"));
  if (!next) return goTo(byId(id).querySelector("a.open"));
  if (wasOpen && !evidenceOf(next)) await openPair(next.querySelector("a.open"));
  goTo(next.querySelector("a.open"));
  if (wasOpen) next.scrollIntoView({ block: "start" });
}

/** Return the next pair that waits, in this group or one below it, which is opened then. */
async function nextWaiting(row) {
  const waits = "tr.pair.undecided, tr.pair.outdated";
  for (let next = row.nextElementSibling; next; next = next.nextElementSibling) if (next.matches(waits)) return next;
  for (let group = row.closest(".group").nextElementSibling; group; group = group.nextElementSibling) {
    if (!group.querySelector("summary .undecided")) continue;
    const body = group.querySelector(".in");
    group.querySelector("details").open = true;
    if (body.querySelector("table.plain-only")) await openGroup(body);
    const found = group.querySelector(waits);
    if (found) return found;
  }
  return null;
}

async function toNote() {
  const row = rowHere();
  if (row && !evidenceOf(row)) await openPair(row.querySelector("a.open"));
  const note = (row ? evidenceOf(row) : document.querySelector("article.evidence"))?.querySelector('input[name="why"]');
  note?.focus();
  note?.select();
}

function tick(input) {
  if (!input) return;
  input.checked = !input.checked;
  count();
}

function press(id) {
  if (!byId(id).disabled) byId(id).click();
}

const KEYS = {
  j: () => move(1), k: () => move(-1),
  x: () => tick(rowHere()?.querySelector(".pick input") || here()?.closest(".group")?.querySelector(":scope > input")),
  g: () => tick(here()?.closest(".group")?.querySelector(":scope > input")),
  u: () => press("undo"), U: () => press("redo"), n: toNote, "?": help,
  "/": () => { byId("text")?.focus(); byId("text")?.select(); },
};
let turn = Promise.resolve(); // keys that come faster than answers are about the next pair each
for (const number of [1, 2, 3, 4, 5]) KEYS[number] = () => { turn = turn.catch(() => {}).then(() => decide(number)); };

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog:modal")) return;
  const typing = event.target.matches("input:not([type=checkbox], [type=radio]), select, textarea");
  if (event.key === "Escape") {
    const line = here() || places()[0];
    if (line) goTo(line);
    return;
  }
  if (typing || !byId("keys").checked) return;
  const arrow = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (arrow && event.target.matches("[data-move]")) {
    event.preventDefault();
    move(arrow);
  } else if (Object.hasOwn(KEYS, event.key)) {
    event.preventDefault();
    if (!event.repeat || "jk".includes(event.key)) KEYS[event.key](); // a key that is held decides once
  }
});

byId("keys").checked = localStorage.getItem("taskmill-keys") !== "off";
byId("keys").addEventListener("change", event => localStorage.setItem("taskmill-keys", event.target.checked ? "on" : "off"));
count();
