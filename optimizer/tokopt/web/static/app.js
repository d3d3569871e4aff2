// Asks the server as fields change, and shows what it answers.
import { FrontierChart, marker } from "./chart.js";
import { byId, element, number, table, usd } from "./dom.js";
import * as form from "./form.js";
import * as view from "./view.js";

const API = "/api/v1";
const SLIDING_MS = 60; // between questions while a slider moves
const TYPING_MS = 300; // after the last key
const MOST_FLYING = 2; // questions at a time
const LONG_MS = 1000; // after which a question is not waited for
const SLOW_MS = 200; // before "working" is said
const RETRIES = 4;
const AHEAD_MS = 250; // after an answer
const KEPT = 12; // frontiers

const chart = new FrontierChart(byId("chart"), (point, said) => { byId("point").textContent = said; });
const frontiers = new Map();
const shown = { asked: null, key: null, plan: null, pin: null, turn: 0 };
const asking = { turn: 0, flying: 0, wanted: false, timer: 0, began: 0 };
let largest = 0; // bytes of an upload

class Refused extends Error {
  constructor(document) {
    super(document.detail || "the server refused");
    this.field = document.field;
    this.status = document.status;
  }
}

// --- asking ---

async function send(path, { body = null, raw = null } = {}) {
  const wanted = raw ? { method: "POST", body: raw, headers: { "Content-Type": "application/octet-stream" } }
    : body ? { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } } : {};
  for (let tried = 0; ; tried += 1) {
    let answer;
    try {
      answer = await fetch(API + path, wanted);
    } catch {
      throw new Refused({ detail: "The server does not answer: is tokopt serve still running?" });
    }
    if (answer.ok) return answer;
    if (answer.status === 503 && tried < RETRIES) {
      await new Promise((done) => { setTimeout(done, 1000 * Number(answer.headers.get("Retry-After") || 1)); });
      continue;
    }
    throw new Refused(await answer.json().catch(() => ({ detail: `The server answered with status ${answer.status}` })));
  }
}

// Uploads are shown by the names that people gave them.
function friendly(text) {
  let said = text;
  for (const [name, each] of form.uploads) {
    const plain = JSON.stringify(each.name).slice(1, -1);
    // by functions: signs in names mean nothing then
    said = said.replaceAll(name, () => plain).replaceAll(name.replace(/\.\w+$/, ""), () => plain);
  }
  return said;
}

const ask = async (path, body) => {
  const answer = await send(path, { body });
  return { found: JSON.parse(friendly(await answer.text())), key: answer.headers.get("Plan-Key") };
};

async function askFrontier(asked) {
  const wanted = form.frontierQuestion(asked);
  const key = JSON.stringify(wanted);
  if (!frontiers.has(key)) {
    const { found } = await ask("/frontier", wanted);
    frontiers.set(key, found);
    if (frontiers.size > KEPT) frontiers.delete(frontiers.keys().next().value);
  }
  return frontiers.get(key);
}

// Something has changed: it is asked for soon, at once while a slider moves, after a pause while somebody types.
function later(typing = false) {
  asking.wanted = true;
  busy();
  form.follow();
  const state = form.read();
  chart.move(form.limitSpeed(state), chart.moving.plan, chart.moving.pinned); // the answer follows
  lead(state);
  if (typing) clearTimeout(asking.timer);
  if (typing || !asking.timer) asking.timer = setTimeout(next, typing ? TYPING_MS : SLIDING_MS);
}

// One question at a time, since the process that has answered it has the search of the next; two where one takes long.
function next() {
  asking.timer = 0;
  if (!asking.wanted) return;
  const free = asking.flying === 0 || (asking.flying < MOST_FLYING && performance.now() - asking.began > LONG_MS);
  if (free) update();
  else asking.timer = setTimeout(next, SLIDING_MS);
}

async function update() {
  clearTimeout(asking.timer);
  Object.assign(asking, { timer: 0, wanted: false, turn: asking.turn + 1, flying: asking.flying + 1, began: performance.now() });
  const mine = asking.turn;
  const slow = setTimeout(() => mine === asking.turn && say("Working…"), SLOW_MS);
  busy();
  try {
    await answer(mine);
  } finally {
    clearTimeout(slow);
    asking.flying -= 1;
    if (!asking.wanted && !asking.flying) remember(form.read()); // not while a slider moves: browsers bound how often
    busy();
    if (!asking.timer) next();
  }
}

// Asks what the form says and shows it, unless something newer is shown already.
async function answer(mine) {
  const newest = () => mine === asking.turn;
  const state = form.read();
  clearFaults();
  try {
    const asked = form.question(state);
    const start = performance.now();
    const drawn = askFrontier(asked).then((found) => newest() && showFrontier(found, state), (error) => newest() && noFrontier(error));
    const { found, key } = await ask("/plan", asked);
    if (mine < shown.turn) return;
    Object.assign(shown, { asked, key, plan: found, turn: mine });
    showPlan(found, asked);
    if (newest()) say(`Answered in ${((performance.now() - start) / 1000).toFixed(2)} s: ${brief(found)}`);
    await drawn;
    if (newest()) await showComparison();
    if (newest()) ahead(state, mine);
  } catch (error) {
    if (newest()) refuse(error);
  }
}

function brief(found) {
  const cost = found.plan.usd_per_million_output_tokens;
  if (found.plan.status === "infeasible") return "nothing meets these limits.";
  const gpus = found.plan.fleet.reduce((sum, item) => sum + item.gpus, 0);
  return `${cost === null ? "" : `${usd(cost)} per million output tokens, `}${gpus.toLocaleString("en-US")} GPUs.`;
}

const busy = () => byId("results").setAttribute("aria-busy", String(asking.wanted || asking.flying > 0));
// Has the answers next to the latency's slider made while somebody is about to move it, and nobody asks.
async function ahead(state, mine) {
  if (!byId("tpot-slider").matches(":hover, :focus")) return;
  await new Promise((done) => { setTimeout(done, AHEAD_MS); });
  try {
    form.question(state);
  } catch {
    return; // it says what is wrong with it when it is asked
  }
  for (const beside of form.besideLimit(state)) {
    if (mine !== asking.turn || asking.wanted) return;
    const answer = await fetch(`${API}/plan?ahead=true`, {
      method: "POST", body: JSON.stringify(form.question(beside)), headers: { "Content-Type": "application/json" },
    }).catch(() => null);
    if (answer?.status !== 200) return;
  }
}

const say = (text) => { byId("status").textContent = text; };

// --- faults ---

function clearFaults() {
  for (const each of document.querySelectorAll(".error")) each.remove();
  for (const each of document.querySelectorAll("[aria-invalid]")) {
    each.removeAttribute("aria-invalid");
    each.removeAttribute("aria-describedby");
  }
  byId("fault").hidden = true;
  byId("results").classList.remove("old");
}

const place = (field) => document.querySelector(`.field[data-field="${field}"]`);

function showFault(field, message) {
  const where = field && place(field);
  if (!where) {
    byId("fault").textContent = message;
    byId("fault").hidden = false;
    return;
  }
  const id = `error-${field}`;
  const closest = where.closest("details");
  if (closest) closest.open = true;
  byId(id)?.remove();
  const input = where.querySelector("input[type=text], select") || where.querySelector("input");
  const typed = input?.matches("input[type=text], select");
  (typed ? input.closest(".pair") || input : where.firstElementChild).after(element("p", { class: "error", id }, message));
  input?.setAttribute("aria-invalid", "true");
  input?.setAttribute("aria-describedby", id);
}

function refuse(error) {
  if (!(error instanceof Refused || error instanceof form.FieldError)) console.error(error);
  showFault(error.field, error.message);
  byId("results").classList.add("old");
  say(`${error.message}${shown.plan ? " Below is the last answer." : ""}`);
}

// --- showing ---

function reveal(...ids) {
  for (const id of ids) byId(id).hidden = false;
}

function showPlan(found, asked) {
  const infeasible = found.plan.status === "infeasible";
  byId("results").classList.toggle("none", infeasible);
  byId("sentence").textContent = found.sentence;
  byId("headline").replaceChildren(...view.headline(found));
  byId("fleet-body").replaceChildren(...(infeasible ? [] : [view.fleet(found)]));
  byId("why-title").textContent = infeasible ? "What stands in the way" : "What holds it back";
  byId("why-body").replaceChildren(...(infeasible ? view.nearest(found) : []), ...view.why(found));
  byId("assumed-body").replaceChildren(...view.assumptions(found));
  byId("command-line").textContent = form.commandLine(asked);
  byId("made-with").textContent = `tokopt ${found.plan.provenance.tokopt_version}, catalog ${found.plan.provenance.catalog_version}`;
  reveal("answer", "why", "assumed", "take");
  byId("fleet").hidden = infeasible;
  for (const button of document.querySelectorAll('[data-take="export"]')) button.disabled = infeasible;
  movePoints();
}

const pointsOf = (found, plan) => (found ? found.points.map((point) => ({
  ...point, plan, title: found.titles[point.accelerator] || point.accelerator, setup: found.setups[point.item - 1],
})) : []);

function movePoints() {
  chart.move(form.limitSpeed(form.read()), pointsOf(shown.plan, "the plan"), pointsOf(shown.pin?.plan, "the pinned plan"));
}

function showFrontier(found, state) {
  reveal("frontier");
  chart.show(found);
  byId("legend").replaceChildren(...chart.series.map((each) => {
    const button = element("button", { type: "button", "aria-pressed": String(!chart.hidden.has(each.name)) }, [marker(each.place), each.title]);
    button.addEventListener("click", () => {
      chart.toggle(each.name);
      button.setAttribute("aria-pressed", String(!chart.hidden.has(each.name)));
    });
    return button;
  }));
  const rows = found.frontier.points.map((point, i) => [found.titles[point.accelerator], number(point.tokens_per_s_per_user),
    number(point.output_tokens_per_s_per_gpu), usd(point.usd_per_million_output_tokens), found.setups[i], point.on_overall_frontier ? "yes" : ""]);
  byId("points-table").replaceChildren(table(
    ["Accelerator", "tokens/s a user", "output tokens/s a GPU", "per million output tokens", "Set-up", "Best of all"], rows, { numeric: [1, 2, 3] },
  ));
  movePoints();
  lead(state);
}

function noFrontier(error) {
  byId("frontier").hidden = true;
  if (!error.field) say(error.message);
}

// What the frontier says of the limit, without waiting for a plan.
function lead(state) {
  if (!chart.view) return;
  const limit = form.limitSpeed(state) || 0;
  const within = chart.view.frontier.points.filter((point) => point.tokens_per_s_per_user >= limit && point.usd_per_million_output_tokens !== null);
  const best = within.reduce((least, point) => (least && least.usd_per_million_output_tokens <= point.usd_per_million_output_tokens ? least : point), null);
  byId("frontier-lead").textContent = best
    ? `At ${number(limit || best.tokens_per_s_per_user)} tokens/s a user and faster, the cheapest point is ${usd(best.usd_per_million_output_tokens)} per million output tokens, on ${chart.view.titles[best.accelerator]}. Points are means in a steady state; a plan also keeps its percentile and its queues, so its star lies to the right of the limit. Shaded: too slow.`
    : "No point is as fast as the limit. Shaded: too slow.";
}

// --- comparing ---

async function showComparison() {
  byId("comparison").hidden = !shown.pin;
  byId("pin").textContent = shown.pin ? "Pin this plan instead" : "Pin this plan to compare";
  if (!shown.pin) return;
  const { found } = await ask("/compare", { first: shown.pin.asked, second: shown.asked });
  shown.pin.plan = found.first;
  byId("comparison-body").replaceChildren(...view.comparison(found, ["Pinned", "This plan"]));
  movePoints();
}

function pin(state) {
  try {
    shown.pin = state ? { state, asked: form.question(state), plan: null } : null;
  } catch {
    shown.pin = null;
  }
}

// --- links ---

function remember(state) {
  const link = form.toLink(state) + (shown.pin ? `&pin=${encodeURIComponent(form.toLink(shown.pin.state))}` : "");
  history.replaceState(null, "", `/#${link}`); // without a token that came in the address
  const own = [state, shown.pin?.state].some((each) => each && [each.model, ...each.prices].some((name) => form.uploads.has(name)));
  byId("link-note").hidden = !own;
  byId("link-note").textContent = own ? "A link does not hold uploaded files: whoever opens it has to drop them in, too." : "";
}

// Files that a link names are described by the server, as long as it keeps them.
async function learn(text) {
  for (const name of new Set(text.match(/upload-[0-9a-f]{16}\.\w+/g) || [])) {
    if (form.uploads.has(name)) continue;
    const answer = await send(`/uploads/${name}`).catch(() => null);
    if (answer) form.uploads.set(name, await answer.json());
  }
  form.fillUploads();
}

async function restore() {
  const text = location.hash.slice(1);
  await learn(text);
  const pinned = new URLSearchParams(text).get("pin");
  pin(pinned ? form.fromLink(pinned) : null);
  const state = form.fromLink(text);
  const faults = form.unknown(state);
  const usual = form.fresh();
  for (const [name, , , value] of faults) {
    if (Array.isArray(state[name])) state[name] = state[name].filter((each) => each !== value);
    else for (const each of Object.keys(usual)) if (state[each] === value) state[each] = usual[each];
  }
  if (!state.prices.length) state.prices = usual.prices;
  form.write(state);
  return faults;
}

// --- taking along ---

async function take(what) {
  const to = byId("export-to").value;
  const status = byId("take-status");
  const [path, file] = {
    plan: ["", "plan.json"], report: ["/report", "report.html"], "full-report": ["/report?quick=false", "report.html"],
    export: [`/exports/${to}/zip`, `${to}.zip`],
  }[what];
  status.textContent = `Making ${file}…`;
  try {
    const fetched = () => send(`/plans/${shown.key}${path}`);
    const answer = await fetched().catch(async (error) => {
      if (error.status !== 404) throw error;
      ({ key: shown.key } = await ask("/plan", shown.asked)); // it was asked for long ago
      return fetched();
    });
    const link = element("a", { href: URL.createObjectURL(await answer.blob()), download: file });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    status.textContent = `${file} is downloaded.`;
  } catch (error) {
    status.textContent = error.message;
  }
}

async function upload(file) {
  clearFaults();
  const kind = /\.json$/i.test(file.name) ? "model" : "prices";
  if (file.size > largest) return showFault("upload", `${file.name} has more than ${number(largest / 2 ** 20, 2)} MiB`);
  asking.flying += 1;
  busy();
  say(`Reading ${file.name}…`);
  try {
    const answer = await send(`/uploads?kind=${kind}&name=${encodeURIComponent(file.name)}`, { raw: file });
    const found = await answer.json();
    form.uploads.set(found.upload, found);
    form.fillUploads();
    const state = form.read();
    if (kind === "model") state.model = found.upload;
    else state.prices = [found.upload];
    form.write(state);
    later();
  } catch (error) {
    showFault("upload", `${file.name}: ${error.message}`);
    say(`${file.name}: ${error.message}`);
  } finally {
    asking.flying -= 1;
    busy();
  }
  return undefined;
}

// --- beginning ---

async function begin() {
  const faults = await restore();
  await update();
  for (const [field, said] of faults) showFault(field, said);
}

function listen() {
  const asked = byId("question");
  asked.addEventListener("input", (event) => {
    if (event.target.type === "file") return;
    form.slide(event.target.id);
    later(event.target.type === "text");
  });
  asked.addEventListener("submit", (event) => { event.preventDefault(); update(); });
  asked.addEventListener("reset", (event) => { event.preventDefault(); form.write(form.fresh()); later(); });
  byId("pin").addEventListener("click", () => { pin(form.read()); update(); });
  byId("unpin").addEventListener("click", () => { pin(null); update(); byId("pin").focus(); });
  byId("swap").addEventListener("click", () => {
    const { state } = shown.pin;
    pin(form.read());
    form.write(state);
    update();
  });
  byId("copy-link").addEventListener("click", async () => {
    const copied = navigator.clipboard?.writeText(location.href) ?? Promise.reject(new Error("not over plain HTTP"));
    await copied.then(() => say("The link is copied."), () => say(`Copy it from the address bar: ${location.href}`));
  });
  for (const button of document.querySelectorAll("[data-take]")) button.addEventListener("click", () => take(button.dataset.take));
  byId("choose-file").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => {
    for (const file of event.target.files) upload(file);
    event.target.value = "";
  });
  for (const event of ["pointerenter", "focus"]) {
    byId("tpot-slider").addEventListener(event, () => { if (!asking.wanted && !asking.flying) ahead(form.read(), asking.turn); });
  }
  const over = (event, on) => { event.preventDefault(); byId("drop").classList.toggle("over", on); };
  addEventListener("dragover", (event) => over(event, true));
  addEventListener("dragleave", (event) => over(event, false));
  addEventListener("drop", (event) => { over(event, false); for (const file of event.dataTransfer.files) upload(file); });
  addEventListener("hashchange", begin);
  addEventListener("beforeprint", () => { byId("assumed").querySelector("details").open = true; });
}

try {
  const [{ found: choices }, limits] = await Promise.all([ask("/options"), send("/limits").then((answer) => answer.json())]);
  largest = limits.most_upload_bytes;
  form.prepare(choices);
  listen();
  await begin();
} catch (error) {
  console.error(error);
  byId("fault").textContent = error.message;
  byId("fault").hidden = false;
  say("");
}
